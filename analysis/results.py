"""The results of each rung: of its runs, and as published."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.published import Published, published_rungs
from analysis.statistics.contrasts import Judgement, judge
from analysis.statistics.images import ImageNoise
from analysis.statistics.samples import Sample, Values
from roadmap.network.cost import Cost, cost
from roadmap.record.benchmarks import Measured, Mode, Round, rates_of
from roadmap.record.metrics import TOP1, Metric, averaged
from roadmap.record.outcomes import Outcomes, read_outcomes
from roadmap.record.run import Run
from roadmap.study.references import REFERENCE, references
from roadmap.study.rungs import Rung, StudyContext
from roadmap.study.schema import Study
from roadmap.study.selection import ladder
from roadmap.text import suggest

PUBLISHED_SEEDS = 3  # of each row with a deviation in the paper's Tables 10 and 11


@dataclass(frozen=True)
class Result:
    """The results of a rung's runs."""

    rung: Rung
    run: Run  # with any seed
    cost: Cost
    seeds: dict[int, dict[str, Any]] = field(default_factory=dict)  # finished runs: rows of the collection by seed
    diverged_seeds: tuple[int, ...] = ()  # those that ended in a loss that is not finite
    unfinished: dict[int, dict[str, Any]] = field(default_factory=dict)  # the other runs, with diverged ones
    out: Path | None = None  # the folder of the runs; None if it is not at hand

    def values(self, metric: Metric = TOP1) -> dict[int, float]:
        """By seed, of the finished runs that have the metric."""
        values = {seed: row.get(metric.key) for seed, row in self.seeds.items()}
        return {seed: float(value) for seed, value in values.items() if value is not None and pd.notna(value)}

    def sample(self, metric: Metric = TOP1) -> Sample | None:
        values = list(self.values(metric).values())
        return Sample.of(values) if values else None

    def outcomes(self, metric: Metric = TOP1) -> list[Outcomes] | None:
        """What the runs that have the metric predict for each test image; None unless all of them recorded it."""
        folders = [self.out / self.seeds[seed]["folder"] for seed in self.values(metric)] if self.out else []
        images, is_averaged = self.run.dataset.test_images, metric == averaged(TOP1)
        classes = self.run.dataset.classes
        found = [read_outcomes(own, averaged=is_averaged, images=images, classes=classes) for own in folders]
        outcomes = [own for own in found if own is not None]
        return outcomes if outcomes and len(outcomes) == len(found) else None

    def total(self, column: str) -> float:
        """The sum over the seeds of a column of the collection."""
        return float(sum(row[column] for row in self.seeds.values() if pd.notna(row[column])))

    def median(self, column: str) -> float | None:
        """The median over the seeds of a column of the collection; None if no run has it."""
        values = [float(row[column]) for row in self.seeds.values() if pd.notna(row[column])]
        return statistics.median(values) if values else None


def results_of(rungs: Sequence[tuple[Rung, Run]], table: pd.DataFrame, out: Path | None = None) -> list[Result]:
    """The results in `table` (of `collect(out)`) for each pair of a rung and a run of it, whatever the run's seed."""
    readable_runs = table[table["state"].isin(["finished", "diverged", "begun"])]
    runs: dict[str, list[dict[str, Any]]] = {}
    for row in readable_runs.to_dict("records"):
        runs.setdefault(row["experiment"], []).append({str(key): value for key, value in row.items()})
    results = []
    for rung, run in rungs:
        rung_cost = cost(run.experiment.design, run.experiment.recipe.image_size, run.dataset.classes)
        rows = sorted(runs.get(run.experiment_identity, []), key=lambda row: row["seed"])
        seeds = {int(row["seed"]): row for row in rows if row["state"] == "finished"}
        diverged = tuple(int(row["seed"]) for row in rows if row["state"] == "diverged")
        unfinished = {int(row["seed"]): row for row in rows if row["state"] != "finished"}
        results.append(Result(rung, run, rung_cost, seeds, diverged, unfinished, out))
    return results


def judge_results(results: Sequence[Result], metric: Metric = TOP1) -> dict[str, Judgement]:
    """Judges each rung against the rung before, all of these together."""
    noise = image_noise(results, metric)
    return judge(named_values(results, metric), higher_is_better=metric.higher_is_better, image_noise=noise)


