"""Trained networks, as a run's folder has them, or with the weights of another library's network."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from torch import nn

from roadmap.data.datasets import known_class_names
from roadmap.files import read_json
from roadmap.network.modules import build
from roadmap.network.weights import load_peer, read_state_dict
from roadmap.record.folder import read_run
from roadmap.record.run import Run
from runner.train import checkpoint

Weights = Literal["raw", "ema"]


@dataclass(frozen=True)
class Trained:
    """A run, and its network as the newest checkpoint has it, or with the weights of another file."""

    run: Run
    network: nn.Module
    weights: Weights
    trained: tuple[int, int]  # epochs behind it, and steps of the next
    classes: tuple[str, ...]  # of its outputs, as its images' folders were called; empty where its record is older
    data_path: str | None = None  # where its images were

    @property
    def unfinished(self) -> str:
        """How far a run is that has epochs left, in words; empty for one that is trained to its end."""
        epochs = self.run.experiment.recipe.epochs
        return "" if self.trained[0] >= epochs else f"{self.trained[0]} of {epochs} epochs"

    @property
    def class_names(self) -> tuple[str, ...]:
        """Of the network's outputs, in order. Raises ValueError where nothing names them."""
        names = self.classes or known_class_names(self.run.data, self.run.dataset)
        if names is not None:
            return names
        raise ValueError(f"{self.run.name}: its record, of an older version, does not name its classes; train it again")


def read_trained(folder: Path, *, averaged: bool = False) -> Trained:
    """A folder's run, and its network as the newest checkpoint has it; with EMA's weights if `averaged`.

    Raises ValueError where there is no run, no checkpoint, or no averaged weights, and InvalidFile where they are not
    of this version.
    """
    manifest = read_json(folder / "manifest.json")
    if manifest is None:
        raise ValueError(f"{folder} is no run's folder: it has no manifest.json")
    run = read_run(manifest, folder)
    saved = checkpoint.load(folder, run.identity)
    if saved is None:
        raise ValueError(f"{folder} has no checkpoint: nothing of it was trained yet, or the file is gone")
    weights = saved["model"]
    if averaged:
        if not saved["ema"]:
            raise ValueError(f"{folder} has no averaged weights: its recipe has no EMA")
        weights = {key.removeprefix("module."): value for key, value in saved["ema"].items() if key != "n_averaged"}
    network = untrained(run)
    network.load_state_dict(weights)
    classes = tuple(map(str, manifest.get("classes", ())))
    weights_of: Weights = "ema" if averaged else "raw"
    return Trained(run, network.eval(), weights_of, (saved["epoch"], saved["step"]), classes, manifest.get("data_path"))


def untrained(run: Run) -> nn.Module:
    """A run's network as it is before any training, in evaluation mode."""
    recipe = run.experiment.recipe
    return build(run.experiment.design, run.dataset.classes, image_size=recipe.image_size).eval()


def read_peer(run: Run, path: Path, peer: str) -> Trained:
    """A run's network with the weights that a file has of the same network of `peer`, LIBRARY/NAME.

    Raises ValueError where that is another network.
    """
    network = untrained(run)
    load_peer(network, run.experiment.design, peer, read_state_dict(path))
    return Trained(run, network, "raw", (run.experiment.recipe.epochs, 0), ())
