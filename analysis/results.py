"""Finished runs and published tables, collected rung by rung."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

from analysis.published import Published, published_rungs
from roadmap.costs import Cost, cost
from roadmap.ladders import ladder
from roadmap.plain import choices
from roadmap.record import Run, find_runs, is_diverged, read_divergences, read_result
from roadmap.rungs import Rung
from roadmap.study import Study


@dataclass(frozen=True)
class Result:
    """What became of a rung's runs."""

    rung: Rung
    run: Run  # of any seed
    cost: Cost
    seeds: dict[int, dict[str, Any]]  # result.json of each
    diverged_seeds: tuple[int, ...] = ()  # those that ended in a loss that was no finite number

    @property
    def mean(self) -> float | None:
        """Mean top-1 over the seeds, percent."""
        return statistics.fmean(self._top1) if self.seeds else None

    @property
    def ema_mean(self) -> float | None:
        """Mean top-1 of the averaged weights, percent; none where none were averaged."""
        averaged = [float(row["ema_top1"]) for row in self.seeds.values() if "ema_top1" in row]
        return statistics.fmean(averaged) if averaged else None

    @property
    def std(self) -> float | None:
        """Standard deviation of top-1 over the seeds, percent; none of a single seed."""
        return statistics.stdev(self._top1) if len(self.seeds) > 1 else None

    @property
    def _top1(self) -> list[float]:
        return [float(row["top1"]) for row in self.seeds.values()]

    @property
    def seconds(self) -> float:
        """Training time of all seeds."""
        return sum(float(row["seconds"]) for row in self.seeds.values())


def collect(rungs: Sequence[tuple[Rung, Run]], out: Path) -> list[Result]:
    """For each rung and a run of it, the finished runs below `out` that are the same but for the seed."""
    finished: dict[str, dict[int, dict[str, Any]]] = {}
    diverged: dict[str, list[int]] = {}
    for run, folder in find_runs(out):
        result, identity = read_result(folder, run), replace(run, seed=0).identity
        if result is not None:
            finished.setdefault(identity, {})[run.seed] = result
        elif is_diverged(read_divergences(folder)):
            diverged.setdefault(identity, []).append(run.seed)
    results = []
    for rung, run in rungs:
        counted = cost(run.experiment.design, run.experiment.recipe.image_size, run.dataset.classes)
        identity = replace(run, seed=0).identity
        seeds = dict(sorted(finished.get(identity, {}).items()))
        results.append(Result(rung, run, counted, seeds, tuple(sorted(diverged.get(identity, ())))))
    return results


@dataclass(frozen=True)
class Bar:
    """A bar of the roadmap figure."""

    rung: str
    title: str
    group: str
    adopted: bool
    top1: float | None  # percent; none where no run has finished
    std: float | None  # percent
    macs: float
    no_effect: bool = False  # its step changes nothing where it stands
    diverged: int = 0  # runs that ended in a loss that was no finite number


@dataclass(frozen=True)
class Series:
    """The bars of a regime, from top to bottom."""

    regime: str
    title: str
    bars: tuple[Bar, ...]
    groups: tuple[str, ...]  # of the study, in order


REFERENCE = "Reference"  # the group of the systems that the rungs are held against


def series_of_runs(study: Study, results: Sequence[Result], label: str = "") -> Series:
    """The bars of a study's own runs; on the regime's own data the published references last.

    `label` says what differs from the regime as it stands in the study.
    """
    first = results[0].run
    regime = study.regime(first.regime)

    def bar(result: Result) -> Bar:
        rung = result.rung
        found = (result.mean, result.std, result.cost.macs)
        return Bar(rung.name, rung.title, rung.group, rung.adopted, *found, rung.no_effect, len(result.diverged_seeds))

    references = _references(study, first.regime) if first.data == regime.data else []
    title = f"{regime.title} on {first.data}" + (f", {label}" if label else "")
    return Series(first.regime, title, (*map(bar, results), *references), study.groups)


def _references(study: Study, regime: str) -> list[Bar]:
    rows = published_rungs(study.regime(regime).published)
    return [
        Bar(name, reference.title, REFERENCE, True, rows[name].top1_mean, rows[name].top1_std, rows[name].gmacs * 1e9)
        for name, reference in study.references.items()
        if reference.regime == regime and _published(rows, name)
    ]


def _published(rows: Mapping[str, Published], name: str) -> bool:
    """Raises ValueError for a reference that the table lacks."""
    if rows and name not in rows:
        raise ValueError(f"references.{name}: the published table has no such row; {choices(rows, name)}")
    return bool(rows)


def published_series(study: Study, regime: str) -> Series:
    """The bars of the paper's table, the reference last. Raises ValueError for a regime that is not in the paper.

    Multiply-adds are the networks' own, as in the paper's Figure 2: its Table 10 misprints two.
    """
    rows = published_rungs(study.regime(regime).published)
    if not rows:
        known = ", ".join(study.published_regimes())
        raise ValueError(f"the paper has no table of regime {regime!r}; it has: {known}")
    bars = []
    for rung in ladder(regime, study=study):
        if row := rows.get(rung.name):
            macs = cost(rung.experiment.design).macs
            bars.append(Bar(rung.name, rung.title, row.group, row.adopted, row.top1_mean, row.top1_std, macs))
    references = _references(study, regime)
    title = " / ".join([study.regime(regime).title, *(bar.title for bar in references)])
    return Series(regime, title, (*bars, *references), study.groups)
