"""Rungs, the moves that lead to them, and the roadmap itself: the steps one after the other."""

from __future__ import annotations

import re
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property

from roadmap.design import Design
from roadmap.network.match_width import match_width
from roadmap.recipe import Experiment, Recipe
from roadmap.serialization import suggest
from roadmap.steps import NoEffect, find_step
from roadmap.study.load import load_study
from roadmap.study.schema import Entry, Study
from roadmap.study.step_spec import PLUS, StepSpec, is_composition, is_move


@dataclass(frozen=True)
class Rung:
    """One bar of the roadmap figure."""

    name: str
    title: str
    group: str
    adopted: bool  # False for a variant that is not carried on: Figure 2 hatches its bar
    experiment: Experiment
    parent: str | None  # the rung that it is compared with
    no_effect: bool = False  # in a generated ablation: the step changes nothing where it stands
    steps: tuple[str, ...] = ()  # that were taken from the start on, in order, by the names of their rungs


@dataclass(frozen=True)
class StudyContext:
    """Where in a study rungs are made."""

    study: Study
    regime: str
    fidelity: str
    data: str
    base: tuple[str, ...] = ()  # steps that every rung has, the start too

    @staticmethod
    def of(
        regime: str,
        fidelity: str = "paper",
        data: str | None = None,
        study: Study | None = None,
        base: Sequence[str] = (),
    ) -> StudyContext:
        """Raises ValueError for a name that the study does not know."""
        study = study or load_study()
        study.fidelity(fidelity)
        place = StudyContext(study, regime, fidelity, data or study.regime(regime).data, tuple(base))
        study.dataset(place.data)
        for written in base:
            StepSpec.parse(written)
        return place

    @cached_property
    def start(self) -> Rung:
        title = self.study.regime(self.regime).title
        if not self.base:
            experiment = self.study.start(self.regime, self.fidelity, self.data)
            return Rung(self.regime, title, "", True, experiment, None)
        plain = replace(self, base=())
        whole = standalone_steps(plain, "+" + "+".join(self.base))
        # A rung of the roadmap is called by its name.
        known = [rung for _, rung in cumulative(plain) if rung.experiment == whole.experiment]
        name, told = (known[0].name, f" … {known[0].title}") if known else (whole.name, f", {', '.join(whole.steps)}")
        return replace(whole, name=name, title=title + told, group="", parent=None, steps=())

    @property
    def entries(self) -> list[Entry]:
        """The ladder's steps in this fidelity, beyond the base."""
        taken = [StepSpec.parse(written).step for written in self.base]
        chosen = [entry for entry in self.study.ladder if not entry.fidelities or self.fidelity in entry.fidelities]
        return [entry for entry in chosen if entry.step not in taken]

    def apply(self, move: StepSpec, experiment: Experiment) -> Experiment:
        """The experiment after a move. Raises NoEffect where it changes nothing, ValueError where it can't be made."""
        step = find_step(move.step)
        value = self.study.adopted(move.step) if move.value is None else move.value
        parameters = self.study.parameters(move.step, self.regime, self.fidelity, self.data)
        if value is not None:
            first, kind = next(iter(step.parameters.items()), ("", None))
            named = kind is Recipe and self.study.recipe(str(value), self.regime, self.fidelity, self.data)
            parameters |= {first: named} if named else step.variant(value, move.step)
        missing = [name for name in step.required if name not in parameters]
        if missing:
            raise ValueError(f"step {move.step!r} needs a value for {missing[0]!r}: write {move.step}=VALUE")
        try:
            result = step(experiment, **parameters)
        except NoEffect:
            raise
        except ValueError as error:
            raise ValueError(f"step {move.step!r}: {error}") from None
        return self._matched(result, move.match) if move.match else result

    def compose(self, steps: Sequence[str]) -> Experiment:
        """These steps alone, as they are written, in this order, on the start."""
        experiment = self.start.experiment
        for move in map(StepSpec.parse, steps):
            experiment = self.apply(move, experiment)
        return experiment

    def _matched(self, experiment: Experiment, rung: str) -> Experiment:
        (target,) = select(replace(self, base=()), [rung])  # which may be a rung of the base
        size, classes = experiment.recipe.image_size, self.study.dataset(self.data).classes
        own, wanted = experiment.design, target.experiment.design
        assert isinstance(own, Design) and isinstance(wanted, Design)  # as all that steps make
        design = match_width(own, wanted, size, classes)
        return replace(experiment, design=design)

    def rung(self, move: StepSpec, experiment: Experiment, parent: Rung, *, name: str = "") -> Rung:
        """The rung that a move leads to from its parent."""
        step = find_step(move.step)
        entry = next((entry for entry in self.study.ladder if entry.step == move.step), None)
        title = _title(entry.title if entry else step.title, move)
        on_the_way = entry is None or (move.value in entry.variants and move.value not in entry.rejected)
        adopted = move.match is None and (move.value is None or on_the_way)
        group = entry.group if entry else step.group
        steps = (*parent.steps, move.name)
        return Rung(name or move.name, title, group, adopted, experiment, parent.name, steps=steps)


