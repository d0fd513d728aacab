"""Draws the rungs' accuracy against what they reach in another task, and the change by each step in both."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke

from analysis.figures.parts.labels import Label, write_labels
from analysis.figures.parts.style import DARK, FAINT, LAYOUTS, NotebookFigure, colours_of, drawing, finish
from analysis.published.transfer import EndPoint, end_points
from analysis.transfer import TransferStudy
from roadmap.record.metrics import TOP1

DOT = 4.5  # radius of a point, points
ROW = 0.26  # height of a step's row, inches
# Names lie on the horizontal error bars, with an edge that keeps them legible.
OVER_BARS: dict[str, Any] = {"zorder": 5, "path_effects": [withStroke(linewidth=2.5, foreground="white")]}


def draw_transfer(study: TransferStudy, columns: int = 2) -> Figure:
    """The rungs in both metrics, connected in the ladder's order, above a pair of bars for each step.

    Raises ValueError if no rung has both metrics.
    """
    points = _points(study, "pre-trained")
    if not points and not _points(study, "from scratch"):
        raise ValueError("no rung has finished both its own training and its transfer: there is no point to draw")
    layout = LAYOUTS[columns]
    steps = [rung.name for rung in study.rungs if _changes(study, rung.name)]
    colours = colours_of(study.selection.study.groups, (rung.group for rung in study.rungs))
    scatter, bars = 3.1 if columns == 2 else 2.4, ROW * len(steps)
    bottom, gap = 0.65, 0.75 if steps else 0.0
    height = 0.35 + scatter + gap + bars + bottom
    left = 0.105 * layout.type * (1.6 if columns == 2 else 1.3)
    with drawing(layout.style):
        figure = NotebookFigure(figsize=(layout.width, height))
        width = (layout.width - left - 0.15) / layout.width
        place = (left / layout.width, (bottom + bars + gap) / height, width, scatter / height)
        axes = figure.add_axes(place)
        axes.set_title(study.title, fontsize=layout.type, loc="left")
        _draw_points(axes, study, colours, layout.small)
        if steps:
            below = figure.add_axes((left / layout.width, bottom / height, width, bars / height))
            _draw_steps(below, study, steps, colours, layout.small)
        finish(figure)
    return figure


Point = tuple[str, str, bool, float, float | None, float, float | None]  # name, group, adopted, x, its std, y, its std


def _points(study: TransferStudy, beginning: str) -> list[Point]:
    points = []
    for rung in study.rungs:
        x, y = study.before[rung.name].sample(TOP1), study.after[beginning][rung.name].sample(study.metric)
        if x and y:
            points.append((rung.name, rung.group, rung.adopted, x.mean, x.std, y.mean, y.std))
    return points


def _draw_points(axes: Axes, study: TransferStudy, colours: dict[str, str], small: float) -> None:
    pretrained, keys = _points(study, "pre-trained"), []
    adopted = [point for point in pretrained if point[2]]
    axes.plot(
        [point[3] for point in adopted], [point[5] for point in adopted], color="#aaaaaa", linewidth=0.8, zorder=1
    )
    labels = []
    styles: dict[str, dict[str, Any]] = {
        "pre-trained": {"marker": "o"},
        "frozen": {"marker": "s", "markersize": 4.5},
        "from scratch": {"marker": "o", "markerfacecolor": "white"},
    }
    for beginning, style in styles.items():
        points = _points(study, beginning)
        for name, group, _, x, x_std, y, y_std in points:
            look: dict[str, Any] = {
                "color": colours[group],
                "markersize": 7,
                "markeredgewidth": 1.2,
                "linestyle": "none",
            } | style
            axes.errorbar(x, y, y_std, x_std, ecolor=DARK, elinewidth=0.6, capsize=1.5, zorder=3, **look)
            if beginning == "pre-trained" or name not in [point[0] for point in pretrained]:
                labels.append(Label(name, x, y, DOT, y_std, {"color": DARK, **OVER_BARS}))
        if points:
            key: dict[str, Any] = {"color": FAINT, "markersize": 6, "linestyle": "none"} | style
            keys.append((Line2D([], [], **key), beginning))
    published = _published(study)
    for point in published:
        axes.plot(point.top1, point.value, "D", color=DARK, markersize=4.5, zorder=3)
        labels.append(Label(point.title, point.top1, point.value, DOT, None, {"color": FAINT, **OVER_BARS}))
    if published:
        keys.append((Line2D([], [], marker="D", color=DARK, markersize=4.5, linestyle="none"), "published"))
    axes.margins(0.12)
    axes.autoscale_view()  # now, because labels are placed by the limits
    axes.grid(color="#eeeeee", linewidth=0.6)
    axes.set_xlabel(TOP1.title)
    axes.set_ylabel(study.metric.title)
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
    write_labels(axes, labels, small)
    if keys:
        handles, texts = zip(*keys, strict=True)
        axes.legend(handles, texts, frameon=False, fontsize=small, loc="best")
    if study.tau:
        place: dict[str, Any] = {"transform": axes.transAxes, "ha": "right", "va": "bottom"}
        axes.text(0.995, 0.01, str(study.tau), fontsize=small, color=FAINT, **place)


def _published(study: TransferStudy) -> Sequence[EndPoint]:
    """The published end points, where the runs have the paper's data."""
    selection = study.selection
    return end_points(selection.regime, selection.context.data, study.recipe, study.metric.key)


def _changes(study: TransferStudy, rung: str) -> bool:
    return bool(study.judged_before[rung].change and study.judged_after[rung].change)


def _draw_steps(axes: Axes, study: TransferStudy, steps: Sequence[str], colours: dict[str, str], small: float) -> None:
    """Two bars for a step: its change in top-1, and in the task's metric, with intervals; the verdict at the right."""
    groups = {rung.name: rung.group for rung in study.rungs}
    for row, name in enumerate(steps):
        sides = ((study.judged_before[name], -0.2, None), (study.judged_after[name], 0.2, "////"))
        for judged, offset, hatch in sides:
            change = judged.change
            assert change is not None  # else the step is not among these
            face = colours[groups[name]] if hatch is None else "white"
            axes.barh(row + offset, change.difference, 0.36, color=face, edgecolor=colours[groups[name]], hatch=hatch)
            if change.interval:
                low, high = change.interval
                ends = [[change.difference - low], [high - change.difference]]
                axes.errorbar(change.difference, row + offset, xerr=ends, color=DARK, capsize=1.5, linewidth=0.7)
        verdict = study.verdict(name) or ""
        axes.text(1, row, verdict, transform=axes.get_yaxis_transform(), ha="right", va="center", fontsize=small)
    axes.set_yticks(range(len(steps)), steps, fontsize=small)
    axes.set_ylim(len(steps) - 0.5, -0.5)
    low, high = axes.get_xlim()
    axes.set_xlim(low, high + 0.45 * (high - low))  # room for the verdicts
    axes.axvline(0, color=DARK, linewidth=0.7)
    axes.tick_params(left=False)
    for side in ("top", "right", "left"):
        axes.spines[side].set_visible(False)
    axes.set_xlabel(f"change against the rung before (points)\nfilled: top-1, hatched: {study.metric.short}")
