"""Re-run, take apart and extend the ablation study of "A ConvNet for the 2020s"."""

from __future__ import annotations

from typing import TYPE_CHECKING, Any

from roadmap.costs import Cost, cost
from roadmap.design import Block, Conv, Design, Downsampling, Stem
from roadmap.ladders import compose, ladder
from roadmap.models import NamedModel, model
from roadmap.recipe import Experiment, Recipe
from roadmap.rungs import Rung
from roadmap.steps import NoEffect, Step, step

if TYPE_CHECKING:
    from roadmap.network import build
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


def __getattr__(name: str) -> Any:
    """What needs torch is imported when it is asked for: designs and costs answer at once without it."""
    if name == "build":
        from roadmap.network import build

        return build
    if name in ("load_timm", "load_torchvision"):
        from roadmap import weights

        return getattr(weights, name)
    raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
