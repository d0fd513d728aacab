"""The options of a command or call that select a part of the study, and the selected part.

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
from roadmap.files import file_on_the_way
from roadmap.network.cost import Cost, cost
from roadmap.plugins import load_file
from roadmap.recipe import OPTIMIZERS, Experiment
from roadmap.record.run import Run, custom_code
from roadmap.serialization.arguments import argument
from roadmap.serialization.plain_data import changed, from_data, to_data, user_path
from roadmap.serialization.ranges import field_types
from roadmap.serialization.yaml_text import parse_value
from roadmap.study.ablations import specs_of
from roadmap.study.cluster import Cluster
from roadmap.study.execution import Execution
from roadmap.study.grammar import StepSpec, parse_steps
from roadmap.study.load import load_study
from roadmap.study.references import is_reference, reference, references
from roadmap.study.rungs import Rung, StudyContext
from roadmap.study.schema import Study
from roadmap.study.selection import find_rung, select
from roadmap.text import suggest

if TYPE_CHECKING:
    from _typeshed import DataclassInstance

    from roadmap.record.metrics import Metric


class StudyKeywords(TypedDict, total=False):
    """The fields of StudyOptions, as keywords of the functions of `roadmap.api`."""

    regime: str | None
    fidelity: str | None
    data: Path | str | None
    settings: Sequence[str] | Mapping[str, object]
    steps: str | Sequence[str]
    ablation: str
    references: str | Sequence[str] | None
    base: str | None
    space: str
    samples: int
    sample_seed: int
    plugins: Sequence[Path | str]
    on: Literal["local", "slurm"]
    cluster: str | None
    training_recipe: str | None


@dataclass(frozen=True)
class StudyOptions:
    """Options as on the command line or in a call. None: the default of the study."""

    regime: str | None = None
    fidelity: str | None = None  # paper, authors or released
    data: str | None = None  # a data set's name, an image folder's path, or NAME=PATH
    settings: tuple[str, ...] = ()  # --set: KEY=VALUE of experiments, the execution or the cluster
    steps: str = "all"  # in the grammar of roadmap/study/grammar.py
    ablation: str = "cumulative"
    references: str | None = None  # comma-separated names, or "all"
    base: str | None = None  # steps that every rung has, including the start
    plugins: tuple[Path, ...] = ()
    on: Literal["local", "slurm"] = "local"
    cluster: str | None = None  # a profile of the study; None: the regime's
    training_recipe: str | None = None  # that the step `recipe` applies; None: the ladder's

    @staticmethod
    def of(keywords: StudyKeywords) -> StudyOptions:
        """From the keywords of a call. `settings` may be a mapping there: {"recipe.epochs": 30}.

        Raises ValueError for a value of another type, and for one that is not a choice.
        """
        kinds = field_types(StudyKeywords)
        given = {name: argument(kinds[name], value, name) for name, value in keywords.items()}
        if isinstance(settings := given.get("settings"), Mapping):
            given["settings"] = tuple(Setting.of(key, value) for key, value in settings.items())
        if given.get("steps") == ():
            raise ValueError("steps must name at least one rung (got none)")
        for name in {"steps", "references"} & given.keys():
            given[name] = ",".join(given[name]) if isinstance(given[name], tuple) else given[name]
        given |= _ablation_of_space(given)
        given |= {"data": str(given["data"])} if given.get("data") is not None else {}
        given |= {"plugins": tuple(map(user_path, given.get("plugins", ())))}
        return StudyOptions(**{name: value for name, value in given.items() if name not in OF_SPACES})

    def study(self) -> Study:
        """The study. Loads the plug-ins first, because the study may use their steps."""
        for plugin in self.plugins:
            load_file(plugin)
        return load_study()

    def metric(self, name: str) -> Metric:
        """A metric by its name for --metric, also of these plug-ins. Raises ValueError for an unknown name."""
        self.study()
        from roadmap.record.metrics import find_metric  # imported late to keep `roadmap list` fast

        return find_metric(name)

    def out(self, out: Path | str | None) -> Path:
        """The folder of the runs; by default that of the study. Raises ValueError if it is a file."""
        folder = self.study().defaults.out if out is None else user_path(out)
        if file := file_on_the_way(folder):
            within = "" if file == folder else f", in which {folder} can't be"
            raise ValueError(f"--out must be a folder, or a path that does not exist (got the file {file}{within})")
        return folder


OF_SPACES = ("space", "samples", "sample_seed")  # keywords that become the ablation `space:NAME:COUNT:SEED`


def _ablation_of_space(given: Mapping[str, Any]) -> dict[str, str]:
    """Raises ValueError for a part without the space."""
    space, samples, seed = (given.get(name) for name in OF_SPACES)
    if space is None:
        if samples is not None or seed is not None:
            raise ValueError(f"--{'samples' if samples is not None else 'sample-seed'} requires --space NAME")
        return {}
    if given.get("ablation", "cumulative") != "cumulative" or given.get("steps", "all") != "all":
        raise ValueError("--space chooses the rungs; it does not go with --steps and --ablation")
    if given.get("base") is not None:
        raise ValueError("--space begins with its own rung; it does not go with --base")
    return {"ablation": f"space:{space}:{20 if samples is None else samples}" + (f":{seed}" if seed else "")}


def reject_unused(names: Collection[str], reason: str, *options: DataclassInstance) -> None:
    """Raises ValueError, "--x requires --kind tradeoff", for a field in `names` that does not have its default."""
    for part in options:
        for option in fields(part):
            if option.name in names and getattr(part, option.name) != option.default:
                raise ValueError(f"--{_FLAGS.get(option.name, option.name)} {reason}")


_FLAGS = {"settings": "set", "plugins": "plugin"}  # of fields with another name on the command line


class Setting(str):
    """KEY=VALUE as on the command line, of a value in Python. So "2024" remains text."""

    value: Any  # plain data

    @staticmethod
    def of(key: str, value: object) -> Setting:
        """Raises ValueError for a value that is not plain data."""
        plain: Any = str(value) if isinstance(value, Path) else to_data(value)
        try:
            plain = plain.item() if hasattr(plain, "dtype") else plain  # a number of NumPy
            text = plain if isinstance(plain, str) else json.dumps(plain)
        except (TypeError, ValueError):
            raise ValueError(f"settings: {key} must be a number, text, list, mapping or None (got {value!r})") from None
        setting = Setting(f"{key}={text}")
        setting.value = plain
        return setting


@dataclass(frozen=True)
class Selection:
    """The part of the study that options select."""

    context: StudyContext
    steps: str
    ablation: str
    settings: tuple[str, ...]  # of --set, for experiments
    execution: Execution
    profile: str | None = None  # name of the cluster profile; None: runs are trained on this machine
    cluster: Cluster | None = None
    base: str | None = None  # as given
    references: str | None = None  # added after the rungs, as given
    training_recipe: str | None = None  # as given

    @staticmethod
    def of(options: StudyOptions) -> Selection:
        """Raises ValueError for an unknown name, and for settings with an unknown key or an invalid value."""
        study, data, path = _with_data(_with_recipe(options.study(), options.training_recipe), options.data)
        regime = study.defaults.regime if options.regime is None else options.regime
        fidelity = study.defaults.fidelity if options.fidelity is None else options.fidelity
        context = StudyContext.of(regime, fidelity, data, study)
        if options.base is not None:
            context = replace(context, base=_base_steps(context, options.base))
        execution_settings, cluster_settings, settings = _split_settings(options.settings)
        context = replace(context, image_size=_image_size(context, settings))
        profile, cluster = _cluster(options, study, regime, cluster_settings)
        execution = (
            changed(study.execution, cluster.execution, f"clusters.{profile}.execution") if cluster else study.execution
        )
        execution = replace(execution, data_path=path) if path else execution
        if any(setting.startswith("execution.data_path") for setting in execution_settings):
            raise ValueError("execution.data_path can't be set; give --data NAME=PATH, which also names the data set")
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
            options.training_recipe,
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

    @property
    def is_space(self) -> bool:
        """Whether the rungs are designs that are drawn from a space."""
        return self.ablation.startswith("space:")

    @property
    def seeds(self) -> int:
        """The default number of runs of each rung: the study's; one of a design of a space, where designs are many."""
        return 1 if self.is_space else self.study.defaults.seeds

    def rungs(self) -> tuple[Rung, ...]:
        """The selected rungs, then the references. Raises ValueError for a setting that none of them uses."""
        selected = select(self.context, self.steps, self.ablation)
        systems = () if self.references is None else references(replace(self.context, base=()), self.references)
        rungs = tuple(map(self.with_settings, (*selected, *systems)))
        for setting in self.settings:
            section, _, name = setting.partition("=")[0].partition(".")
            if section == "recipe" and all(name in rung.experiment.unused_fields for rung in rungs):
                raise ValueError(f"--set {setting}: no selected rung uses {name}")
        return rungs

    @property
    def label(self) -> str:
        """The differences from the regime of the study, for titles and names of files."""
        data = self.context.data
        return ", ".join([*([data] if data != self.study.regime(self.regime).data else []), *self.differences])

    @property
    def differences(self) -> list[str]:
        """The differences from the regime of the study, except for the data."""
        context = self.context
        parts = [context.fidelity] if context.fidelity != self.study.defaults.fidelity else []
        parts += [f"on {self.base}"] if self.base else []
        parts += [self.ablation] if self.ablation != "cumulative" else []
        parts += [self.training_recipe] if self.training_recipe else []
        return [*parts, *self.settings]

    @property
    def title(self) -> str:
        """The title of the selection, with the differences from the regime."""
        return ", ".join([f"{self.study.regime(self.regime).title} on {self.context.data}", *self.differences])

    def rung(self, name: str) -> Rung:
        """Any rung or reference by its name. Raises ValueError with the valid names."""
        find = reference if is_reference(self.study, name) else find_rung
        return self.with_settings(find(self.context, name))

    def with_settings(self, rung: Rung) -> Rung:
        """The rung with the changes of --set."""
        experiment = with_settings(Experiment, rung.experiment, self.settings)
        OPTIMIZERS.find(experiment.recipe.optimizer)  # not in Recipe: manifests are read without plug-ins
        return replace(rung, experiment=experiment)

    def cost(self, rung: Rung) -> Cost:
        """The cost of one image of the recipe's size, for the classes of the selected data."""
        return cost(rung.experiment.design, rung.experiment.recipe.image_size, self.dataset.classes)

    def run(self, rung: Rung, seed: int = 0) -> Run:
        context, dataset = self.context, self.dataset
        code = custom_code(rung.experiment, context.data)
        return Run(context.regime, rung.name, rung.experiment, context.data, dataset, seed, context.fidelity, code)


