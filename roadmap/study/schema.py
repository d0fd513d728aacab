"""The content of `ablations.yaml` as dataclasses, and the values that follow for a regime, fidelity and data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Annotated, Any, TypeVar

from roadmap.data.dataset import Dataset
from roadmap.data.datasets import DATASETS
from roadmap.design import resnet
from roadmap.plugins import load_installed
from roadmap.recipe import Experiment, Recipe
from roadmap.serialization.plain_data import changed, to_data
from roadmap.serialization.ranges import Range, check_fields
from roadmap.spaces.definition import Space
from roadmap.spaces.registry import SPACES
from roadmap.steps import find_step
from roadmap.study.cluster import Cluster
from roadmap.study.execution import Execution
from roadmap.tasks.registry import TASKS
from roadmap.text import suggest

T = TypeVar("T")
SEEDS = Range(1, 10_000)  # of a study; more is probably a typing error
THROUGHPUT = Range(1, 1e21)  # multiply-adds per second of one device
Rates = Annotated[dict[str, float], Range(above=0)]


@dataclass(frozen=True)
class Defaults:
    """The defaults of options."""

    regime: str  # a key of `regimes`
    fidelity: str  # a key of `fidelities`
    seeds: Annotated[int, SEEDS]  # runs of each rung, with seeds 0 to seeds - 1
    out: Path  # folder of the runs

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Start:
    """The ResNet that a regime starts from."""

    width: Annotated[int, Range(1)]  # channels of the first stage; they double in each later one
    depths: Annotated[tuple[int, ...], Range(1)]  # blocks in each stage
    pool: bool = True  # whether the stem ends with a pooling, which halves all maps

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Regime:
    """The start and the size of a ladder, with changes to recipes and steps."""

    title: str  # in figures and tables
    data: str  # default data set
    device: str  # default device of `roadmap cost`
    cluster: str  # default profile for submitting jobs
    start: Start  # the ResNet of the first rung
    published: str | None = None  # file of the paper's table in analysis/published/
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)  # changes to the recipe of that name
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)  # parameters of each step
    variants: dict[str, tuple[int | float | str, ...]] = field(default_factory=dict)  # of steps, not on the ladder


@dataclass(frozen=True)
class Entry:
    """A step of the ladder."""

    step: str  # its name
    title: str  # in figures and tables; {} stands for the value of the variant
    group: str  # group of steps in figures
    parameters: dict[str, Any] = field(default_factory=dict)  # of the step
    variants: tuple[int | float | str, ...] = ()  # values of the step's first parameter; each is a rung
    adopted: int | float | str | None = None  # the variant that later rungs have
    rejected: tuple[int | float | str, ...] = ()  # variants that the paper tried and rejected, hatched in figures
    fidelities: tuple[str, ...] = ()  # fidelities that have the step; empty: all


@dataclass(frozen=True)
class Fidelity:
    """What one source does differently: the paper, its authors' ablation code, or their released code."""

    steps: dict[str, dict[str, Any]] = field(default_factory=dict)  # parameters of each step
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)  # changes to the recipe of that name
    best_epoch: bool = False  # whether it reports the best epoch on the validation images; tables then show it too


@dataclass(frozen=True)
class ConvNeXtSize:
    """A ConvNeXt of another size than the last rungs of the ladders."""

    width: Annotated[int, Range(1)]  # channels of the first stage; they double in each later one
    depths: Annotated[tuple[int, ...], Range(1)]  # blocks in each stage
    isotropic: bool = False  # one resolution, after a stem of patches without a norm
    patch: Annotated[int | None, Range(1)] = None  # side of the stem's patches, pixels; null: 4, or 16 if isotropic
    layer_scale: float | None = 1e-6  # initial value of a learned scale per channel; null: no scale

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class ReferenceModel:
    """How a reference is built, and its changes to the modern recipe."""

    model: str  # timm/NAME, torchvision/NAME, own/NAME (of a plug-in), or family/NAME (of `family`)
    arguments: dict[str, Any] = field(default_factory=dict)  # of the model; for family/NAME, fields of that entry
    recipe: dict[str, Any] = field(default_factory=dict)  # changes to the modern recipe of the regime

    def changed(self, override: ModelOverride) -> ReferenceModel:
        arguments = {**self.arguments, **override.arguments}
        return ReferenceModel(override.model or self.model, arguments, override.recipe)


