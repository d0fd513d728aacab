"""The recorded epochs of each rung's runs."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.results import Result
from roadmap.record.folder import read_divergences, read_metrics
from roadmap.record.metrics import TOP1, Metric
from roadmap.study.schema import Study

TRAIN_LOSS = "train_loss"


@dataclass(frozen=True)
class Curve:
    """A metric of one run by epoch, from the first epoch on."""

    seed: int
    values: tuple[float, ...]
    train_losses: tuple[float, ...]
    finished: bool
    diverged_at: int | None = None  # the epoch


@dataclass(frozen=True)
class Panel:
    """A rung's runs."""

    rung: str
    title: str
    group: str
    parent: str | None  # the rung that it is compared with
    curves: tuple[Curve, ...]

    @property
    def finished(self) -> list[Curve]:
        return [curve for curve in self.curves if curve.finished]


@dataclass(frozen=True)
class Curves:
    title: str
    metric: Metric
    groups: tuple[str, ...]  # of the study, in order
    panels: tuple[Panel, ...]


def curves_of_runs(study: Study, title: str, results: Sequence[Result], out: Path, metric: Metric = TOP1) -> Curves:
    """Curves of finished and unfinished runs; `out` is the folder of runs.

    Raises ValueError if no run has recorded the metric in any epoch.
    """
    panels = tuple(_panel(result, out, metric) for result in results)
    if not any(curve.values for panel in panels for curve in panel.curves):
        raise ValueError(f"{out}: no run of these rungs has recorded a {metric.title}: there is no curve to draw")
    return Curves(title, metric, study.groups, panels)


def _panel(result: Result, out: Path, metric: Metric) -> Panel:
    runs = [(row, True) for row in result.seeds.values()] + [(row, False) for row in result.unfinished.values()]
    curves = tuple(_curve(row, out / row["folder"], metric, finished) for row, finished in runs)
    return Panel(result.rung.name, result.rung.title, result.rung.group, result.rung.parent, curves)


def _curve(row: Mapping[str, Any], folder: Path, metric: Metric, finished: bool) -> Curve:
    epochs = read_metrics(folder)
    divergences = read_divergences(folder) if row["state"] == "diverged" else ()
    values, losses = (
        tuple(float(value) for epoch in epochs if (value := epoch.number(key)) is not None)
        for key in (metric.key, TRAIN_LOSS)
    )
    return Curve(int(row["seed"]), values, losses, finished, divergences[-1].epoch if divergences else None)
