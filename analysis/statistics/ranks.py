"""How well two studies agree on the order of the same steps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

from analysis.statistics.samples import CONFIDENCE, ROUNDING

FEWEST_STEPS = 4
RESAMPLES = 2000  # of the bootstrap
PERMUTATIONS = 9999

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class RankCorrelation:
    tau: float  # Kendall's tau-b of the changes
    interval: tuple[float, float] | None  # at 95 %, over the choice of steps (bootstrap percentiles)
    p: float  # the probability of such agreement between unrelated studies
    n: int  # number of steps


@dataclass(frozen=True)
class Levels:
    """The values of a study's rungs, and its changes: pairs of positions of the rung before and of the rung after."""

    values: Sequence[float]
    pairs: Sequence[tuple[int, int]]

    def changes(self, values: Array | None = None) -> Array:
        """The changes, of these values (any x rungs) or of the study's own."""
        values = np.asarray(self.values if values is None else values)
        before, after = np.asarray(self.pairs).T
        return np.asarray(values[..., after] - values[..., before])


def rank_correlation(first: Levels, second: Levels) -> RankCorrelation:
    """Kendall's tau of the changes by the same steps in two studies.

    Successive changes share a rung, so they are not exchangeable. The p value therefore is from permutations of the
    first study's values among its rungs. Raises ValueError for fewer than four steps, or if all changes of a study are
    equal.
    """
    here, there = first.changes(), second.changes()
    if len(here) < FEWEST_STEPS:
        raise ValueError(f"a rank correlation needs at least {FEWEST_STEPS} steps (got {len(here)})")
    tau = float(kendall(here, there))
    if math.isnan(tau):
        raise ValueError("all steps have the same change: there is no order to correlate")
    generator = np.random.default_rng(0)  # the same values every time
    permuted = generator.permuted(np.tile(np.asarray(first.values, dtype=float), (PERMUTATIONS, 1)), axis=1)
    as_large = np.abs(np.nan_to_num(kendall(first.changes(permuted), there))) >= abs(tau) - ROUNDING
    p = (1 + int(as_large.sum())) / (1 + PERMUTATIONS)
    return RankCorrelation(tau, _interval(here, there), p, len(here))


def kendall(first: Array, second: Array) -> Array:
    """Kendall's tau-b over the last axis, the steps. NaN where the steps have no order."""
    i, j = np.triu_indices(first.shape[-1], 1)
    # Rounded, so that 80.57 - 79.92 and 0.65 are a tie.
    signs = [np.sign(np.round(values[..., i] - values[..., j], 9)) for values in (first, second)]
    counts = [np.count_nonzero(sign, axis=-1) for sign in signs]
    with np.errstate(invalid="ignore"):
        return np.asarray((signs[0] * signs[1]).sum(axis=-1) / np.sqrt(np.multiply(*counts, dtype=float)))


def _interval(here: Array, there: Array) -> tuple[float, float]:
    def tau(one: Array, other: Array, axis: int = -1) -> Array:
        # A sample of one repeated step has no order.
        return np.nan_to_num(kendall(np.moveaxis(one, axis, -1), np.moveaxis(other, axis, -1)))

    bounds = stats.bootstrap(
        (here, there),
        tau,
        paired=True,
        n_resamples=RESAMPLES,
        confidence_level=CONFIDENCE,
        method="percentile",
        rng=np.random.default_rng(0),  # the same interval every time
    ).confidence_interval
    return float(bounds.low), float(bounds.high)
