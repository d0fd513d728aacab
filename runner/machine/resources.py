"""What this machine has, found out without importing torch, which takes a second and more."""

from __future__ import annotations

import os
from collections.abc import Sequence
from pathlib import Path

from roadmap.recipe import Recipe
from roadmap.study.execution import Execution, accumulation

GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))  # NVIDIA's, AMD's, and Windows' for Linux


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_gpus(execution: Execution) -> int:
    """Those that an execution may use: none where it is to be on the CPU."""
    if execution.device == "cpu" or not any(driver.exists() for driver in GPU_DRIVERS):
        return 0
    import torch

    return torch.cuda.device_count()


def default_processes(execution: Execution, recipes: Sequence[Recipe]) -> int:
    """The processes that share each run on this machine: one for each GPU that every batch can be shared by, or one.

    Raises ValueError for more than there are GPUs.
    """
    gpus = available_gpus(execution)
    if execution.processes != "auto":
        if 0 < gpus < execution.processes:
            raise ValueError(f"execution.processes is {execution.processes}, but there are {gpus} GPUs here")
        return execution.processes
    return max((n for n in range(1, gpus + 1) if all(recipe.shared_by(n) for recipe in recipes)), default=1)


def check_here(execution: Execution, recipes: Sequence[Recipe], processes: int) -> None:
    """Raises ValueError for what can't be had on this machine, before anything is started."""
    gpus = available_gpus(execution)
    if execution.device == "cuda" and not gpus:
        raise ValueError("execution.device is cuda, but there is no CUDA device here; auto takes what there is")
    if execution.compile is not None:
        import torch

        if execution.compile not in torch.compiler.list_backends(exclude_tags=()):
            known = ", ".join(torch.compiler.list_backends())
            raise ValueError(f"execution.compile: {execution.compile!r} is no backend of torch.compile; {known} are")
    if processes > 1 and not gpus and any(recipe.sync_batch_norm for recipe in recipes):
        raise ValueError("recipe.sync_batch_norm: PyTorch synchronizes batch norm on GPUs alone; false, or one process")
    for recipe in recipes:
        accumulation(recipe, processes, execution.device_batch)
