"""Compares the order of the steps in a cheap study with their order in another study."""

from __future__ import annotations

import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace

import numpy as np
import pandas as pd

from analysis.options import RunsOptions
from analysis.selected_runs import selected_runs
from analysis.statistics.ranks import FEWEST_STEPS, Levels, RankCorrelation, rank_correlation
from analysis.tables.ladder import published_judged, study_table
from roadmap.record.metrics import TOP1, Metric, find_metric
from roadmap.study.schema import Study

COLUMNS = {"rung", "parent", "mean", "change", "adopted", "metric"}  # which a file of another study must have


@dataclass(frozen=True)
class Proxy:
    """The steps that two studies share, and how well their orders agree."""

    steps: pd.DataFrame  # rung, change_here, change_there (above 0: better), rank_here, rank_there
    correlation: RankCorrelation
    metric: Metric  # of this study
    other_metric: Metric  # of the other study


def proxy_of(options: RunsOptions, against: str) -> Proxy:
    """Compares the selected study with `against`: a regime with a published table, or a CSV file of `roadmap table`.

    Raises ValueError if no run has finished, if the file is not such a table, and for fewer than four shared steps.
    """
    metric = options.find_metric()
    regime = options.study.regime or options.study.study().defaults.regime
    (runs,) = selected_runs(replace(options, study=replace(options.study, regime=regime)))
    here = _steps(study_table(runs.study, runs.results, metric, runs.family), metric)
    other, other_metric = _other_study(runs.study, against)
    there = _steps(other, other_metric)
    shared = [rung for rung in here if rung in there]
    if len(shared) < FEWEST_STEPS:
        counts = f"{len(shared)} steps were changed in both studies; {FEWEST_STEPS} or more are needed"
        raise ValueError(f"{against}: {counts}")
    levels_here, levels_there = (_levels(steps, shared) for steps in (here, there))
    changes_here, changes_there = (levels.changes().tolist() for levels in (levels_here, levels_there))
    steps = {
        "rung": shared,
        "change_here": changes_here,
        "change_there": changes_there,
        "rank_here": _ranks(changes_here),
        "rank_there": _ranks(changes_there),
    }
    return Proxy(pd.DataFrame(steps), rank_correlation(levels_here, levels_there), metric, other_metric)


@dataclass(frozen=True)
class _Step:
    """The values before and after a step, of which the larger is the better one."""

    parent: str
    before: float
    after: float


def _steps(table: pd.DataFrame, metric: Metric) -> dict[str, _Step]:
    """The step to each adopted rung.

    Rungs are left out if they or their parent have no finished run. Variants that were not adopted are not steps.
    """
    known = table.dropna(subset=["change"])
    known = known[known["adopted"].astype(bool)]
    sign = 1.0 if metric.higher_is_better else -1.0
    return {
        str(row["rung"]): _Step(str(row["parent"]), sign * (row["mean"] - row["change"]), sign * row["mean"])
        for row in known.to_dict("records")
    }


def _levels(steps: Mapping[str, _Step], rungs: Sequence[str]) -> Levels:
    """The values of these rungs and of those before them, each once."""
    values: dict[str, float] = {}
    for rung in rungs:
        values |= {steps[rung].parent: steps[rung].before, rung: steps[rung].after}
    positions = {name: position for position, name in enumerate(values)}
    return Levels(list(values.values()), [(positions[steps[rung].parent], positions[rung]) for rung in rungs])


def _other_study(study: Study, against: str) -> tuple[pd.DataFrame, Metric]:
    """The table of the other study, and its metric."""
    if not re.search(r"\.csv$", against, re.IGNORECASE):
        return published_judged(study, against), TOP1
    try:
        table = pd.read_csv(against)
    except (OSError, ValueError) as error:
        raise ValueError(f"--against {against}: {error}") from None
    missing = sorted(COLUMNS - set(table.columns))
    if missing or table.empty:
        lack = f"no column {missing[0]!r}" if missing else "no rows"
        raise ValueError(f"--against {against}: {lack}; write the file with `roadmap table -o FILE.csv`")
    if not (repeated := table["rung"][table["rung"].duplicated()]).empty:
        raise ValueError(f"--against {against}: {repeated.iloc[0]!r} is in two rows; a table has one for each rung")
    for column in ("change", "mean"):
        if not pd.api.types.is_numeric_dtype(table[column]):
            raise ValueError(f"--against {against}: {column!r} must be numbers")
    if table["rung"].isna().any():
        raise ValueError(f"--against {against}: 'rung' is empty in row {int(table['rung'].isna().argmax()) + 1}")
    if not pd.api.types.is_bool_dtype(table["adopted"]):
        raise ValueError(f"--against {against}: 'adopted' must be True or False in every row")
    numbers = table.dropna(subset=["change"])[["change", "mean"]]
    if not np.isfinite(numbers.to_numpy(dtype=float)).all():
        raise ValueError(f"--against {against}: 'change' and 'mean' must be finite in every row with a change")
    _check_changes(table, against)
    try:
        return table, find_metric(str(table["metric"].iloc[0]))
    except ValueError as error:
        raise ValueError(f"--against {against}: {error}") from None


def _check_changes(table: pd.DataFrame, against: str) -> None:
    """Raises ValueError unless each change is the difference of the means of a rung and its parent."""
    means = dict(zip(table["rung"], table["mean"], strict=True))
    for row in table.dropna(subset=["change"]).to_dict("records"):
        if row["parent"] not in means:
            raise ValueError(f"--against {against}: {row['rung']} has a change, and no row of its parent")
        difference = row["mean"] - means[row["parent"]]
        if not abs(row["change"] - difference) <= 1e-6 * max(1.0, abs(row["mean"])):
            raise ValueError(
                f"--against {against}: the change of {row['rung']} must be {difference:.4g}, the difference to "
                f"{row['parent']} (got {row['change']:.4g})"
            )


def _ranks(values: Sequence[float]) -> list[int]:
    """Rank 1 is the largest value."""
    order = sorted(values, reverse=True)
    return [order.index(value) + 1 for value in values]
