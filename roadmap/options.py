"""What a command or a call asks of the study, as it is written, and the part of the study that this selects.

`StudyOptions` are the options that most verbs and functions of `roadmap.api` share. `Selection.of` resolves them.
"""

from __future__ import annotations

import json
import os
from collections.abc import Collection, Mapping, Sequence
from dataclasses import dataclass, fields, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal, TypedDict

from roadmap.data.dataset import Dataset
from roadmap.data.datasets import DATASETS
from roadmap.network.cost import Cost, cost
from roadmap.plugins import load_file
from roadmap.recipe import OPTIMIZERS, Experiment
from roadmap.record.run import Run, own_code
from roadmap.serialization import changed, from_data, parse_value, suggest, to_data
from roadmap.study.ablations import specs_of
from roadmap.study.cluster import Cluster
from roadmap.study.execution import Execution
from roadmap.study.grammar import StepSpec, parse_steps
from roadmap.study.load import load_study
from roadmap.study.references import is_reference, reference, references
from roadmap.study.rungs import Rung, StudyContext
from roadmap.study.schema import Study
from roadmap.study.selection import find_rung, select

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from roadmap.record.metrics import Metric


class StudyKeywords(TypedDict, total=False):
    """The fields of StudyOptions, as keywords of the functions of `roadmap.api`."""

    regime: str | None
    fidelity: str | None
    data: str | None
    settings: Sequence[str] | Mapping[str, object]
    steps: str
    ablation: str
    references: str | None
    base: str | None
    plugins: Sequence[Path | str]
    on: Literal["local", "slurm"]
    cluster: str | None


@dataclass(frozen=True)
class StudyOptions:
    """As written on the command line or in a call; None where the study's default holds."""

    regime: str | None = None
    fidelity: str | None = None  # paper, authors or released
    data: str | None = None  # a data set's name, an image folder's path, or NAME=PATH
    settings: tuple[str, ...] = ()  # --set: KEY=VALUE of experiments, the execution or the cluster
    steps: str = "all"  # in the grammar of roadmap/study/grammar.py
    ablation: str = "cumulative"
    references: str | None = None  # names with commas, or "all"
    base: str | None = None  # steps that every rung has, the start too
    plugins: tuple[Path, ...] = ()
    on: Literal["local", "slurm"] = "local"
    cluster: str | None = None  # a profile of the study; None: the regime's

    @staticmethod
    def of(keywords: StudyKeywords) -> StudyOptions:
        """Of a call's keywords; `settings` may be a mapping there, {"recipe.epochs": 30}."""
        settings = keywords.get("settings", ())
        if isinstance(settings, Mapping):
            settings = [f"{key}={_written(value)}" for key, value in settings.items()]
        converted = {"settings": tuple(settings), "plugins": tuple(map(Path, keywords.get("plugins", ())))}
        given: dict[str, Any] = {**keywords, **converted}
        return StudyOptions(**given)

    def study(self) -> Study:
        """The study, with the plugins loaded that it may name steps of."""
        for plugin in self.plugins:
            load_file(plugin)
        return load_study()

    def metric(self, name: str) -> Metric:
        """As --metric names it, also of these plugins. Raises ValueError for an unknown one."""
        self.study()
        from roadmap.record.metrics import find_metric  # here, as what answers at once does without

        return find_metric(name)

    def out(self, out: Path | str | None) -> Path:
        """The folder of the runs: as given, else the study's. Raises ValueError for a file in its place."""
        folder = Path(out) if out is not None else Path(self.study().defaults.out)
        if folder.exists() and not folder.is_dir():
            raise ValueError(f"--out {folder} is a file; a folder is expected, or a name that nothing has yet")
        return folder


def reject_unused(names: Collection[str], reason: str, *options: DataclassInstance) -> None:
    """Raises ValueError, "--x requires --kind tradeoff", for a field of these options that is not at its default."""
    for part in options:
        for option in fields(part):
            if option.name in names and getattr(part, option.name) != option.default:
                raise ValueError(f"--{_FLAGS.get(option.name, option.name)} {reason}")


_FLAGS = {"settings": "set", "plugins": "plugin"}  # of fields that are called otherwise on the command line


def _written(value: object) -> str:
    """A value as --set takes it."""
    return value if isinstance(value, str) else json.dumps(to_data(value))


