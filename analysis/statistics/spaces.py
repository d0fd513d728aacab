"""Statistics of drawn designs: distributions of errors, the best value of a parameter, and what each one explains.

After Radosavovic et al., 2019 (On Network Design Spaces for Visual Recognition) and 2020 (Designing Network Design
Spaces).
"""

from __future__ import annotations

import warnings
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import combinations
from typing import Any

import numpy as np
from numpy.typing import NDArray
from scipy import stats

from analysis.statistics.contrasts import holm

Array = NDArray[np.float64]

LEVEL = 0.95
SHARE = 0.25  # of the designs, in each draw
FOLDS = 10  # of the cross-validation
DRAWS = 400  # of designs, for the interval of a share
FEWEST = 10  # designs for a bootstrap
FEWEST_OF_SURFACE = 3  # designs for each term of the surface
GRID = 25  # points of a partial dependence


@dataclass(frozen=True)
class Distribution:
    """The share of designs with at most an error, as steps."""

    errors: Array  # ascending
    shares: Array  # of the designs with at most that error
    half_width: float  # of the band that holds the whole curve of all designs of the space, at LEVEL


@dataclass(frozen=True)
class Difference:
    """Kolmogorov and Smirnov's test of two spaces."""

    spaces: tuple[str, str]
    distance: float  # the largest between the two curves
    p: float
    corrected_p: float  # for all pairs, after Holm


@dataclass(frozen=True)
class Best:
    """The value of a parameter that the best designs have."""

    value: float  # the median over the draws
    interval: tuple[float, float]  # LEVEL of the draws


@dataclass(frozen=True)
class Share:
    """A share of the variance of designs that a surface predicts for those that were left out of its fit.

    Below 0 it predicts worse than their mean.
    """

    value: float
    interval: tuple[float, float]  # at LEVEL, of designs drawn again; the surfaces stay


@dataclass(frozen=True)
class Surface:
    """A quadratic surface through the errors, in the logarithms of positive parameters."""

    explained: Share
    alone: dict[str, Share]  # by a surface of that parameter only
    lost: dict[str, Share]  # how much less is explained without it; small for one that another can stand for
    dependence: dict[str, tuple[Array, Array]]  # values of the parameter, and the mean error of the surface there


def distribution(errors: Sequence[float]) -> Distribution:
    """Raises ValueError without errors."""
    if not len(errors):
        raise ValueError("a distribution needs at least one design")
    ascending = np.sort(np.asarray(errors, float))
    count = len(ascending)
    half_width = float(stats.kstwo.ppf(LEVEL, count)) if count > 1 else 1.0
    return Distribution(ascending, np.arange(1, count + 1) / count, half_width)


def differences(spaces: Mapping[str, Sequence[float]]) -> list[Difference]:
    """Every pair of spaces."""
    pairs = list(combinations(spaces, 2))
    tests: list[Any] = [stats.ks_2samp(spaces[first], spaces[second]) for first, second in pairs]
    corrected = holm([float(test.pvalue) for test in tests])
    return [
        Difference(pair, float(test.statistic), float(test.pvalue), float(own or 0.0))
        for pair, test, own in zip(pairs, tests, corrected, strict=True)
    ]


def best_value(values: Sequence[float], errors: Sequence[float]) -> Best | None:
    """The empirical bootstrap: a quarter of the designs is drawn, and the best of them has the value of that draw.

    Its interval says where the best designs of such samples lie. Nothing is drawn: how often a design is the best
    follows from its rank, so that the result is that of endlessly many draws. None for fewer than ten designs.
    """
    x, y = np.asarray(values, float), np.asarray(errors, float)
    if len(x) < FEWEST:
        return None
    size = max(1, round(SHARE * len(x)))
    ranked = x[np.argsort(y, kind="stable")]
    none_better = (1 - np.arange(len(x) + 1) / len(x)) ** size  # the chance that a draw has none of the first ranks
    _, group, equal = np.unique(np.sort(y), return_inverse=True, return_counts=True)
    often = np.bincount(group, -np.diff(none_better))[group] / equal[group]  # equal errors are the best equally often
    ascending = np.argsort(ranked, kind="stable")
    shares = np.cumsum(often[ascending])
    places = np.searchsorted(shares, [(1 - LEVEL) / 2, 0.5, (1 + LEVEL) / 2])
    low, middle, high = (float(value) for value in ranked[ascending][places])
    return Best(middle, (low, high))


def surface(parameters: Mapping[str, Sequence[float]], errors: Sequence[float]) -> Surface | None:
    """The surface of these parameters, judged on designs that it was not fitted to.

    None for too few designs: three for each of its terms.
    """
    varied = {name: np.asarray(values, float) for name, values in parameters.items() if len(set(values)) > 1}
    y, count = np.asarray(errors, float), len(varied)
    terms = (count + 1) * (count + 2) // 2
    if not count or len(y) < FEWEST_OF_SURFACE * terms or np.ptp(y) == 0:
        return None
    x = np.column_stack([_scaled(values) for values in varied.values()])
    variance, squares = (y - y.mean()) ** 2, _left_out(x, y)
    again = np.random.default_rng(0).multinomial(len(y), np.full(len(y), 1 / len(y)), size=DRAWS)

    def share(gained: Array) -> Share:
        drawn = again @ gained / np.maximum(again @ variance, 1e-12)
        low, high = np.quantile(drawn, [(1 - LEVEL) / 2, (1 + LEVEL) / 2])
        return Share(float(gained.sum() / variance.sum()), (float(low), float(high)))

    alone = {name: share(variance - _left_out(x[:, [i]], y)) for i, name in enumerate(varied)}
    lost = {name: share(_left_out(np.delete(x, i, 1), y) - squares) for i, name in enumerate(varied)}
    model = _model().fit(x, y)
    dependence = {}
    for i, (name, values) in enumerate(varied.items()):
        grid = np.linspace(values.min(), values.max(), GRID)
        if values.min() > 0:
            grid = np.geomspace(values.min(), values.max(), GRID)
        means = []
        for own in _scaled(grid):
            moved = x.copy()
            moved[:, i] = own
            means.append(float(model.predict(moved).mean()))
        dependence[name] = (grid, np.array(means))
    return Surface(share(variance - squares), alone, lost, dependence)


def _scaled(values: Array) -> Array:
    return np.log(values) if values.min() > 0 else values


def _model() -> Any:
    from sklearn.linear_model import RidgeCV
    from sklearn.pipeline import make_pipeline
    from sklearn.preprocessing import PolynomialFeatures, StandardScaler

    ridge = RidgeCV(np.geomspace(1e-3, 1e3, 13))
    return make_pipeline(StandardScaler(), PolynomialFeatures(2, include_bias=False), StandardScaler(), ridge)


def _left_out(x: Array, y: Array) -> Array:
    """The squared error of the surface for each design, fitted without it; without parameters that of their mean."""
    if not x.shape[1]:
        return np.asarray((y - y.mean()) ** 2)
    from sklearn.model_selection import KFold, cross_val_predict

    folds = KFold(min(FOLDS, len(y)), shuffle=True, random_state=0)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # of constant columns in a fold
        return np.asarray((y - cross_val_predict(_model(), x, y, cv=folds)) ** 2)
