"""The page's charts as numbers: the positions of bars, ticks and curves."""

from __future__ import annotations

import math
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from analysis.results import Bar, Result, Series
from roadmap.files import InvalidFile
from roadmap.record.folder import read_metrics
from roadmap.record.metrics import METRICS, Metric
from roadmap.record.results import EpochMetrics
from roadmap.study.references import REFERENCE

MOST_POINTS = 120  # of a curve; more are not visible on a screen
COLOURS = 7  # number of groups' colours in the style sheet

Facts = dict[str, str]  # shown for a bar or a cell under the pointer


@dataclass(frozen=True)
class Row:
    """A row of the figure. Positions are in percent of the chart's width."""

    bar: Bar
    colour: int
    facts: Facts
    starts_group: bool
    text: str  # right of the bar
    width: float | None  # of the bar; None without a bar
    spread: tuple[float, float] | None  # ends of the error bar


@dataclass(frozen=True)
class Figure:
    axis: str
    unit: str  # of multiply-adds
    rows: tuple[Row, ...]
    ticks: tuple[tuple[float, str], ...]  # positions and labels


def group_colours(series: Series) -> dict[str, int]:
    """The index of each group's colour, as in the drawn figure; the start and the references are grey."""
    groups = dict.fromkeys(["", *series.groups, *(bar.group for bar in series.bars)])
    return {group: i % COLOURS for i, group in enumerate(groups)} | {"": 0, REFERENCE: 0}


def figure_of(series: Series, facts: Mapping[str, Facts]) -> Figure:
    """The chart of a series. `facts` are by the name of the rung."""
    ends = [bar.value + sign * (bar.std or 0) for bar in series.bars if bar.value is not None for sign in (-1, 1)]
    low, high = _limits(ends or [0.0, 100.0])
    colours, rows, previous_group = group_colours(series), [], None
    for bar in series.bars:
        width = spread = None
        if bar.value is not None:
            width = _place(bar.value, low, high)
            spread = _spread(bar.value, bar.std, low, high)
        row_facts = facts.get(bar.rung) or {"published": _value_text(bar, series.metric)}
        text = _value_text(bar, series.metric)
        rows.append(Row(bar, colours[bar.group], row_facts, bar.group != previous_group, text, width, spread))
        previous_group = bar.group
    unit = "GMACs" if max(bar.macs for bar in series.bars) >= 1e8 else "MMACs"
    ticks = tuple((_place(tick, low, high), f"{tick:g}") for tick in _ticks(low, high))
    return Figure(series.metric.title, unit, tuple(rows), ticks)


def _value_text(bar: Bar, metric: Metric) -> str:
    if bar.value is None:
        return "diverged" if bar.diverged else "no finished run"
    text = f"{bar.value:.{metric.decimals + 1}f}" + ("" if bar.std is None else f" ±{bar.std:.{metric.decimals + 1}f}")
    text += f", {bar.diverged} diverged" if bar.diverged else ""
    return text + (", no effect" if bar.no_effect else "")


def _limits(values: Sequence[float]) -> tuple[float, float]:
    """Limits from a little below the lowest bar, so that small differences are visible."""
    low, high = min(values), max(values)
    room = (high - low) or abs(high) / 10 or 1.0
    return max(0.0, low - 0.35 * room), high + 0.03 * room


def _place(value: float, low: float, high: float) -> float:
    return round(100 * (value - low) / (high - low), 3)


def _spread(value: float, std: float | None, low: float, high: float) -> tuple[float, float] | None:
    return None if std is None else (_place(value - std, low, high), _place(value + std, low, high))


def _ticks(low: float, high: float, most: int = 6) -> list[float]:
    """Round numbers between the limits."""
    rough = (high - low) / most
    power = 10.0 ** math.floor(math.log10(rough))
    step = next(power * factor for factor in (1, 2, 5, 10) if power * factor >= rough)
    return [round(i * step, 12) for i in range(math.ceil(low / step), math.floor(high / step) + 1)]


def curves_of(series: Series, results: Sequence[Result], out: Path) -> dict[str, Any]:
    """Plain data for the script: for each rung and metric, the mean over its runs at up to MOST_POINTS epochs."""
    metric, colours = series.metric, group_colours(series)
    loss = METRICS["loss"]
    columns = {metric.key: metric.title, "train_loss": "loss in training", loss.key: loss.title}
    rungs: list[dict[str, Any]] = []
    in_group = dict.fromkeys(colours, 0)
    for result in results:
        runs = [epochs for folder in _folders(result) if (epochs := _metrics(out / folder))]
        group = result.rung.group
        if runs:
            mean = _mean(runs, list(columns))
            labels = {"name": result.rung.name, "colour": colours[group], "dash": in_group[group], "runs": len(runs)}
            rungs.append(labels | mean)
        in_group[group] += 1
    shown = {
        column: title
        for column, title in columns.items()
        if any(value is not None for rung in rungs for value in rung["values"][column])
    }
    for rung in rungs:
        rung["values"] = {column: rung["values"][column] for column in shown}
    return {"metrics": shown, "rungs": rungs}


def _folders(result: Result) -> list[str]:
    """The folders of the finished runs; without any, of the unfinished ones."""
    return [row["folder"] for row in (result.seeds or result.unfinished).values()]


def _metrics(folder: Path) -> list[EpochMetrics]:
    try:
        return read_metrics(folder)
    except (InvalidFile, OSError):
        return []  # the table of unfinished runs has the reason


def _mean(runs: Sequence[Sequence[EpochMetrics]], columns: Iterable[str]) -> dict[str, Any]:
    """The mean over the runs, for the epochs that all of them have."""
    length = min(map(len, runs))
    points = min(length, MOST_POINTS)
    epochs = [round((i + 1) * length / points) for i in range(points)]
    values = {
        column: [_mean_of([metrics[epoch - 1].number(column) for metrics in runs]) for epoch in epochs]
        for column in columns
    }
    return {"epochs": epochs, "values": values}


def _mean_of(values: Sequence[Any]) -> float | None:
    """None if a value is missing or not finite."""
    if not all(isinstance(value, int | float) and math.isfinite(value) for value in values):
        return None
    return float(f"{math.fsum(values) / len(values):.5g}")
