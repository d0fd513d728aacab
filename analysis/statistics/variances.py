"""The variance of each rung's runs, of which a few runs say little and all runs of the study more.

The variance of a rung is taken as drawn from a scaled inverse chi-squared distribution, whose scale and degrees of
freedom are unknown (Smyth 2004, "Linear models and empirical Bayes methods for assessing differential expression").
With few degrees of freedom the variances differ by orders of magnitude, and the other rungs say little about one. Only
such small numbers are considered: with larger ones, steps of a few noisy rungs would be called too often.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
from scipy import special, stats

from analysis.statistics.samples import Sample

PRIOR_FREEDOMS = np.array([0.1, 0.3, 1.0, 2.0])  # each with a probability in proportion to its inverse, before the runs
SCALES = np.exp(np.linspace(-5, 5, 81))  # relative to the common variance

Array = np.ndarray[Any, np.dtype[np.float64]]


@dataclass(frozen=True, eq=False)
class Variances:
    """The sample variances of k rungs, with their degrees of freedom."""

    values: Array  # k; 0 where a rung has one run
    freedoms: Array  # k

    @staticmethod
    def of(samples: Sequence[Sample]) -> Variances:
        values = [(sample.std or 0.0) ** 2 for sample in samples]
        return Variances(np.array(values), np.array([sample.n - 1.0 for sample in samples]))

    @cached_property
    def known(self) -> bool:
        """Whether runs of some rung differ: equal runs do not show the noise."""
        return bool((self.values * self.freedoms).any())

    def common(self, values: Array) -> Array:
        """The variance of a usual rung, of these values (any x k): their median, so that no noisy rung decides it."""
        seen = self.freedoms > 0
        medians = stats.chi2.ppf(0.5, self.freedoms[seen]) / self.freedoms[seen]
        median = np.median(values[..., seen] / medians, axis=-1, keepdims=True)
        return np.asarray(np.where(median > 0, median, values[..., seen].mean(axis=-1, keepdims=True)))

    @cached_property
    def _prior(self) -> tuple[Array, Array]:
        """The scales on a grid, and the probability of each (degrees of freedom x scales) given the runs."""
        scales = self.common(self.values) * SCALES
        seen = self.freedoms > 0
        freedoms, squares = self.freedoms[seen], (self.freedoms * self.values)[seen]
        prior = PRIOR_FREEDOMS[:, None, None]
        sums = prior * scales[:, None]
        # The density of the sums of squares, without factors that are the same for all of the grid.
        logarithms = special.gammaln((freedoms + prior) / 2) - special.gammaln(prior / 2)
        logarithms = logarithms + (prior * np.log(sums) - (freedoms + prior) * np.log(sums + squares)) / 2
        likelihood = logarithms.sum(axis=2) - np.log(PRIOR_FREEDOMS)[:, None]
        weights = np.exp(likelihood - likelihood.max())
        return scales, weights / weights.sum()

    def moderated(self, values: Array | None = None) -> Array:
        """Each rung's variance, averaged with the common one. Of these values (any x k), else of the rungs' own."""
        values = self.values if values is None else values
        prior = PRIOR_FREEDOMS[:, None]
        weights = (self._prior[1].sum(axis=1)[:, None] * prior / (prior + self.freedoms)).sum(axis=0)
        return np.asarray(weights * self.common(values) + (1 - weights) * values)

    def drawn(self, generator: np.random.Generator, draws: int) -> Array:
        """True variances that agree with the runs (draws x k)."""
        scales, probabilities = self._prior
        chosen = generator.choice(probabilities.size, (draws, 1), p=probabilities.ravel())
        prior, scale = PRIOR_FREEDOMS[chosen // len(scales)], scales[chosen % len(scales)]
        return np.asarray((prior * scale + self.freedoms * self.values) / generator.chisquare(prior + self.freedoms))


def sampled(generator: np.random.Generator, variances: Array, freedoms: Array) -> Array:
    """Sample variances of runs whose true variances are given (draws x k)."""
    degrees = np.broadcast_to(np.maximum(freedoms, 1), variances.shape)
    return np.asarray(np.where(freedoms > 0, variances * generator.chisquare(degrees) / degrees, 0.0))
