"""What a run is computed on, and how: the choices that were left to the machine, made."""

from __future__ import annotations

import ctypes
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from roadmap.recipe import Recipe
from roadmap.study.execution import Auto, Execution, accumulation
from runner.machine.resources import check_here

# Below this side, in pixels, a CPU loses more by casting than its bf16 units win (benchmarks/precision.py).
BF16_CPU_IMAGE_SIZE = 128
GPU_WORKERS = 10  # for each GPU, where there are so many cores: what --augment reference takes; fast, four do
Asked = TypeVar("Asked")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of mallopt, as malloc.h numbers them
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
    augment: Literal["fast", "reference"]

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def prepare(self) -> None:
        """Sets what is set for a whole process."""
        torch.set_num_threads(self.threads)
        # fp32 is what it says, also where a GPU would take a shorter format for convolutions.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = False
        if self.device == "cpu":
            _keep_freed_memory()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if self.compile is not None:
            torch.compiler.reset()  # networks before this one count against the number of recompilations

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
    check_here(execution, [recipe], processes)
    parts = accumulation(recipe, processes, execution.device_batch)
    if execution.device_batch == "auto" and stored and stored.processes == processes:
        parts = stored.accumulation
    return Setup(
        device,
        _precision(recipe, device, stored),
        processes,
        parts,
        _unless_auto(execution.threads, stored.threads if stored else threads),
        _unless_auto(execution.workers, min(GPU_WORKERS, threads) if device == "cuda" else 0),
        execution.channels_last,
        execution.compile,
        _unless_auto(execution.augment, stored.augment if stored else "fast"),
    )


def _keep_freed_memory() -> None:
    """Has glibc's allocator keep what is freed for the next step, which otherwise takes every large tensor anew.

    The kernel clears memory as it gives it. What that takes, and what is kept: benchmarks/NOTEBOOK.md, on networks.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # glibc's; other systems have other allocators
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _unless_auto(asked: Asked | Auto, otherwise: Asked) -> Asked:
    return otherwise if asked == "auto" else asked


def chosen_device(execution: Execution) -> Literal["cpu", "cuda"]:
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
