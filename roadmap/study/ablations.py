"""The steps off the one path: each left out, each taken alone, in random orders, in other variants."""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import replace

from roadmap.recipe import Experiment
from roadmap.steps import NoEffect
from roadmap.study.rungs import Rung, StudyContext, cumulative, off_ladder_variant, slice_of
from roadmap.study.step_spec import StepSpec, is_composition, is_move

MOST_ORDERS = 1000
ABLATIONS = ("cumulative", "leave-one-out", "add-one", "orders:N", "variants")


def chosen_moves(place: StudyContext, steps: str | Sequence[str], *, alone: bool = False) -> list[StepSpec]:
    """The moves that `steps` names, none of them applied: of a stretch, and of "all", the adopted variants.

    A step may stand there in several variants where each is taken `alone`. Raises ValueError for an unknown name.
    """
    roadmap = [StepSpec(entry.step, value) for entry in place.entries for value in entry.variants or (None,)]
    names = [place.start.name, *(move.name for move in roadmap)]
    moves: list[StepSpec] = []
    for item in steps.split(",") if isinstance(steps, str) else steps:
        written = item.strip()
        if is_composition(written):
            raise ValueError(f"an ablation takes steps, not compositions such as {written!r}")
        if written == "all" or ".." in written:
            stretch = [roadmap[i - 1] for i in slice_of(names, written) if i]  # 0 is the start
            moves += [move for move in stretch if move.value == place.study.adopted(move.step)]
        elif written.replace("=", "-") not in names and is_move(written):
            move = StepSpec.parse(written)
            moves.append(move if move.value is not None else replace(move, value=place.study.adopted(move.step)))
        else:
            moves += [roadmap[i - 1] for i in slice_of(names, written) if i]
    moves = list({move.name: move for move in moves}.values())
    twice = [move.step for i, move in enumerate(moves) if move.step in [other.step for other in moves[:i]]]
    if twice and not alone:
        raise ValueError(f"step {twice[0]!r} stands there in two variants; all but add-one take one")
    if not moves:
        raise ValueError("an ablation needs a step to leave out or to add: the start alone has none")
    return moves


def _take(place: StudyContext, moves: Iterable[StepSpec], experiment: Experiment) -> Experiment:
    """All moves in order, passing over those that change nothing."""
    for move in moves:
        try:
            experiment = place.apply(move, experiment)
        except NoEffect:
            continue
    return experiment


def leave_one_out(place: StudyContext, moves: list[StepSpec]) -> Iterator[Rung]:
    """All steps, then all steps less each."""
    names = tuple(move.name for move in moves)
    experiment = _take(place, moves, place.start.experiment)
    full = Rung("all-steps", "all steps", "", True, experiment, None, steps=names)
    yield full
    for move in moves:
        experiment = _take(place, [other for other in moves if other != move], place.start.experiment)
        rung = _generated(place, move, experiment, full, f"without-{move.name}", "without {}")
        yield replace(rung, steps=tuple(name for name in names if name != move.name))


def add_one(place: StudyContext, moves: list[StepSpec]) -> Iterator[Rung]:
    """The start, then the start plus each step."""
    start = place.start
    yield start
    for move in moves:
        experiment = _take(place, [move], start.experiment)
        yield _generated(place, move, experiment, start, f"only-{move.name}", "only {}")


def orders(place: StudyContext, moves: list[StepSpec], count: int) -> Iterator[Rung]:
    """The steps in random orders, the same ones every time, each from the start on."""
    import random  # here, as what answers at once does without

    yield place.start
    for number in range(1, count + 1):
        before = place.start
        for position, move in enumerate(random.Random(f"order {number}").sample(moves, len(moves)), start=1):
            experiment, name = _take(place, [move], before.experiment), f"order{number}-{position:02}-{move.name}"
            rung = _generated(place, move, experiment, before, name, f"{{}} (order {number})")
            yield rung
            before = rung


def _generated(
    place: StudyContext, move: StepSpec, experiment: Experiment, parent: Rung, name: str, title: str
) -> Rung:
    rung = place.rung(move, experiment, parent, name=name)
    no_effect = experiment == parent.experiment
    return replace(rung, title=title.replace("{}", rung.title), adopted=True, no_effect=no_effect)


def variants(place: StudyContext, moves: list[StepSpec]) -> Iterator[Rung]:
    """For each step that the study lists variants of: the rung before, its own rungs, and the variants."""
    roadmap = list(cumulative(place))
    rungs = {rung.name: rung for rung in (place.start, *(rung for _, rung in roadmap))}
    found: dict[str, Rung] = {}
    for move in moves:
        listed = [
            StepSpec.parse(f"{move.step}={written}")
            for written in place.study.regime(place.regime).variants.get(move.step, ())
        ]
        asides = [off_ladder_variant(place, each, roadmap)[0] for each in listed]
        own = [rung for other, rung in roadmap if other.step == move.step]
        before = [rungs[str(rung.parent)] for rung in asides]
        found |= {rung.name: rung for rung in (*before, *(own if asides else []), *asides)}
    if not found:
        raise ValueError(f"regimes.{place.regime}.variants in ablations.yaml lists none of these steps")
    yield from found.values()
