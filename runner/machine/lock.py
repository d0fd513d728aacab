"""A run folder, or another that is written, is one process's at a time."""

from __future__ import annotations

import contextlib
import fcntl
import struct
import sys
from collections.abc import Iterator
from pathlib import Path

# The system's `struct flock`, and where in it the kind of lock stands.
LAYOUT, KIND = ("qqihh", 3) if sys.platform == "darwin" else ("hhqqi", 0)


class FolderLocked(ValueError):
    """Another process writes in the folder."""


@contextlib.contextmanager
def folder_lock(folder: Path, doing: str = "in training") -> Iterator[None]:
    """Makes the folder and holds it against a second process. Raises FolderLocked where another has it."""
    folder.mkdir(parents=True, exist_ok=True)
    with (folder / "lock").open("a") as lock:
        try:
            # The system lets go of it when the process ends, even if workers that it forked live on for seconds.
            fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except (BlockingIOError, PermissionError):
            raise FolderLocked(f"{folder} is {doing} by another process; wait for it or stop it") from None
        yield


def is_held(folder: Path) -> bool:
    """Whether a process has it, on this machine or another of the same files, as far as the file system tells."""
    try:
        with (folder / "lock").open("rb") as lock:
            asked = struct.pack(LAYOUT, *(fcntl.F_WRLCK if i == KIND else 0 for i in range(5)))
            told = struct.unpack(LAYOUT, fcntl.fcntl(lock, fcntl.F_GETLK, asked))
            return bool(told[KIND] != fcntl.F_UNLCK)
    except OSError:
        return False
