"""The weights that a transfer begins with: of a finished run, or of a file."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path

import torch
from torch import Tensor

from roadmap.network.modules import build
from roadmap.network.weights import load_peer, read_state_dict
from roadmap.plugins import file_hash
from roadmap.record.folder import read_manifest, read_result
from roadmap.record.run import Run, folders_below
from roadmap.study.execution import Execution
from roadmap.tasks.transfer import AVERAGED_RUN, FILE, SCRATCH
from runner.train import checkpoint
from runner.train.tasks.task import Weights


@dataclass(frozen=True)
class Initial:
    """Weights of a classifier, by this project's names."""

    weights: Weights
    origin: str  # for people: the folder or the file

    @cached_property
    def digest(self) -> str:
        """A hash of the names and values."""
        hashed = hashlib.sha256()
        for name, tensor in sorted(self.weights.items()):
            hashed.update(f"{name} {tensor.dtype} {tuple(tensor.shape)}".encode())
            hashed.update(tensor.detach().cpu().contiguous().reshape(-1).view(torch.uint8).numpy().tobytes())
        return hashed.hexdigest()[:16]


def initial_weights(run: Run, folder: Path, execution: Execution) -> Initial | None:
    """The weights of a run in that folder; None for a run from scratch.

    A run that has begun needs them no longer: None if they are gone then. Raises ValueError if they are not there, or
    not those that the run's identity names.
    """
    transfer = run.transfer
    if transfer is None or transfer.weights == SCRATCH:
        return None
    try:
        if transfer.source is not None:
            averaged = transfer.weights.startswith(AVERAGED_RUN)
            return _of_run(transfer.source, folder.parent.parent, averaged=averaged)
        return _of_file(run, execution)
    except _Absent:
        if checkpoint.load(folder, run.identity) is not None:
            return None
        raise


class _Absent(ValueError):
    pass


def _of_run(identity: str, out: Path, *, averaged: bool) -> Initial:
    folder = folders_below(out).get(identity)
    manifest = read_manifest(folder) if folder else None
    if folder is None or manifest is None:
        raise _Absent(f"{out} has no run {identity}, whose weights are to be transferred; train it first")
    if read_result(folder, manifest.run) is None:
        raise _Absent(f"{folder} has not finished training, and its weights are to be transferred")
    saved = checkpoint.load(folder, identity)
    if saved is None:
        raise _Absent(f"{folder} has no checkpoint: the file with its weights was removed")
    if not averaged:
        return Initial(saved["model"], str(folder))
    if not saved["ema"]:
        raise ValueError(f"{folder} has no averaged weights: its recipe has no EMA")
    weights: dict[str, Tensor] = {
        key.removeprefix("module."): value for key, value in saved["ema"].items() if key != "n_averaged"
    }
    return Initial(weights, str(folder))


def _of_file(run: Run, execution: Execution) -> Initial:
    """A checkpoint file of torchvision or timm, of the network that is the run's design."""
    assert run.transfer is not None
    path, peer = execution.weights, execution.weights_of
    if path is None or peer is None or not path.is_file():
        raise _Absent(f"{run.name} begins with the weights of a file: --state-dict FILE --of LIBRARY/NAME names it")
    if file_weights(path) != run.transfer.weights:
        raise ValueError(f"{path} has other content than the file of {run.name}, {run.transfer.weights}")
    state = read_state_dict(path)
    classes = next(len(tensor) for tensor in reversed(list(state.values())) if tensor.ndim)
    network = build(run.experiment.design, classes)
    try:
        load_peer(network, run.experiment.design, peer, state)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return Initial(network.state_dict(), str(path))


def file_weights(path: Path) -> str:
    """What `Transfer.weights` has for a file: a hash of its content."""
    return f"{FILE}{file_hash(path)}"
