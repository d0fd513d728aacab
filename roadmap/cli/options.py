"""Options that several verbs share, and what they choose."""

from __future__ import annotations

import argparse
import os
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from roadmap.data.dataset import Dataset
from roadmap.network.mixers import own_code
from roadmap.plugins import load_file
from roadmap.recipe import Experiment
from roadmap.record.run import Run
from roadmap.serialization import changed, from_data, parse_value, suggest, to_data
from roadmap.study.ablations import chosen_moves
from roadmap.study.cluster import Cluster
from roadmap.study.execution import Execution
from roadmap.study.load import load_study
from roadmap.study.references import is_reference, reference, references
from roadmap.study.rungs import Rung, StudyContext
from roadmap.study.schema import Study
from roadmap.study.selection import find_rung, ladder


@dataclass(frozen=True)
class Selection:
    """What the shared options chose of the study."""

    place: StudyContext
    ablation: str
    settings: tuple[str, ...]  # --set, of the experiment
    execution: Execution
    profile: str | None = None  # of the cluster that jobs are submitted to; None: runs are trained here
    cluster: Cluster | None = None
    base: str | None = None  # as it is written
    references: str | None = None  # that stand behind the rungs, as they are written

    @property
    def study(self) -> Study:
        return self.place.study

    @property
    def regime(self) -> str:
        return self.place.regime

    @property
    def dataset(self) -> Dataset:
        return self.study.dataset(self.place.data)

    def rungs(self, steps: str = "all") -> tuple[Rung, ...]:
        regime, fidelity, data = self.place.regime, self.place.fidelity, self.place.data
        how: dict[str, Any] = {"ablation": self.ablation, "data": data, "study": self.study, "base": self.place.base}
        chosen = ladder(regime, steps, fidelity, **how)
        beside = () if self.references is None else references(replace(self.place, base=()), self.references)
        rungs = tuple(map(self._set, (*chosen, *beside)))
        for setting in self.settings:
            section, _, name = setting.partition("=")[0].partition(".")
            if section == "recipe" and all(name in rung.experiment.idle for rung in rungs):
                raise ValueError(f"--set {setting}: {name} has no say in the recipe of any of these rungs")
        return rungs

    @property
    def label(self) -> str:
        """What differs from the regime as it stands in the study: for titles and names of files."""
        data = self.place.data
        return ", ".join([*([data] if data != self.study.regime(self.regime).data else []), *self.differences])

    @property
    def differences(self) -> list[str]:
        """But for the data."""
        place = self.place
        parts = [place.fidelity] if place.fidelity != self.study.defaults.fidelity else []
        parts += [f"on {self.base}"] if self.base else []
        parts += [self.ablation] if self.ablation != "cumulative" else []
        return [*parts, *self.settings]

    @property
    def title(self) -> str:
        """What study it is."""
        return ", ".join([f"{self.study.regime(self.regime).title} on {self.place.data}", *self.differences])

    def rung(self, name: str) -> Rung:
        """Any rung, or reference, by its name. Raises ValueError with the valid ones."""
        found = reference if is_reference(self.study, name) else find_rung
        return self._set(found(self.place, name))

    def _set(self, rung: Rung) -> Rung:
        return replace(rung, experiment=with_settings(Experiment, rung.experiment, self.settings))

    def run(self, rung: Rung, seed: int = 0) -> Run:
        code = own_code(rung.experiment.design)
        place, dataset = self.place, self.dataset
        return Run(place.regime, rung.name, rung.experiment, place.data, dataset, seed, place.fidelity, code)


def add_study_options(parser: argparse.ArgumentParser, *, ablation: bool = False) -> None:
    """The options that choose the study's part; those of whole ladders too where the verb takes several rungs."""
    parser.add_argument("--regime", help="pico, resnet-50, resnet-200 or another of ablations.yaml")
    parser.add_argument("--fidelity", help="whose word is followed: paper (default), authors or released")
    parser.add_argument(
        "--data",
        help="a data set by name, an image folder, packed or not, by its path, or NAME=PATH (default: the "
        "regime's own data)",
    )
    add_plugins(parser)
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change every rung's experiment, such as recipe.epochs=30, or how runs are computed, such as "
        "execution.workers=4; may be repeated",
    )
    if ablation:
        parser.add_argument("--steps", default="all", help="all (default), names, or a stretch such as recipe..gelu")
        parser.add_argument(
            "--ablation",
            default="cumulative",
            help="cumulative (default: each rung on the one before), leave-one-out, add-one, orders:N or variants",
        )
        parser.add_argument(
            "--references",
            nargs="?",
            const="all",
            metavar="NAMES",
            help="systems beside the rungs, trained alike: all that the regime has, or names such as swin-t,deit-s",
        )
        parser.add_argument(
            "--base", metavar="STEPS", help="that every rung has, the start too: recipe, or recipe..kernel-size-7"
        )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugin",
        dest="plugins",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file with steps, mixers or models of your own; may be repeated",
    )