@dataclass(frozen=True)
class ModelOverride:
    """Changes to the form of a reference in one regime. `recipe` replaces the changes that the form has."""

    model: str | None = None  # another model
    arguments: dict[str, Any] = field(default_factory=dict)  # further arguments of the model
    recipe: dict[str, Any] = field(default_factory=dict)  # changes to the modern recipe of the regime


@dataclass(frozen=True)
class Reference:
    """A system that the rungs are compared with."""

    title: str  # in figures and tables
    regime: str | None = None  # regime whose published table has it as a row
    form: ReferenceModel | None = None  # null: it has only a published figure
    forms: dict[str, ModelOverride | None] = field(default_factory=dict)  # by regime; null: no form in that regime
    counterpart: str | None = None  # the reference of the same size that it is compared with

    def form_in(self, regime: str) -> ReferenceModel | None:
        override = self.forms.get(regime, ModelOverride(recipe=self.form.recipe if self.form else {}))
        return self.form.changed(override) if self.form and override else None


@dataclass(frozen=True)
class Device:
    """The speed of a device at one precision, for estimates. Networks differ in it by factors."""

    macs_per_second: Annotated[float, THROUGHPUT]  # multiply-adds per second, sustained in inference
    source: str  # of the numbers
    range: Annotated[tuple[float, float] | None, THROUGHPUT] = None  # of the slowest and the fastest known network
    bytes_per_second: Annotated[float | None, THROUGHPUT] = None  # of the memory, for depthwise layers; null: as others
    bytes_per_value: Annotated[int, Range(1, 8)] = 4  # of the activations
    images_per_second: Rates = field(default_factory=dict)  # in inference, of references at 224 pixels

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TransferRecipe:
    """How runs are transferred to a task: the modern recipe of the regime with changes, and the options of the task."""

    task: str  # an entry of roadmap.tasks.registry
    data: str | None = None  # data set; null: the regime's own
    recipe: dict[str, Any] = field(default_factory=dict)  # changes to the modern recipe of the regime
    options: dict[str, Any] = field(default_factory=dict)  # of the task
    regimes: dict[str, dict[str, Any]] = field(default_factory=dict)  # further changes to the recipe, by regime
    borrowed: tuple[str, ...] = ()  # regimes for which nothing is published, so they have the values of another