def image_noise(results: Sequence[Result], metric: Metric = TOP1) -> ImageNoise | None:
    """The noise by the choice of the test images. None unless all finished runs recorded them, and for other metrics.

    Raises InvalidFile for a record that is not valid.
    """
    values = {name: parent for name, parent, own in named_values(results, metric) if own}
    compared = {side for name, parent in values.items() if parent in values for side in (name, parent)}
    finished = [result for result in results if result.rung.name in compared]
    if metric not in (TOP1, averaged(TOP1)) or not finished:
        return None
    outcomes = [result.outcomes(metric) for result in finished]
    known = {result.rung.name: own for result, own in zip(finished, outcomes, strict=True) if own}
    tests = {own.labels.tobytes() for runs in known.values() for own in runs}
    if len(known) < len(finished) or len(tests) != 1 or len(next(iter(known.values()))[0].labels) < 2:
        return None
    return ImageNoise.of({name: np.array([own.correct for own in runs]) for name, runs in known.items()})


def named_values(results: Sequence[Result], metric: Metric = TOP1) -> list[tuple[str, str | None, Values]]:
    """Each rung's name, its parent's name, and its values by seed. A step without effect is not judged: no parent."""
    return [
        (result.rung.name, None if result.rung.no_effect else result.rung.parent, result.values(metric))
        for result in results
    ]


def published_sample(row: Published, *, population: bool = False) -> Sample:
    """A row of the paper's tables. Without a printed deviation the number of seeds is unknown, and taken as 1.

    With `population` the deviation is taken as that of a population.
    """
    if row.top1_std is None:
        return Sample(1, row.top1_mean, None)
    factor = math.sqrt(PUBLISHED_SEEDS / (PUBLISHED_SEEDS - 1)) if population else 1.0
    return Sample(PUBLISHED_SEEDS, row.top1_mean, factor * row.top1_std)


def judge_published(study: Study, regime: str, *, population: bool = False) -> dict[str, Judgement]:
    """Judges the paper's own table by its printed means and deviations.

    The paper does not say whether its deviations divide by the number of runs less one, as those of samples do. With
    `population` they are taken to divide by the number of runs.
    """
    rows = published_table(study, regime)
    named_samples: list[tuple[str, str | None, Values]] = [
        (rung.name, _comparable_parent(rung, rows), published_sample(rows[rung.name], population=population))
        for rung in ladder(regime, study=study)
        if rung.name in rows
    ]
    return judge(named_samples)


def _comparable_parent(rung: Rung, rows: Mapping[str, Published]) -> str | None:
    """The rung before, if it was tested as this one was."""
    before = rows.get(rung.parent or "")
    return rung.parent if before and before.test_size == rows[rung.name].test_size else None


def published_table(study: Study, regime: str) -> dict[str, Published]:
    """Raises ValueError for a regime that is not in the paper."""
    rows = published_rungs(study.regime(regime).published)
    if not rows:
        known = ", ".join(study.published_regimes())
        raise ValueError(f"the paper has no table of regime {regime!r}; it has: {known}")
    return rows


def published_rows_of(study: Study, results: Sequence[Result]) -> dict[str, Published]:
    """The paper's rows by rung, for rungs with the paper's network, data and test. The recipe may differ."""
    first = results[0].run
    regime = study.regime(first.regime)
    if not regime.published or first.data != regime.data:
        return {}
    rows = published_rungs(regime.published)
    context = StudyContext.of(first.regime, study=study)
    known = (*ladder(first.regime, study=study), *references(context, "all"))
    designs = {rung.name: rung.experiment.design for rung in known}
    return {
        result.rung.name: row
        for result in results
        if (row := rows.get(result.rung.name)) and row.is_comparable
        if result.run.experiment.design == designs.get(result.rung.name)
    }


@dataclass(frozen=True)
class Bar:
    """A bar of the roadmap figure."""

    rung: str
    title: str
    group: str
    adopted: bool
    value: float | None  # in the metric's unit; None if no run has finished
    std: float | None
    macs: float
    no_effect: bool = False  # whether its step changes nothing in this place
    diverged: int = 0  # number of runs that ended in a loss that is not finite
    runs: int = 1  # the value is the mean of so many runs
    throughput: float | None = None  # measured images/s in inference, if they are shown
    note: str = ""  # behind the value: how it differs from the others


SPREAD_OF_RUNS = "one standard deviation of {} runs"


@dataclass(frozen=True)
class Series:
    """The bars of a regime, from top to bottom."""

    regime: str
    title: str
    bars: tuple[Bar, ...]
    groups: tuple[str, ...]  # of the study, in order
    metric: Metric = TOP1
    measured_on: str = ""  # the conditions of the bars' throughput
    spread: str = SPREAD_OF_RUNS  # meaning of the error bars, with the number of runs


