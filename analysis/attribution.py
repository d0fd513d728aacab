"""Effects of the steps in other orders than the paper's, and the pairs that help or hinder each other."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import combinations
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from analysis.collection import collect
from analysis.options import RunsOptions
from analysis.results import Result, results_of
from analysis.statistics.contrasts import Change, holm, untested
from analysis.statistics.samples import CONFIDENCE, SIGNIFICANCE, Noise, Sample, pooled_noise
from roadmap.options import Selection, reject_unused
from roadmap.record.metrics import TOP1, Metric

LEAST = 1e-9  # smaller numbers are rounding errors
FEWEST_ORDERS, FEWEST_FOR_INTERVAL = 2, 5  # an interval of 95 % from two orders would cover 74 %
SPARE = 10  # degrees of freedom that the fit of the pairs needs at least


@dataclass(frozen=True)
class StepEffect:
    """The effect of one step, in the metric's unit."""

    step: str
    title: str
    shapley: float | None  # the mean change over all orders of the steps; None for fewer than two random orders
    interval: tuple[float, float] | None  # at 95 %; None for fewer than five orders, or fewer than two distinct changes
    orders: int  # number of random orders in which it was measured
    on_path: float | None = None  # the change in the paper's order
    alone: float | None = None  # the change from the start (add-one)
    left_out: float | None = None  # the change that is lost when only this step is left out (leave-one-out)


@dataclass(frozen=True)
class Interaction:
    """The effect of two steps together beyond the sum of their separate effects."""

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
    effects: tuple[StepEffect, ...]
    interactions: tuple[Interaction, ...]  # empty if there are too few runs to separate the pairs
    total: float  # the change by all steps together
    missing: int = 0  # rungs of the random orders without a finished run
    diverged: int = 0  # the missing rungs whose runs diverged


@dataclass(frozen=True)
class OrderedChange:
    """The change by a step in one random order."""

    place: int  # in the order, from 1
    change: Change
    networks: str  # the identities of the experiments before and after the step


@dataclass(frozen=True)
class StepEvidence:
    """All measured changes of one step."""

    step: str
    path: Change | None
    alone: Change | None
    left_out: Change | None
    orders: Sequence[OrderedChange]


@dataclass(frozen=True)
class Ablations:
    """The results of the four kinds of ablation of the same steps; empty for a kind that was not run."""

    path: Sequence[Result]  # cumulative
    alone: Sequence[Result]  # add-one
    left_out: Sequence[Result]  # leave-one-out
    orders: Sequence[Result]

    @property
    def all(self) -> Iterable[Result]:
        return (*self.path, *self.alone, *self.left_out, *self.orders)


def attribution_of_runs(options: RunsOptions) -> Attribution:
    """Uses all ablations of the selected steps that were run. Raises ValueError as `attribution_of` does."""
    reject_unused(["ablation"], "does not apply: attribution uses all ablations that were run", options.study)
    metric, selection = options.find_metric(), Selection.of(options.study)
    return attribution_of(selection, collect(options.folder()), metric)


def attribution_of(selection: Selection, runs: pd.DataFrame, metric: Metric = TOP1) -> Attribution:
    """Uses all ablations of the selected steps in `runs`, the table of `collect`.

    Raises ValueError if no run of the start, or no run with all steps, has finished.
    """

    def results(ablation: str) -> list[Result]:
        rungs = replace(selection, ablation=ablation, references=None).rungs()
        return results_of([(rung, selection.run(rung)) for rung in rungs], runs)

    names = runs.loc[runs["regime"] == selection.regime, "rung"].dropna()
    numbers = names.str.extract(r"^order(\d{1,4})-")[0].dropna()
    orders = results(f"orders:{numbers.astype(int).max()}") if len(numbers) else []
    ablations = Ablations(results("cumulative"), results("add-one"), results("leave-one-out"), orders)
    single_steps = [result.rung for result in ablations.alone if result.rung.steps]
    titles = {rung.steps[-1]: rung.title.removeprefix("only ") for rung in single_steps}
    return attribute(titles, ablations, metric)


