"""The state that a run goes on from, on the disk: written aside and renamed, the one before kept."""

from __future__ import annotations

import io
import os
import pickle
import warnings
from pathlib import Path
from typing import Any

import torch

from roadmap.record import write_whole

NAME, PREVIOUS = "checkpoint.pt", "checkpoint.previous.pt"
KEYS = {"identity", "model", "optimizer", "ema", "epoch", "step", "loss_sum", "seconds"}


def save(folder: Path, state: dict[str, Any]) -> None:
    """Writes the checkpoint; at every moment there is a whole one in the folder, once there was one."""
    buffer = io.BytesIO()
    torch.save(state, buffer)
    current = folder / NAME
    if current.exists():
        link = folder / (PREVIOUS + ".tmp")
        link.unlink(missing_ok=True)
        os.link(current, link)
        os.replace(link, folder / PREVIOUS)
    write_whole(current, buffer.getvalue())


def load(folder: Path, identity: str) -> dict[str, Any] | None:
    """The newest checkpoint that can be read; None where there is none.

    Raises ValueError where it belongs to another run.
    """
    for path in (folder / NAME, folder / PREVIOUS):
        if not path.exists():
            continue
        try:
            state: dict[str, Any] = torch.load(path, map_location="cpu", weights_only=True)
            if not isinstance(state, dict) or state.keys() != KEYS:
                raise ValueError("it has not what a checkpoint has")
        except (RuntimeError, EOFError, OSError, ValueError, KeyError, pickle.UnpicklingError) as error:
            warnings.warn(f"{path} can't be read ({error}); going on without it, from what is older", stacklevel=2)
            continue
        if state.get("identity") != identity:
            raise ValueError(f"{path} is of run {state.get('identity')}, not {identity}; move the folder away")
        return state
    return None