START = "(start)"  # the row of first rungs, which are named after their regimes


def title_of_runs(study: Study, results: Sequence[Result], label: str = "") -> str:
    """`label` has the differences to the regime's definition in the study."""
    run = results[0].run
    return f"{study.regime(run.regime).title} on {run.data}" + (f", {label}" if label else "")


def bar_of(result: Result, metric: Metric = TOP1) -> Bar:
    rung, sample = result.rung, result.sample(metric)
    mean, std, n = (sample.mean, sample.std, sample.n) if sample else (None, None, 0)
    counts = (result.cost.macs, rung.no_effect, len(result.diverged_seeds), n)
    return Bar(rung.name, rung.title, rung.group, rung.adopted, mean, std, *counts)


def series_of_runs(study: Study, results: Sequence[Result], label: str = "", metric: Metric = TOP1) -> Series:
    """The bars of a study's runs. On the regime's own data the published references stand last.

    `label` has the differences to the regime's definition in the study.
    """
    first = results[0].run
    regime = study.regime(first.regime)
    bars = [bar_of(result, metric) for result in results]
    published = _references(study, first.regime) if metric == TOP1 and first.data == regime.data else []
    published = [bar for bar in published if bar.rung not in [own.rung for own in bars]]
    return Series(first.regime, title_of_runs(study, results, label), (*bars, *published), study.groups, metric)


def with_throughput(series: Series, workloads: Mapping[str, str], measured: Measured) -> Series:
    """The bars with the throughput of each rung's network. `workloads` are by rung."""
    speeds = {rung: measured.values.get(workload) for rung, workload in workloads.items()}
    bars = tuple(replace(bar, throughput=speeds.get(bar.rung)) for bar in series.bars)
    return replace(series, bars=bars, measured_on=str(measured.conditions))


def series_of_bench(
    study: Study, title: str, measured: Sequence[tuple[Rung, Sequence[Round]]], mode: Mode, axis_title: str
) -> Series:
    """Bars of measured images/s instead of accuracies, with the spread of the rounds."""
    bars = []
    for rung, rounds in measured:
        if rates := rates_of(rounds, mode):
            identity, macs = (rung.name, rung.title, rung.group, rung.adopted), rounds[0].macs
            spread = rates.spread if len(rounds) > 1 else None
            bars.append(Bar(*identity, rates.images_per_second, spread, macs, rung.no_effect, runs=len(rounds)))
    decimals = 0 if min(bar.value for bar in bars if bar.value) >= 100 else 1
    metric = Metric("throughput", f"{mode}_images_per_second", axis_title, "throughput", "", decimals)
    return Series(
        measured[0][1][0].regime, title, tuple(bars), study.groups, metric, spread="half the range of {} rounds"
    )


def _references(study: Study, regime: str) -> list[Bar]:
    rows = published_rungs(study.regime(regime).published)
    return [
        _published_bar(rows[name], name, reference.title, REFERENCE, rows[name].gmacs * 1e9)
        for name, reference in study.references.items()
        if reference.regime == regime and _published(rows, name)
    ]


def _published_bar(row: Published, name: str, title: str, group: str, macs: float) -> Bar:
    sample = published_sample(row)
    return Bar(name, title, group, row.adopted, sample.mean, sample.std, macs, runs=sample.n, note=difference_of(row))


def difference_of(row: Published) -> str:
    """How a published row was tested otherwise than the rest of its table; empty if it was not."""
    return "" if row.is_comparable else f"at {row.test_size} px"


def _published(rows: Mapping[str, Published], name: str) -> bool:
    """Whether the regime has a table. Raises ValueError for a reference that the table lacks."""
    if rows and name not in rows:
        raise ValueError(f"references.{name}: the published table has no such row; {suggest(rows, name)}")
    return bool(rows)


def published_series(study: Study, regime: str) -> Series:
    """The bars of the paper's table, the reference last. Raises ValueError for a regime that is not in the paper.

    Multiply-adds are computed, as in the paper's Figure 2: two are misprinted in its Table 10.
    """
    rows = published_table(study, regime)
    bars = []
    for rung in ladder(regime, study=study):
        if row := rows.get(rung.name):
            bars.append(_published_bar(row, rung.name, rung.title, row.group, cost(rung.experiment.design).macs))
    references = _references(study, regime)
    title = " / ".join([study.regime(regime).title, *(bar.title for bar in references)])
    return Series(regime, title, (*bars, *references), study.groups)
