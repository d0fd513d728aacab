"""The variance of each rung's runs, of which a few runs say little and all runs of the study more.

The variance of a rung is taken as drawn from a scaled inverse chi-squared distribution, with PRIOR_FREEDOM degrees of
freedom and an unknown scale (Smyth 2004, "Linear models and empirical Bayes methods for assessing differential
expression"). So few degrees of freedom let the variances of rungs differ by an order of magnitude.
"""

from __future__ import annotations

from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np

PRIOR_FREEDOM = 2.0
SCALES = np.exp(np.linspace(-4, 4, 161))  # grid of the scale, relative to the pooled variance

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Variances:
    """The sample variances of k rungs, with their degrees of freedom."""

    values: Array  # k; 0 where a rung has one run
    freedoms: Array  # k

    @property
    def pooled(self) -> float:
        """The variance of one run, if it were the same for all rungs. NaN if no rung has two runs."""
        return float((self.values * self.freedoms).sum() / self.freedoms.sum()) if self.freedoms.any() else np.nan

    @cached_property
    def scales(self) -> tuple[Array, Array]:
        """The scales of the prior on a grid, and the probability of each given the runs."""
        scales = self.pooled * SCALES
        prior = PRIOR_FREEDOM * scales[:, None]
        seen = self.freedoms > 0
        freedoms, squares = self.freedoms[seen], (self.freedoms * self.values)[seen]
        # The density of the sums of squares given the scale, without factors in which the scale does not occur.
        logarithms = PRIOR_FREEDOM * np.log(prior) - (freedoms + PRIOR_FREEDOM) * np.log(prior + squares)
        likelihood = 0.5 * logarithms.sum(axis=1)
        weights = np.exp(likelihood - likelihood.max())
        return scales, weights / weights.sum()

    def moderated(self, values: Array | None = None) -> Array:
        """Each rung's variance, averaged with the pooled one. Of these values (any x k), else of the rungs' own."""
        values = self.values if values is None else values
        pooled = (values * self.freedoms).sum(axis=-1, keepdims=True) / self.freedoms.sum()
        weights = PRIOR_FREEDOM / (PRIOR_FREEDOM + self.freedoms)
        return np.asarray(weights * pooled + (1 - weights) * values)

    def drawn(self, generator: np.random.Generator, draws: int) -> Array:
        """True variances that agree with the runs (draws x k)."""
        if not self.pooled:
            return np.zeros((draws, len(self.values)))
        scales, probabilities = self.scales
        scale = generator.choice(scales, (draws, 1), p=probabilities)
        sums = PRIOR_FREEDOM * scale + self.freedoms * self.values
        return np.asarray(sums / generator.chisquare(PRIOR_FREEDOM + self.freedoms, (draws, len(self.values))))


def sampled(generator: np.random.Generator, variances: Array, freedoms: Array) -> Array:
    """Sample variances of runs whose true variances are given (draws x k)."""
    degrees = np.broadcast_to(np.maximum(freedoms, 1), variances.shape)
    return np.asarray(np.where(freedoms > 0, variances * generator.chisquare(degrees) / degrees, 0.0))
