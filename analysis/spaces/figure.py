"""Draws spaces: the distributions of their errors as steps, and the error over each parameter."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.ticker import FixedLocator

from analysis.figures.parts.style import COLOURS, DARK, FAINT, LAYOUTS, NotebookFigure, drawing, finish
from analysis.spaces.study import SpaceStudy

PANEL = 1.55  # height of a parameter's panel, inches
TOP = 2.4  # height of the distributions, inches
MOST_TICKS = 6  # for which each value of a parameter has one
MARKS = ("--", ":")  # of the rung that varies, and of the marked one
ACROSS = {1: 2, 2: 4}  # panels in a row, by columns of the page


def draw_spaces(studies: Sequence[SpaceStudy], columns: int = 2) -> Figure:
    """The distributions of all spaces; below them, for each space, a panel for each parameter.

    Dots are designs, the line is the surface's mean, the band the 95 % interval of the best value. The dashed line is
    the value of the rung that varies, the dotted one that of the marked rung.
    """
    layout, across = LAYOUTS[columns], ACROSS[columns]
    panels = [(study, name) for study in studies for name in study.parameters]
    rows = math.ceil(len(panels) / across)
    height = TOP + PANEL * rows + 0.35
    with drawing(layout.style | {"axes.titlesize": layout.small, "axes.titlepad": 2}):
        figure = NotebookFigure(figsize=(layout.width, height), layout="constrained")
        grid = figure.add_gridspec(rows + 1, across, height_ratios=[TOP, *[PANEL] * rows])
        _draw_distributions(figure.add_subplot(grid[0, :]), studies, layout.small)
        for position, (study, name) in enumerate(panels):
            axes = figure.add_subplot(grid[1 + position // across, position % across])
            _draw_parameter(axes, study, name, COLOURS[1 + studies.index(study) % (len(COLOURS) - 1)])
            axes.set_title(f"{study.space.name}: {name}" if len(studies) > 1 else name)
            if position % across == 0:
                axes.set_ylabel("error", fontsize=layout.small)
            axes.tick_params(labelsize=layout.small)
        finish(figure)
    return figure


def _draw_distributions(axes: Axes, studies: Sequence[SpaceStudy], small: float) -> None:
    for number, study in enumerate(studies):
        colour, own = COLOURS[1 + number % (len(COLOURS) - 1)], study.distribution
        label = f"{study.title}, {len(own.errors)} designs"
        axes.step(own.errors, own.shares, where="post", color=colour, label=label)
        low, high = (np.clip(own.shares + sign * own.half_width, 0, 1) for sign in (-1, 1))
        axes.fill_between(own.errors, low, high, step="post", color=colour, alpha=0.15, linewidth=0)
        if study.base_error is not None:
            axes.axvline(study.base_error, color=colour, linewidth=0.8, linestyle="--")
            place: dict[str, Any] = {"rotation": 90, "va": "top", "ha": "right", "fontsize": small, "color": FAINT}
            axes.text(study.base_error, 0.98, study.space.base.name, transform=axes.get_xaxis_transform(), **place)
    axes.set_ylim(0, 1)
    axes.set_xlabel(studies[0].error_title)
    axes.set_ylabel("share of designs")
    axes.legend(frameon=False, fontsize=small, loc="lower right")
    _bare(axes)


def _draw_parameter(axes: Axes, study: SpaceStudy, name: str, colour: str) -> None:
    values, errors = np.array(study.parameters[name]), np.array([design.first for design in study.designs])
    axes.plot(values, errors, ".", color=colour, markersize=3, alpha=0.6)
    if best := study.best[name]:
        axes.axvspan(*best.interval, color=colour, alpha=0.12, linewidth=0)
        axes.axvline(best.value, color=colour, linewidth=0.8)
    if study.surface and name in study.surface.dependence:
        axes.plot(*study.surface.dependence[name], color=DARK, linewidth=1)
    for own, style in zip(study.marked.values(), MARKS, strict=False):
        if name in own:
            axes.axvline(own[name], color=DARK, linewidth=0.8, linestyle=style)
    if values.min() > 0 and values.max() >= 4 * values.min():
        axes.set_xscale("log", base=2)
        axes.xaxis.set_major_formatter(lambda value, position: f"{value:g}")
        if len(distinct := np.unique(values)) <= MOST_TICKS:
            axes.xaxis.set_major_locator(FixedLocator(distinct.tolist()))
    low, high = np.quantile(errors, [0, 0.95])  # the worst designs would hide the others
    axes.set_ylim(low - 0.05 * (high - low) - 1e-9, high + 0.05 * (high - low) + 1e-9)
    _bare(axes)


def _bare(axes: Axes) -> None:
    for side in ("top", "right"):
        axes.spines[side].set_visible(False)