@dataclass(frozen=True)
class Selection:
    """The part of the study that options select."""

    context: StudyContext
    steps: str
    ablation: str
    settings: tuple[str, ...]  # --set, of the experiments
    execution: Execution
    profile: str | None = None  # of the cluster that jobs are submitted to; None: runs are trained here
    cluster: Cluster | None = None
    base: str | None = None  # as it is written
    references: str | None = None  # that stand behind the rungs, as they are written

    @staticmethod
    def of(options: StudyOptions) -> Selection:
        """Raises ValueError for a name that the study does not know, and for settings that fit nothing."""
        study, data, path = _with_data(options.study(), options.data)
        regime, fidelity = options.regime or study.defaults.regime, options.fidelity or study.defaults.fidelity
        context = StudyContext.of(regime, fidelity, data, study)
        if options.base is not None:
            context = replace(context, base=_base_steps(context, options.base))
        execution_settings, cluster_settings, settings = _sorted(options.settings)
        profile, cluster = _cluster(options, study, regime, cluster_settings)
        execution = (
            changed(study.execution, cluster.execution, f"clusters.{profile}.execution") if cluster else study.execution
        )
        execution = replace(execution, data_path=path) if path else execution
        if any(setting.startswith("execution.data_path") for setting in execution_settings):
            raise ValueError("--set execution.data_path is --data NAME=PATH, which also says what the data is")
        execution = with_settings(dict[str, Execution], {"execution": execution}, execution_settings)["execution"]
        return Selection(
            context,
            options.steps,
            options.ablation,
            settings,
            execution,
            profile,
            cluster,
            options.base,
            options.references,
        )

    @property
    def study(self) -> Study:
        return self.context.study

    @property
    def regime(self) -> str:
        return self.context.regime

    @property
    def dataset(self) -> Dataset:
        return self.study.dataset(self.context.data)

    def rungs(self) -> tuple[Rung, ...]:
        """The selected rungs, then the references. Raises ValueError for a setting that none of them uses."""
        chosen = select(self.context, self.steps, self.ablation)
        beside = () if self.references is None else references(replace(self.context, base=()), self.references)
        rungs = tuple(map(self._set, (*chosen, *beside)))
        for setting in self.settings:
            section, _, name = setting.partition("=")[0].partition(".")
            if section == "recipe" and all(name in rung.experiment.idle for rung in rungs):
                raise ValueError(f"--set {setting}: {name} has no say in the recipe of any of these rungs")
        return rungs

    @property
    def label(self) -> str:
        """What differs from the regime as it stands in the study: for titles and names of files."""
        data = self.context.data
        return ", ".join([*([data] if data != self.study.regime(self.regime).data else []), *self.differences])

    @property
    def differences(self) -> list[str]:
        """But for the data."""
        context = self.context
        parts = [context.fidelity] if context.fidelity != self.study.defaults.fidelity else []
        parts += [f"on {self.base}"] if self.base else []
        parts += [self.ablation] if self.ablation != "cumulative" else []
        return [*parts, *self.settings]

    @property
    def title(self) -> str:
        """What study it is."""
        return ", ".join([f"{self.study.regime(self.regime).title} on {self.context.data}", *self.differences])

    def rung(self, name: str) -> Rung:
        """Any rung, or reference, by its name. Raises ValueError with the valid ones."""
        found = reference if is_reference(self.study, name) else find_rung
        return self._set(found(self.context, name))

    def _set(self, rung: Rung) -> Rung:
        experiment = with_settings(Experiment, rung.experiment, self.settings)
        OPTIMIZERS.find(experiment.recipe.optimizer)  # here, since a manifest is read without the plug-in too
        return replace(rung, experiment=experiment)

    def cost(self, rung: Rung) -> Cost:
        """Of one image at the recipe's size, for the classes of the selected data."""
        return cost(rung.experiment.design, rung.experiment.recipe.image_size, self.dataset.classes)

    def run(self, rung: Rung, seed: int = 0) -> Run:
        context, dataset = self.context, self.dataset
        code = own_code(rung.experiment, context.data)
        return Run(context.regime, rung.name, rung.experiment, context.data, dataset, seed, context.fidelity, code)


def _base_steps(context: StudyContext, written: str) -> tuple[StepSpec, ...]:
    """Steps as `--steps` takes them. Raises ValueError for a name that is none."""
    try:
        return tuple(specs_of(context, parse_steps(written, context.names)))
    except ValueError as error:
        raise ValueError(f"--base {written}: {error}") from None


def _sorted(settings: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """Those of the execution, of the cluster, and of the experiment."""
    sections = [setting.partition(".")[0] for setting in settings]
    kinds = [section if section in ("execution", "cluster") else "experiment" for section in sections]
    return tuple(
        tuple(setting for setting, found in zip(settings, kinds, strict=True) if found == kind)
        for kind in ("execution", "cluster", "experiment")
    )


def _cluster(
    options: StudyOptions, study: Study, regime: str, settings: Sequence[str]
) -> tuple[str | None, Cluster | None]:
    """The profile that jobs are submitted by, with its name; none where runs are trained here."""
    if options.on == "local":
        if settings:
            raise ValueError(f"--set {settings[0]} requires --on slurm")
        return None, None
    profile = options.cluster or study.regime(regime).cluster
    return profile, with_settings(dict[str, Cluster], {"cluster": study.cluster(profile)}, settings)["cluster"]


def _with_data(study: Study, written: str | None) -> tuple[Study, str | None, str | None]:
    """The study with the data set that `--data` means, its name, and its path where one is given."""
    if written is None or written in study.datasets:
        return study, written, None
    from roadmap.data.image_folders import describe_folder, named_path

    name, path = named_path(written)
    if name is None and os.sep not in written and study.has_dataset(written):  # of an installed package
        return study, written, None
    if name is None:
        name = Path(written).resolve().name
        if os.sep not in written and not Path(written).is_dir():
            if written in DATASETS:
                hint = f"a roadmap.Dataset in its decorator, or data.{written} in ablations.yaml"
                raise ValueError(f"--data {written}: the data set lacks a description: {hint}")
            valid = suggest(study.datasets, written)
            raise ValueError(f"--data {written}: no such folder, nor a data set of that name; {valid}")
        if name in study.datasets:
            raise ValueError(f"--data {written}: {name}={path} is the data set of that name; call a folder otherwise")
    elif study.has_dataset(name):
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
