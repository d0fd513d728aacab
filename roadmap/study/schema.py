"""What `ablations.yaml` holds, as dataclasses, and what follows from it for a regime, a fidelity and a data set."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, TypeVar

from roadmap.data.dataset import Dataset
from roadmap.data.datasets import DATASETS
from roadmap.design import resnet
from roadmap.plugins import load_installed
from roadmap.recipe import Experiment, Recipe
from roadmap.serialization import changed, suggest, to_data
from roadmap.steps import find_step
from roadmap.study.cluster import Cluster
from roadmap.study.execution import Execution

T = TypeVar("T")


@dataclass(frozen=True)
class Defaults:
    regime: str
    fidelity: str
    seeds: int
    out: str

    def __post_init__(self) -> None:
        if self.seeds < 1:
            raise ValueError(f"seeds is {self.seeds}, expected at least 1")


@dataclass(frozen=True)
class Start:
    """The ResNet that a regime starts from."""

    width: int
    depths: tuple[int, ...]


@dataclass(frozen=True)
class Regime:
    title: str
    data: str  # the data set where none is given
    device: str  # what `roadmap cost` counts in where none is given
    cluster: str  # the profile that jobs are submitted by where none is given
    start: Start
    published: str | None = None  # file of the paper's table below analysis/published/
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)  # what differs from the recipe of that name
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)  # parameters of each step
    variants: dict[str, tuple[int | float | str, ...]] = field(default_factory=dict)  # of steps, off the ladder


@dataclass(frozen=True)
class Entry:
    """A step of the ladder."""

    step: str
    title: str  # {} is where the variant's value goes
    group: str
    parameters: dict[str, Any] = field(default_factory=dict)
    variants: tuple[int | float | str, ...] = ()  # values of the step's first parameter, a rung each
    adopted: int | float | str | None = None  # the variant that is carried on
    rejected: tuple[int | float | str, ...] = ()  # variants that the paper tried and hatches
    fidelities: tuple[str, ...] = ()  # where the step belongs only to some


@dataclass(frozen=True)
class Fidelity:
    steps: dict[str, dict[str, Any]] = field(default_factory=dict)
    recipes: dict[str, dict[str, Any]] = field(default_factory=dict)


@dataclass(frozen=True)
class ConvNeXtSize:
    """A ConvNeXt of another size than the ladders end in."""

    width: int
    depths: tuple[int, ...]
    isotropic: bool = False  # one resolution, behind a stem of patches without a norm
    patch: int = 16  # side of an isotropic one's patches, pixels
    layer_scale: float | None = 1e-6


@dataclass(frozen=True)
class ReferenceModel:
    """How a reference is built, and what of the modern recipe is its own."""

    model: str  # timm/NAME, torchvision/NAME, own/NAME, or family/NAME of this study's
    arguments: dict[str, Any] = field(default_factory=dict)  # of the model; of a member of the family, its fields
    recipe: dict[str, Any] = field(default_factory=dict)

    def changed(self, change: ModelOverride) -> ReferenceModel:
        arguments = {**self.arguments, **change.arguments}
        return ReferenceModel(change.model or self.model, arguments, change.recipe)


@dataclass(frozen=True)
class ModelOverride:
    """What of a reference's form differs in a regime; the recipe is the regime's, but for what is said here."""

    model: str | None = None
    arguments: dict[str, Any] = field(default_factory=dict)
    recipe: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True)
class Reference:
    """A system that the rungs are compared with."""

    title: str
    regime: str | None = None  # whose published table has it as a row
    form: ReferenceModel | None = None  # none: its published figure is all there is
    forms: dict[str, ModelOverride | None] = field(default_factory=dict)  # by regime; none where there can be none
    counterpart: str | None = None  # the reference of its size that it is said to match

    def form_in(self, regime: str) -> ReferenceModel | None:
        change = self.forms.get(regime, ModelOverride(recipe=self.form.recipe if self.form else {}))
        return self.form.changed(change) if self.form and change else None


@dataclass(frozen=True)
class Device:
    """What a step's multiply-adds cost in time."""

    macs_per_second: float  # sustained in inference
    source: str

    def __post_init__(self) -> None:
        if self.macs_per_second < 1:
            raise ValueError(f"macs_per_second is {self.macs_per_second:g}, expected at least 1")


@dataclass(frozen=True)
class Study:
    """All of `ablations.yaml`."""

    format: int
    defaults: Defaults
    recipes: dict[str, Recipe]
    regimes: dict[str, Regime]
    ladder: tuple[Entry, ...]
    fidelities: dict[str, Fidelity]
    references: dict[str, Reference]
    family: dict[str, ConvNeXtSize]
    data: dict[str, Dataset]
    execution: Execution
    devices: dict[str, Device]
    clusters: dict[str, Cluster]
    plugins: tuple[str, ...] = ()  # Python files with users' own steps, relative to this file

    def regime(self, name: str) -> Regime:
        return _lookup(self.regimes, "regime", name)

    @property
    def groups(self) -> tuple[str, ...]:
        """The groups of the ladder's steps, in order."""
        return tuple(dict.fromkeys(entry.group for entry in self.ladder))

    def published_regimes(self) -> list[str]:
        """Those that the paper has a table of."""
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
        """Those that it describes, and those that plug-ins declare and it does not describe."""
        declared = {name: named.description for name, named in DATASETS.items() if named.description}
        return self.data | {name: found for name, found in declared.items() if name not in self.data}

    def has_dataset(self, name: str) -> bool:
        """Whether a data set has that name, one of an installed package too."""
        if name not in self.datasets:
            load_installed()
        return name in self.datasets

    def adopted(self, step: str) -> int | float | str | None:
        """The variant of a step that the ladder carries on, where it has variants."""
        return next((entry.adopted for entry in self.ladder if entry.step == step), None)

    def recipe(self, name: str, regime: str, fidelity: str, data: str) -> Recipe:
        """A recipe as it is for a regime, a fidelity and a data set."""
        recipe = _lookup(self.recipes, "recipe", name)
        sources = {
            f"fidelities.{fidelity}.recipes.{name}": self.fidelity(fidelity).recipes.get(name, {}),
            f"regimes.{regime}.recipes.{name}": self.regime(regime).recipes.get(name, {}),
            f"data.{data}.recipe": self.dataset(data).recipe,
        }
        for where, changes in sources.items():
            recipe = changed(recipe, changes, where)
        return recipe

    def start(self, regime: str, fidelity: str, data: str) -> Experiment:
        """The experiment before the first step: a ResNet by the classic recipe."""
        start = self.regime(regime).start
        return Experiment(resnet(start.width, start.depths), self.recipe("classic", regime, fidelity, data))

    def parameters(self, step: str, regime: str, fidelity: str, data: str) -> dict[str, Any]:
        """A step's parameters: the ladder's, changed by the fidelity's and then by the regime's."""
        entries = {f"ladder[{i}].parameters": entry for i, entry in enumerate(self.ladder)}
        sources = {where: entry.parameters for where, entry in entries.items() if entry.step == step}
        sources[f"fidelities.{fidelity}.steps.{step}"] = self.fidelity(fidelity).steps.get(step, {})
        sources[f"regimes.{regime}.steps.{step}"] = self.regime(regime).steps.get(step, {})
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
