"""What a run is computed on, and how: the choices that were left to the machine, made."""

from __future__ import annotations

from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal

import torch

from roadmap.execution import Execution, accumulation
from roadmap.recipe import Recipe

# Below this side, in pixels, a CPU loses more by casting than its bf16 units win (benchmarks/precision.py).
BF16_CPU_IMAGE_SIZE = 128
GPU_WORKERS = 10  # for each GPU, where there are so many cores: the paper's augmentation takes that many
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setup:
    """How a run is computed, in full. Kept in the manifest."""

    device: Literal["cpu", "cuda"]
    precision: Literal["fp32", "bf16", "fp16"]
    processes: int
    accumulation: int  # parts that a device takes its share of a batch in
    threads: int  # of a process
    workers: int
    channels_last: bool
    compile: str | None

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def autocast(self) -> AbstractContextManager[object]:
        dtype = DTYPES.get(self.precision)
        return torch.autocast(self.device, dtype, enabled=dtype is not None)


def choose_setup(
    recipe: Recipe, execution: Execution, processes: int, threads: int, stored: Setup | None = None
) -> Setup:
    """What an execution comes to on this machine.

    `threads` is for each process where nothing else is said. What a run began with (`stored`) is kept where the
    execution leaves it open: the last bits depend on precision and threads. Raises ValueError for what can't be had.
    """
    device = chosen_device(execution)
    parts = accumulation(recipe.batch_size, processes, execution.device_batch, pairs=recipe.mixes)
    if execution.device_batch == "auto" and stored and stored.processes == processes:
        parts = stored.accumulation
    if execution.compile is not None and execution.compile not in torch.compiler.list_backends(exclude_tags=()):
        known = ", ".join(torch.compiler.list_backends())
        raise ValueError(f"execution.compile: {execution.compile!r} is no backend of torch.compile; {known} are")
    if recipe.sync_batch_norm and processes > 1 and device == "cpu":
        raise ValueError("recipe.sync_batch_norm: PyTorch synchronizes batch norm on GPUs alone; false, or one process")
    return Setup(
        device,
        _precision(recipe, device, stored),
        processes,
        parts,
        _stored_or(execution.threads, stored.threads if stored else threads),
        _stored_or(execution.workers, min(GPU_WORKERS, threads) if device == "cuda" else 0),
        execution.channels_last,
        execution.compile,
    )


def _stored_or(asked: int | Literal["auto"], otherwise: int) -> int:
    return otherwise if asked == "auto" else asked


def chosen_device(execution: Execution) -> Literal["cpu", "cuda"]:
    """Raises ValueError for a device that is not here."""
    if execution.device == "cuda" and not torch.cuda.is_available():
        raise ValueError("execution.device is cuda, but there is no CUDA device here; auto takes what there is")
    if execution.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return execution.device


def _precision(recipe: Recipe, device: str, stored: Setup | None) -> Literal["fp32", "bf16", "fp16"]:
    if recipe.precision != "auto":
        return recipe.precision
    if stored:
        return stored.precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported() else "fp16"
    has_units = torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    return "bf16" if has_units and recipe.image_size >= BF16_CPU_IMAGE_SIZE else "fp32"
