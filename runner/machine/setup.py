"""How a run is computed: an execution with each "auto" resolved for this machine."""

from __future__ import annotations

import ctypes
from collections.abc import Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from typing import Literal, TypeVar

import torch

from roadmap.recipe import Recipe
from roadmap.study.execution import Auto, Execution, accumulation
from runner.machine.resources import check_here, data_workers

# Below this side, in pixels, a CPU loses more by casting than its bf16 units win (benchmarks/precision.py).
BF16_CPU_IMAGE_SIZE = 128
SetupPrecision = Literal["fp32", "tf32", "bf16", "fp16"]
Value = TypeVar("Value")
M_TRIM_THRESHOLD, M_MMAP_MAX = -1, -4  # parameters of mallopt, as malloc.h numbers them
DTYPES = {"bf16": torch.bfloat16, "fp16": torch.float16}


@dataclass(frozen=True)
class Setup:
    """How a run is computed, in full. Stored in the manifest."""

    device: Literal["cpu", "cuda"]
    precision: SetupPrecision
    processes: int
    accumulation: int  # parts of a device's share of a batch, computed one after another
    threads: int  # of a process
    workers: int
    channels_last: bool
    compile: str | None
    augment: Literal["fast", "reference"]
    cudnn_benchmark: bool = False
    prefetch: int = 2  # batches that each worker makes ahead

    @property
    def late(self) -> int:
        """The steps after which a loss is read, one at most: a GPU computes while this process goes on to the next."""
        return 1 if self.device == "cuda" else 0

    @property
    def memory_format(self) -> torch.memory_format:
        return torch.channels_last if self.channels_last else torch.contiguous_format

    def prepare(self) -> None:
        """Applies the settings that hold for the whole process."""
        torch.set_num_threads(self.threads)
        # By default a GPU uses TF32 for convolutions.
        torch.backends.cudnn.allow_tf32 = torch.backends.cuda.matmul.allow_tf32 = self.precision == "tf32"
        torch.backends.cudnn.benchmark = self.cudnn_benchmark
        if self.device == "cpu":
            _keep_freed_memory()
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        if self.compile is not None:
            torch.compiler.reset()  # earlier networks count against the limit of recompilations

    def autocast(self) -> AbstractContextManager[object]:
        dtype = DTYPES.get(self.precision)
        return torch.autocast(self.device, dtype, enabled=dtype is not None)


def choose_setup(
    recipe: Recipe, execution: Execution, processes: int, threads: int, stored: Setup | None = None
) -> Setup:
    """An execution's settings on this machine.

    `threads` is the default for each process. Where the execution says "auto", the settings that the run began with
    (`stored`) are kept: the last bits of its results depend on precision and threads. Raises ValueError if the machine
    lacks what the execution asks for.
    """
    device = chosen_device(execution)
    check_here(execution, [recipe], processes)
    parts = accumulation(recipe, processes, execution.device_batch)
    if execution.device_batch == "auto" and stored and stored.processes == processes:
        parts = stored.accumulation
    return Setup(
        device,
        _precision(recipe, execution, device, stored),
        processes,
        parts,
        _unless_auto(execution.threads, stored.threads if stored else threads),
        data_workers(execution, threads, device == "cuda"),
        execution.channels_last,
        execution.compile,
        _unless_auto(execution.augment, stored.augment if stored else "fast"),
        device == "cuda" and execution.cudnn_benchmark,
        execution.prefetch,
    )


def shared_precision(precisions: Sequence[SetupPrecision]) -> SetupPrecision:
    """The one that all processes of a run compute in: GPUs with and without bf16 units choose differently."""
    return "fp16" if "fp16" in precisions else precisions[0]


def _keep_freed_memory() -> None:
    """Makes glibc's allocator keep freed memory for the next step.

    Otherwise each large tensor takes new memory, which the kernel clears first. Measured in benchmarks/NOTEBOOK.md, on
    networks.
    """
    mallopt = getattr(ctypes.CDLL(None), "mallopt", None)  # only glibc has it
    if mallopt is not None:
        mallopt(M_MMAP_MAX, 0)
        mallopt(M_TRIM_THRESHOLD, 2**31 - 1)


def _unless_auto(value: Value | Auto, default: Value) -> Value:
    return default if value == "auto" else value


def chosen_device(execution: Execution) -> Literal["cpu", "cuda"]:
    if execution.device == "auto":
        return "cuda" if torch.cuda.is_available() else "cpu"
    return execution.device


def _precision(recipe: Recipe, execution: Execution, device: str, stored: Setup | None) -> SetupPrecision:
    if recipe.precision == "fp32":
        return "tf32" if device == "cuda" and execution.tf32 else "fp32"
    if recipe.precision in ("bf16", "fp16"):
        return recipe.precision
    if recipe.precision == "fp16-on-cuda" and device == "cuda":
        return "fp16"
    if stored:
        return stored.precision
    if device == "cuda":
        return "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
    has_units = torch.cpu._is_avx512_bf16_supported() if hasattr(torch.cpu, "_is_avx512_bf16_supported") else False
    return "bf16" if has_units and recipe.image_size >= BF16_CPU_IMAGE_SIZE else "fp32"
