"""Designs that are drawn from a space of the study, as rungs. The same number and seed always draw the same ones."""

from __future__ import annotations

import math
import re
from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Any

from roadmap.design import Design, simplest
from roadmap.network.cost import activations, cost
from roadmap.network.equal_cost import EqualCost
from roadmap.recipe import Experiment, Recipe
from roadmap.spaces.definition import NONE, SAMPLES, Quantity, Space, Value
from roadmap.spaces.parameters import APPLIED, PARAMETERS, Drawn, apply_all, check_parameters
from roadmap.study.grammar import MARK, StepSpec, parse_item
from roadmap.study.rungs import Rung, StudyContext, named_rung
from roadmap.text import many

FRUITLESS = 2000  # draws without a new design after which a space is taken to have no more


@dataclass(frozen=True)
class Sampled:
    """A drawn design."""

    rung: Rung
    values: dict[str, Drawn]  # by parameter

    @property
    def design(self) -> Design:
        design = self.rung.experiment.design
        assert isinstance(design, Design)  # no model of another library
        return design


@dataclass(frozen=True)
class SpaceOfRungs:
    """A space in a regime, with a fidelity and data."""

    context: StudyContext
    name: str

    @cached_property
    def space(self) -> Space:
        return self.context.study.space(self.name)

    @property
    def varies_recipe(self) -> bool:
        """Whether designs may differ in their recipe too: by steps that are applied or not."""
        return APPLIED in self.space.vary

    @cached_property
    def base(self) -> Rung:
        """The rung whose design varies."""
        return self._rung(self.space.rung)

    @cached_property
    def macs(self) -> int | None:
        """The multiply-adds of all designs, within 1 %."""
        if self.space.match is None:
            return None
        return cost(self._design(self._rung(self.space.match)), *self._images).macs

    def samples(self, count: int, seed: int = 0) -> Iterator[Sampled]:
        """Different designs, none of them the varied rung's own, in an order that does not depend on their number.

        Raises ValueError if there are fewer, or none that satisfies the space's constraints.
        """
        from random import Random  # imported late to keep `roadmap list` fast

        check_parameters(list(self.space.vary))
        random, fruitless, why = Random(f"{self.name} {seed}"), 0, ""
        seen: set[Any] = {(simplest(self._design(self.base)), self._recipe({}))}
        while len(seen) <= count:
            values = self._draw(random)
            try:
                design = self._satisfying(values)
            except ValueError as error:
                fruitless, why = fruitless + 1, str(error)
            else:
                known = design, self._recipe(values)
                fruitless = fruitless + 1 if known in seen else 0
                if not fruitless:
                    seen.add(known)
                    yield self._sampled(values, design)
            if fruitless >= FRUITLESS:
                rest = f"; the last one drawn: {why}" if len(seen) == 1 and why else ""
                found = many(len(seen) - 1, "design")
                raise ValueError(f"space {self.name!r} has {found} here beside {self.base.name}, not {count}{rest}")

    def _recipe(self, values: dict[str, Drawn]) -> Recipe | None:
        """What a design may differ in beside its network; None in a space that does not vary steps."""
        return self._experiment(values).recipe if self.varies_recipe else None

    def named(self, name: str) -> Sampled:
        """The design with this name. Raises ValueError for one that the space does not have."""
        values = self.values_of(name)
        for parameter, how in self.space.values(self.context.regime).items():
            drawn = values[parameter]
            for value in drawn if isinstance(drawn, tuple) else (drawn,):
                if not how.has(value):
                    raise ValueError(f"{name!r}: {parameter} can't be {_number(value)} in this space")
        return self._sampled(values, self._satisfying(values))

    @cached_property
    def marked(self) -> dict[str, dict[str, Drawn]]:
        """The values of the rung that varies and of the marked one, of the parameters whose value a design shows."""
        rungs = [self.base, *([self._rung(self.space.marked)] if self.space.marked else [])]
        return {rung.name: self._shown(self._design(rung)) for rung in rungs}

    def _shown(self, design: Design) -> dict[str, Drawn]:
        found: dict[str, Drawn] = {}
        for name in self.space.vary:
            entry = PARAMETERS.get(name)
            value = entry.read(design) if entry and entry.read else None
            found |= {} if value is None else {name: value}
        return found

    def first_stage(self, name: str) -> int:
        """The first stage that a parameter has a value for, from 0."""
        entry = PARAMETERS.get(name)
        return entry.first if entry else 0

    def _draw(self, random: object) -> dict[str, Drawn]:
        drawn: dict[str, Drawn] = {}
        for name, values in self.space.values(self.context.regime).items():
            count = self._count(name)
            drawn[name] = tuple(values.draw(random) for _ in range(count)) if count else values.draw(random)  # type: ignore[arg-type]
        return drawn

    def _count(self, name: str) -> int:
        """How many values a parameter has; 0 for one that has no stages."""
        entry = PARAMETERS.get(name)
        return len(self._design(self.base).depths) - entry.first if entry and entry.by_stage else 0

    def _satisfying(self, values: dict[str, Drawn]) -> Design:
        """The design of the values. Raises ValueError if it does not satisfy the constraints."""
        design = apply_all(self._experiment(values).design, values)  # type: ignore[arg-type]
        if self.macs is not None:
            design = self._equal_cost.at(design, self.macs)
        for quantity, (least, most) in self.space.bands.items():
            share = self._quantity(quantity, design) / self._of_base[quantity]
            if not least <= share <= most:
                raise ValueError(f"{quantity} are {share:.2f} of those of {self.base.name}, not {least} to {most}")
        return simplest(design)

    def _experiment(self, values: dict[str, Drawn]) -> Experiment:
        """That of the rung that varies, after the steps of the drawn values. Raises ValueError for one that fails."""
        steps = str(values.get(APPLIED, NONE))
        if steps not in self._after_steps:
            experiment = self.base.experiment
            for step in steps.split("+") if steps != NONE else ():
                experiment = self.context.apply(StepSpec.parse(step), experiment)
            self._after_steps[steps] = experiment
        return self._after_steps[steps]

    @cached_property
    def _after_steps(self) -> dict[str, Experiment]:
        return {}

    def _sampled(self, values: dict[str, Drawn], design: Design) -> Sampled:
        experiment = replace(self._experiment(values), design=design)
        rung = Rung(self._name(values), written(values), "", True, experiment, self.base.name)
        return Sampled(rung, values)

    def _name(self, values: dict[str, Drawn]) -> str:
        return MARK.join([self.name, *map(_text, values.values())])

    def values_of(self, name: str) -> dict[str, Drawn]:
        """The values of a design by its name. Raises ValueError for a name that is none."""
        space, *texts = name.split(MARK)
        vary = self.space.values(self.context.regime)
        if space != self.name or len(texts) != len(vary):
            raise ValueError(f"{name!r} must be {MARK.join([self.name, *vary])} with values, joined by -")
        parsed: dict[str, Drawn] = {}
        for (parameter, how), text in zip(vary.items(), texts, strict=True):
            count = self._count(parameter)
            parts = text.split("-") if count else [text]
            if len(parts) != (count or 1):
                raise ValueError(f"{name!r}: {parameter} must have {count or 1} values (got {text!r})")
            values = tuple(_parse(part, text_values=how.is_text) for part in parts)
            parsed[parameter] = values if count else values[0]
        return parsed

    def _rung(self, name: str) -> Rung:
        item = parse_item(name, self.context.names)
        rung, _ = named_rung(replace(self.context, base=()), item)  # type: ignore[arg-type]
        return rung

    def _design(self, rung: Rung) -> Design:
        design = rung.experiment.design
        assert isinstance(design, Design)  # rungs of the ladder are no models of other libraries
        return design

    @cached_property
    def _images(self) -> tuple[int, int]:
        size = self.context.image_size or self.base.experiment.recipe.image_size
        return size, self.context.study.dataset(self.context.data).classes

    @cached_property
    def _equal_cost(self) -> EqualCost:
        return EqualCost(*self._images)

    @cached_property
    def _of_base(self) -> dict[Quantity, float]:
        return {quantity: self._quantity(quantity, self._design(self.base)) for quantity in self.space.bands}

    def _quantity(self, quantity: Quantity, design: Design) -> float:
        if quantity == "activations":
            return activations(design, self._images[0])
        counted = cost(design, *self._images)
        return counted.macs if quantity == "macs" else counted.parameters


