"""The rungs of a study: the steps one after the other, any of them in any order, or each left out or taken alone."""

from __future__ import annotations

import itertools
import random
import re
from bisect import bisect_left
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from roadmap.costs import cost
from roadmap.design import Design
from roadmap.plain import choices, parse_value
from roadmap.recipe import Experiment, Recipe
from roadmap.steps import NoEffect, find_step
from roadmap.study import Entry, Study, load_study

ABLATIONS = ("cumulative", "leave-one-out", "add-one", "orders:N", "variants")
TOLERANCE = 0.01  # of the MACs that a width is solved for


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


@dataclass(frozen=True)
class Move:
    """A step as it is taken. Written `gelu`, `kernel-size=9`, or `stage-ratio=2:2:6:2@recipe`."""

    step: str
    value: Any = None  # of the step's first parameter; None: as the study has it
    match: str | None = None  # the rung whose MACs the width is solved for

    @staticmethod
    def parse(written: str) -> Move:
        """Raises ValueError for a step that does not exist, or a value that it does not take."""
        body, _, match = written.strip().partition("@")
        name, _, text = body.partition("=")
        step = find_step(name)
        if not text:
            return Move(name, None, match or None)
        items = [parse_value(item, written) for item in text.split(":")]
        value = items if len(items) > 1 else items[0]
        if Recipe not in list(step.parameters.values())[:1]:  # a recipe is named, and found once the regime is known
            step.variant(value, written)
        return Move(name, value, match or None)

    @property
    def name(self) -> str:
        """The name of its rung, fit to be a folder's."""
        values = self.value if isinstance(self.value, list) else [] if self.value is None else [self.value]
        matching = ["matching", self.match] if self.match else []
        return re.sub(r"[^\w.-]", "-", "-".join(map(str, [self.step, *values, *matching])))


@dataclass(frozen=True)
class Place:
    """Where in a study rungs are made."""

    study: Study
    regime: str
    fidelity: str
    data: str

    @staticmethod
    def of(regime: str, fidelity: str = "paper", data: str | None = None, study: Study | None = None) -> Place:
        """Raises ValueError for a name that the study does not know."""
        study = study or load_study()
        study.fidelity(fidelity)
        place = Place(study, regime, fidelity, data or study.regime(regime).data)
        study.dataset(place.data)
        return place

    @property
    def start(self) -> Rung:
        experiment = self.study.start(self.regime, self.fidelity, self.data)
        return Rung(self.regime, self.study.regime(self.regime).title, "", True, experiment, None)

    @property
    def entries(self) -> list[Entry]:
        """The ladder's steps in this fidelity."""
        return [entry for entry in self.study.ladder if not entry.fidelities or self.fidelity in entry.fidelities]

    def apply(self, move: Move, experiment: Experiment) -> Experiment:
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

    def _matched(self, experiment: Experiment, rung: str) -> Experiment:
        target = find_rung(self, rung).experiment
        design = match_width(experiment.design, target.design, experiment.recipe.image_size)
        return replace(experiment, design=design)

    def rung(self, move: Move, experiment: Experiment, parent: str, *, name: str = "") -> Rung:
        """The rung that a move leads to."""
        step = find_step(move.step)
        entry = next((entry for entry in self.study.ladder if entry.step == move.step), None)
        title = _title(entry.title if entry else step.title, move)
        on_the_way = entry is None or (move.value in entry.variants and move.value not in entry.rejected)
        adopted = move.match is None and (move.value is None or on_the_way)
        group = entry.group if entry else step.group
        return Rung(name or move.name, title, group, adopted, experiment, parent)


def _title(title: str, move: Move) -> str:
    value = ":".join(map(str, move.value)) if isinstance(move.value, list) else move.value
    if "{}" not in title and value is not None:
        title += " {}"
    return title.replace("{}", str(value)) + (f", FLOPs of {move.match}" if move.match else "")


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
    moves = _chosen_moves(place, steps)
    if kind == "leave-one-out" and not argument:
        return tuple(_leave_one_out(place, moves))
    if kind == "add-one" and not argument:
        return tuple(_add_one(place, moves))
    if kind == "variants" and not argument:
        return tuple(_variants(place, moves))
    if kind == "orders" and argument.isdecimal() and int(argument) > 0:
        return tuple(_orders(place, moves, int(argument)))
    raise ValueError(f"unknown ablation {ablation!r}; {choices(ABLATIONS, ablation)}")


def _cumulative(place: Place) -> Iterator[tuple[Move, Rung]]:
    """The roadmap itself, without its start: each move and its rung."""
    experiment, parent = place.start.experiment, place.start.name
    for entry in place.entries:
        before, above = experiment, parent
        for value in entry.variants or (None,):
            move = Move(entry.step, value)
            rung = place.rung(move, place.apply(move, before), above)
            yield move, rung
            if value == entry.adopted:
                experiment, parent = rung.experiment, rung.name