def _image_size(context: StudyContext, settings: Sequence[str]) -> int | None:
    """What the settings make of the size of images; None without such a setting."""
    of_size = [setting for setting in settings if setting.startswith("recipe.image_size")]
    if not of_size:
        return None
    start = replace(context, base=()).start.experiment
    size: int = with_settings(Experiment, start, of_size).recipe.image_size
    return size


def _base_steps(context: StudyContext, written: str) -> tuple[StepSpec, ...]:
    """The steps of --base, in the grammar of --steps. Raises ValueError for an unknown name."""
    try:
        return tuple(specs_of(context, parse_steps(written, context.names)))
    except ValueError as error:
        raise ValueError(f"--base {written}: {error}") from None


def _split_settings(settings: Sequence[str]) -> tuple[tuple[str, ...], ...]:
    """The settings of the execution, of the cluster, and of the experiment."""
    sections = [setting.partition(".")[0] for setting in settings]
    kinds = [section if section in ("execution", "cluster") else "experiment" for section in sections]
    return tuple(
        tuple(setting for setting, other in zip(settings, kinds, strict=True) if other == kind)
        for kind in ("execution", "cluster", "experiment")
    )


def _cluster(
    options: StudyOptions, study: Study, regime: str, settings: Sequence[str]
) -> tuple[str | None, Cluster | None]:
    """The name and the profile of the cluster; None and None if runs are trained on this machine."""
    if options.on == "local":
        if settings:
            raise ValueError(f"--set {settings[0]} requires --on slurm")
        if options.cluster is not None:
            raise ValueError("--cluster requires --on slurm")
        return None, None
    profile = study.regime(regime).cluster if options.cluster is None else options.cluster
    return profile, with_settings(dict[str, Cluster], {"cluster": study.cluster(profile)}, settings)["cluster"]


