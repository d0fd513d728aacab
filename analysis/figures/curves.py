"""Draws training curves: a panel for each rung, with the rung before it in grey."""

from __future__ import annotations

import math
from collections.abc import Sequence
from itertools import zip_longest
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patches import Patch

from analysis.curves import Curve, Curves, Panel
from analysis.figures.parts.style import (
    BEHIND,
    BEHIND_EDGE,
    DARK,
    DIVERGED,
    FAINT,
    LAYOUTS,
    NotebookFigure,
    axis_title,
    colours_of,
    drawing,
    finish,
)

ACROSS = {1: 3, 2: 6}  # panels in a row
SETTLED = 0.25  # share of the epochs; later values are all within the axis


def draw_curves(curves: Curves, columns: int = 2) -> Figure:
    """Means over the seeds with a band from the lowest to the highest, and each unfinished run as a dashed line.

    For a loss on held-out images, the loss on the training images is added as a dotted line.
    """
    layout, panels_per_row = LAYOUTS[columns], min(ACROSS[columns], len(curves.panels))
    panel_rows = math.ceil(len(curves.panels) / panels_per_row)
    colours = colours_of(curves.groups, (panel.group for panel in curves.panels))
    by_rung = {panel.rung: panel for panel in curves.panels}
    keys, keys_per_line = _keys(curves), 6 if columns == 2 else 3
    left, top = layout.type * 0.068, layout.type * 0.012
    bottom = layout.type * 0.055 + layout.small * 0.02 * -(-len(keys) // keys_per_line) + 0.03
    panel_height = 1.05 if columns == 2 else 0.85
    width, height = layout.width, top + bottom + panel_rows * panel_height
    with drawing(layout.style | {"axes.titlesize": layout.small, "axes.titlepad": 2}):
        figure = NotebookFigure(figsize=(width, height))
        grid = figure.subplots(panel_rows, panels_per_row, sharex=True, sharey=True, squeeze=False)
        edges = {"left": left / width, "right": 0.99, "bottom": bottom / height, "top": 1 - (top + 0.1) / height}
        figure.subplots_adjust(**edges, wspace=0.1, hspace=0.28)
        for axes, panel in zip_longest(grid.flat, curves.panels):
            if panel is None:
                axes.remove()
                continue
            parent = by_rung.get(panel.parent) if panel.parent else None
            _draw_panel(axes, panel, parent, colours[panel.group], curves)
            axes.tick_params(labelsize=layout.small, length=2)
        _set_limits(grid[0, 0], curves)
        for axes in list(grid.flat)[len(curves.panels) - panels_per_row : len(curves.panels)]:
            axes.tick_params(labelbottom=True)
        figure.supylabel(axis_title(curves.metric), x=0.004, fontsize=layout.type)
        middle = (left / width + 0.99) / 2
        label_y = (bottom - 0.042 * layout.type) / height
        figure.supxlabel(f"epoch – {curves.title}", x=middle, y=label_y, va="center", fontsize=layout.type)
        _add_legend(figure, keys, keys_per_line, layout.small)
        finish(figure)
    return figure


def _draw_panel(axes: Axes, panel: Panel, parent: Panel | None, colour: str, curves: Curves) -> None:
    axes.set_title(panel.title, color=DARK)
    axes.spines[["right", "top"]].set_visible(False)
    shows_train_loss = not curves.metric.higher_is_better
    if parent and parent.finished:
        _draw_mean(axes, [curve.values for curve in parent.finished], BEHIND_EDGE, "-", BEHIND)
    if panel.finished:
        if shows_train_loss:
            _draw_mean(axes, [curve.train_losses for curve in panel.finished], colour, ":")
        _draw_mean(axes, [curve.values for curve in panel.finished], colour, "-", colour)
    for curve in panel.curves:
        if not curve.finished:
            _draw_unfinished(axes, curve, colour)
    if not panel.curves:
        axes.text(0.5, 0.5, "no run", transform=axes.transAxes, ha="center", va="center", color=FAINT, style="italic")


def _draw_mean(axes: Axes, runs: Sequence[Sequence[float]], colour: str, line: str, band: str | None = None) -> None:
    epochs = [values for values in zip(*runs, strict=False)]
    x_values = range(1, len(epochs) + 1)
    if band and len(runs) > 1:
        axes.fill_between(x_values, [*map(min, epochs)], [*map(max, epochs)], color=band, alpha=0.35, linewidth=0)
    means = [sum(values) / len(values) for values in epochs]
    axes.plot(x_values, means, color=colour, linestyle=line, linewidth=1.0)


def _draw_unfinished(axes: Axes, curve: Curve, colour: str) -> None:
    axes.plot(range(1, len(curve.values) + 1), curve.values, color=colour, linestyle="--", linewidth=0.8)
    if curve.diverged_at is not None:
        axes.axvline(curve.diverged_at, color=DIVERGED, linewidth=0.8)
        place: Any = {"xycoords": ("data", "axes fraction"), "textcoords": "offset points", "fontweight": "bold"}
        axes.annotate("×", (curve.diverged_at, 0), (1, 1), color=DIVERGED, **place)


def _set_limits(axes: Axes, curves: Curves) -> None:
    """Limits around all values after the first epochs, in which every run rises from chance."""
    settled: list[float] = []
    for panel in curves.panels:
        for curve in panel.curves:
            for values in (curve.values, () if curves.metric.higher_is_better else curve.train_losses):
                settled += values[int(SETTLED * len(values)) :]
    low, high = min(settled), max(settled)
    room = 0.05 * (high - low) or 1.0
    axes.set_ylim(low - room, high + room)
    axes.set_xlim(left=1)


def _keys(curves: Curves) -> list[tuple[Any, str]]:
    has_several_seeds = any(len(panel.finished) > 1 for panel in curves.panels)
    shown = [curve for panel in curves.panels for curve in panel.curves]
    meaning = "mean of the seeds" if has_several_seeds else "one run"
    keys: list[tuple[Any, str]] = [(Line2D([], [], color=DARK, linewidth=1), meaning)]
    if has_several_seeds:
        keys.append((Patch(facecolor=DARK, alpha=0.3), "lowest to highest"))
    if not curves.metric.higher_is_better:
        keys.append((Line2D([], [], color=DARK, linewidth=1, linestyle=":"), "on the training images"))
    keys.append((Line2D([], [], color=BEHIND_EDGE, linewidth=1), "the rung before"))
    if any(not curve.finished for curve in shown):
        keys.append((Line2D([], [], color=DARK, linewidth=0.8, linestyle="--"), "not finished"))
    if any(curve.diverged_at is not None for curve in shown):
        keys.append((Line2D([], [], color=DIVERGED, linewidth=0.8), "× diverged"))
    return keys


def _add_legend(figure: Figure, keys: Sequence[tuple[Any, str]], keys_per_line: int, size: float) -> None:
    handles, labels = zip(*keys, strict=True)
    place: Any = {"loc": "lower center", "ncols": keys_per_line, "frameon": False}
    place |= {"fontsize": size, "borderaxespad": 0.1}
    figure.legend(handles, labels, handletextpad=0.4, columnspacing=1.2, handlelength=1.4, **place)
