"""How often verdicts are wrong, and how many steps they call, beside other tests of the same simulated studies.

    python benchmarks/verdicts.py                    # 10,000 studies for each row, about half an hour on one core
    python benchmarks/verdicts.py --studies 500

The studies have the paper's rungs of ResNet-50 with its printed means and deviations (the start has no deviation, and
gets the pooled one). For error rates all means are equal, so that every call is wrong; the rate is the share of studies
with at least one call. `counted`: accuracies in steps of one of 359 images, with deviations as on digits.
"""

from __future__ import annotations

import argparse
import math
import warnings

import numpy as np
from scipy import stats

from analysis.results import published_table
from analysis.statistics.contrasts import Family, holm
from analysis.statistics.planning import Plan
from analysis.statistics.samples import SIGNIFICANCE, Noise, Sample
from roadmap.study.load import load_study
from roadmap.study.selection import ladder

DRAWS = 999  # for each study; a table uses 19,999
IMAGE = 100 / 359  # percent
DIGITS_STD = 0.35  # percentage points, of a run on digits


def papers_study() -> tuple[np.ndarray, np.ndarray, np.ndarray]:
    """The printed means and deviations, and the comparisons: pairs of positions."""
    rows = published_table(load_study(), "resnet-50")
    rungs = [rung for rung in ladder("resnet-50") if rung.name in rows]
    stds = np.array([np.nan if rows[rung.name].top1_std is None else rows[rung.name].top1_std for rung in rungs])
    stds[np.isnan(stds)] = math.sqrt(np.nanmean(stds**2))
    positions = {rung.name: position for position, rung in enumerate(rungs)}
    pairs = [(positions[rung.parent], positions[rung.name]) for rung in rungs if rung.parent in positions]
    return np.array([rows[rung.name].top1_mean for rung in rungs]), stds, np.array(pairs)


def ours(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    samples = tuple(Sample.of(runs) for runs in values.tolist())
    family = Family(samples, pairs, DRAWS)
    if not family.variances.known:
        return np.zeros(len(pairs), dtype=bool)
    means = values.mean(axis=1)
    return np.abs(means[pairs[:, 1]] - means[pairs[:, 0]]) > family.bound * family.errors


def pooled(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    """t tests with one variance for all rungs, corrected by Holm."""
    rungs, n = values.shape
    error = math.sqrt(2 * values.var(axis=1, ddof=1).mean() / n)
    means = values.mean(axis=1)
    statistics = np.abs(means[pairs[:, 1]] - means[pairs[:, 0]]) / error if error else np.zeros(len(pairs))
    return _called(2 * stats.t.sf(statistics, rungs * (n - 1)))


def welch(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        tests = stats.ttest_ind(values[pairs[:, 1]], values[pairs[:, 0]], axis=1, equal_var=False)
    return _called(tests.pvalue)


def paired(values: np.ndarray, pairs: np.ndarray) -> np.ndarray:
    with np.errstate(all="ignore"):
        tests = stats.ttest_rel(values[pairs[:, 1]], values[pairs[:, 0]], axis=1)
    return _called(tests.pvalue)


def _called(ps: np.ndarray) -> np.ndarray:
    corrected = holm([None if math.isnan(p) else float(p) for p in ps])
    return np.array([p is not None and p < SIGNIFICANCE for p in corrected])


TESTS = {"ours": ours, "pooled": pooled, "Welch": welch, "paired": paired}


def calls(
    means: np.ndarray, stds: np.ndarray, pairs: np.ndarray, n: int, studies: int, *, counted: bool = False
) -> dict[str, np.ndarray]:
    """What each test calls, for each study and comparison."""
    generator = np.random.default_rng(n)
    found: dict[str, list[np.ndarray]] = {name: [] for name in TESTS}
    for _ in range(studies):
        values = means[:, None] + stds[:, None] * generator.standard_normal((len(means), n))
        values = np.round(values / IMAGE) * IMAGE if counted else values
        for name, test in TESTS.items():
            with np.errstate(invalid="ignore"):
                found[name].append(test(values, pairs))
    return {name: np.array(rows) for name, rows in found.items()}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--studies", type=int, default=10_000)
    parser.add_argument("--seeds", type=int, nargs="+", default=[3, 5, 10])
    options = parser.parse_args()
    warnings.filterwarnings("ignore", "Precision loss", RuntimeWarning)  # of the peers, for runs that are all equal
    means, stds, pairs = papers_study()
    equal = np.full(len(stds), math.sqrt((stds**2).mean()))
    print(f"{len(pairs)} comparisons of {len(means)} rungs, {options.studies} studies for each row\n")
    print(f"{'':44}" + "".join(f"{name:>9}" for name in TESTS))
    for n in options.seeds:
        for kind, spread in (("as printed", stds), ("equal", equal)):
            for counted in (False, True):
                scale = DIGITS_STD / equal[0] if counted else 1.0
                rates = calls(np.full(len(means), 97.0), scale * spread, pairs, n, options.studies, counted=counted)
                label = f"{n} seeds, {'counted' if counted else 'continuous'}, deviations {kind}:"
                print(
                    f"{label:44}" + "".join(f"{called.any(axis=1).mean():9.3f}" for called in rates.values()),
                    flush=True,
                )
        rates = calls(means, stds, pairs, n, max(1, options.studies // 10))
        steps = {name: called.sum(axis=1).mean() for name, called in rates.items()}
        print(
            f"{f'{n} seeds, steps called, the paper’s means:':44}" + "".join(f"{step:9.2f}" for step in steps.values())
        )
    for n in options.seeds:
        plan = Plan(Noise(float(equal[0])), tuple([None] + [int(pair) for pair in pairs[:, 0]]))
        difference = plan.detectable(n)
        shifted = np.full(len(means), 97.0) + difference * (np.arange(len(means)) % 2)
        detected = calls(shifted, equal, pairs, n, max(1, options.studies // 10))["ours"]
        steps_up = shifted[pairs[:, 1]] != shifted[pairs[:, 0]]
        print(f"{n} seeds, power at the difference of 80 % ({difference:.3f}): {detected[:, steps_up].mean():.3f}")


if __name__ == "__main__":
    main()
