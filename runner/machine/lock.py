"""A lock on a folder: only one process at a time writes in it."""

from __future__ import annotations

import contextlib
import fcntl
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# The format of the system's `struct flock`, and the index of the lock's type in it.
LAYOUT, KIND = ("qqihh", 3) if sys.platform == "darwin" else ("hhqqi", 0)


class FolderLocked(ValueError):
    """Another process is writing in the folder."""


@contextlib.contextmanager
def folder_lock(folder: Path, doing: str = "in training") -> Iterator[None]:
    """Creates the folder and locks it. Raises FolderLocked if another process has the lock."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            # The system releases it when the process ends, even if workers that it forked live on for seconds.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise FolderLocked(f"{folder} is {doing} by another process; wait for it or stop it") from None
        yield


def is_held(folder: Path) -> bool:
    """Whether a process has the lock, on this machine or on another with the same files if the file system shows it."""
    try:
        with (folder / "lock").open("rb") as lock:
            query = struct.pack(LAYOUT, *(fcntl.F_WRLCK if i == KIND else 0 for i in range(5)))
            answer = struct.unpack(LAYOUT, fcntl.fcntl(lock, fcntl.F_GETLK, query))
            return bool(answer[KIND] != fcntl.F_UNLCK)
    except OSError:
        return False