def study_of(options: argparse.Namespace) -> Study:
    """The study, with the plugins loaded that it may name steps of."""
    for plugin in options.plugins:
        load_file(plugin)
    return load_study()


def out_folder(options: argparse.Namespace, study: Study) -> Path:
    """Where what is measured goes. Raises ValueError for a file in its place."""
    out: Path = options.out or Path(study.defaults.out)
    if out.exists() and not out.is_dir():
        raise ValueError(f"--out {out} is a file; a folder is expected, or a name that nothing has yet")
    return out


def choose(options: argparse.Namespace) -> Selection:
    """The study as the options have it. Raises ValueError for a name that it does not know."""
    study, data, path = _with_data(study_of(options), options.data)
    regime, fidelity = options.regime or study.defaults.regime, options.fidelity or study.defaults.fidelity
    place = StudyContext.of(regime, fidelity, data, study)
    base = getattr(options, "base", None)
    if base is not None:
        place = replace(place, base=_base_steps(place, base))
    execution_settings, cluster_settings, settings = _sorted(options.settings)
    profile, cluster = _cluster(options, study, regime, cluster_settings)
    execution = (
        changed(study.execution, cluster.execution, f"clusters.{profile}.execution") if cluster else study.execution
    )
    execution = replace(execution, data_path=path) if path else execution
    if any(setting.startswith("execution.data_path") for setting in execution_settings):
        raise ValueError("--set execution.data_path is --data NAME=PATH, which also says what the data is")
    execution = with_settings(dict[str, Execution], {"execution": execution}, execution_settings)["execution"]
    ablation, beside = getattr(options, "ablation", "cumulative"), getattr(options, "references", None)
    return Selection(place, ablation, settings, execution, profile, cluster, base, beside)


def _base_steps(place: StudyContext, written: str) -> tuple[str, ...]:
    """Steps as `--steps` takes them. Raises ValueError for a name that is none."""
    try:
        moves = chosen_moves(place, written)
    except ValueError as error:
        raise ValueError(f"--base {written}: {error}") from None
    return tuple(move.step if move.value is None else f"{move.step}={move.value}" for move in moves)


def _sorted(settings: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Those of the execution, of the cluster, and of the experiment."""
    sections = [setting.partition(".")[0] for setting in settings]
    kinds = [section if section in ("execution", "cluster") else "experiment" for section in sections]
    return tuple(
        tuple(setting for setting, found in zip(settings, kinds, strict=True) if found == kind)
        for kind in ("execution", "cluster", "experiment")
    )


def _cluster(
    options: argparse.Namespace, study: Study, regime: str, settings: Sequence[str]
) -> tuple[str | None, Cluster | None]:
    """The profile that jobs are submitted by, with its name; none where runs are trained here."""
    if getattr(options, "on", "local") == "local":
        if settings:
            raise ValueError(f"--set {settings[0]} has no say without --on slurm")
        return None, None
    profile = options.cluster or study.regime(regime).cluster
    return profile, with_settings(dict[str, Cluster], {"cluster": study.cluster(profile)}, settings)["cluster"]


def _with_data(study: Study, written: str | None) -> tuple[Study, str | None, str | None]:
    """The study with the data set that `--data` means, its name, and its path where one is given."""
    if written is None or written in study.data:
        return study, written, None
    from roadmap.data.image_folders import describe_folder, named_path

    name, path = named_path(written)
    if name is None:
        name = Path(written).resolve().name
        if os.sep not in written and not Path(written).is_dir():
            valid = suggest(study.data, written)
            raise ValueError(f"--data {written}: no such folder, nor a data set of that name; {valid}")
        if name in study.data:
            raise ValueError(f"--data {written}: {name}={path} is the data set of that name; call a folder otherwise")
    elif name in study.data:
        return study, name, path
    try:
        dataset = describe_folder(Path(path))
    except ValueError as error:
        raise ValueError(f"--data {error}") from None
    return replace(study, data={**study.data, name: dataset}), name, path


def with_settings(kind: Any, value: Any, settings: Sequence[str]) -> Any:
    """A value of a kind with parts set by key path, `recipe.epochs=30`. Raises ValueError for a wrong key or value."""
    if not settings:
        return value
    data = to_data(value)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: KEY=VALUE is expected, such as recipe.epochs=30")
        *parents, last = path.split(".")
        place = data
        for key in parents:
            place = _inside(place, key, setting)
        _inside(place, last, setting)
        place[last] = parse_value(text, f"--set {setting}")
    try:
        return from_data(kind, data)
    except ValueError as error:
        raise ValueError(f"--set: {error}") from None


def _inside(place: Any, key: str, setting: str) -> Any:
    if not isinstance(place, dict) or key not in place:
        valid = suggest(place, key) if isinstance(place, dict) else "nothing lies below it"
        raise ValueError(f"--set {setting}: unknown key {key!r}; {valid}")
    return place[key]
