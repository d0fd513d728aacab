"""Which steps transfer: the rungs' accuracy beside what they reach in another task."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Literal

import numpy as np
import pandas as pd
from scipy import stats

from analysis.collection import collect
from analysis.options import RunsOptions
from analysis.results import Result, judge_results, results_of
from analysis.statistics.contrasts import Judgement
from roadmap.options import Selection, StudyOptions
from roadmap.record.folder import read_manifest
from roadmap.record.metrics import TOP1, Metric, find_metric
from roadmap.record.run import Run
from roadmap.record.transfers import From, TransferOptions, Transfers
from roadmap.study.rungs import Rung
from roadmap.tasks.registry import CLASSIFICATION, TASKS
from roadmap.tasks.transfer import Frozen

DRAWS = 2000  # of the rungs, for the interval of the rank correlation
FEWEST_RUNGS = 4  # for a rank correlation
BEGINNINGS: dict[str, tuple[From, Frozen]] = {
    "pre-trained": ("run", "none"),
    "frozen": ("run", "all"),
    "from scratch": ("scratch", "none"),
}

Verdict = Literal["transfers", "helps classification only", "helps transfer only", "helps neither", "too few seeds"]


@dataclass(frozen=True)
class Tau:
    """Kendall's rank correlation of the rungs in two metrics."""

    value: float
    interval: tuple[float, float]  # 95 %, by other rungs
    rungs: int

    def __str__(self) -> str:
        low, high = self.interval
        return f"Kendall's tau {self.value:+.2f} ({low:+.2f} to {high:+.2f} at 95 %) over {self.rungs} rungs"


@dataclass(frozen=True)
class TransferStudy:
    """The transfers of a regime's rungs to one task."""

    selection: Selection  # of the task's data
    task: str
    recipe: str  # of the transfer
    metric: Metric  # of the task
    rungs: tuple[Rung, ...]
    before: dict[str, Result]  # classification, by rung
    after: dict[str, dict[str, Result]]  # by beginning (BEGINNINGS), then by rung
    judged_before: dict[str, Judgement]
    judged_after: dict[str, Judgement]  # of those that began with a run

    @property
    def runs(self) -> int:
        """How many transfers have finished."""
        return sum(len(result.seeds) for results in self.after.values() for result in results.values())

    @property
    def title(self) -> str:
        selection = self.selection
        return f"{selection.study.regime(selection.regime).title}, {self.task} on {selection.context.data}"

    @property
    def tau(self) -> Tau | None:
        """Of the pre-trained rungs that have both metrics."""
        pairs = [
            (first.mean, second.mean)
            for name, result in self.before.items()
            if (first := result.sample()) and (second := self.after["pre-trained"][name].sample(self.metric))
        ]
        return tau_of(pairs, self.metric.higher_is_better)

    def verdict(self, rung: str) -> Verdict | None:
        """Whether the step to a rung transfers; None without a step, or without runs."""
        before, after = self.judged_before.get(rung), self.judged_after.get(rung)
        if before is None or after is None or before.verdict is None or after.verdict is None:
            return None
        if "too few seeds to tell" in (before.verdict, after.verdict):
            return "too few seeds"
        if before.verdict == "better":
            return "transfers" if after.verdict == "better" else "helps classification only"
        return "helps transfer only" if after.verdict == "better" else "helps neither"


def tau_of(pairs: Sequence[tuple[float, float]], higher_is_better: bool = True) -> Tau | None:
    """The correlation, with an interval from resampled rungs. None for fewer than four, or where all are equal."""
    if len(pairs) < FEWEST_RUNGS:
        return None
    x, y = np.array(pairs).T * np.array([[1.0], [1.0 if higher_is_better else -1.0]])
    value = stats.kendalltau(x, y).statistic
    if np.isnan(value):
        return None
    draw = np.random.default_rng(0)
    samples: list[float] = []
    while len(samples) < DRAWS:
        chosen = draw.integers(len(x), size=len(x))
        if len(set(x[chosen])) > 1 and len(set(y[chosen])) > 1:
            samples.append(float(stats.kendalltau(x[chosen], y[chosen]).statistic))
    low, high = np.quantile(samples, [0.025, 0.975])
    return Tau(float(value), (float(low), float(high)), len(x))


def transfer_studies(options: RunsOptions, task: str | None = None, recipe: str | None = None) -> list[TransferStudy]:
    """The transfers of each regime and task that have finished runs, with the study's settings.

    Raises ValueError if there are none.
    """
    out = options.folder()
    table = collect(out)
    known = table[(table["task"] != CLASSIFICATION) | table["weights"].notna()]
    known = known[known["state"] == "finished"]
    found = []
    for regime, name in sorted(set(zip(known["regime"], known["task"], strict=True))):
        if task in (None, name) and options.study.regime in (None, regime) and name in TASKS:
            try:
                study = study_of(options.study, str(regime), str(name), recipe, table, out)
            except ValueError:  # data or a recipe of another task
                if task is not None:
                    raise
                continue
            if study and any(result.seeds for results in study.after.values() for result in results.values()):
                found.append(study)
    if not found:
        raise ValueError(f"{out}: no finished transfer with these settings (`roadmap transfer` trains them)")
    return found


def _source(run: Run, table: pd.DataFrame, out: Path) -> Run:
    """The run as the study has it; if it was trained with other settings only, the one with these."""
    of_rung = table[(table["regime"] == run.regime) & (table["rung"] == run.rung) & table["weights"].isna()]
    known = of_rung[(of_rung["state"] == "finished") & (of_rung["task"] == CLASSIFICATION)].drop_duplicates(
        "experiment"
    )
    if len(known) != 1 or run.experiment_identity in set(known["experiment"]):
        return run
    manifest = read_manifest(out / str(known["folder"].iloc[0]))
    return manifest.run if manifest else run


def study_of(
    options: StudyOptions, regime: str, task: str, recipe: str | None, table: pd.DataFrame, out: Path
) -> TransferStudy:
    """The transfers of a regime to a task in `table` (of `collect(out)`)."""
    own = replace(options, regime=regime)
    sources = Selection.of(replace(own, data=None, settings=()))
    rungs = sources.rungs()
    runs = {rung.name: _source(sources.run(rung), table, out) for rung in rungs}
    after: dict[str, dict[str, Result]] = {}
    transfers = None
    for beginning, (begin, frozen) in BEGINNINGS.items():
        transfers = Transfers.of(TransferOptions(task, begin, frozen, recipe), own)
        pairs = [(rung, transfers.run(runs[rung.name])) for rung in rungs]
        after[beginning] = {result.rung.name: result for result in results_of(pairs, table, out)}
    assert transfers is not None
    before = results_of([(rung, runs[rung.name]) for rung in rungs], table, out)
    metric = find_metric(TASKS.find(task).metric)
    return TransferStudy(
        transfers.selection,
        task,
        transfers.recipe,
        metric,
        rungs,
        {result.rung.name: result for result in before},
        after,
        judge_results(before, TOP1),
        judge_results(list(after["pre-trained"].values()), metric),
    )