def attribute(steps: Mapping[str, str], ablations: Ablations, metric: Metric = TOP1) -> Attribution:
    """The effects and interactions of `steps`, a mapping from names to titles.

    The Shapley value of a step is its mean change over all orders of the n steps. Add-one measures its change in the
    first place, and leave-one-out in the last. The random orders are a sample of the n-2 places between. So the three
    have the weights 1/n, 1/n and (n-2)/n. Without add-one or leave-one-out only the random orders are used.

    Raises ValueError if no run of the start, or no run with all steps, has finished.
    """
    pooled = pooled_noise(_samples(ablations.all, metric).values())
    total = _total(steps, ablations, metric)
    path, alone, left_out = (
        _changes(results, steps, metric) for results in (ablations.path, ablations.alone, ablations.left_out)
    )
    orders = _changes_in_orders(ablations.orders, metric)
    evidence = [
        StepEvidence(step, path.get(step), alone.get(step), left_out.get(step), orders.get(step, [])) for step in steps
    ]
    effects = [_effect(steps[step_evidence.step], step_evidence, len(steps), pooled) for step_evidence in evidence]
    missing = [result for result in ablations.orders if result.sample(metric) is None]
    return Attribution(
        tuple(steps),
        dict(steps),
        tuple(effect for effect in effects if effect is not None),
        _interactions(tuple(steps), ablations, metric),
        total,
        len(missing),
        sum(bool(result.diverged_seeds) for result in missing),
    )


def _samples(results: Iterable[Result], metric: Metric) -> dict[str, Sample]:
    """By identity: rungs that are the same experiment share one sample."""
    return {result.run.identity: sample for result in results if (sample := result.sample(metric))}


def _total(steps: Mapping[str, str], ablations: Ablations, metric: Metric) -> float:
    """The change by all steps together, from the ladders if they were run, else from the random orders."""
    sides: list[float] = []
    for wanted_steps, description in ((set(), "of the start"), (set(steps), "with all of these steps")):
        ladders = ((*ablations.left_out, *ablations.path, *ablations.alone), ablations.orders)
        samples_by_source = [
            list(_samples((result for result in results if set(result.rung.steps) == wanted_steps), metric).values())
            for results in ladders
        ]
        samples = samples_by_source[0] or samples_by_source[1]
        if not samples:
            raise ValueError(
                f"no finished run {description}; `roadmap run --ablation leave-one-out` and add-one make them"
            )
        sides.append(float(np.mean([sample.mean for sample in samples])))
    return sides[1] - sides[0]


def _changes(results: Sequence[Result], steps: Mapping[str, str], metric: Metric) -> dict[str, Change]:
    """The change by each step, from the rung without it to the rung with it."""
    by_name = {result.rung.name: result for result in results}
    changes = {}
    for result in results:
        parent = by_name.get(result.rung.parent or "", result)
        without_step, with_step = sorted((parent, result), key=lambda side: len(side.rung.steps))
        before, after = without_step.sample(metric), with_step.sample(metric)
        for step in set(with_step.rung.steps).difference(without_step.rung.steps).intersection(steps):
            if before and after:
                changes[step] = untested(before, after)
    return changes


def _changes_in_orders(results: Sequence[Result], metric: Metric) -> dict[str, list[OrderedChange]]:
    """The change by each step in each random order."""
    by_name = {result.rung.name: result for result in results}
    changes: dict[str, list[OrderedChange]] = {}
    for result in results:
        parent = by_name.get(result.rung.parent or "")
        if parent and (before := parent.sample(metric)) and (after := result.sample(metric)):
            networks = parent.run.identity + result.run.identity
            ordered = OrderedChange(len(result.rung.steps), untested(before, after), networks)
            changes.setdefault(result.rung.steps[-1], []).append(ordered)
    return changes


