"""Trained networks: from a run's folder, or with the weights of another library's network."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from torch import nn

from roadmap.data.datasets import known_class_names
from roadmap.files import InvalidFile
from roadmap.network.weights import load_peer, read_state_dict
from roadmap.record.folder import read_manifest
from roadmap.record.run import Run
from runner.train import checkpoint
from runner.train.tasks.registry import task_of

Weights = Literal["raw", "ema"]


@dataclass(frozen=True)
class Trained:
    """A run, and its network with the weights of the newest checkpoint or of another file."""

    run: Run
    network: nn.Module
    weights: Weights
    trained: tuple[int, int]  # finished epochs, and steps of the next one
    classes: tuple[str, ...]  # names of its outputs; empty if the record is older and does not have them
    data_path: Path | None = None  # of its images

    @property
    def note(self) -> str:
        """A sentence about a run that has epochs left; empty for a finished one."""
        done, epochs = self.trained[0], self.run.experiment.recipe.epochs
        return "" if done >= epochs else f"{self.run.name} has not finished training: {done} of {epochs} epochs"

    @property
    def known_class_names(self) -> tuple[str, ...]:
        """The names of the network's outputs, in order; empty if they are unknown."""
        return self.classes or known_class_names(self.run.data, self.run.dataset) or ()

    @property
    def class_names(self) -> tuple[str, ...]:
        """The names of the network's outputs, in order. Raises ValueError if they are unknown."""
        if names := self.known_class_names:
            return names
        raise ValueError(f"{self.run.name}: its record, of an older version, does not name its classes; train it again")


def read_trained(folder: Path, *, averaged: bool = False) -> Trained:
    """A folder's run, and its network with the weights of the newest checkpoint; with those of the EMA if `averaged`.

    Raises ValueError if there is no run, no checkpoint, or no averaged weights, and InvalidFile if the files are of
    another version.
    """
    manifest = read_manifest(folder)
    if manifest is None:
        raise ValueError(f"{folder} is not a run's folder: it has no manifest.json")
    run = manifest.run
    saved = checkpoint.load(folder, run.identity)
    if saved is None:
        raise ValueError(f"{folder} has no checkpoint: it has not been trained yet, or the file was removed")
    if averaged and not saved.get("ema"):
        raise ValueError(f"{folder} has no averaged weights: its recipe has no EMA")
    network = untrained(run)
    try:
        network.load_state_dict(_averaged(saved["ema"]) if averaged else saved["model"])
        progress = (int(saved["epoch"]), int(saved["step"]))
    except (KeyError, TypeError, ValueError, AttributeError, RuntimeError) as error:
        reason = " ".join(str(error).split())[:200]
        raise InvalidFile(f"{folder}: the checkpoint does not hold the state of the run: {reason}") from None
    weights_of: Weights = "ema" if averaged else "raw"
    return Trained(run, network.eval(), weights_of, progress, manifest.classes, manifest.data_path)


def _averaged(saved: Mapping[str, Any]) -> dict[str, Any]:
    return {key.removeprefix("module."): value for key, value in saved.items() if key != "n_averaged"}


def untrained(run: Run) -> nn.Module:
    """A run's network before training, in evaluation mode."""
    return task_of(run).network().eval()


def read_peer(run: Run, path: Path, peer: str) -> Trained:
    """A run's network with a file's weights, which are for the same network of `peer`, LIBRARY/NAME.

    Raises ValueError if they are for another network.
    """
    network = untrained(run)
    load_peer(network, run.experiment.design, peer, read_state_dict(path))
    return Trained(run, network, "raw", (run.experiment.recipe.epochs, 0), ())
