"""The state that a run goes on from, on the disk: written aside and renamed, the one before kept."""

from __future__ import annotations

import io
import os
import pickle
import warnings
import zipfile
import zlib
from pathlib import Path
from typing import Any

import torch

from roadmap.files import write_atomic

NAME, PREVIOUS, NEW = "checkpoint.pt", "checkpoint.previous.pt", "checkpoint.new.pt"
FORMAT = 2
DAMAGED = "it is damaged or cut off"
KEYS = {"format", "identity", "model", "optimizer", "scaler", "ema", "epoch", "step", "loss_sum", "skipped", "seconds"}


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes the checkpoint; at every moment there is a whole one in the folder, once there was one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(folder / NEW, buffer.getvalue())
    if (folder / NAME).exists():
        os.replace(folder / NAME, folder / PREVIOUS)
    os.replace(folder / NEW, folder / NAME)


def load(folder: Path, identity: str) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None where there is none.

    Raises ValueError where it belongs to another run or another version, or where none can be read.
    """
    paths = [path for path in (folder / NAME, folder / PREVIOUS) if path.exists()]
    broken = []
    for path in paths:
        try:
            state = _read(path)
        except _Unreadable as error:
            broken.append(f"{path} can't be read ({error})")
            continue
        if state.get("identity") != identity:
            raise ValueError(f"{path} is of run {state.get('identity')}, not {identity}; move the folder away")
        if state.get("format") != FORMAT or state.keys() != KEYS:
            found = state.get("format")
            raise ValueError(f"{path} has format {found!r}; this version reads {FORMAT}; move the folder away")
        if broken:
            warnings.warn(f"{broken[0]}; going on from the one before it, {path.name}", stacklevel=2)
        return state
    if broken:
        raise ValueError(f"{'; '.join(broken)}; remove what can't be read to train from the start")
    return None


class _Unreadable(Exception):
    pass


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch does not look at the check sums that it writes
                raise _Unreadable(DAMAGED)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _Unreadable(error.strerror or str(error)) from None
    except pickle.UnpicklingError:  # its own message advises to load it without the safeguard
        raise _Unreadable("it holds something else than tensors and numbers, or is damaged") from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        raise _Unreadable(DAMAGED) from None
    if not isinstance(state, dict):
        raise _Unreadable("it has not what a checkpoint has")
    return state
