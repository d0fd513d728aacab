"""The runs that a study needs: the power of the test of `contrasts.py`, by simulation."""

from __future__ import annotations

import math
from bisect import bisect_left
from dataclasses import dataclass
from functools import cached_property

import numpy as np
from scipy import optimize, stats

from analysis.statistics.contrasts import FEWEST, Family
from analysis.statistics.samples import POWER, Noise, Sample
from analysis.statistics.variances import Array

MOST_SEEDS = 10_000
# Simulated runs without effects, from which each simulated study gets its bound; the fewest and the most such studies.
DRAWS, FEWEST_DRAWS, MOST_DRAWS = 20_000, 499, 3_999
# Numbers of seeds that are simulated. Between and beyond them the difference shrinks with the root of their number.
NUMBERS = (FEWEST, 4, 5, 7, 10, 15, 25, 50)


@dataclass(frozen=True)
class Plan:
    """A study of rungs that each have equally many runs, before it is run."""

    noise: Noise  # of a usual rung
    parents: tuple[int | None, ...]  # of each rung: the position of the rung that it is compared with
    relative: tuple[float, ...] = ()  # of each rung: its deviation over that of a usual one; empty: all are usual

    @property
    def comparisons(self) -> int:
        return sum(parent is not None for parent in self.parents)

    @cached_property
    def _known(self) -> dict[int, float]:
        """What `_scaled` returned."""
        return {}

    def _scaled(self, number: int) -> float:
        """The smallest difference that one of NUMBERS detects, times the root of the number."""
        if number not in self._known:
            self._known[number] = math.sqrt(number) * self._simulated(number)
        return self._known[number]

    def _simulated(self, number: int) -> float:
        """The difference that POWER of such studies detect, in a usual comparison."""
        generator = np.random.default_rng(number)
        pairs = np.array([(parent, rung) for rung, parent in enumerate(self.parents) if parent is not None])
        relative = np.array(self.relative or (1.0,) * len(self.parents)) ** 2
        bounds, errors, draws = [], [], min(MOST_DRAWS, max(FEWEST_DRAWS, DRAWS // len(self.parents)))
        for _ in range(_studies(number)):
            variance = self.noise.std**2
            if self.noise.freedom:  # the noise itself is an estimate
                variance *= self.noise.freedom / generator.chisquare(self.noise.freedom)
            freedom = number - 1
            true = variance * relative
            variances = true * generator.chisquare(freedom, len(true)) / freedom
            family = Family(tuple(Sample(number, 0.0, math.sqrt(value)) for value in variances), pairs, draws)
            bounds.append(family.bound * family.errors)
            errors.append(np.sqrt(true[pairs].sum(axis=1) / number))
        return _solved(np.array(bounds), np.array(errors))

    def detectable(self, number: int) -> float:
        """The smallest difference that so many runs of each rung detect in four of five cases; infinite if too few."""
        if number < FEWEST:
            return math.inf
        if self.noise.std == 0:
            return 0.0
        below = max(simulated for simulated in NUMBERS if simulated <= number)
        above = min((simulated for simulated in NUMBERS if simulated >= number), default=below)
        ends = sorted({below, above}, reverse=True)  # interpolated over 1 / number
        scaled = np.interp(1 / number, [1 / end for end in ends], [self._scaled(end) for end in ends])
        return float(scaled) / math.sqrt(number)

    def seeds_needed(self, difference: float) -> int:
        """The runs of every rung with which a difference is detected in four of five cases.

        Raises ValueError for a difference of 0, or one that needs more than MOST_SEEDS seeds.
        """
        if not math.isfinite(difference) or difference == 0:
            raise ValueError(f"difference must be a number other than 0 (got {difference:g})")
        if self.detectable(MOST_SEEDS) > abs(difference):
            raise ValueError(
                f"a difference of {difference:g} at a noise of {self.noise.std:.3g} needs more than {MOST_SEEDS} seeds"
            )
        numbers = range(FEWEST, MOST_SEEDS + 1)
        return numbers[bisect_left(numbers, -abs(difference), key=lambda number: -self.detectable(number))]


def _studies(number: int) -> int:
    """How many studies are simulated: the fewer the runs, the more their bounds differ."""
    return max(10, 300 // number)


def _solved(bounds: Array, errors: Array) -> float:
    """The difference that exceeds its bound in POWER of all studies, in the median over the comparisons.

    `bounds` and `errors` are studies x comparisons; changes are normal with these errors.
    """

    def excess(difference: float) -> float:
        detected = stats.norm.sf((bounds - difference) / errors) + stats.norm.cdf((-bounds - difference) / errors)
        return float(np.median(detected.mean(axis=0))) - POWER

    upper = float(bounds.max() + 3 * errors.max())
    return float(optimize.brentq(excess, 0.0, upper))