def _title(title: str, move: StepSpec) -> str:
    value = ":".join(map(str, move.value)) if isinstance(move.value, list) else move.value
    if "{}" not in title and value is not None:
        title += " {}"
    return title.replace("{}", str(value)) + (f", FLOPs of {move.match}" if move.match else "")


def cumulative(place: StudyContext) -> Iterator[tuple[StepSpec, Rung]]:
    """The roadmap itself, without its start: each move and its rung."""
    last = place.start
    for entry in place.entries:
        before = last
        for value in entry.variants or (None,):
            move = StepSpec(entry.step, value)
            rung = place.rung(move, place.apply(move, before.experiment), before)
            yield move, rung
            if value == entry.adopted:
                last = rung


def select(place: StudyContext, steps: str | Sequence[str]) -> tuple[Rung, ...]:
    """The chosen rungs of the roadmap, in its order. Raises ValueError for a name that is not among them."""
    wanted = steps.split(",") if isinstance(steps, str) else list(steps)
    roadmap = list(cumulative(place))
    rungs = [place.start, *(rung for _, rung in roadmap)]
    names = [rung.name for rung in rungs]
    extra: dict[str, tuple[int, Rung]] = {}

    chosen: set[int] = set()
    for item in wanted:
        if item.strip() == "all" or ".." in item or item.strip().replace("=", "-") in names:
            chosen |= set(slice_of(names, item))
        elif is_composition(item):
            rung = standalone_steps(place, item)
            extra[rung.name] = (len(rungs), rung)
        elif not is_move(item):
            chosen |= set(slice_of(names, item))
        else:
            rung, at = off_ladder_variant(place, StepSpec.parse(item), roadmap)
            if rung.name in names:  # a step with variants, named alone
                chosen.add(names.index(rung.name))
            else:
                extra[rung.name] = (at, rung)
    ordered = [(i, rungs[i]) for i in chosen] + list(extra.values())
    return tuple(rung for _, rung in sorted(ordered, key=lambda pair: pair[0]))


def slice_of(names: Sequence[str], written: str) -> range:
    """Where a name, "all", or a stretch such as `recipe..gelu` is among the names. Raises ValueError for others."""

    def position(name: str) -> int:
        if name.replace("=", "-") not in names:
            raise ValueError(f"unknown rung {name!r}; {suggest(names, name)}")
        return names.index(name.replace("=", "-"))

    if written.strip() == "all":
        return range(len(names))
    first, dots, last = (part.strip() for part in written.partition(".."))
    if not dots:
        return range(position(first), position(first) + 1)
    ends = position(first or names[0]), position(last or names[-1])
    if ends[0] > ends[1]:
        raise ValueError(f"{written!r} runs backwards: {first} comes after {last}")
    return range(ends[0], ends[1] + 1)


def off_ladder_variant(place: StudyContext, move: StepSpec, roadmap: list[tuple[StepSpec, Rung]]) -> tuple[Rung, int]:
    """A move off the roadmap, put on the rung before its step (or on the last), and where it stands in the order."""
    if move.value is None and place.study.adopted(move.step) is not None:
        move = replace(move, value=place.study.adopted(move.step))
    same = [i for i, (other, _) in enumerate(roadmap, start=1) if other.step == move.step]
    rungs = {rung.name: rung for rung in (place.start, *(rung for _, rung in roadmap))}
    parent = rungs[str(roadmap[same[0] - 1][1].parent)] if same else list(rungs.values())[-1]
    if move.name in rungs:
        return rungs[move.name], same[-1]
    return place.rung(move, place.apply(move, parent.experiment), parent), same[-1] if same else len(roadmap)


def standalone_steps(place: StudyContext, written: str) -> Rung:
    """The rung of steps alone, written `gelu+layer-norm`, or `+gelu` where it is one."""
    steps = [step.strip() for step in re.split(PLUS, written) if step.strip()]
    if not steps:
        raise ValueError(f"{written!r} names no step; +gelu does")
    experiment, names = place.compose(steps), tuple(StepSpec.parse(step).name for step in steps)
    name = ("+" if len(steps) < 2 else "") + "+".join(names)
    return Rung(name, name, "Composition", True, experiment, place.start.name, steps=names)
