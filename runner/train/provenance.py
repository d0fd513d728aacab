"""What is recorded of a run beside its settings: code, versions, machine, command."""

from __future__ import annotations

import gc
import importlib.metadata
import os
import platform
import sys
from dataclasses import asdict
from datetime import UTC, datetime
from typing import Any

import torch

from roadmap.record.sessions import Session
from runner.machine.setup import Setup
from runner.machine.snapshot import code_state

LIBRARIES = (
    "roadmap-convnext",
    "torch",
    "torchvision",
    "timm",
    "opencv-python-headless",
    "pillow",
    "numpy",
    "scikit-learn",
)


def environment(setup: Setup) -> dict[str, Any]:
    gpu = torch.cuda.get_device_name() if setup.device == "cuda" else None
    return {
        "execution": asdict(setup),
        "code": code_state(),
        "versions": {"python": platform.python_version()} | {name: _version(name) for name in LIBRARIES},
        "machine": {
            "host": platform.node(),
            "system": platform.platform(),
            "processor": platform.processor(),
            "gpu": gpu,
        },
        "command": sys.argv,
        "started": datetime.now(UTC).isoformat(timespec="seconds"),
    }


def session(epoch: int, step: int, lost_steps: int) -> Session:
    """A start of training on this machine, now. A launcher sets the variable ROADMAP_JOB to its job."""
    started = datetime.now(UTC).isoformat(timespec="seconds")
    return Session(started, platform.node(), os.environ.get("ROADMAP_JOB"), epoch, step, lost_steps)


def _version(name: str) -> str | None:
    try:
        return importlib.metadata.version(name)
    except importlib.metadata.PackageNotFoundError:
        return None


def free_memory(device: str) -> None:
    """Gives back what nobody refers to any more, and begins `peak_memory` anew."""
    gc.collect()  # a training and its batches refer to each other
    if device == "cuda":
        torch.cuda.empty_cache()
        torch.cuda.reset_peak_memory_stats()


def peak_memory(device: str) -> int:
    """Bytes: the allocations on the device, or on a CPU the resident memory of the process."""
    if device == "cuda":
        return torch.cuda.max_memory_allocated()
    import resource

    unit = 1 if sys.platform == "darwin" else 1024
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * unit
