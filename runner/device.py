"""What a run computes on, and the precision that is faster there."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from roadmap.recipe import Recipe

# Below this side, in pixels, a CPU loses more by casting than its bf16 units win (benchmarks/precision.py).
BF16_CPU_IMAGE_SIZE = 128


@dataclass(frozen=True)
class Execution:
    """How a run is computed. Kept in the manifest; going on keeps it, since the last bits depend on it."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16"]
    threads: int

    def __post_init__(self) -> None:
        if self.threads < 1:
            raise ValueError(f"threads is {self.threads}, expected at least 1")

    def autocast(self) -> AbstractContextManager[object]:
        return torch.autocast(self.device, torch.bfloat16, enabled=self.precision == "bf16")


def choose_execution(recipe: Recipe, threads: int) -> Execution:
    """The device of this machine, and the recipe's precision or, for "auto", the faster one."""
    device = available_device()
    return Execution(device, _precision(recipe, device), threads)


def available_device() -> Literal["cpu", "cuda"]:
    return "cuda" if torch.cuda.is_available() else "cpu"


def _precision(recipe: Recipe, device: str) -> Literal["fp32", "bf16"]:
    if recipe.precision != "auto":
        return recipe.precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp32"
    has_units = torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    return "bf16" if has_units and recipe.image_size >= BF16_CPU_IMAGE_SIZE else "fp32"
