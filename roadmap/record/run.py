"""A run, and its identity: a hash over everything that decides its result."""

from __future__ import annotations

import os
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from roadmap.data.dataset import Dataset
from roadmap.data.datasets import DATASETS, Kind, kind_of
from roadmap.design import Design, simplest
from roadmap.files import digest, fitting_name
from roadmap.network.mixers import network_code
from roadmap.recipe import OPTIMIZERS, Experiment
from roadmap.serialization.plain_data import added_in, from_data, hashed_fields, to_data
from roadmap.tasks.registry import CLASSIFICATION
from roadmap.tasks.transfer import Transfer
from roadmap.text import suggest

FORMAT = 2  # of manifests; roadmap/record/upgrade.py reads earlier ones
NOT_HASHED = ("regime", "rung", "experiment")  # not hashed as stored; the experiment is hashed in its canonical form
WRITTEN = "run-"  # before an identity in tables: 19070e908203 alone is a number to spreadsheets and pandas, infinity
ENDING_BYTES = 24  # for seed and identity after the rung, in the name of a folder
HASH_VERSION = 2  # a new version makes all existing runs different from new ones


@dataclass(frozen=True)
class Run:
    """One training: a rung of a regime on a data set, with one seed."""

    regime: str
    rung: str
    experiment: Experiment
    data: str  # the data set's name
    dataset: Dataset
    seed: int
    fidelity: str
    mixers: dict[str, str] = field(default_factory=dict)  # custom code that decides the result: hash by name
    transfer: Transfer | None = field(default=None, metadata=added_in("0.2"))  # None: a classifier trained from scratch

    @cached_property
    def identity(self) -> str:
        """A hash of everything that decides the result, including defaults.

        Fields that were added later (`added_in`) count only if they do not have their default. The position of the rung
        in a study, paths, hosts, devices and worker counts are not included.
        """
        values = {name: getattr(self, name) for name in hashed_fields(self) if name not in NOT_HASHED}
        values["data"] = self.dataset.content or self.data  # a folder is identified by its content, not its name
        values["dataset"] = replace(self.dataset, recipe={})  # its changes are in the recipe of the experiment
        experiment = canonical(self.experiment)
        return digest({"format": HASH_VERSION, "experiment": experiment, **to_data(values, hashed=True)})

    @property
    def written_identity(self) -> str:
        """The identity as tables show it, which nothing reads as a number; `find_run` takes it too."""
        return written_identity(self.identity)

    @property
    def experiment_identity(self) -> str:
        """As tables show it: the identity of the run with seed 0, the same for all seeds."""
        transfer = self.transfer and self.transfer.of_any_seed
        return replace(self, seed=0, transfer=transfer).written_identity

    @property
    def recipe_identity(self) -> str:
        """A hash of recipe, data and fidelity: the same for all networks and seeds of a study."""
        recipe = canonical(self.experiment)["recipe"]
        return f"recipe-{digest([self.dataset.content or self.data, to_data(self.dataset), self.fidelity, recipe])}"

    @property
    def task(self) -> str:
        """The name of its task."""
        return self.transfer.task if self.transfer else CLASSIFICATION

    @property
    def kind(self) -> Kind:
        """The kind of its data set."""
        return kind_of(self.data, self.dataset)

    @property
    def crops_by_batch(self) -> bool:
        """Whether whole batches are cropped and mirrored: small images in memory, without other augmentation."""
        recipe = self.experiment.recipe
        if self.dataset.annotations != "classes":
            return True  # augmented by torchvision in one way only, so `execution.augment` changes nothing
        return self.kind == "memory" and recipe.crop == "padded" and recipe.randaugment is None

    @property
    def label(self) -> str:
        """The rung, and what a transfer does with it."""
        return f"{self.rung}-{self.transfer.label}" if self.transfer else self.rung

    @property
    def name(self) -> str:
        return f"{self.regime}/{self.label}-s{self.seed}"

    def folder(self, out: Path, existing: Mapping[str, Path] | None = None) -> Path:
        """The folder of this run below `out`: one with its identity, of any rung, else a new one.

        `existing` are the folders by identity. Give them to avoid a listing for each of many runs.
        """
        folder = (folders_below(out) if existing is None else existing).get(self.identity)
        ending = f"-s{self.seed}-{self.identity}"
        return folder or out / fitting_name(self.regime) / f"{fitting_name(self.label, ENDING_BYTES)}{ending}"


def custom_code(experiment: Experiment, data: str) -> dict[str, str]:
    """The custom code that decides the result of a run: the hash of each file by name. Other code makes another run.

    `data` is the name of the data set; image folders have no code. Raises ValueError for a mixer, a
    model or an optimizer that is not registered.
    """
    code = network_code(experiment.design)
    optimizer = OPTIMIZERS.find(experiment.recipe.optimizer)
    code |= {f"optimizer/{optimizer.name}": optimizer.code} if optimizer.code else {}
    dataset = DATASETS.get(data)
    return code | ({f"data/{data}": dataset.code} if dataset and dataset.code else {})


def canonical(experiment: Experiment) -> dict[str, Any]:
    """An experiment as plain data, equal for equivalent experiments. Don't change it: it is cached.

    Fields that were added later (`added_in`) are left out if they have their defaults.
    """
    if isinstance(experiment.design, Design):
        return _canonical(experiment)
    return _canonical.__wrapped__(experiment)  # not cached: in arguments 0, 0.0 and false are equal but differ


@lru_cache(maxsize=4096)  # many runs differ only in their seed
def _canonical(experiment: Experiment) -> dict[str, Any]:
    design = experiment.design
    plain = replace(experiment, design=simplest(design) if isinstance(design, Design) else design)
    # Through the types, so that a width of 1 and one of 1.0 are the same.
    canonical: dict[str, Any] = to_data(from_data(Experiment, to_data(plain)), hashed=True)
    return canonical


def written_identity(identity: str) -> str:
    """An identity as tables show it."""
    return f"{WRITTEN}{identity}"


def folders_below(out: Path) -> dict[str, Path]:
    """Every folder with the name of a run, by the identity in its name."""
    return {path.name.rpartition("-")[2]: path for path in sorted(out.glob("*/*-s*-*"), reverse=True)}


def find_run(written: str | Path, out: Path) -> Path:
    """The folder of one run, given as a path, or below `out` by rung, rung-sSEED, identity or name of the folder.

    Raises ValueError if there is no such run, or several.
    """
    if os.path.isfile(Path(written) / "manifest.json"):  # False also for the name of a rung that is too long for a path
        return Path(written)
    named: dict[str, list[Path]] = {}
    for folder in sorted(folders_below(out).values()):
        short, _, identity = folder.name.rpartition("-")
        names = (identity, written_identity(identity), short, short.rpartition("-s")[0], folder.name)
        for name in dict.fromkeys(names):
            named.setdefault(name, []).append(folder)
    rung, dash, seed = str(written).rpartition("-s")  # the folder of a rung with a long name has a shorter one
    shortened = fitting_name(str(written), ENDING_BYTES), f"{fitting_name(rung, ENDING_BYTES)}{dash}{seed}"
    folders = next((named[name] for name in (str(written), *shortened) if name in named), [])
    if not folders:
        valid = suggest([name for name in named if "-s" in name], written) if named else "the folder has no runs"
        raise ValueError(f"{out}: no run is called {str(written)!r}; {valid}")
    if len(folders) > 1:
        shown = ", ".join(map(str, folders[:5]))
        raise ValueError(f"{str(written)!r} names {len(folders)} runs: {shown}; give one folder")
    return folders[0]
