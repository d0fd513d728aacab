"""What each step is worth beyond the paper's one path, and which steps help or hinder each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Literal

import numpy as np
from scipy import stats

from analysis.metrics import TOP1, Metric
from analysis.results import Result
from analysis.statistics import CONFIDENCE, SIGNIFICANCE, Change, Sample, change, holm, pooled_std

SPARE = 10  # measured sets of steps beyond the unknowns of the pairs, before these are believed


@dataclass(frozen=True)
class Worth:
    """A step's share in what all steps came to, in the metric's unit."""

    step: str
    title: str
    shapley: float  # the mean change over all orders of the steps
    interval: tuple[float, float] | None  # at 95 %; none of too few orders
    orders: int  # random orders that it was measured in
    on_path: float | None = None  # the change in the paper's order
    alone: float | None = None  # the change against the start (add-one)
    left_out: float | None = None  # the change that is lost where all others stay (leave-one-out)


@dataclass(frozen=True)
class Interaction:
    """What two steps are worth together beyond what each is worth without the other."""

    first: str  # step
    second: str
    value: float
    interval: tuple[float, float]  # at 95 %
    p: float  # corrected for the number of pairs
    verdict: Literal["help", "hinder", "within noise"]


@dataclass(frozen=True)
class Attribution:
    steps: tuple[str, ...]  # in the study's order
    titles: dict[str, str]
    worths: tuple[Worth, ...]
    interactions: tuple[Interaction, ...]  # none where there are too few runs to tell pairs apart
    total: float  # what all steps together changed


@dataclass(frozen=True)
class Ablations:
    """The results of the four ways to take the same steps apart; empty where one was not run."""

    path: Sequence[Result]  # cumulative
    alone: Sequence[Result]  # add-one
    left_out: Sequence[Result]  # leave-one-out
    orders: Sequence[Result]

    @property
    def all(self) -> Iterable[Result]:
        return (*self.path, *self.alone, *self.left_out, *self.orders)


def attribute(steps: Mapping[str, str], ablations: Ablations, metric: Metric = TOP1) -> Attribution:
    """What runs tell of the worth of steps, which are given by name with their titles.

    The Shapley value is the mean, over all orders of the steps, of what a step changes where it is taken. What it
    changes in the first place and in the last is known from add-one and leave-one-out, and the random orders are a
    sample of those between: so the three are weighed by 1, 1 and n-2 parts of n. Without add-one or leave-one-out the
    orders alone count. Raises ValueError where no run of the start, or of all steps, has finished.
    """
    pooled = pooled_std(sample for result in ablations.all if (sample := result.sample(metric)))
    std = pooled[0] if pooled else 0.0
    total = _total(steps, ablations, metric)
    path, alone, left_out = (
        _changes(results, steps, metric) for results in (ablations.path, ablations.alone, ablations.left_out)
    )
    orders = _changes_in_orders(ablations.orders, metric)
    worths = [
        _worth(step, title, path.get(step), alone.get(step), left_out.get(step), orders.get(step, []), len(steps), std)
        for step, title in steps.items()
    ]
    interactions = _interactions(tuple(steps), ablations, metric)
    known = tuple(worth for worth in worths if worth is not None)
    return Attribution(tuple(steps), dict(steps), known, interactions, total)


def _total(steps: Mapping[str, str], ablations: Ablations, metric: Metric) -> float:
    """What all steps together changed."""
    sides: list[float] = []
    for taken, which in ((set(), "of the start"), (set(steps), "with all of these steps")):
        samples = [result.sample(metric) for result in ablations.all if set(result.rung.steps) == taken]
        means = [sample.mean for sample in samples if sample]
        if not means:
            raise ValueError(f"no finished run {which}; `roadmap run --ablation leave-one-out` and add-one make them")
        sides.append(float(np.mean(means)))
    return sides[1] - sides[0]


def _changes(results: Sequence[Result], steps: Mapping[str, str], metric: Metric) -> dict[str, Change]:
    """By step, what it changed from the rung without it to the rung with it."""
    by_name = {result.rung.name: result for result in results}
    found = {}
    for result in results:
        parent = by_name.get(result.rung.parent or "", result)
        without, having = sorted((parent, result), key=lambda each: len(each.rung.steps))
        before, after = without.values(metric), having.values(metric)
        for step in set(having.rung.steps).difference(without.rung.steps).intersection(steps):
            if before and after:
                found[step] = change(before, after)
    return found


def _changes_in_orders(results: Sequence[Result], metric: Metric) -> dict[str, list[tuple[int, float]]]:
    """By step, its place in each order, from 1, and what it changed there."""
    values = {result.rung.name: result.values(metric) for result in results}
    found: dict[str, list[tuple[int, float]]] = {}
    for result in results:
        before, after = values.get(result.rung.parent or ""), values[result.rung.name]
        if before and after:
            changed = change(before, after).difference
            found.setdefault(result.rung.steps[-1], []).append((len(result.rung.steps), changed))
    return found


def _worth(
    step: str,
    title: str,
    path: Change | None,
    alone: Change | None,
    left_out: Change | None,
    orders: Sequence[tuple[int, float]],
    count: int,
    std: float,
) -> Worth | None:
    """None of a step of which nothing is known beyond the path."""
    between = [changed for place, changed in orders if 1 < place < count]
    ends = [each for each in (alone, left_out) if each]
    if len(ends) == 2 and len(between) >= 2:
        sample, share = Sample.of(between), (count - 2) / count
        shapley = share * sample.mean + sum(each.difference for each in ends) / count
        # Of each end: two means of n runs.
        variance = share**2 * (sample.std or 0) ** 2 / sample.n + sum(2 * std**2 / each.n for each in ends) / count**2
    elif orders:
        sample = Sample.of([changed for _, changed in orders])
        shapley, variance = sample.mean, (sample.std or 0) ** 2 / sample.n
    elif ends:
        sample, variance = Sample.of([each.difference for each in ends]), 0.0
        shapley = sample.mean
    else:
        return None
    interval = None
    if orders and sample.n > 1:
        half = float(stats.t.ppf((1 + CONFIDENCE) / 2, sample.n - 1)) * math.sqrt(variance)
        interval = (shapley - half, shapley + half)
    told = [each.difference if each else None for each in (path, alone, left_out)]
    return Worth(step, title, shapley, interval, len(orders), *told)


def _interactions(steps: tuple[str, ...], ablations: Ablations, metric: Metric) -> tuple[Interaction, ...]:
    """Of all pairs, by least squares over every measured set of steps, weighed by its seeds.

    Each set's value is taken as a constant, what each of its steps adds, and what each pair of them adds beyond; what
    three steps and more do together counts as noise.
    """
    measured = {
        result.run.identity: (frozenset(result.rung.steps), sample)
        for result in ablations.all
        if (sample := result.sample(metric)) and set(result.rung.steps) <= set(steps)
    }
    pairs = list(combinations(steps, 2))
    freedom = len(measured) - 1 - len(steps) - len(pairs)
    if freedom < SPARE:
        return ()
    rows = [
        [1, *(step in taken for step in steps), *({*pair} <= taken for pair in pairs)] for taken, _ in measured.values()
    ]
    weights = np.sqrt([sample.n for _, sample in measured.values()])
    design = np.array(rows, dtype=float) * weights[:, None]
    target = np.array([sample.mean for _, sample in measured.values()]) * weights
    found, _, rank, _ = np.linalg.lstsq(design, target)
    if rank < design.shape[1]:  # some pair was never told apart
        return ()
    variance = float(np.sum((target - design @ found) ** 2)) / freedom
    errors = np.sqrt(variance * np.diag(np.linalg.inv(design.T @ design)))
    values, errors = found[1 + len(steps) :], errors[1 + len(steps) :]
    bound = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom))
    corrected = holm([float(p) for p in 2 * stats.t.sf(np.abs(values) / errors, freedom)])
    return tuple(
        _interaction(first, second, float(value), float(bound * error), p or 0.0, metric)
        for (first, second), value, error, p in zip(pairs, values, errors, corrected, strict=True)
    )


def _interaction(first: str, second: str, value: float, half: float, p: float, metric: Metric) -> Interaction:
    helps = (value > 0) == metric.higher_is_better
    verdict: Literal["help", "hinder", "within noise"] = (
        "within noise" if p >= SIGNIFICANCE else "help" if helps else "hinder"
    )
    return Interaction(first, second, value, (value - half, value + half), p, verdict)
