"""The comparisons of a study, judged together.

The variance of each rung's runs is averaged with that of a usual rung (`variances.py`). How large the statistics become
when no step does anything is simulated, with variances that agree with the runs and may differ between rungs. The
largest statistic among all comparisons of such a study gives the corrected p values and the simultaneous intervals. The
two agree: an interval excludes 0 exactly where the corrected p is below 0.05. `benchmarks/verdicts.py` measures error
rates and power.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Literal

import numpy as np
from scipy import stats

from analysis.statistics.images import ImageNoise
from analysis.statistics.samples import CONFIDENCE, POWER, ROUNDING, SIGNIFICANCE, Sample, Values, sample_of
from analysis.statistics.variances import Array, Variances, sampled

FEWEST = 3  # runs that each side needs for a verdict
DRAWS = 19_999  # simulated studies: p values are multiples of 1 / 20,000

Verdict = Literal["better", "worse", "within noise", "too few seeds to tell"]


@dataclass(frozen=True)
class Change:
    """The change from one rung to another. Intervals are at 95 %; None: too few runs."""

    difference: float  # percentage points
    interval: tuple[float, float] | None = None  # simultaneous with the other changes of the study
    p: float | None = None  # the probability of so large a change by chance alone, looking at this change only
    n: int = 1  # runs of the smaller side
    pointwise: tuple[float, float] | None = None  # the interval, looking at this change only
    detectable: float | None = None  # the smallest difference that four of five such studies detect


@dataclass(frozen=True)
class Tested:
    """A change, and what a test over all comparisons of the study says about it."""

    change: Change
    p: float | None = None  # corrected for the number of comparisons; None: too few runs
    verdict: Verdict = "too few seeds to tell"


@dataclass(frozen=True)
class Judgement:
    """A rung, and the change by its step."""

    sample: Sample | None = None  # None if no run has finished
    parent: str | None = None  # the rung that it is compared with
    seeds: Tested | None = None  # against the noise of other seeds; None without a change
    images: Tested | None = None  # against that of other seeds and other test images; None if it is not known
    within_spread: bool | None = None  # whether the change is no larger than either rung's deviation

    @property
    def change(self) -> Change | None:
        return self.seeds.change if self.seeds else None

    @property
    def p(self) -> float | None:
        return self.seeds.p if self.seeds else None

    @property
    def verdict(self) -> Verdict | None:
        return self.seeds.verdict if self.seeds else None


def judge(
    rungs: Sequence[tuple[str, str | None, Values]],
    *,
    higher_is_better: bool = True,
    image_noise: ImageNoise | None = None,
) -> dict[str, Judgement]:
    """Judges each rung (name, parent, values) against its parent, all together. Returns the judgements by name."""
    samples = {name: sample_of(values) for name, _, values in rungs if isinstance(values, Sample) or values}
    parents = {name: parent for name, parent, _ in rungs if parent in samples and name in samples}
    compared = {name: sample for name, sample in samples.items() if name in parents or name in parents.values()}
    by_seeds = _tested(compared, parents, higher_is_better)
    by_images: dict[str, Tested] = {}
    if image_noise and any(tested.change.interval for tested in by_seeds.values()):  # else the seeds' noise is unknown
        by_images = _tested(compared, parents, higher_is_better, image_noise)
        by_images = {name: _wider(tested, by_seeds[name], higher_is_better) for name, tested in by_images.items()}
    judged = {}
    for name, parent, _ in rungs:
        sides = [samples.get(name), samples.get(parent or "")]
        within = None
        if tested := by_seeds.get(name):
            spreads = [side.std for side in sides if side and side.std is not None]
            within = abs(tested.change.difference) <= max(spreads) + ROUNDING if spreads else None
        judged[name] = Judgement(samples.get(name), parent, tested, by_images.get(name), within)
    return judged


def _tested(
    samples: dict[str, Sample],
    parents: dict[str, str],
    higher_is_better: bool,
    image_noise: ImageNoise | None = None,
) -> dict[str, Tested]:
    """The change to each rung from its parent."""
    changes = {name: untested(samples[parent], samples[name]) for name, parent in parents.items()}
    testable = [name for name, change in changes.items() if change.n >= FEWEST]
    tested = {name: Tested(change) for name, change in changes.items()}
    if not testable:
        return tested
    positions = {name: position for position, name in enumerate(samples)}
    pairs = np.array([(positions[parents[name]], positions[name]) for name in testable])
    covariance = image_noise.among(tuple(samples)) if image_noise else None
    family = Family(tuple(samples.values()), pairs, covariance=covariance)
    for comparison, name in enumerate(testable):
        change, p = family.tested(comparison)
        tested[name] = Tested(change, p, verdict(change, p, higher_is_better))
    return tested


def _wider(tested: Tested, by_seeds: Tested, higher_is_better: bool) -> Tested:
    """A test against more noise, whose interval is at least as wide: the bounds of both are simulated."""
    if tested.p is None or by_seeds.p is None or not tested.change.interval or not by_seeds.change.interval:
        return Tested(replace(tested.change, interval=None))
    p, ends = max(tested.p, by_seeds.p), (tested.change.interval, by_seeds.change.interval)
    change = replace(tested.change, interval=max(ends, key=lambda interval: interval[1] - interval[0]))
    return Tested(change, p, verdict(change, p, higher_is_better))


def verdict(change: Change, corrected_p: float | None, higher_is_better: bool = True) -> Verdict:
    if corrected_p is None:
        return "too few seeds to tell"
    if corrected_p >= SIGNIFICANCE:
        return "within noise"
    return "better" if (change.difference > 0) == higher_is_better else "worse"


@dataclass(frozen=True, eq=False)
class Family:
    """The comparisons of a study between rungs that have FEWEST runs or more on both sides."""

    samples: tuple[Sample, ...]  # of all rungs, also of those with one run
    pairs: np.ndarray  # comparisons x 2: positions of the rung before and of the rung after
    draws: int = DRAWS
    covariance: Array | None = None  # of the rungs' means, by the choice of the test images

    @cached_property
    def counts(self) -> Array:
        return np.array([sample.n for sample in self.samples], dtype=float)

    @cached_property
    def variances(self) -> Variances:
        return Variances.of(self.samples)

    @cached_property
    def errors(self) -> Array:
        """The standard error of each change."""
        return self._errors(self.variances.moderated())

    def _errors(self, variances: Array) -> Array:
        """The standard errors of the changes, for runs with these variances (any x rungs)."""
        squares = variances / self.counts
        return np.sqrt(squares[..., self.pairs[:, 0]] + squares[..., self.pairs[:, 1]] + self._by_images.diagonal())

    @cached_property
    def _by_images(self) -> Array:
        """The covariance of the changes by the choice of the test images; zero if that is not asked for."""
        if self.covariance is None:
            return np.zeros((len(self.pairs), len(self.pairs)))
        changes = self.covariance[:, self.pairs[:, 1]] - self.covariance[:, self.pairs[:, 0]]
        return np.asarray(changes[self.pairs[:, 1]] - changes[self.pairs[:, 0]])

    @cached_property
    def simulated(self) -> tuple[Array, Array]:
        """Changes and standard errors in studies in which no step does anything (each draws x comparisons)."""
        generator = np.random.default_rng(0)  # the same p values every time
        true = self.variances.drawn(generator, self.draws)
        means = generator.standard_normal(true.shape) * np.sqrt(true / self.counts)
        changes = means[:, self.pairs[:, 1]] - means[:, self.pairs[:, 0]]
        if self.covariance is not None:
            values, vectors = np.linalg.eigh(self._by_images)
            scaled = vectors * np.sqrt(np.maximum(values, 0.0))
            changes += generator.standard_normal(changes.shape) @ scaled.T
        freedoms = self.variances.freedoms
        return changes, self._errors(self.variances.moderated(sampled(generator, true, freedoms)))

    @cached_property
    def statistics(self) -> Array:
        """The absolute statistics of the simulated studies (draws x comparisons)."""
        changes, errors = self.simulated
        return np.divide(np.abs(changes), errors, out=np.zeros_like(changes), where=errors > ROUNDING)

    @cached_property
    def largest(self) -> Array:
        """The largest statistic of each simulated study, sorted."""
        return np.sort(self.statistics.max(axis=1))

    @cached_property
    def bound(self) -> float:
        """The statistic above which a corrected p value is below 5 %."""
        return _bound(self.largest)

    @cached_property
    def detectable(self) -> Array:
        """The smallest difference that four of five such studies detect, of each comparison.

        The runs of these studies have the variances that are estimated here. A difference is detected if it is larger
        than its bound by the noise of the change.
        """
        generator = np.random.default_rng(1)
        true = np.broadcast_to(self.variances.moderated(), (self.draws, len(self.samples)))
        errors = self._errors(self.variances.moderated(sampled(generator, true, self.variances.freedoms)))
        noise = generator.standard_normal(errors.shape) * self.errors
        return np.asarray(np.quantile(self.bound * errors + noise, POWER, axis=0))

    def tested(self, comparison: int) -> tuple[Change, float | None]:
        """The change of a comparison, and its p value corrected for the number of comparisons."""
        before, after = (self.samples[position] for position in self.pairs[comparison])
        change = untested(before, after)
        error = float(self.errors[comparison]) if self.variances.known else 0.0
        if error <= ROUNDING:
            p = _p_without_noise(change.difference)
            return replace(change, p=p), p
        statistic = abs(change.difference) / error
        own = np.sort(self.statistics[:, comparison])
        tested = replace(
            change,
            interval=_interval(change.difference, self.bound * error),
            p=_exceeded(own, statistic),
            pointwise=_interval(change.difference, _bound(own) * error),
            detectable=float(self.detectable[comparison]),
        )
        return tested, _exceeded(self.largest, statistic)


def _exceeded(ascending: Array, statistic: float) -> float:
    """The share of simulated studies with so large a statistic, the real one included."""
    larger = len(ascending) - int(np.searchsorted(ascending, statistic - ROUNDING))
    return (1 + larger) / (1 + len(ascending))


def _bound(ascending: Array) -> float:
    """The statistic above which `_exceeded` is below 5 %. Takes 19 simulated studies or more."""
    return float(ascending[-math.ceil(SIGNIFICANCE * (len(ascending) + 1)) + 1])


def _interval(middle: float, half: float) -> tuple[float, float]:
    return middle - half, middle + half


def untested(before: Sample, after: Sample) -> Change:
    """The change alone, without a test."""
    return Change(after.mean - before.mean, n=min(before.n, after.n))


def _p_without_noise(difference: float) -> float | None:
    """Equal values do not show the noise: accuracies come in steps of one image, so runs can be equal by chance."""
    return 1.0 if abs(difference) <= ROUNDING else None


def welch(before: Sample, after: Sample) -> Change:
    """The change between two rungs alone, by Welch's test, which needs only means and deviations."""
    change = untested(before, after)
    if before.std is None or after.std is None:
        return change
    parts = [before.std**2 / before.n, after.std**2 / after.n]
    error = math.sqrt(sum(parts))
    if error <= ROUNDING:
        return replace(change, p=_p_without_noise(change.difference))
    freedom = sum(parts) ** 2 / sum(
        part**2 / (sample.n - 1) for part, sample in zip(parts, (before, after), strict=True)
    )
    interval = _interval(change.difference, float(stats.t.ppf((1 + CONFIDENCE) / 2, freedom)) * error)
    p = float(2 * stats.t.sf(abs(change.difference) / error, freedom))
    return replace(change, interval=interval, pointwise=interval, p=p)


def subtract(change: Change, other: Change) -> Change:
    """The difference between two independent changes; their intervals are added in quadrature."""
    difference, n = change.difference - other.difference, min(change.n, other.n)
    if change.pointwise is None or other.pointwise is None:
        return Change(difference, n=n)
    half = math.hypot(*((high - low) / 2 for low, high in (change.pointwise, other.pointwise)))
    interval = _interval(difference, half)
    return Change(difference, interval, n=n, pointwise=interval)


def holm(ps: Sequence[float | None]) -> list[float | None]:
    """P values corrected for their number by Holm's step-down method (1979). None stays None and is not counted."""
    order = sorted((p, i) for i, p in enumerate(ps) if p is not None)
    corrected: list[float | None] = [None] * len(ps)
    largest = 0.0
    for rank, (p, i) in enumerate(order):
        largest = max(largest, min(1.0, p * (len(order) - rank)))
        corrected[i] = largest
    return corrected
