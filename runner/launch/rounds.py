"""Successive halving: designs are trained in rounds, and only the best of a round go on to the next.

Every run has its full schedule. A round pauses it after a number of epochs that depends on nothing but the options, and
the next round resumes the ones that are kept, exactly. What is kept follows from the records of the runs, so that the
same command finds its place again.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from fractions import Fraction

from roadmap.record.folder import read_metrics
from roadmap.record.metrics import TOP1
from roadmap.study.rungs import Rung
from roadmap.study.spaces import is_sampled
from roadmap.text import many
from runner.launch.plan import PlannedRun, RunPlan


@dataclass(frozen=True)
class Halving:
    """The rule of a study in rounds, fixed before it begins."""

    rounds: int
    keep: Fraction  # of the designs, after each round but the last

    def __post_init__(self) -> None:
        """Raises ValueError for less than two rounds, and for a share that keeps all or none."""
        if self.rounds < 2:
            raise ValueError(f"--rounds must be at least 2 (got {self.rounds})")
        if not 0 < self.keep < 1:
            raise ValueError(f"--keep must be above 0 and below 1 (got {self.keep})")

    @staticmethod
    def of(rounds: int | None, keep: str | None) -> Halving | None:
        """From the options; None without them. Raises ValueError for what can't be a rule."""
        if rounds is None:
            if keep is not None:
                raise ValueError("--keep requires --rounds N")
            return None
        try:
            share = Fraction(keep or "1/3")
        except (ValueError, ZeroDivisionError):
            raise ValueError(f"--keep must be a share such as 1/3 or 0.5 (got {keep!r})") from None
        return Halving(rounds, share)

    def ends(self, epochs: int) -> list[int]:
        """The epoch after which each round ends: so many more as designs are fewer. The last is the schedule's end.

        Raises ValueError if two rounds would end after the same epoch.
        """
        ends = [max(1, round(epochs * self.keep**later)) for later in reversed(range(self.rounds))]
        if len(set(ends)) < self.rounds:
            raise ValueError(
                f"{epochs} epochs are too few for {self.rounds} rounds that keep {self.keep}: rounds would end after "
                f"epochs {', '.join(map(str, ends))}; --set recipe.epochs=N gives more"
            )
        return ends

    def kept(self, designs: int) -> int:
        return max(1, math.ceil(designs * self.keep))


@dataclass(frozen=True)
class Round:
    """A round, with the runs of the designs that reached it."""

    number: int  # from 1
    of: int
    end: int  # epoch
    plan: RunPlan
    dropped: tuple[str, ...] = ()  # rungs that the round before it left out

    def __str__(self) -> str:
        designs = [rung for rung in self.plan.rungs if is_sampled(rung.name)]
        others = [rung.name for rung in self.plan.rungs if not is_sampled(rung.name)]
        behind = f"; {many(len(self.dropped), 'design')} left behind" if self.dropped else ""
        going = ", ".join([many(len(designs), "design"), *others])
        return f"round {self.number} of {self.of}, to epoch {self.end}: {going}{behind}"


def rounds_of(plan: RunPlan, halving: Halving) -> Iterator[Round]:
    """The rounds of a plan of drawn designs. Each is chosen when it is asked for, after the one before was trained.

    The rung that varies, and references, are in all of them. Raises ValueError if the epochs are too few, or the plan
    is of no space.
    """
    if not plan.selection.is_space:
        raise ValueError("--rounds requires --space NAME")
    ends = halving.ends(plan.rungs[0].experiment.recipe.epochs)
    last: Round | None = None
    for number, end in enumerate(ends, start=1):
        rungs = plan.rungs if last is None else _best(last, halving)
        names = {rung.name for rung in rungs}
        runs = tuple(planned for planned in plan.runs if planned.run.rung in names)
        execution = replace(plan.execution, stop_after=None if end == ends[-1] else end)
        own = replace(plan, selection=replace(plan.selection, execution=execution), rungs=rungs, runs=runs).refreshed()
        dropped = tuple(rung.name for rung in last.plan.rungs if rung.name not in names) if last else ()
        last = Round(number, len(ends), end, own, dropped)
        yield last


def due_round(plan: RunPlan, halving: Halving) -> Round:
    """The first round that has runs to train; the last one if none has. Raises ValueError as `rounds_of` does."""
    for current in rounds_of(plan, halving):
        if current.plan.waiting:
            break
    return current


def _best(done: Round, halving: Halving) -> tuple[Rung, ...]:
    """The best designs at the end of a round, by their first seed, and all rungs that were not drawn.

    Other seeds have no say in it, so that they can judge what was chosen.
    """
    first_seed = [planned for planned in done.plan.runs if planned.run.seed == 0]
    top1 = {planned.run.rung: _top1(planned, done.end) for planned in first_seed if is_sampled(planned.run.rung)}
    ranked = sorted(top1, key=lambda name: -top1[name])  # stable: of equal ones the one drawn first
    kept = {*ranked[: halving.kept(len(ranked))]}
    return tuple(rung for rung in done.plan.rungs if rung.name in kept or not is_sampled(rung.name))


def _top1(planned: PlannedRun, epoch: int) -> float:
    """The accuracy at the end of an epoch; minus infinity for a run that diverged before it."""
    metrics = read_metrics(planned.folder)
    value = metrics[epoch - 1].number(TOP1.key) if len(metrics) >= epoch else None
    return -math.inf if value is None else value
