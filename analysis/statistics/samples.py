"""The values of one rung's runs, and the noise between runs that differ only in their seed."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass

from scipy import stats

CONFIDENCE, SIGNIFICANCE, POWER = 0.95, 0.05, 0.8
ROUNDING = 1e-9  # of differences between values with two decimals


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
        if n == 1:
            return Sample(n, mean, None)
        std = math.sqrt(math.fsum((value - mean) ** 2 for value in values) / (n - 1))
        return Sample(n, mean, std if std > ROUNDING else 0.0)  # their mean is rounded where all values are equal

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the mean, at 95 %; None for a single run."""
        if self.std is None:
            return None
        half = stats.t.ppf((1 + CONFIDENCE) / 2, self.n - 1) * self.std / math.sqrt(self.n)
        return self.mean - half, self.mean + half


Values = Mapping[int, float] | Sample  # of a rung: by seed, or as published


def sample_of(values: Values) -> Sample:
    return values if isinstance(values, Sample) else Sample.of(list(values.values()))


@dataclass(frozen=True)
class Noise:
    """The noise between runs that differ only in their seed."""

    std: float  # of one run
    freedom: float = 0  # degrees of freedom of the estimate; 0: given by the user

    @property
    def interval(self) -> tuple[float, float] | None:
        """The interval of the deviation, at 95 %; None if it was given by the user."""
        if not self.freedom:
            return None
        ends = stats.chi2.ppf([(1 + CONFIDENCE) / 2, (1 - CONFIDENCE) / 2], self.freedom)
        low, high = (self.std * math.sqrt(self.freedom / end) for end in ends)
        return low, high


def pooled_noise(samples: Iterable[Sample]) -> Noise | None:
    """The pooled deviation of one run. None if no rung has two runs that differ: equal runs do not show the noise."""
    spread = [(sample.std**2, sample.n - 1) for sample in samples if sample.std is not None]
    freedom = sum(weight for _, weight in spread)
    std = math.sqrt(sum(variance * weight for variance, weight in spread) / freedom) if freedom else 0.0
    return Noise(std, freedom) if std > ROUNDING else None