def select(place: Place, steps: str | Sequence[str]) -> tuple[Rung, ...]:
    """The chosen rungs of the roadmap, in its order. Raises ValueError for a name that is not among them."""
    wanted = steps.split(",") if isinstance(steps, str) else list(steps)
    roadmap = list(_cumulative(place))
    rungs = [place.start, *(rung for _, rung in roadmap)]
    names = [rung.name for rung in rungs]
    extra: dict[str, tuple[int, Rung]] = {}

    def position(name: str) -> int:
        written = name.strip().replace("=", "-")
        if written in names:
            return names.index(written)
        raise ValueError(f"unknown rung {name.strip()!r}; {choices(names, written)}")

    chosen: set[int] = set()
    for item in wanted:
        first, dots, last = item.partition("..")
        if item.strip() == "all":
            chosen |= set(range(len(rungs)))
        elif dots:
            ends = position(first or names[0]), position(last or names[-1])
            if ends[0] > ends[1]:
                raise ValueError(f"{item!r} runs backwards: {first} comes after {last}")
            chosen |= set(range(ends[0], ends[1] + 1))
        elif "+" in item:
            rung = composition(place, item)
            extra[rung.name] = (len(rungs), rung)
        elif item.strip().replace("=", "-") in names or not _is_move(item):
            chosen.add(position(item))
        else:
            rung, at = _aside(place, Move.parse(item), roadmap)
            if rung.name in names:  # a step with variants, named alone
                chosen.add(names.index(rung.name))
            else:
                extra[rung.name] = (at, rung)
    ordered = [(i, rungs[i]) for i in sorted(chosen)] + sorted(extra.values(), key=lambda pair: pair[0])
    return tuple(rung for _, rung in sorted(ordered, key=lambda pair: pair[0]))


def _is_move(written: str) -> bool:
    """Whether it names a step, or at least gives one a value: then what is wrong with it is said of the step."""
    if "=" in written or "@" in written:
        return True
    try:
        find_step(written.strip())
    except ValueError:
        return False
    return True


def _aside(place: Place, move: Move, roadmap: list[tuple[Move, Rung]]) -> tuple[Rung, int]:
    """A move off the roadmap, put on the rung before its step (or on the last), and where it stands in the order."""
    if move.value is None and place.study.adopted(move.step) is not None:
        move = replace(move, value=place.study.adopted(move.step))
    same = [i for i, (other, _) in enumerate(roadmap, start=1) if other.step == move.step]
    rungs = {rung.name: rung for rung in (place.start, *(rung for _, rung in roadmap))}
    parent = rungs[str(roadmap[same[0] - 1][1].parent)] if same else list(rungs.values())[-1]
    if move.name in rungs:
        return rungs[move.name], same[-1]
    return place.rung(move, place.apply(move, parent.experiment), parent.name), same[-1] if same else len(roadmap)


def _chosen_moves(place: Place, steps: str | Sequence[str]) -> list[Move]:
    """The moves of the whole roadmap, or of the chosen rungs; of several variants of a step, the adopted one."""
    if steps == "all":
        return [Move(entry.step, entry.adopted) for entry in place.entries]
    moves: dict[str, Move] = {}
    chosen = {rung.name: rung for rung in select(place, steps)}
    for move, rung in _cumulative(place):
        if rung.name in chosen and (move.step not in moves or move.value == place.study.adopted(move.step)):
            moves[move.step] = move
    written = [item for item in (steps.split(",") if isinstance(steps, str) else steps) if _is_move(item)]
    for move in map(Move.parse, written):
        if move.name in chosen:
            moves[move.step] = move
    if not moves:
        raise ValueError("an ablation needs a step to leave out or to add: the start alone has none")
    return list(moves.values())


def _take(place: Place, moves: Iterable[Move], experiment: Experiment) -> Experiment:
    """All moves in order, passing over those that change nothing."""
    for move in moves:
        try:
            experiment = place.apply(move, experiment)
        except NoEffect:
            continue
    return experiment


def _leave_one_out(place: Place, moves: list[Move]) -> Iterator[Rung]:
    """All steps, then all steps less each."""
    full = _take(place, moves, place.start.experiment)
    yield Rung("all-steps", "all steps", "", True, full, None)
    for move in moves:
        experiment = _take(place, [other for other in moves if other != move], place.start.experiment)
        yield _generated(place, move, experiment, "all-steps", full, f"without-{move.name}", "without {}")


def _add_one(place: Place, moves: list[Move]) -> Iterator[Rung]:
    """The start, then the start plus each step."""
    start = place.start
    yield start
    for move in moves:
        experiment = _take(place, [move], start.experiment)
        yield _generated(place, move, experiment, start.name, start.experiment, f"only-{move.name}", "only {}")


