"""Re-run, take apart and extend the ablation study of "A ConvNet for the 2020s".

Importing this package takes a few milliseconds, because each name is imported at its first use. So designs and costs
need no torch, and the command can handle Ctrl-C before large imports.
"""

from __future__ import annotations

import importlib

# Not typing's: nothing may be imported before roadmap/__main__.py has taken the working directory from sys.path, and
# importing it would be the longest part of the command's start before Ctrl-C is handled.
TYPE_CHECKING = False
if TYPE_CHECKING:
    from roadmap.api import (
        attribution,
        bench,
        bench_data,
        cancel,
        check_packed,
        collect,
        compare_spaces,
        diff,
        disagree,
        doctor,
        estimate,
        evaluate,
        export,
        figure,
        logs,
        pack,
        plan,
        plan_jobs,
        power,
        proxy,
        report,
        report_server,
        retry,
        run,
        run_status,
        rungs,
        sample,
        show,
        space,
        status,
        table,
        transfer,
    )
    from roadmap.data.dataset import Dataset
    from roadmap.data.datasets import dataset
    from roadmap.design import Block, Conv, Design, Downsampling, NamedModel, Stem
    from roadmap.network.cost import Cost, cost
    from roadmap.network.library_models import model
    from roadmap.network.mixers import mixer
    from roadmap.network.modules import build
    from roadmap.network.plan import Layer
    from roadmap.network.weights import load_timm, load_torchvision
    from roadmap.recipe import Experiment, Recipe, optimizer
    from roadmap.record.metrics import metric
    from roadmap.spaces.definition import Space, Values
    from roadmap.spaces.parameters import parameter
    from roadmap.spaces.registry import design_space
    from roadmap.steps import NoEffect, Step, step
    from roadmap.study.rungs import Rung
    from roadmap.study.selection import compose, ladder
    from roadmap.tasks.registry import task

__all__ = [
    "Block",
    "Conv",
    "Cost",
    "Dataset",
    "Design",
    "Downsampling",
    "Experiment",
    "Layer",
    "NamedModel",
    "NoEffect",
    "Recipe",
    "Rung",
    "Space",
    "Stem",
    "Step",
    "Values",
    "attribution",
    "bench",
    "bench_data",
    "build",
    "cancel",
    "check_packed",
    "collect",
    "compare_spaces",
    "compose",
    "cost",
    "dataset",
    "design_space",
    "diff",
    "disagree",
    "doctor",
    "estimate",
    "evaluate",
    "export",
    "figure",
    "ladder",
    "load_timm",
    "load_torchvision",
    "logs",
    "metric",
    "mixer",
    "model",
    "optimizer",
    "pack",
    "parameter",
    "plan",
    "plan_jobs",
    "power",
    "proxy",
    "report",
    "report_server",
    "retry",
    "run",
    "run_status",
    "rungs",
    "sample",
    "show",
    "space",
    "status",
    "step",
    "table",
    "task",
    "transfer",
]

# Where the names are. Names of `__all__` that are missing here are in roadmap.api.
_MODULES = {
    "roadmap.data.dataset": ("Dataset",),
    "roadmap.data.datasets": ("dataset",),
    "roadmap.design": (
        "Block",
        "Conv",
        "Design",
        "Downsampling",
        "NamedModel",
        "Stem",
    ),
    "roadmap.network.cost": (
        "Cost",
        "cost",
    ),
    "roadmap.network.library_models": ("model",),
    "roadmap.network.mixers": ("mixer",),
    "roadmap.network.modules": ("build",),
    "roadmap.network.plan": ("Layer",),
    "roadmap.network.weights": (
        "load_timm",
        "load_torchvision",
    ),
    "roadmap.recipe": (
        "Experiment",
        "Recipe",
        "optimizer",
    ),
    "roadmap.record.metrics": ("metric",),
    "roadmap.steps": (
        "NoEffect",
        "Step",
        "step",
    ),
    "roadmap.spaces.definition": (
        "Space",
        "Values",
    ),
    "roadmap.spaces.parameters": ("parameter",),
    "roadmap.spaces.registry": ("design_space",),
    "roadmap.study.rungs": ("Rung",),
    "roadmap.study.selection": (
        "compose",
        "ladder",
    ),
    "roadmap.tasks.registry": ("task",),
}


def __getattr__(name: str) -> object:
    if name == "api" or f"roadmap.{name}" in _MODULES:
        return importlib.import_module(f"roadmap.{name}")
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    module = next((module for module, names in _MODULES.items() if name in names), "roadmap.api")
    return getattr(importlib.import_module(module), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