def _with_recipe(study: Study, name: str | None) -> Study:
    """The study with another recipe for the step `recipe`. Raises ValueError for an unknown name."""
    if name is None:
        return study
    if name not in study.recipes:
        raise ValueError(f"--recipe {name}: unknown recipe; {suggest(study.recipes, name)}")
    ladder = (
        replace(entry, parameters={**entry.parameters, "to": name}) if entry.step == "recipe" else entry
        for entry in study.ladder
    )
    return replace(study, ladder=tuple(ladder))


def _with_data(study: Study, written: str | None) -> tuple[Study, str | None, Path | None]:
    """The study with the data set of `--data`, the name of the data set, and its path if one is given."""
    if written is None or written in study.datasets:
        return study, written, None
    from roadmap.data.annotated_folders import describe_now
    from roadmap.data.image_folders import named_path

    name, path = named_path(written)
    if name is None and os.sep not in written and study.has_dataset(written):  # from an installed package
        return study, written, None
    if name is None:
        name = Path(path).resolve().name
        if os.sep not in written and not Path(path).is_dir():
            if written in DATASETS:
                hint = f"a roadmap.Dataset in its decorator, or data.{written} in ablations.yaml"
                raise ValueError(f"--data {written}: the data set lacks a description: {hint}")
            valid = suggest(study.datasets, written)
            raise ValueError(f"--data {written}: no such folder, and no data set of that name; {valid}")
        if name in study.datasets:
            raise ValueError(f"--data {written}: {name}={path} is the data set of that name; rename another folder")
    elif study.has_dataset(name):
        return study, name, path
    try:
        dataset = describe_now(path)
    except ValueError as error:
        raise ValueError(f"--data {error}") from None
    return replace(study, data={**study.data, name: dataset}), name, path


def with_settings(kind: Any, value: Any, settings: Sequence[str]) -> Any:
    """A value of type `kind` with fields set by key path, `recipe.epochs=30`.

    Raises ValueError for an unknown key or an invalid value.
    """
    if not settings:
        return value
    data = to_data(value)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set must be KEY=VALUE, such as recipe.epochs=30 (got {setting})")
        *parents, last = path.split(".")
        section = data
        for key in parents:
            section = _value_at(section, key, setting)
        _value_at(section, last, setting)
        section[last] = setting.value if isinstance(setting, Setting) else parse_value(text, f"--set {setting}")
    try:
        return from_data(kind, data)
    except ValueError as error:
        raise ValueError(f"--set: {error}") from None


def _value_at(section: Any, key: str, setting: str) -> Any:
    if not isinstance(section, dict) or key not in section:
        valid = suggest(section, key) if isinstance(section, dict) and section else "its parent has no keys"
        raise ValueError(f"--set {setting}: unknown key {key!r}; {valid}")
    return section[key]