@dataclass(frozen=True)
class Study:
    """All of `ablations.yaml`."""

    format: int  # of this file; 1
    defaults: Defaults  # defaults of options
    recipes: dict[str, Recipe]  # "classic" and "modern", with all fields
    regimes: dict[str, Regime]  # by name
    ladder: tuple[Entry, ...]  # the steps of the roadmap, in order
    fidelities: dict[str, Fidelity]  # by name
    references: dict[str, Reference]  # systems that the rungs are compared with, by name
    family: dict[str, ConvNeXtSize]  # sizes of ConvNeXt for references, by name
    data: dict[str, Dataset]  # data sets, by name
    execution: Execution  # how runs are computed
    devices: dict[str, Device]  # that `roadmap cost` estimates for, by name
    clusters: dict[str, Cluster]  # profiles of jobs, by name
    transfers: dict[str, TransferRecipe] = field(default_factory=dict)  # recipes of `roadmap transfer`, by name
    spaces: dict[str, Space] = field(default_factory=dict)  # of designs that are drawn, by name
    plugins: tuple[str, ...] = ()  # Python files with users' own steps, relative to this file

    def regime(self, name: str) -> Regime:
        return _lookup(self.regimes, "regime", name)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the ladder's steps, in order."""
        return tuple(dict.fromkeys(entry.group for entry in self.ladder))

    def published_regimes(self) -> list[str]:
        """The regimes that the paper has a table of."""
        return [name for name, regime in self.regimes.items() if regime.published]

    def fidelity(self, name: str) -> Fidelity:
        return _lookup(self.fidelities, "fidelity", name)

    def cluster(self, name: str) -> Cluster:
        return _lookup(self.clusters, "cluster", name)

    def dataset(self, name: str) -> Dataset:
        self.has_dataset(name)
        return _lookup(self.datasets, "data set", name)

    @property
    def datasets(self) -> dict[str, Dataset]:
        """The data sets of this study, and those that only plug-ins describe."""
        declared = {name: named.description for name, named in DATASETS.items() if named.description}
        return self.data | {name: description for name, description in declared.items() if name not in self.data}

    def has_dataset(self, name: str) -> bool:
        """Whether a data set has that name. Installed packages are loaded if needed."""
        if name not in self.datasets:
            load_installed()
        return name in self.datasets

    def adopted(self, step: str) -> int | float | str | None:
        """The adopted variant of a step; None if the step has no variants."""
        return next((entry.adopted for entry in self.ladder if entry.step == step), None)

    def recipe(self, name: str, regime: str, fidelity: str, data: str) -> Recipe:
        """A recipe with the changes of a regime, a fidelity and a data set. A fidelity overrides the regime."""
        recipe = _lookup(self.recipes, "recipe", name)
        sources = {
            f"regimes.{regime}.recipes.{name}": self.regime(regime).recipes.get(name, {}),
            f"fidelities.{fidelity}.recipes.{name}": self.fidelity(fidelity).recipes.get(name, {}),
            f"data.{data}.recipe": self.dataset(data).recipe,
        }
        for where, changes in sources.items():
            recipe = changed(recipe, changes, where)
        return recipe

    def transfer(self, name: str) -> TransferRecipe:
        """A transfer recipe. That of a plug-in's task is by default the regime's modern recipe, by the task's name."""
        task = TASKS.get(name)
        if name not in self.transfers and task is not None and task.build is not None:
            return TransferRecipe(name)
        return _lookup(self.transfers, "transfer recipe", name)

    def space(self, name: str) -> Space:
        if name not in self.spaces and name not in SPACES:
            load_installed()
        return _lookup({**SPACES, **self.spaces}, "design space", name)

    def transfer_for(self, task: str, data: str | None, regime: str) -> str:
        """The name of the first transfer recipe for a task, with that data set if one is given and has its own.

        One that is borrowed from another regime is the last choice.
        """
        of_task = [name for name, recipe in self.transfers.items() if recipe.task == task]
        if not of_task and TASKS[task].build is not None:
            return task
        if not of_task:
            raise ValueError(f"no transfer recipe is for task {task!r}; ablations.yaml has them under transfers")
        with_data = [name for name in of_task if data is not None and self.transfers[name].data == data]
        return min(with_data or of_task, key=lambda name: regime in self.transfers[name].borrowed)

    def transferred(self, name: str, regime: str, fidelity: str, data: str) -> Recipe:
        """The recipe of a transfer: the modern recipe with the changes of the regime and of the transfer."""
        chosen, where = self.transfer(name), f"transfers.{name}"
        recipe = changed(self.recipe("modern", regime, fidelity, data), chosen.recipe, f"{where}.recipe")
        recipe = changed(recipe, self.dataset(data).recipe, f"data.{data}.recipe")
        final: Recipe = changed(recipe, chosen.regimes.get(regime, {}), f"{where}.regimes.{regime}")
        return final

    def start(self, regime: str, fidelity: str, data: str) -> Experiment:
        """The experiment before the first step: a ResNet with the classic recipe."""
        start = self.regime(regime).start
        design = resnet(start.width, start.depths, pool=start.pool)
        return Experiment(design, self.recipe("classic", regime, fidelity, data))

    def parameters(self, step: str, regime: str, fidelity: str, data: str) -> dict[str, Any]:
        """The parameters of a step: those of the ladder, changed by the regime and then by the fidelity."""
        entries = {f"ladder[{i}].parameters": entry for i, entry in enumerate(self.ladder)}
        sources = {where: entry.parameters for where, entry in entries.items() if entry.step == step}
        sources[f"regimes.{regime}.steps.{step}"] = self.regime(regime).steps.get(step, {})
        sources[f"fidelities.{fidelity}.steps.{step}"] = self.fidelity(fidelity).steps.get(step, {})
        merged: dict[str, Any] = {}
        for where, parameters in sources.items():
            named = dict(parameters)
            for key in named.keys() & {key for key, kind in find_step(step).parameters.items() if kind is Recipe}:
                if not isinstance(named[key], str):
                    raise ValueError(f"{where}.{key}: {named[key]!r} is not the name of a recipe")
                named[key] = to_data(self.recipe(named[key], regime, fidelity, data))
            merged |= find_step(step).check_parameters(named, where)
        return merged


def _lookup(table: Mapping[str, T], kind: str, name: str) -> T:
    if name not in table:
        raise ValueError(f"unknown {kind} {name!r}; {suggest(table, name)}")
    return table[name]
