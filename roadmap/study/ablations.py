"""Ablations other than the ladder: each step left out, each step alone, random orders, and other variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from dataclasses import replace

from roadmap.recipe import Experiment
from roadmap.steps import STEPS, NoEffect
from roadmap.study.grammar import All, Composition, Generated, Item, Slice, StepSpec
from roadmap.study.rungs import Rung, StudyContext, adopted_spec, named_rung, slice_of, unknown_rung

MOST_ORDERS = 1000
ABLATIONS = ("cumulative", "leave-one-out", "add-one", "orders:N", "variants", "space:NAME:N")


def specs_of(context: StudyContext, items: Iterable[Item], *, alone: bool = False) -> list[StepSpec]:
    """The steps that the items name, without applying them. A slice or "all" gives only adopted variants.

    With `alone` a step may occur in several variants. Raises ValueError for an unknown name.
    """
    named = [spec for item in items for spec in _specs_of_item(context, item)]
    specs = list({spec.name: spec for spec in named}.values())
    repeated = [spec.step for i, spec in enumerate(specs) if spec.step in [other.step for other in specs[:i]]]
    if repeated and not alone:
        raise ValueError(f"step {repeated[0]!r} is given in two variants; only --ablation add-one takes several")
    if not specs:
        raise ValueError("an ablation needs at least one step; the start is none")
    return specs


def _specs_of_item(context: StudyContext, item: Item) -> list[StepSpec]:
    if isinstance(item, Composition):
        raise ValueError(f"an ablation takes steps, not compositions such as {str(item)!r}")
    if isinstance(item, Generated):
        raise unknown_rung(item, context.names)
    if isinstance(item, All | Slice):
        sliced = [context.specs[position - 1] for position in slice_of(context.names, item) if position]
        return [spec for spec in sliced if spec.value == context.study.adopted(spec.step)]
    if item.name == context.start.name:
        return []
    on_ladder = [spec for spec in context.specs if spec.name == item.name]
    return on_ladder or [adopted_spec(context, item)]


def _take(context: StudyContext, specs: Iterable[StepSpec], experiment: Experiment) -> Experiment:
    """The experiment after all specs in order. Steps that change nothing are skipped."""
    for spec in specs:
        try:
            experiment = context.apply(spec, experiment)
        except NoEffect:
            continue
    return experiment


def leave_one_out(context: StudyContext, specs: list[StepSpec]) -> Iterator[Rung]:
    """All steps, then all steps but one, for each step."""
    names = tuple(spec.name for spec in specs)
    experiment = _take(context, specs, context.start.experiment)
    full = Rung("all-steps", "all steps", "", True, experiment, None, steps=names)
    yield full
    for spec in specs:
        experiment = _take(context, [other for other in specs if other != spec], context.start.experiment)
        rung = _generated(context, spec, experiment, full, f"without-{spec.name}", "without {}")
        yield replace(rung, steps=tuple(name for name in names if name != spec.name))


def add_one(context: StudyContext, specs: list[StepSpec]) -> Iterator[Rung]:
    """The start, then the start plus each step."""
    start = context.start
    yield start
    for spec in specs:
        experiment = _take(context, [spec], start.experiment)
        yield _generated(context, spec, experiment, start, f"only-{spec.name}", "only {}")


def orders(context: StudyContext, specs: list[StepSpec], count: int) -> Iterator[Rung]:
    """The start, then the steps in `count` random orders, which are the same in every call."""
    yield context.start
    for number in range(1, count + 1):
        yield from _order(context, specs, number)


def _order(context: StudyContext, specs: list[StepSpec], number: int) -> Iterator[Rung]:
    import random  # imported late to keep `roadmap list` fast

    before = context.start
    for position, spec in enumerate(random.Random(f"order {number}").sample(specs, len(specs)), start=1):
        experiment = _take(context, [spec], before.experiment)
        name = str(Generated("order", spec.name, number, position))
        before = _generated(context, spec, experiment, before, name, f"{{}} (order {number})")
        yield before


def generated(context: StudyContext, item: Generated) -> Rung:
    """A rung of an ablation of the whole ladder, by its name. Raises ValueError for an unknown name.

    A step that is not on the ladder is added to it.
    """
    specs = specs_of(context, [All()])
    if item.step in STEPS and item.step not in [spec.name for spec in specs]:
        specs.append(StepSpec(item.step))
    if item.kind == "order":
        rungs = _order(context, specs, item.order) if item.order <= MOST_ORDERS else iter(())
    else:
        rungs = (add_one if item.kind == "only" else leave_one_out)(context, specs)
    named = {rung.name: rung for rung in rungs}
    if str(item) not in named:
        raise unknown_rung(item, named)
    return named[str(item)]


def _generated(
    context: StudyContext, spec: StepSpec, experiment: Experiment, parent: Rung, name: str, title: str
) -> Rung:
    rung = context.rung(spec, experiment, parent, name=name)
    no_effect = experiment == parent.experiment
    return replace(rung, title=title.replace("{}", rung.title), adopted=True, no_effect=no_effect)


def variants(context: StudyContext, specs: list[StepSpec]) -> Iterator[Rung]:
    """For each step with variants in the study: the rung before it, its rungs on the ladder, and the variants."""
    ladder = {rung.name: rung for rung in context.rungs}
    selected: dict[str, Rung] = {}
    for step in dict.fromkeys(spec.step for spec in specs):
        listed = context.study.regime(context.regime).variants.get(step, ())
        rungs = [named_rung(context, StepSpec.parse(f"{step}={value}"))[0] for value in listed]
        before = [ladder[str(rung.parent)] for rung in rungs]
        of_step = [ladder[spec.name] for spec in context.specs if spec.step == step]
        selected |= {rung.name: rung for rung in (*before, *(of_step if rungs else []), *rungs)}
    if not selected:
        raise ValueError(f"regimes.{context.regime}.variants in ablations.yaml lists none of these steps")
    yield from selected.values()
