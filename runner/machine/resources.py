"""The cores and GPUs of this machine. Torch is imported only if there may be a GPU: the import takes over a second."""

from __future__ import annotations

import os
import subprocess
from collections.abc import Sequence
from pathlib import Path

from roadmap.recipe import Recipe
from roadmap.study.execution import Execution, accumulation

GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))  # of NVIDIA, of AMD, of Windows for Linux

GPU_WORKERS = 10  # per GPU, if there are so many cores: needed by --augment reference; fast needs four


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def available_gpus(execution: Execution) -> int:
    """The number of GPUs that an execution may use: 0 if it is on the CPU."""
    if execution.device == "cpu" or not any(driver.exists() for driver in GPU_DRIVERS):
        return 0
    import torch

    count = torch.cuda.device_count()
    return 1 if count > 1 and _is_partitioned() else count


def _is_partitioned() -> bool:
    """Whether MIG divides GPUs here. torch counts the GPUs then, but CUDA shows a process one instance only."""
    try:
        listed = subprocess.run(["nvidia-smi", "-L"], capture_output=True, text=True, timeout=20)
    except (OSError, subprocess.TimeoutExpired):
        return False
    return "MIG" in listed.stdout


def data_workers(execution: Execution, threads: int, on_gpu: bool) -> int:
    """The data workers of each process. By default none on CPUs, where the training needs the cores."""
    if execution.workers != "auto":
        return execution.workers
    return min(GPU_WORKERS, threads) if on_gpu else 0


def default_processes(execution: Execution, recipes: Sequence[Recipe]) -> int:
    """The number of processes that share each run on this machine.

    One for each GPU, as far as every batch can be divided by them; without GPUs one. Raises ValueError if the execution
    asks for more processes than there are GPUs.
    """
    gpus = available_gpus(execution)
    if execution.processes != "auto":
        if 0 < gpus < execution.processes:
            raise ValueError(f"execution.processes must be at most {gpus}, the GPUs here (got {execution.processes})")
        return execution.processes
    return max((n for n in range(1, gpus + 1) if all(recipe.shared_by(n) for recipe in recipes)), default=1)


def check_here(execution: Execution, recipes: Sequence[Recipe], processes: int) -> None:
    """Raises ValueError if this machine lacks what the execution asks for, before anything is started."""
    gpus = available_gpus(execution)
    if execution.device == "cuda" and not gpus:
        raise ValueError("execution.device=cuda requires a CUDA device, and this machine has none; auto uses the CPU")
    if execution.compile is not None:
        import torch

        if execution.compile not in torch.compiler.list_backends(exclude_tags=()):
            known = ", ".join(torch.compiler.list_backends())
            requirement = f"must be a backend of torch.compile: {known}"
            raise ValueError(f"execution.compile {requirement} (got {execution.compile!r})")
    if processes > 1 and not gpus and any(recipe.sync_batch_norm for recipe in recipes):
        raise ValueError(f"recipe.sync_batch_norm=true requires GPUs or one process (got {processes} on CPUs)")
    for recipe in recipes:
        accumulation(recipe, processes, execution.device_batch)
