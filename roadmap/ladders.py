"""The ladders of a study: what `roadmap.ladder` and `roadmap.compose` give."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence

from roadmap.ablations import ABLATIONS, add_one, chosen_moves, leave_one_out, orders, variants
from roadmap.plain import choices
from roadmap.recipe import Experiment
from roadmap.rungs import Place, Rung, select
from roadmap.study import Study


def ladder(
    regime: str,
    steps: str | Sequence[str] = "all",
    fidelity: str = "paper",
    *,
    ablation: str = "cumulative",
    data: str | None = None,
    study: Study | None = None,
) -> tuple[Rung, ...]:
    """The rungs of a regime in the study's order.

    With the ablation "cumulative" each rung has all steps before it, and `steps` chooses among them: "all", names, or a
    stretch such as "recipe..gelu"; commas part several. A variant that is not on the ladder, `stage-ratio=2:2:6:2`, is
    put on the rung before its step, a step that is not on the ladder on the last rung; and `gelu+layer-norm` are these
    steps alone. With the other ablations (ABLATIONS) `steps` chooses which steps are left out, added or shuffled.

    Raises ValueError for an unknown name, with the valid ones, and NoEffect for a step that changes nothing; in the
    generated ablations such a rung is marked instead.
    """
    place = Place.of(regime, fidelity, data, study)
    kind, _, argument = ablation.partition(":")
    if kind == "cumulative" and not argument:
        return select(place, steps)
    moves = chosen_moves(place, steps)
    if kind == "leave-one-out" and not argument:
        return tuple(leave_one_out(place, moves))
    if kind == "add-one" and not argument:
        return tuple(add_one(place, moves))
    if kind == "variants" and not argument:
        return tuple(variants(place, moves))
    if kind == "orders" and argument.isdecimal() and int(argument) > 0:
        return tuple(orders(place, moves, int(argument)))
    raise ValueError(f"unknown ablation {ablation!r}; {choices(ABLATIONS, ablation)}")


def compose(
    regime: str, steps: Sequence[str], fidelity: str = "paper", *, data: str | None = None, study: Study | None = None
) -> Experiment:
    """These steps alone, in this order, on the regime's start; a variant is written `kernel-size=9`.

    Raises ValueError for an unknown step or value, and NoEffect for a step that changes nothing where it stands.
    """
    return Place.of(regime, fidelity, data, study).compose(steps)


def find_rung(place: Place, name: str) -> Rung:
    """A rung by name: of the roadmap, of the ablations, a variant, or a composition, `gelu+layer-norm` or `+gelu`.

    Raises ValueError with the valid names.
    """
    generated: Iterable[Rung] = ()
    moves = chosen_moves(place, "all")
    if name.startswith("without-") or name == "all-steps":
        generated = leave_one_out(place, moves)
    elif name.startswith("only-"):
        generated = add_one(place, moves)
    elif found := re.match(r"order(\d{1,4})-", name):
        generated = orders(place, moves, int(found[1]))
    else:
        return select(place, [name])[0]
    rungs = {rung.name: rung for rung in generated}
    if name not in rungs:
        raise ValueError(f"unknown rung {name!r}; {choices(rungs, name)}")
    return rungs[name]
