"""Statistics over seeds: means with intervals, changes with p values, and the seeds that a difference needs.

Welch's test and the t intervals are from SciPy; the correction for multiple tests is Holm's (1979).
"""

from __future__ import annotations

import math
from bisect import bisect_left
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

import numpy as np
from scipy import optimize, stats

CONFIDENCE, SIGNIFICANCE, POWER = 0.95, 0.05, 0.8
FEWEST = 3  # seeds that each side needs for a verdict
MOST_SEEDS = 10_000
RESAMPLES = 2000  # of the bootstrap
ROUNDING = 1e-9  # of differences between values with two decimals

Verdict = Literal["better", "worse", "within noise", "too few seeds to tell"]


@dataclass(frozen=True)
class Sample:
    """The values of one rung's runs, percent."""

    n: int
    mean: float
    std: float | None  # of one run; None for a single run

    @staticmethod
    def of(values: Sequence[float]) -> Sample:
        """Raises ValueError for no values."""
        if not values:
            raise ValueError("a sample has at least one value")
        n, mean = len(values), math.fsum(values) / len(values)
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1)) if n > 1 else None
        return Sample(n, mean, std)

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the mean, at 95 %; None for a single run."""
        if self.std is None:
            return None
        half = stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half


Values = Mapping[int, float] | Sample  # of a rung: by seed, or as published


@dataclass(frozen=True)
class Change:
    """The change from one rung to another."""

    difference: float  # percentage points
    interval: tuple[float, float] | None = None  # at 95 %
    p: float | None = None  # the probability of so large a change by chance alone
    method: Literal["paired", "Welch"] | None = None  # None: too few runs
    n: int = 1  # runs of the smaller side, or pairs


def sample_of(values: Values) -> Sample:
    return values if isinstance(values, Sample) else Sample.of(list(values.values()))


def change(before: Values, after: Values) -> Change:
    """A paired test if the other side has all seeds of the smaller side, and at least two; else Welch's test."""
    if not isinstance(before, Sample) and not isinstance(after, Sample):
        shared = sorted(before.keys() & after.keys())
        if len(shared) >= 2 and len(shared) == min(len(before), len(after)):
            pairs = Sample.of([after[seed] - before[seed] for seed in shared])
            error = (pairs.std or 0.0) / math.sqrt(pairs.n)
            return _tested(pairs.mean, error, pairs.n - 1, "paired", pairs.n)
    return welch(sample_of(before), sample_of(after))


def _tested(difference: float, error: float, freedom: float, method: Literal["paired", "Welch"], n: int) -> Change:
    """A change with its interval and p value, by the t distribution.

    Equal differences do not show the noise: accuracies come in steps of one image, so a few runs can have the same
    accuracy by chance.
    """
    if error <= ROUNDING:
        return Change(difference, None, 1.0 if abs(difference) <= ROUNDING else None, method, n)
    half = float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return Change(difference, (difference - half, difference + half), p, method, n)


def welch(before: Sample, after: Sample) -> Change:
    """The change by Welch's test, which needs only means and deviations, as they are published."""
    difference, n = after.mean - before.mean, min(before.n, after.n)
    if before.std is None or after.std is None:
        return Change(difference, n=n)
    parts = [before.std**2 / before.n, after.std**2 / after.n]
    error = math.sqrt(sum(parts))
    if error <= ROUNDING:
        return _tested(difference, 0.0, 1, "Welch", n)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (sample.n - 1) for part, sample in zip(parts, (before, after), strict=True)
    )
    return _tested(difference, error, freedom, "Welch", n)


def subtract(change: Change, other: Change) -> Change:
    """The difference between two independent changes; their intervals are added in quadrature."""
    difference, n = change.difference - other.difference, min(change.n, other.n)
    if change.interval is None or other.interval is None:
        return Change(difference, n=n)
    half = math.hypot(*((high - low) / 2 for low, high in (change.interval, other.interval)))
    return Change(difference, (difference - half, difference + half), n=n)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """P values corrected for their number by Holm's step-down method. None stays None and is not counted."""
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True)
class Judgement:
    """A rung, and the change by its step."""

    sample: Sample | None = None  # None if no run has finished
    parent: str | None = None  # the rung that it is compared with
    change: Change | None = None  # from the parent; None without a parent, or without finished runs of both
    p: float | None = None  # corrected for the number of rungs judged
    verdict: Verdict | None = None  # None without a change
    within_spread: bool | None = None  # whether the change is no larger than either rung's deviation


def judge(rungs: Sequence[tuple[str, str | None, Values]], *, higher_is_better: bool = True) -> dict[str, Judgement]:
    """Judges each rung (name, parent, values) against its parent, with Holm's correction. Returns them by name."""
    values = {name: rung_values for name, _, rung_values in rungs if isinstance(rung_values, Sample) or rung_values}
    changes = {
        name: change(values[parent], values[name])
        for name, parent, _ in rungs
        if name in values and parent is not None and parent in values
    }
    corrected = dict(zip(changes, holm([step_change.p for step_change in changes.values()]), strict=True))
    judged = {}
    for name, parent, _ in rungs:
        sample = sample_of(values[name]) if name in values else None
        if name not in changes or parent is None:
            judged[name] = Judgement(sample, parent)
            continue
        step_change, p = changes[name], corrected[name]
        spreads = [side.std for side in (sample_of(values[name]), sample_of(values[parent])) if side.std is not None]
        within = abs(step_change.difference) <= max(spreads) + ROUNDING if spreads else None
        judged[name] = Judgement(sample, parent, step_change, p, verdict(step_change, p, higher_is_better), within)
    return judged


