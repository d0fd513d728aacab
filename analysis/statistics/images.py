"""The noise of the test images: other images of the same kind would give other accuracies."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from scipy import stats

Array = np.ndarray[Any, Any]


@dataclass(frozen=True, eq=False)
class ImageNoise:
    """The noise that the choice of the test images adds to the mean accuracies of rungs."""

    names: tuple[str, ...]  # of the rungs
    covariance: Array  # rungs x rungs, in squared percentage points
    images: int  # number of test images

    @staticmethod
    def of(correct: Mapping[str, Array]) -> ImageNoise:
        """From which images each rung's runs classify correctly (runs x images, bool), with two images or more.

        Runs differ from one another on an image by chance. That belongs to the noise of the seeds, and is subtracted.
        """
        rows = [100.0 * runs for runs in correct.values()]
        covariance = np.atleast_2d(np.cov(np.array([runs.mean(axis=0) for runs in rows])))
        by_seed = [runs.var(axis=0, ddof=1).mean() / len(runs) if len(runs) > 1 else 0.0 for runs in rows]
        values, vectors = np.linalg.eigh(covariance - np.diag(by_seed))
        images = rows[0].shape[1]
        return ImageNoise(tuple(correct), (vectors * np.maximum(values, 0.0)) @ vectors.T / images, images)

    def among(self, names: Sequence[str]) -> Array:
        """The covariance of these rungs."""
        positions = [self.names.index(name) for name in names]
        return self.covariance[np.ix_(positions, positions)]


@dataclass(frozen=True)
class McNemar:
    """The exact test of whether one of two networks is right on more images than the other."""

    only_first: int  # number of images on which the first alone is right, or more of its runs are
    only_second: int
    p: float  # the probability of so unequal numbers on other test images, if neither network is better


def mcnemar(only_first: int, only_second: int) -> McNemar:
    """Of the numbers of images on which one network alone is right."""
    differing = only_first + only_second
    p = float(stats.binomtest(only_first, differing).pvalue) if differing else 1.0
    return McNemar(only_first, only_second, p)
