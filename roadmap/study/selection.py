"""Selecting the rungs of a study: `roadmap.ladder`, `roadmap.compose` and `find_rung`.

The grammar of the selection is in `roadmap/study/grammar.py`; here its parsed values become rungs.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Iterator, Sequence

from roadmap.recipe import Experiment
from roadmap.study.ablations import (
    ABLATIONS,
    MOST_ORDERS,
    add_one,
    generated,
    leave_one_out,
    orders,
    specs_of,
    variants,
)
from roadmap.study.grammar import All, Composition, Generated, Item, Name, Slice, StepSpec, parse_item, parse_steps
from roadmap.study.rungs import Rung, StudyContext, named_rung, slice_of, standalone_steps
from roadmap.study.schema import Study
from roadmap.study.spaces import is_sampled, sampled, samples
from roadmap.text import suggest


def ladder(
    regime: str,
    steps: str | Sequence[str] = "all",
    fidelity: str = "paper",
    *,
    ablation: str = "cumulative",
    data: str | None = None,
    study: Study | None = None,
    base: Sequence[str] = (),
) -> tuple[Rung, ...]:
    """The rungs of a regime in the study's order.

    With the ablation "cumulative" each rung has all steps before it, and `steps` chooses rungs: "all", names, or a
    slice such as "recipe..gelu", separated by commas. A variant that is not on the ladder, `stage-ratio=2:2:6:2`, is
    applied to the rung before its step, a step that is not on the ladder to the last rung. `gelu+layer-norm` is the
    start with only these steps. With the other ablations (ABLATIONS) `steps` chooses the steps that are left out, added
    or shuffled.

    Raises ValueError for an unknown name, with the valid ones, and NoEffect for a step that changes nothing; in the
    generated ablations such a rung is marked instead.
    """
    return select(StudyContext.of(regime, fidelity, data, study, base), steps, ablation)


def select(context: StudyContext, steps: str | Sequence[str], ablation: str = "cumulative") -> tuple[Rung, ...]:
    """As `ladder`, for a given context."""
    items = parse_steps(steps, context.names)
    kind, _, argument = ablation.partition(":")
    if kind == "cumulative" and not argument:
        return _rungs_of(context, items)
    specs = specs_of(context, items, alone=kind == "add-one")
    if kind == "leave-one-out" and not argument:
        return tuple(leave_one_out(context, specs))
    if kind == "add-one" and not argument:
        return tuple(add_one(context, specs))
    if kind == "variants" and not argument:
        return tuple(variants(context, specs))
    if kind == "orders" and re.fullmatch("[1-9][0-9]{0,3}", argument) and int(argument) <= MOST_ORDERS:
        return tuple(orders(context, specs, int(argument)))
    if kind == "space":
        if items != (All(),):
            raise ValueError("a space chooses the rungs; it does not go with steps")
        return tuple(samples(context, argument))
    raise ValueError(f"unknown ablation {ablation!r}; {suggest(ABLATIONS, ablation)}")


def compose(
    regime: str, steps: Sequence[str], fidelity: str = "paper", *, data: str | None = None, study: Study | None = None
) -> Experiment:
    """The start of the regime with only these steps, in this order. A variant is written `kernel-size=9`.

    Raises ValueError for an unknown step or value, and NoEffect for a step that changes nothing in this order.
    """
    return StudyContext.of(regime, fidelity, data, study).compose(list(map(StepSpec.parse, steps)))


def find_rung(context: StudyContext, name: str) -> Rung:
    """A rung by name: of the ladder, of the ablations, a variant, or a composition, `gelu+layer-norm` or `+gelu`.

    Raises ValueError with the valid names.
    """
    item = parse_item(name, context.names)
    if isinstance(item, All | Slice):
        raise ValueError(f"{str(item)!r} names several rungs; one is needed here")
    return _rungs_of(context, [item])[0]


def _rungs_of(context: StudyContext, items: Iterable[Item]) -> tuple[Rung, ...]:
    """Rungs of the ladder in its order, each variant after its step; then compositions and generated rungs."""
    pairs = [pair for item in items for pair in _positioned(context, item)]
    rungs = {rung.name: rung for _, rung in sorted(pairs, key=lambda pair: pair[0])}
    return tuple(rungs.values())


def _positioned(context: StudyContext, item: Item) -> Iterator[tuple[float, Rung]]:
    """The rungs of an item, each with its position among the selected rungs."""
    after_ladder = len(context.names)
    if isinstance(item, All | Slice):
        yield from ((position, context.rungs[position]) for position in slice_of(context.names, item))
    elif isinstance(item, Composition):
        yield after_ladder, standalone_steps(context, item)
    elif isinstance(item, Generated):
        yield after_ladder + 1, generated(context, item)
    elif isinstance(item, Name) and is_sampled(item.name):
        yield after_ladder + 2, sampled(context, item.name)
    else:
        rung, position = named_rung(context, item)
        yield position, rung
