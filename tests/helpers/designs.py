"""Designs and recipes: of a rung, drawn at random, and another's count of them."""

from __future__ import annotations

from dataclasses import replace

import torch
from hypothesis import strategies as st
from torch.utils.flop_counter import FlopCounterMode

import roadmap
from roadmap.recipe import Recipe


def recipe_of(rung: str, regime: str = "resnet-50", **changes: object) -> Recipe:
    return replace(roadmap.ladder(regime, rung)[0].experiment.recipe, **changes)


STEP_CHOICES = ["recipe", "stage-ratio", "patchify-stem", "depthwise", "width", "inverted-bottleneck"]
STEP_CHOICES += ["move-up-depthwise", "kernel-size=5", "kernel-size=7", "kernel-size=9", "kernel-size=11", "gelu"]
STEP_CHOICES += ["stage-ratio=2:2:2:2", "patchify-stem=2", "patchify-stem=8", "width=20", "inverted-bottleneck=0.5"]
STEP_CHOICES += ["inverted-bottleneck=6", "layer-scale=0.1", "separate-downsampling=false"]
STEP_CHOICES += ["fewer-activations", "fewer-norms", "layer-norm", "separate-downsampling", "layer-scale"]


def compositions() -> st.SearchStrategy[list[str]]:
    """Any subset of the steps in any order, parameters included, one variant of a step at most."""
    return st.lists(st.sampled_from(STEP_CHOICES), unique_by=lambda name: name.split("=")[0])


def counted_by_torch(design: roadmap.Design, size: int) -> tuple[int, int]:
    """Parameters, and multiply-adds of one image as torch's own counter has them, of the built model."""
    with torch.device("meta"):  # its operations are counted without being computed
        model, image = roadmap.build(design, num_classes=10), torch.zeros(1, 3, size, size)
    with FlopCounterMode(display=False) as counter, torch.no_grad():
        model.eval()(image)
    return sum(parameter.numel() for parameter in model.parameters()), counter.get_total_flops() // 2
