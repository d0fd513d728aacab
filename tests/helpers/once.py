"""Work that several tests look at and none changes, done by one of the workers for all of them."""

from __future__ import annotations

import fcntl
import os
import shutil
from collections.abc import Callable
from pathlib import Path


def once(name: str, fill: Callable[[Path], object]) -> Path:
    """The folder `name`, which `fill` has filled: by the first that asks, while the others wait.

    The folder is shared by the workers and lives as long as their run. A fill that fails is tried again by the next.
    """
    shared = Path(os.environ["XDG_CACHE_HOME"])
    folder, done = shared / name, shared / f"{name}.done"
    with (shared / f"{name}.lock").open("w") as lock:
        fcntl.flock(lock, fcntl.LOCK_EX)
        if not done.exists():
            shutil.rmtree(folder, ignore_errors=True)
            folder.mkdir()
            fill(folder)
            done.touch()
    return folder