def _effect(title: str, evidence: StepEvidence, count: int, pooled: Noise | None) -> StepEffect | None:
    """None if the step was measured in the paper's order only."""
    inner_changes = [ordered for ordered in evidence.orders if 1 < ordered.place < count]
    end_changes = [step_change for step_change in (evidence.alone, evidence.left_out) if step_change]
    if len(evidence.orders) < FEWEST_ORDERS:
        parts, sampled = [], []
    elif len(end_changes) == 2 and (inner_changes or count == 2):
        # Each part with its weight: each end is one of `count` places.
        parts = [(1 / count, [end]) for end in end_changes]
        parts += [((count - 2) / count, [ordered.change for ordered in inner_changes])] if inner_changes else []
        sampled = inner_changes
    else:
        parts, sampled = [(1.0, [ordered.change for ordered in evidence.orders])], list(evidence.orders)
    if not parts and not end_changes:
        return None
    shapley = sum(
        share * float(np.mean([step_change.difference for step_change in changes])) for share, changes in parts
    )
    interval = _interval(shapley, parts, sampled, pooled) if len(evidence.orders) >= FEWEST_FOR_INTERVAL else None
    single_changes = [
        step_change.difference if step_change else None
        for step_change in (evidence.path, evidence.alone, evidence.left_out)
    ]
    return StepEffect(evidence.step, title, shapley if parts else None, interval, len(evidence.orders), *single_changes)


def _interval(
    shapley: float,
    parts: Sequence[tuple[float, Sequence[Change]]],
    sampled: Sequence[OrderedChange],
    pooled: Noise | None,
) -> tuple[float, float] | None:
    """The interval from the choice of orders and from the noise of the runs.

    None if neither can be estimated, and for a sample of orders that all contain the same change.

    Several orders can contain the same change between the same two networks, above all with few steps. Such a change
    is one measurement, with a larger weight. `pooled` is the standard deviation of a run and its degrees of freedom.
    Without it, all differences between the orders count as noise.
    """
    groups: dict[str, list[OrderedChange]] = {}
    for ordered in sampled:
        groups.setdefault(ordered.networks, []).append(ordered)
    changes = [group[0].change for group in groups.values()]
    weights = [len(group) / len(sampled) for group in groups.values()]
    spread = Sample.of([step_change.difference for step_change in changes]).std if len(changes) > 1 else None
    if spread is None and (pooled is None or sampled):
        return None
    # The variance of one change between two runs: twice the variance of a run.
    noise = 2 * pooled.std**2 if pooled else (spread or 0.0) ** 2
    share = parts[-1][0] if sampled else 0.0
    end_variance = sum(
        part**2 * noise / step_change.n
        for part, part_changes in parts[: -1 if sampled else None]
        for step_change in part_changes
    )
    order_variance = sum(
        weight**2 * noise / step_change.n for weight, step_change in zip(weights, changes, strict=True)
    )
    drawn = 0.0
    if spread is not None and pooled:
        mean_noise = float(np.mean([noise / step_change.n for step_change in changes]))
        drawn = max(0.0, spread**2 - mean_noise) / len(sampled)
    freedom = len(changes) - 1 if spread is not None else pooled.freedom if pooled else 1
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * math.sqrt(
        end_variance + share**2 * (order_variance + drawn)
    )
    return shapley - half, shapley + half


def _interactions(steps: tuple[str, ...], ablations: Ablations, metric: Metric) -> tuple[Interaction, ...]:
    """The interactions of all pairs, by least squares over every measured set of steps.

    The model of a set's value is a constant plus a term for each step and a term for each pair. Interactions of three
    or more steps count as noise. This noise differs between the sets, so the standard errors are White's (HC3), and
    more seeds of a set do not increase its weight.
    """
    measured = {
        (result.run.identity, frozenset(result.rung.steps)): sample.mean
        for result in ablations.all
        if (sample := result.sample(metric)) and set(result.rung.steps) <= set(steps)
    }
    pairs = list(combinations(steps, 2))
    freedom = len(measured) - 1 - len(steps) - len(pairs)
    if freedom < SPARE:
        return ()
    rows = [[1, *(step in taken for step in steps), *({*pair} <= taken for pair in pairs)] for _, taken in measured]
    design, target = np.array(rows, dtype=float), np.array(list(measured.values()))
    coefficients, _, rank, _ = np.linalg.lstsq(design, target, rcond=None)
    if rank < design.shape[1]:  # the sets do not separate some pair from the others
        return ()
    inverse = np.linalg.inv(design.T @ design)
    leverage = np.einsum("ij,jk,ik->i", design, inverse, design)
    residuals = (target - design @ coefficients) / np.maximum(1 - leverage, LEAST)
    errors = np.sqrt(np.diag(inverse @ (design.T * residuals**2) @ design @ inverse))
    values, errors = coefficients[1 + len(steps) :], np.maximum(errors[1 + len(steps) :], LEAST)
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
