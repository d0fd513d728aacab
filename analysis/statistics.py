"""What seeds can tell: means with intervals, changes with p values, and how many seeds a difference needs.

Welch's test and the t intervals are SciPy's; Holm's correction is his of 1979.
"""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from scipy import stats

CONFIDENCE, SIGNIFICANCE, POWER = 0.95, 0.05, 0.8
FEWEST = 3  # seeds on either side from which a verdict is given
MOST_SEEDS = 10_000
ROUNDING = 1e-9  # of differences between figures with two decimals

Verdict = Literal["better", "worse", "within noise", "too few seeds to tell"]


@dataclass(frozen=True)
class Sample:
    """What runs of one rung came to, percent."""

    n: int
    mean: float
    std: float | None  # of one run; none of a single one

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
        """That the mean lies in, at 95 %; none of a single run."""
        if self.std is None:
            return None
        half = stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half


Values = Mapping[int, float] | Sample  # of a rung: by seed, or what is published of them


@dataclass(frozen=True)
class Change:
    """From one rung to another."""

    difference: float  # percentage points
    interval: tuple[float, float] | None = None  # at 95 %
    p: float | None = None  # that chance alone makes it so large
    method: Literal["paired", "Welch"] | None = None  # none: too few runs
    n: int = 1  # runs of the side that has fewer, or pairs


def sample_of(values: Values) -> Sample:
    return values if isinstance(values, Sample) else Sample.of(list(values.values()))


def change(before: Values, after: Values) -> Change:
    """Paired where at least two seeds are shared, else Welch's."""
    if not isinstance(before, Sample) and not isinstance(after, Sample):
        shared = sorted(before.keys() & after.keys())
        if len(shared) >= 2:
            pairs = Sample.of([after[seed] - before[seed] for seed in shared])
            return Change(pairs.mean, pairs.interval, _p_of_mean(pairs), "paired", pairs.n)
    return welch(sample_of(before), sample_of(after))


def _p_of_mean(pairs: Sample) -> float:
    assert pairs.std is not None
    if pairs.std == 0:
        return 1.0 if pairs.mean == 0 else 0.0
    return float(2 * stats.t.sf(abs(pairs.mean) / (pairs.std / math.sqrt(pairs.n)), pairs.n - 1))


def welch(before: Sample, after: Sample) -> Change:
    """From means and deviations alone, as they are published."""
    difference, n = after.mean - before.mean, min(before.n, after.n)
    if before.std is None or after.std is None:
        return Change(difference, n=n)
    parts = [sample.std**2 / sample.n for sample in (before, after) if sample.std is not None]
    error = math.sqrt(sum(parts))
    if error == 0:
        return Change(difference, (difference, difference), 1.0 if difference == 0 else 0.0, "Welch", n)
    freedom = sum(parts) ** 2 / sum(
        part**2 / (sample.n - 1) for part, sample in zip(parts, (before, after), strict=True)
    )
    half = stats.t.ppf((1 + CONFIDENCE) / 2, freedom) * error
    p = float(2 * stats.t.sf(abs(difference) / error, freedom))
    return Change(difference, (difference - half, difference + half), p, "Welch", n)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """Corrected for their number, step by step down from the smallest; what has no p is not counted."""
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[i] = largest
    return corrected


@dataclass(frozen=True)
class Judgement:
    """A rung, and what its step changed."""

    sample: Sample | None = None  # none where no run has finished
    parent: str | None = None  # the rung that it is held against
    change: Change | None = None  # against it; none where there is none, or no run of it has finished
    p: float | None = None  # corrected for the number of rungs judged
    verdict: Verdict | None = None  # none without a change
    within_spread: bool | None = None  # whether the change is no larger than either rung's deviation


def judge(rungs: Sequence[tuple[str, str | None, Values]], *, higher_is_better: bool = True) -> dict[str, Judgement]:
    """Each rung's (name, parent, values) against its parent's, by name, corrected for their number after Holm."""
    values = {name: found for name, _, found in rungs if isinstance(found, Sample) or found}
    changes = {
        name: change(values[parent], values[name])
        for name, parent, _ in rungs
        if name in values and parent is not None and parent in values
    }
    corrected = dict(zip(changes, holm([each.p for each in changes.values()]), strict=True))
    judged = {}
    for name, parent, _ in rungs:
        sample = sample_of(values[name]) if name in values else None
        if name not in changes or parent is None:
            judged[name] = Judgement(sample, parent)
            continue
        found, p = changes[name], corrected[name]
        spreads = [each.std for each in (sample_of(values[name]), sample_of(values[parent])) if each.std is not None]
        within = abs(found.difference) <= max(spreads) + ROUNDING if spreads else None
        judged[name] = Judgement(sample, parent, found, p, verdict(found, p, higher_is_better), within)
    return judged


def verdict(found: Change, corrected: float | None, higher_is_better: bool = True) -> Verdict:
    if corrected is None or found.n < FEWEST:
        return "too few seeds to tell"
    if corrected >= SIGNIFICANCE:
        return "within noise"
    return "better" if (found.difference > 0) == higher_is_better else "worse"


def pooled_std(samples: Iterable[Sample]) -> tuple[float, int] | None:
    """The deviation of one run that all rungs share, and its degrees of freedom; none where none has two runs."""
    spread = [(sample.std**2, sample.n - 1) for sample in samples if sample.std is not None]
    freedom = sum(weight for _, weight in spread)
    return (math.sqrt(sum(variance * weight for variance, weight in spread) / freedom), freedom) if freedom else None


def seeds_needed(difference: float, std: float, power: float = POWER) -> int:
    """Of each of two rungs, for a two-sided t test at 5 % to see a difference with that power.

    Raises ValueError for a difference of nothing, or one that no number of seeds that anyone trains shows.
    """
    if difference == 0 or std < 0:
        raise ValueError("a difference other than 0 and a deviation of 0 or more are expected")
    if std == 0:
        return 2
    low, high = 1, 2
    while power_of(difference, std, high) < power:
        low, high = high, high * 2
        if high > MOST_SEEDS:
            raise ValueError(f"a difference of {difference:g} at a noise of {std:g} needs more than {MOST_SEEDS} seeds")
    while high - low > 1:
        middle = (low + high) // 2
        low, high = (low, middle) if power_of(difference, std, middle) >= power else (middle, high)
    return high


def power_of(difference: float, std: float, n: int) -> float:
    """Of the two-sided t test at 5 % with n runs on each side."""
    freedom = 2 * n - 2
    off = abs(difference) / (std * math.sqrt(2 / n))
    bound = stats.t.ppf(1 - SIGNIFICANCE / 2, freedom)
    return float(stats.nct.sf(bound, freedom, off) + stats.nct.cdf(-bound, freedom, off))