def _orders(place: Place, moves: list[Move], count: int) -> Iterator[Rung]:
    """The steps in random orders, the same ones every time, each from the start on."""
    yield place.start
    for number in range(1, count + 1):
        before = place.start
        for position, move in enumerate(random.Random(f"order {number}").sample(moves, len(moves)), start=1):
            experiment, name = _take(place, [move], before.experiment), f"order{number}-{position:02}-{move.name}"
            rung = _generated(place, move, experiment, before.name, before.experiment, name, f"{{}} (order {number})")
            yield rung
            before = rung


def _generated(
    place: Place, move: Move, experiment: Experiment, parent: str, before: Experiment, name: str, title: str
) -> Rung:
    rung = place.rung(move, experiment, parent, name=name)
    return replace(rung, title=title.replace("{}", rung.title), adopted=True, no_effect=experiment == before)


def _variants(place: Place, moves: list[Move]) -> Iterator[Rung]:
    """For each step that the study lists variants of: the rung before, its own rungs, and the variants."""
    roadmap = list(_cumulative(place))
    rungs = {rung.name: rung for rung in (place.start, *(rung for _, rung in roadmap))}
    found: dict[str, Rung] = {}
    for move in moves:
        listed = [
            Move.parse(f"{move.step}={written}")
            for written in place.study.regime(place.regime).variants.get(move.step, ())
        ]
        asides = [_aside(place, each, roadmap)[0] for each in listed]
        own = [rung for other, rung in roadmap if other.step == move.step]
        before = [rungs[str(rung.parent)] for rung in asides]
        found |= {rung.name: rung for rung in (*before, *(own if asides else []), *asides)}
    if not found:
        raise ValueError(f"regimes.{place.regime}.variants in ablations.yaml lists none of these steps")
    yield from found.values()


def compose(
    regime: str, steps: Sequence[str], fidelity: str = "paper", *, data: str | None = None, study: Study | None = None
) -> Experiment:
    """These steps alone, in this order, on the regime's start; a variant is written `kernel-size=9`.

    Raises ValueError for an unknown step or value, and NoEffect for a step that changes nothing where it stands.
    """
    place = Place.of(regime, fidelity, data, study)
    experiment = place.start.experiment
    for move in map(Move.parse, steps):
        experiment = place.apply(move, experiment)
    return experiment


def composition(place: Place, written: str) -> Rung:
    """The rung of steps alone, written `gelu+layer-norm`, or `+gelu` where it is one."""
    steps = [step.strip() for step in written.split("+") if step.strip()]
    experiment = compose(place.regime, steps, place.fidelity, data=place.data, study=place.study)
    name = ("+" if len(steps) < 2 else "") + "+".join(Move.parse(step).name for step in steps)
    return Rung(name, name, "Composition", True, experiment, place.start.name)


def find_rung(place: Place, name: str) -> Rung:
    """A rung by name: of the roadmap, of the ablations, a variant, or a composition, `gelu+layer-norm` or `+gelu`.

    Raises ValueError with the valid names.
    """
    for prefix, make in (("without-", _leave_one_out), ("only-", _add_one)):
        if name.startswith(prefix) or (name == "all-steps" and prefix == "without-"):
            rungs = {rung.name: rung for rung in make(place, _chosen_moves(place, "all"))}
            if name not in rungs:
                raise ValueError(f"unknown rung {name!r}; {choices(rungs, name)}")
            return rungs[name]
    return select(place, [name])[0]


def match_width(design: Design, target: Design, input_size: int) -> Design:
    """The design with its width solved for the target's MACs, to within 1 %.

    Of the real width that would have them, doubled from stage to stage, each stage takes the multiple of 8 channels
    above or below it; where that is not near enough, as in a narrow network, of 4, 2 or 1. Raises ValueError where
    none is.
    """
    wanted = cost(target, input_size).macs

    def off(widths: tuple[int, ...]) -> float:
        return cost(replace(design, width=widths), input_size).macs / wanted - 1

    def stages(sixteenths: int) -> list[float]:
        return [sixteenths / 16 * 2**i for i in range(len(design.depths))]

    def rounded(sixteenths: int) -> float:
        return off(tuple(max(1, round(width)) for width in stages(sixteenths)))

    exact = stages(bisect_left(range(1, 256 * design.widths[0]), 0.0, key=rounded) + 1)
    for multiple in (8, 4, 2, 1):
        around = [(max(1, int(width / multiple)) * multiple, (int(width / multiple) + 1) * multiple) for width in exact]
        nearest = min(itertools.product(*around), key=lambda widths: abs(off(widths)))
        if abs(off(nearest)) <= TOLERANCE:
            return replace(design, width=nearest)
    raise ValueError(f"no width comes within 1 % of {wanted} MACs: {list(nearest)} is {100 * off(nearest):+.1f} % off")