def is_sampled(name: str) -> bool:
    """Whether it is the name of a drawn design."""
    return MARK in name


def sampled(context: StudyContext, name: str) -> Rung:
    """A drawn design by its name. Raises ValueError for a name that is none."""
    return SpaceOfRungs(context, name.partition(MARK)[0]).named(name).rung


def samples(context: StudyContext, argument: str) -> Iterator[Rung]:
    """The rung of a space, and drawn designs: `NAME:COUNT` or `NAME:COUNT:SEED`."""
    name, _, rest = argument.partition(":")
    count, _, seed = rest.partition(":")
    if not re.fullmatch("[1-9][0-9]{0,6}", count) or int(count) not in SAMPLES or not re.fullmatch("[0-9]{0,9}", seed):
        raise ValueError(f"a sample of a space is space:NAME:COUNT or space:NAME:COUNT:SEED (got space:{argument})")
    space = SpaceOfRungs(context, name)
    yield space.base
    for drawn in space.samples(int(count), int(seed or 0)):
        yield drawn.rung


def written(values: dict[str, Drawn]) -> str:
    """The values for people: `depths 1:3:9:2`."""
    return ", ".join(f"{name} {_text(value).replace('-', ':')}" for name, value in values.items())


def _text(value: Drawn) -> str:
    return "-".join(map(_number, value if isinstance(value, tuple) else (value,)))


def _number(value: Value) -> str:
    return f"{value:.10g}" if isinstance(value, float) else str(value)


def _parse(text: str, text_values: bool) -> Value:
    if text_values:
        return text
    try:
        number = float(text)
    except ValueError:
        raise ValueError(f"{text!r} must be a number") from None
    if not math.isfinite(number):
        raise ValueError(f"{text!r} must be a number")
    return int(number) if number == int(number) else number
