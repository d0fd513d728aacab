"""Draws the differences between a study and the paper, as bars around zero."""

from __future__ import annotations

from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Patch

from analysis.comparison import Comparison, Difference
from analysis.figures.parts.rows import places, room_of_titles, set_rows, write_titles
from analysis.figures.parts.style import (
    DARK,
    DIVERGED,
    FAINT,
    HATCH,
    LAYOUTS,
    NotebookFigure,
    colours_of,
    drawing,
    error_mark,
    finish,
    number,
)
from roadmap.record.metrics import TOP1

MARGIN = 0.12  # inches
TEXT_SHARE = 0.36  # of the axis, right of the bars, for the numbers


def draw_difference(comparison: Comparison, columns: int = 2) -> Figure:
    """A bar for each rung: measured minus published in percentage points, with its 95 % interval and its number.

    Raises ValueError if no rung has both values.
    """
    shown = [difference for difference in comparison.differences if difference.change]
    if not shown:
        raise ValueError("no rung has a finished run and a published value: there is no difference to draw")
    layout, rows = LAYOUTS[columns], [[difference.bar] for difference in comparison.differences]
    colours = colours_of(comparison.groups, (difference.bar.group for difference in comparison.differences))
    ys, left = places(rows, layout), room_of_titles(rows, layout) + MARGIN
    keys = _keys(comparison, shown)
    lines = 2 if comparison.of_changes and columns == 1 else 1  # of the axis' title
    top, bottom = layout.type * (0.042 + 0.016 * lines), layout.type * 0.021 * len(keys) + 0.08
    axes_height = layout.row * (ys[-1] + 1)
    width, height = layout.width, top + axes_height + bottom
    with drawing(layout.style):
        figure = NotebookFigure(figsize=(width, height))
        axes_width = width - left - MARGIN
        axes = figure.add_axes((left / width, bottom / height, axes_width / width, axes_height / height))
        axes.set_xlim(*_limits(shown))
        set_rows(axes, rows, layout)
        axes.set_xlabel(_axis_title(comparison, columns))
        axes.axvline(0, color=DARK, linewidth=0.8)
        for y, difference in zip(ys, comparison.differences, strict=True):
            _draw_difference(axes, y, difference, colours[difference.bar.group], layout.small)
        axes.spines["left"].set_visible(False)
        write_titles(axes, rows, layout, left, MARGIN)
        handles, labels = zip(*keys, strict=True)
        place: Any = {"loc": "upper right", "bbox_to_anchor": (1, 0), "frameon": False, "borderaxespad": 0.2}
        axes.legend(handles, labels, labelspacing=0.35, **place)
        finish(figure)
    return figure


def _axis_title(comparison: Comparison, columns: int) -> str:
    if not comparison.of_changes:
        return "own − published top-1 accuracy (points)"
    quantity = "own − published change of top-1 accuracy"
    return f"{quantity}{', ' if columns == 2 else chr(10)}against the rung before (points)"


def _limits(shown: list[Difference]) -> tuple[float, float]:
    """Limits around the intervals and zero, with room for the numbers at the right."""
    changes = [difference.change for difference in shown if difference.change]
    ends = [0.0, *(end for change in changes for end in (change.interval or (change.difference,)))]
    reach = max(max(ends) - min(ends), 0.1)
    low, high = min(ends) - 0.04 * reach, max(ends) + 0.04 * reach
    return low, high + TEXT_SHARE * (high - low)


def _draw_difference(axes: Axes, y: float, difference: Difference, colour: str, small: float) -> None:
    place: Any = {"transform": axes.get_yaxis_transform(), "va": "center"}
    if difference.change is None:
        colour_of_reason = DIVERGED if difference.why == "diverged" else FAINT
        axes.text(0.99, y, difference.why, color=colour_of_reason, style="italic", fontsize=small, ha="right", **place)
        return
    change = difference.change
    face, hatch = (colour, None) if difference.bar.adopted else ("white", HATCH)
    axes.barh(y, change.difference, 0.58, color=face, edgecolor=colour, hatch=hatch, linewidth=0.8)
    text = number(change.difference, TOP1, "+").replace("-", "−")
    if change.interval:
        low, high = change.interval
        ends = [[change.difference - low], [high - change.difference]]
        axes.errorbar(change.difference, y, xerr=ends, color=DARK, capsize=2, linewidth=0.8)
        text += f" ± {number((high - low) / 2, TOP1)}"
    bold = "bold" if change.interval and not change.interval[0] <= 0 <= change.interval[1] else "normal"
    axes.text(0.99, y, text, fontweight=bold, ha="right", **place)


def _keys(comparison: Comparison, shown: list[Difference]) -> list[tuple[Any, str]]:
    keys: list[tuple[Any, str]] = [(Patch(facecolor="none"), comparison.title)]
    if any(difference.change and difference.change.interval for difference in shown):
        keys.append((error_mark(), "95 % interval; bold: without zero"))
    if not all(difference.bar.adopted for difference in comparison.differences):
        keys.append((Patch(facecolor="white", edgecolor="#444444", hatch=HATCH), "not adopted"))
    return keys
