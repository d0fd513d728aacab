"""Rungs, the step specs that lead to them, and the ladder: each step applied after those before it."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from roadmap.design import Design
from roadmap.network.cost import cost
from roadmap.network.equal_cost import EqualCost
from roadmap.recipe import Experiment, Recipe
from roadmap.steps import NoEffect, find_step
from roadmap.study.grammar import All, Composition, Name, Slice, StepSpec
from roadmap.study.load import load_study
from roadmap.study.schema import Study
from roadmap.text import suggest


@dataclass(frozen=True)
class Rung:
    """One bar of the roadmap figure."""

    name: str
    title: str
    group: str
    adopted: bool  # False for a variant that later rungs do not have; Figure 2 hatches its bar
    experiment: Experiment
    parent: str | None  # the rung that it is compared with
    no_effect: bool = False  # in a generated ablation: the step changes nothing there
    steps: tuple[str, ...] = ()  # applied to the start, in order, by the names of their rungs


@dataclass(frozen=True)
class StudyContext:
    """The study, and the regime, fidelity, data and base that rungs are made with."""

    study: Study
    regime: str
    fidelity: str
    data: str
    base: tuple[StepSpec, ...] = ()  # steps that every rung has, including the start
    image_size: int | None = None  # at which widths of equal cost are solved for; None: the recipe's

    @staticmethod
    def of(
        regime: str,
        fidelity: str = "paper",
        data: str | None = None,
        study: Study | None = None,
        base: Sequence[str] = (),
    ) -> StudyContext:
        """Raises ValueError for a name that is not in the study."""
        study = study or load_study()
        study.fidelity(fidelity)
        context = StudyContext(study, regime, fidelity, data or study.regime(regime).data)
        study.dataset(context.data)
        return replace(context, base=tuple(map(StepSpec.parse, base)))

    @cached_property
    def start(self) -> Rung:
        title = self.study.regime(self.regime).title
        if not self.base:
            experiment = self.study.start(self.regime, self.fidelity, self.data)
            return Rung(self.regime, title, "", True, experiment, None)
        without_base = replace(self, base=())
        base = standalone_steps(without_base, Composition(self.base))
        # If the ladder has the same rung, the name is that of the ladder.
        same = next((rung for rung in without_base.rungs[1:] if rung.experiment == base.experiment), None)
        name, suffix = (same.name, f" … {same.title}") if same else (base.name, f", {', '.join(base.steps)}")
        return replace(base, name=name, title=title + suffix, group="", parent=None, steps=())

    @property
    def specs(self) -> list[StepSpec]:
        """The steps and variants of the ladder in this fidelity, without those of the base. Each leads to a rung."""
        base = [spec.step for spec in self.base]
        entries = [entry for entry in self.study.ladder if not entry.fidelities or self.fidelity in entry.fidelities]
        return [
            StepSpec(entry.step, value)
            for entry in entries
            if entry.step not in base
            for value in entry.variants or (None,)
        ]

    @cached_property
    def names(self) -> list[str]:
        """The names of the rungs of the ladder, that of the start first. No step is applied for them."""
        return [self.start.name, *(spec.name for spec in self.specs)]

    @cached_property
    def rungs(self) -> list[Rung]:
        """The ladder: the start, then a rung for each of `specs`. Raises NoEffect for a step that changes nothing."""
        rungs = [self.start]
        before = adopted = self.start
        step = None
        for spec in self.specs:
            if spec.step != step:  # all variants of a step are applied to the same rung
                step, before = spec.step, adopted
            rungs.append(self.rung(spec, self.apply(spec, before.experiment), before))
            if spec.value == self.study.adopted(spec.step):
                adopted = rungs[-1]
        return rungs

    def apply(self, spec: StepSpec, experiment: Experiment) -> Experiment:
        """The experiment after a step. Raises NoEffect if it changes nothing, ValueError if it is not possible."""
        step = find_step(spec.step)
        value = self.study.adopted(spec.step) if spec.value is None else spec.value
        parameters = self.study.parameters(spec.step, self.regime, self.fidelity, self.data)
        if value is not None:
            first, kind = next(iter(step.parameters.items()), ("", None))
            named = kind is Recipe and self.study.recipe(str(value), self.regime, self.fidelity, self.data)
            parameters |= {first: named} if named else step.variant(value, spec.step)
        missing = [name for name in step.required if name not in parameters]
        if missing:
            raise ValueError(f"step {spec.step!r} requires a value for {missing[0]!r}: {spec.step}=VALUE")
        try:
            result = step(experiment, **parameters)
        except NoEffect:
            raise
        except ValueError as error:
            raise ValueError(f"step {spec.step!r}: {error}") from None
        return self._matched(result, spec.match) if spec.match else result

    def compose(self, steps: Sequence[StepSpec]) -> Experiment:
        """The start after only these steps, in this order."""
        experiment = self.start.experiment
        for spec in steps:
            experiment = self.apply(spec, experiment)
        return experiment

    def _matched(self, experiment: Experiment, match: Name | StepSpec) -> Experiment:
        target, _ = named_rung(replace(self, base=()), match)  # without the base, which may have the target
        size = self.image_size or experiment.recipe.image_size
        classes = self.study.dataset(self.data).classes
        design, target_design = experiment.design, target.experiment.design
        assert isinstance(design, Design) and isinstance(target_design, Design)  # steps make only designs
        doubling = replace(design, width=tuple(2**stage for stage in range(len(design.depths))))
        macs = cost(target_design, size, classes).macs
        return replace(experiment, design=EqualCost(size, classes).at(doubling, macs))

    def rung(self, spec: StepSpec, experiment: Experiment, parent: Rung, *, name: str = "") -> Rung:
        """The rung that a step leads to from its parent."""
        step = find_step(spec.step)
        entry = next((entry for entry in self.study.ladder if entry.step == spec.step), None)
        title = _title(entry.title if entry else step.title, spec)
        on_ladder = entry is None or (spec.value in entry.variants and spec.value not in entry.rejected)
        adopted = spec.match is None and (spec.value is None or on_ladder)
        group = entry.group if entry else step.group
        steps = (*parent.steps, spec.name)
        return Rung(name or spec.name, title, group, adopted, experiment, parent.name, steps=steps)


def _title(title: str, spec: StepSpec) -> str:
    value = ":".join(map(str, spec.value)) if isinstance(spec.value, list) else spec.value
    if "{}" not in title and value is not None:
        title += " {}"
    return title.replace("{}", str(value)) + (f", FLOPs of {spec.match}" if spec.match else "")


def named_rung(context: StudyContext, item: Name | StepSpec) -> tuple[Rung, float]:
    """A rung, and its position in the order of the ladder: 0 for the start.

    A variant that is not on the ladder is applied to the rung before its step; its position is that of the last rung
    of the step plus 0.5. A step that is not on the ladder is applied to the last rung, and placed 0.5 after it. Raises
    ValueError for an unknown name.
    """
    spec = item
    if item.name not in context.names:
        spec = adopted_spec(context, item)
    if spec.name in context.names:
        position = context.names.index(spec.name)
        return context.rungs[position], position
    assert isinstance(spec, StepSpec)  # every Name is on the ladder
    rungs = context.rungs
    of_step = [position for position, other in enumerate(context.specs, start=1) if other.step == spec.step]
    parent = rungs[context.names.index(str(rungs[of_step[0]].parent))] if of_step else rungs[-1]
    rung = context.rung(spec, context.apply(spec, parent.experiment), parent)
    return rung, (of_step[-1] if of_step else len(rungs) - 1) + 0.5


def adopted_spec(context: StudyContext, item: Name | StepSpec) -> StepSpec:
    """The step spec of an item that is not on the ladder. Without a value it gets that of the adopted variant.

    Raises ValueError for a name that is neither a rung nor a step.
    """
    if isinstance(item, Name):
        try:
            find_step(item.name)
        except ValueError:
            raise unknown_rung(item, context.names) from None
        item = StepSpec(item.name)
    return replace(item, value=context.study.adopted(item.step)) if item.value is None else item


def unknown_rung(item: object, names: Iterable[str]) -> ValueError:
    return ValueError(f"unknown rung {str(item)!r}; {suggest(names, item)}")


def slice_of(names: Sequence[str], item: All | Slice) -> range:
    """The positions of a slice among the names of the ladder. Raises ValueError for an unknown name."""
    if isinstance(item, All):
        return range(len(names))
    first, last = item.first or names[0], item.last or names[-1]
    for name in (first, last):
        if name not in names:
            raise unknown_rung(name, names)
    if names.index(first) > names.index(last):
        raise ValueError(f"{str(item)!r} runs backwards: {first} comes after {last}")
    return range(names.index(first), names.index(last) + 1)


def standalone_steps(context: StudyContext, composition: Composition) -> Rung:
    """The rung of the start with only these steps."""
    experiment, names = context.compose(composition.steps), tuple(spec.name for spec in composition.steps)
    name = composition.name
    return Rung(name, name, "Composition", True, experiment, context.start.name, steps=names)
