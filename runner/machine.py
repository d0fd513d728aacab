"""What this machine has, found out without importing torch, which takes a second and more."""

from __future__ import annotations

import os
from pathlib import Path

from roadmap.execution import Execution

GPU_DRIVERS = (Path("/dev/nvidiactl"), Path("/dev/kfd"), Path("/dev/dxg"))  # NVIDIA's, AMD's, and Windows' for Linux


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def default_processes(execution: Execution) -> int:
    """The processes that share a run on this machine: one for each GPU, or one."""
    if execution.processes != "auto":
        return execution.processes
    if execution.device == "cpu" or not any(driver.exists() for driver in GPU_DRIVERS):
        return 1
    import torch

    return max(1, torch.cuda.device_count())
