"""The ladders of a study: what `roadmap.ladder` and `roadmap.compose` give."""

from __future__ import annotations

import re
from collections.abc import Sequence

from roadmap.recipe import Experiment
from roadmap.serialization import suggest
from roadmap.steps import STEPS
from roadmap.study.ablations import ABLATIONS, MOST_ORDERS, add_one, chosen_moves, leave_one_out, orders, variants
from roadmap.study.rungs import Rung, StudyContext, select
from roadmap.study.schema import Study
from roadmap.study.step_spec import StepSpec, is_composition

GENERATED = re.compile(r"(without|only|order(\d{1,4}))-|all-steps$")  # names of generated ablations


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

    With the ablation "cumulative" each rung has all steps before it, and `steps` chooses among them: "all", names, or a
    stretch such as "recipe..gelu"; commas part several. A variant that is not on the ladder, `stage-ratio=2:2:6:2`, is
    put on the rung before its step, a step that is not on the ladder on the last rung; and `gelu+layer-norm` are these
    steps alone. With the other ablations (ABLATIONS) `steps` chooses which steps are left out, added or shuffled.

    Raises ValueError for an unknown name, with the valid ones, and NoEffect for a step that changes nothing; in the
    generated ablations such a rung is marked instead.
    """
    place = StudyContext.of(regime, fidelity, data, study, base)
    kind, _, argument = ablation.partition(":")
    if kind == "cumulative" and not argument:
        return _select_any(place, steps)
    moves = chosen_moves(place, steps, alone=kind == "add-one")
    if kind == "leave-one-out" and not argument:
        return tuple(leave_one_out(place, moves))
    if kind == "add-one" and not argument:
        return tuple(add_one(place, moves))
    if kind == "variants" and not argument:
        return tuple(variants(place, moves))
    if kind == "orders" and re.fullmatch("[1-9][0-9]{0,3}", argument) and int(argument) <= MOST_ORDERS:
        return tuple(orders(place, moves, int(argument)))
    raise ValueError(f"unknown ablation {ablation!r}; {suggest(ABLATIONS, ablation)}")


def compose(
    regime: str, steps: Sequence[str], fidelity: str = "paper", *, data: str | None = None, study: Study | None = None
) -> Experiment:
    """These steps alone, in this order, on the regime's start; a variant is written `kernel-size=9`.

    Raises ValueError for an unknown step or value, and NoEffect for a step that changes nothing where it stands.
    """
    return StudyContext.of(regime, fidelity, data, study).compose(steps)


def _select_any(place: StudyContext, steps: str | Sequence[str]) -> tuple[Rung, ...]:
    """Rungs of the roadmap in its order, then those that have names of generated ablations, as they are written."""
    wanted = [item.strip() for item in (steps.split(",") if isinstance(steps, str) else steps)]
    generated = [item for item in wanted if GENERATED.match(item)]
    rest = [item for item in wanted if item not in generated]
    return (*(select(place, rest) if rest else ()), *(find_rung(place, item) for item in generated))


def find_rung(place: StudyContext, name: str) -> Rung:
    """A rung by name: of the roadmap, of the ablations, a variant, or a composition, `gelu+layer-norm` or `+gelu`.

    Raises ValueError with the valid names.
    """
    name = name.strip()
    found = GENERATED.match(name)
    if name == "all" or ".." in name:
        raise ValueError(f"{name!r} names several rungs; one is needed here")
    if not found or is_composition(name):
        return select(place, [name])[0]
    moves = chosen_moves(place, "all")
    kind, step = found[1] or name, name[found.end() :]
    if step in STEPS and step not in [move.name for move in moves]:  # a step that is not on the ladder
        moves.append(StepSpec.parse(step))
    if kind == "only":
        rungs = add_one(place, moves)
    else:
        rungs = orders(place, moves, min(int(found[2]), MOST_ORDERS)) if found[2] else leave_one_out(place, moves)
    named = {rung.name: rung for rung in rungs}
    if name not in named:
        raise ValueError(f"unknown rung {name!r}; {suggest(named, name)}")
    return named[name]
