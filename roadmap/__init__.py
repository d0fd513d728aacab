"""Re-run, take apart and extend the ablation study of "A ConvNet for the 2020s".

Importing this package takes a few milliseconds: each name is imported when it is first used. Designs and costs work
without torch, and the command handles Ctrl-C before it imports anything large.
"""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from roadmap.costs import Cost, cost
    from roadmap.design import Block, Conv, Design, Downsampling, Stem
    from roadmap.ladders import compose, ladder
    from roadmap.models import NamedModel, model
    from roadmap.network import build
    from roadmap.recipe import Experiment, Recipe
    from roadmap.rungs import Rung
    from roadmap.steps import NoEffect, Step, step
    from roadmap.weights import load_timm, load_torchvision

__all__ = [
    "Block",
    "Conv",
    "Cost",
    "Design",
    "Downsampling",
    "Experiment",
    "NamedModel",
    "NoEffect",
    "Recipe",
    "Rung",
    "Stem",
    "Step",
    "build",
    "compose",
    "cost",
    "ladder",
    "load_timm",
    "load_torchvision",
    "model",
    "step",
]

_MODULES = {
    "costs": ("Cost", "cost"),
    "design": ("Block", "Conv", "Design", "Downsampling", "Stem"),
    "ladders": ("compose", "ladder"),
    "models": ("NamedModel", "model"),
    "network": ("build",),
    "recipe": ("Experiment", "Recipe"),
    "rungs": ("Rung",),
    "steps": ("NoEffect", "Step", "step"),
    "weights": ("load_timm", "load_torchvision"),
}


def __getattr__(name: str) -> Any:
    for module, names in _MODULES.items():
        if name == module:
            return importlib.import_module(f"roadmap.{module}")
        if name in names:
            return getattr(importlib.import_module(f"roadmap.{module}"), name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
