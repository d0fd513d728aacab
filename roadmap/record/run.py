"""A run, and its identity: a hash over everything that decides its result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any

from roadmap.data.dataset import Dataset
from roadmap.data.datasets import DATASETS, Kind, kind_of
from roadmap.design import Design, simplest
from roadmap.files import digest
from roadmap.network.mixers import network_code
from roadmap.recipe import OPTIMIZERS, Experiment
from roadmap.serialization import from_data, hashed_fields, suggest, to_data

FORMAT = 2  # of manifests; roadmap/record/upgrade.py reads earlier ones
NOT_HASHED = ("regime", "rung", "experiment")  # as they are; the experiment is in its canonical form
HASH_VERSION = 2  # raised only where runs from before count as other runs than those made now


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
    mixers: dict[str, str] = field(default_factory=dict)  # users' own code that decides the result, with hashes

    @cached_property
    def identity(self) -> str:
        """A hash over everything that decides the result, every default written out but those of fields
        that were added since (`added_in`).

        Where the rung stands in a study, paths, hosts, devices and worker counts are no part of it.
        """
        values = {name: getattr(self, name) for name in hashed_fields(self) if name not in NOT_HASHED}
        values["data"] = self.dataset.content or self.data  # a folder is what it holds, whatever it is called
        values["dataset"] = replace(self.dataset, recipe={})  # whose changes are in the experiment's recipe by now
        experiment = canonical(self.experiment)
        return digest({"format": HASH_VERSION, "experiment": experiment, **to_data(values, hashed=True)})

    @property
    def kind(self) -> Kind:
        """Of its data set."""
        return kind_of(self.data, self.dataset)

    @property
    def crops_by_batch(self) -> bool:
        """Whether images are cropped and mirrored a batch at a time: small ones in memory, with no more to be done."""
        recipe = self.experiment.recipe
        return self.kind == "memory" and recipe.crop == "padded" and recipe.randaugment is None

    @property
    def name(self) -> str:
        return f"{self.regime}/{self.rung}-s{self.seed}"

    def folder(self, out: Path, existing: Mapping[str, Path] | None = None) -> Path:
        """The folder of this run below `out`: the one that has its identity, under whatever rung, else a new one.

        `existing` are the folders there are, by identity, for who asks for many.
        """
        found = (folders_below(out) if existing is None else existing).get(self.identity)
        return found or out / f"{self.name}-{self.identity}"


def custom_code(experiment: Experiment, data: str) -> dict[str, str]:
    """Users' own code that decides a run's result, by name, with the hash of each one's file: another code is another
    run. `data` is the data set's name; that of a folder of images names no code.

    Raises ValueError for a mixer, a model or an optimizer that is not registered.
    """
    code = network_code(experiment.design)
    optimizer = OPTIMIZERS.find(experiment.recipe.optimizer)
    code |= {f"optimizer/{optimizer.name}": optimizer.code} if optimizer.code else {}
    dataset = DATASETS.get(data)
    return code | ({f"data/{data}": dataset.code} if dataset and dataset.code else {})


def canonical(experiment: Experiment) -> dict[str, Any]:
    """An experiment as plain data, the same for all that mean the same. Not to be changed: it is kept.

    Without the fields that were added later (`added_in`) where they have their defaults.
    """
    if isinstance(experiment.design, Design):
        return _canonical(experiment)
    return _canonical.__wrapped__(experiment)  # among a model's arguments 0, 0.0 and false are equal, and not the same


@lru_cache(maxsize=4096)  # many runs differ in their seed alone
def _canonical(experiment: Experiment) -> dict[str, Any]:
    design = experiment.design
    plain = replace(experiment, design=simplest(design) if isinstance(design, Design) else design)
    # Through the types, so that a width of 1 and of 1.0 are one.
    canonical: dict[str, Any] = to_data(from_data(Experiment, to_data(plain)), hashed=True)
    return canonical


def folders_below(out: Path) -> dict[str, Path]:
    """Every folder that is named as a run's, by the identity in its name."""
    return {path.name.rpartition("-")[2]: path for path in sorted(out.glob("*/*-s*-*"), reverse=True)}


def find_run(written: str | Path, out: Path) -> Path:
    """The folder of one run: given as such, or named below `out` by its rung, rung-sSEED, identity or folder's name.

    Raises ValueError where there is no such run, or several.
    """
    if (Path(written) / "manifest.json").is_file():
        return Path(written)
    named: dict[str, list[Path]] = {}
    for folder in sorted(folders_below(out).values()):
        short, _, identity = folder.name.rpartition("-")
        for name in dict.fromkeys((identity, short, short.rpartition("-s")[0], folder.name)):
            named.setdefault(name, []).append(folder)
    folders = named.get(str(written), [])
    if not folders:
        known = suggest([name for name in named if "-s" in name], written) if named else "there is none"
        raise ValueError(f"{out}: no run is called {str(written)!r}; {known}")
    if len(folders) > 1:
        shown = ", ".join(map(str, folders[:5]))
        raise ValueError(f"{str(written)!r} are {len(folders)} runs: {shown}; a folder names one")
    return folders[0]
