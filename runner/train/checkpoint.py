"""Checkpoints: the state that a run resumes from. Written to a new file and renamed; the previous one is kept."""

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
DAMAGED = "it is damaged or incomplete"
KEYS = {"format", "identity", "model", "optimizer", "scaler", "ema", "epoch", "step", "loss_sum", "skipped", "seconds"}


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes the checkpoint. From the first on, the folder contains a complete one at every moment."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    write_atomic(folder / NEW, buffer.getvalue())
    if (folder / NAME).exists():
        os.replace(folder / NAME, folder / PREVIOUS)
    os.replace(folder / NEW, folder / NAME)


def load(folder: Path, identity: str) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None if there is none.

    Raises ValueError if it belongs to another run or another version, or if there are checkpoints and none can be read.
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
            file_format = state.get("format")
            raise ValueError(f"{path} has format {file_format!r}; this version reads {FORMAT}; move the folder away")
        if broken:
            warnings.warn(f"{broken[0]}; resuming from the previous one, {path.name}", stacklevel=2)
        return state
    if broken:
        raise ValueError(f"{'; '.join(broken)}; remove these files to train from the start")
    return None


class _Unreadable(Exception):
    pass


def _read(path: Path) -> dict[str, Any]:
    try:
        with zipfile.ZipFile(path) as archive:
            if archive.testzip() is not None:  # torch does not verify the checksums that it writes
                raise _Unreadable(DAMAGED)
        state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
    except OSError as error:
        raise _Unreadable(error.strerror or str(error)) from None
    except pickle.UnpicklingError:  # torch's message advises loading without weights_only
        raise _Unreadable("it contains something other than tensors and numbers, or is damaged") from None
    except (RuntimeError, EOFError, ValueError, KeyError, zipfile.BadZipFile, zlib.error):
        raise _Unreadable(DAMAGED) from None
    if not isinstance(state, dict):
        raise _Unreadable("it does not contain a checkpoint")
    return state