def verdict(step_change: Change, corrected_p: float | None, higher_is_better: bool = True) -> Verdict:
    if corrected_p is None or step_change.n < FEWEST:
        return "too few seeds to tell"
    if corrected_p >= SIGNIFICANCE:
        return "within noise"
    return "better" if (step_change.difference > 0) == higher_is_better else "worse"


def pooled_std(samples: Iterable[Sample]) -> tuple[float, int] | None:
    """The pooled deviation of one run, and its degrees of freedom. None if no rung has two runs."""
    spread = [(sample.std**2, sample.n - 1) for sample in samples if sample.std is not None]
    freedom = sum(weight for _, weight in spread)
    return (math.sqrt(sum(variance * weight for variance, weight in spread) / freedom), freedom) if freedom else None


@dataclass(frozen=True)
class Noise:
    """The noise between runs that differ only in their seed, and how it was estimated."""

    std: float  # of one run; where `paired`, of the change between two runs of one seed
    freedom: float  # degrees of freedom of the estimate; 0: given by the user
    paired: bool = False

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the deviation, at 95 %; None if it was given by the user."""
        if not self.freedom:
            return None
        ends = stats.chi2.ppf([(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2], self.freedom)
        low, high = (self.std * math.sqrt(self.freedom / end) for end in ends)
        return low, high


def noise_of(rungs: Sequence[tuple[str, str | None, Values]]) -> Noise | None:
    """The noise of rungs, given as for `judge`: of the changes if rungs share seeds, else of the runs.

    None if no rung has two runs.
    """
    values = {name: rung_values for name, _, rung_values in rungs if isinstance(rung_values, Sample) or rung_values}
    pairs = [
        Sample.of([after[seed] - before[seed] for seed in sorted(before.keys() & after.keys())])
        for name, parent, _ in rungs
        if isinstance(before := values.get(parent or ""), Mapping) and isinstance(after := values.get(name), Mapping)
        if before.keys() & after.keys()
    ]
    if pooled := pooled_std(pairs):
        # Neighbouring changes share a rung, so they are correlated by -1/2: fewer degrees of freedom.
        return Noise(pooled[0], pooled[1] / 1.5, paired=True)
    pooled = pooled_std(map(sample_of, values.values()))
    return Noise(*pooled) if pooled else None


def seeds_needed(difference: float, noise: Noise, significance: float = SIGNIFICANCE, power: float = POWER) -> int:
    """The runs of each of two rungs with which a two-sided t test detects a difference with this power.

    Raises ValueError for a difference of 0, or one that needs more than MOST_SEEDS seeds.
    """
    if not math.isfinite(difference) or difference == 0:
        raise ValueError(f"difference must be a number other than 0 (got {difference:g})")
    high = 2
    while power_of(difference, noise, high, significance) < power:
        high *= 2
        if high > MOST_SEEDS:
            raise ValueError(
                f"a difference of {difference:g} at a noise of {noise.std:.3g} needs more than {MOST_SEEDS} seeds"
            )
    numbers = range(2, high + 1)
    return numbers[bisect_left(numbers, power, key=lambda n: power_of(difference, noise, n, significance))]


def power_of(difference: float, noise: Noise, n: int, significance: float = SIGNIFICANCE) -> float:
    """The power of the two-sided t test with n runs on each side, or n pairs."""
    if noise.std == 0:
        return 1.0
    freedom, variance = (n - 1, noise.std**2 / n) if noise.paired else (2 * n - 2, 2 * noise.std**2 / n)
    off, bound = abs(difference) / math.sqrt(variance), stats.t.ppf(1 - significance / 2, freedom)
    other_tail = np.nan_to_num(stats.nct.cdf(-bound, freedom, off))  # SciPy returns NaN far out, where it is almost 0
    return float(stats.nct.sf(bound, freedom, off) + other_tail)


def detectable(n: int, noise: Noise, significance: float = SIGNIFICANCE, power: float = POWER) -> float:
    """The smallest difference that n runs of each of two rungs detect with this power; infinite for one run."""
    if n < 2:
        return math.inf
    if noise.std == 0:
        return 0.0
    upper = noise.std
    while power_of(upper, noise, n, significance) < power:
        upper *= 2
    smallest = optimize.brentq(lambda difference: power_of(difference, noise, n, significance) - power, 0.0, upper)
    return float(smallest)


@dataclass(frozen=True)
class RankCorrelation:
    """How well two studies agree on the order of the same steps."""

    tau: float  # Kendall's tau-b
    interval: tuple[float, float] | None  # at 95 %, over the choice of steps (bootstrap percentiles)
    p: float  # the probability of such agreement between unrelated orders
    n: int  # number of steps


def rank_correlation(first: Sequence[float], second: Sequence[float]) -> RankCorrelation:
    """Kendall's tau of the values of the same steps in two studies.

    Raises ValueError for fewer than four steps, or if all values of a study are equal.
    """
    if len(first) < 4:
        raise ValueError(f"a rank correlation needs at least 4 steps (got {len(first)})")
    # Rounded, so that 80.57 - 79.92 and 0.65 are a tie.
    first, second = (np.round(values, 9).tolist() for values in (first, second))
    correlation = stats.kendalltau(first, second)
    if math.isnan(correlation.statistic):
        raise ValueError("all steps have the same change: there is no order to correlate")

    def tau(one: Sequence[float], other: Sequence[float]) -> float:
        statistic = float(stats.kendalltau(one, other).statistic)
        return 0.0 if math.isnan(statistic) else statistic  # a sample of one repeated step has no order

    bounds = stats.bootstrap(
        (first, second),
        tau,
        paired=True,
        vectorized=False,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),  # the same interval every time
    ).confidence_interval
    return RankCorrelation(
        float(correlation.statistic),
        (float(bounds.low), float(bounds.high)),
        float(correlation.pvalue),
        len(first),
    )
