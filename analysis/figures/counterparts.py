"""Draws the ratios of each ConvNeXt to the system of its size: measured ones, and the paper's."""

from __future__ import annotations

import textwrap
from collections.abc import Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.lines import Line2D
from matplotlib.patheffects import withStroke
from matplotlib.ticker import FixedLocator, FuncFormatter, NullLocator

from analysis.figures.parts.style import COLOURS, DARK, FAINT, LAYOUTS, Layout, NotebookFigure, drawing, finish
from analysis.tables.counterparts import QUANTITIES, Pair

LEAST = 1.3  # the axes reach at least from 1 / LEAST to LEAST
TICKS = {
    1.6: 1.25,
    2.2: 1.5,
    5.5: 2.0,
    11.0: 5.0,
}  # by the end of the axes: the tick; its inverse is one too
BETTER = {"higher": "more is better", "lower": "less is better", "neither": ""}


def draw_counterparts(pairs: Sequence[Pair], title: str = "", columns: int = 2) -> Figure:
    """A panel for each quantity, a row for each pair: a dot with the range of its rounds; the paper's ratio hollow.

    All panels share one logarithmic scale, so that distances from 1 can be compared.
    """
    layout = LAYOUTS[columns]
    quantities = [name for name in QUANTITIES if any(name in pair.ratios for pair in pairs)]
    columns_of_panels = len(quantities) if columns == 2 else -(-len(quantities) // 2)
    rows_of_panels = -(-len(quantities) // columns_of_panels)
    names = [" /\n".join(pair.titles) for pair in pairs]
    handles, labels = _key(pairs, title, columns)
    title_width = 0.15 + layout.letter * max(len(title) for pair in pairs for title in pair.titles)
    heading_height, axis_height, line_height = 0.055 * layout.type, 0.045 * layout.type, 0.0205 * layout.small
    panel_height = 1.9 * layout.row * len(pairs) + 0.1
    height = (
        rows_of_panels * (heading_height + panel_height + axis_height)
        + line_height * sum(label.count("\n") + 1 for label in labels)
        + 0.1
    )
    with drawing(layout.style):
        figure = NotebookFigure(figsize=(layout.width, height))
        panel_width = (layout.width - title_width - 0.08) / columns_of_panels
        low, high = _limits(pairs)
        for i, name in enumerate(quantities):
            row, column = divmod(i, columns_of_panels)
            bottom = height - (row + 1) * (heading_height + panel_height) - row * axis_height
            place = (
                (title_width + column * panel_width) / layout.width,
                bottom / height,
                0.93 * panel_width / layout.width,
                panel_height / height,
            )
            axes = figure.add_axes(place)
            axes.set_xscale("log")
            axes.set(xlim=(low, high), ylim=(len(pairs) - 0.5, -0.5))
            _draw_panel(axes, pairs, name, layout)
            axes.set_yticks(range(len(pairs)), names if column == 0 else [""] * len(pairs), fontsize=layout.small)
        place_of_key: Any = {"loc": "lower left", "bbox_to_anchor": (0.01, 0.0), "borderaxespad": 0.1}
        figure.legend(handles, labels, frameon=False, fontsize=layout.small, **place_of_key)
        finish(figure)
    return figure


def _limits(pairs: Sequence[Pair]) -> tuple[float, float]:
    values = [value for pair in pairs for ratio in pair.ratios.values() for value in (ratio.low, ratio.high)]
    values += [value for pair in pairs for value in pair.published.values()]
    upper = max(LEAST, max(values), 1 / min(values)) ** 1.25  # with room for the labels
    return 1 / upper, upper


def _draw_panel(axes: Axes, pairs: Sequence[Pair], name: str, layout: Layout) -> None:
    quantity = QUANTITIES[name]
    axes.axvline(1, color=FAINT, linewidth=0.8, zorder=1)
    for y, pair in enumerate(pairs):
        if ratio := pair.ratios.get(name):
            axes.plot([ratio.low, ratio.high], [y, y], color=COLOURS[1], linewidth=1.5, zorder=2)
            axes.plot(ratio.value, y, "o", color=COLOURS[1], markersize=0.55 * layout.type, zorder=4)
            text: Any = {"ha": "center", "va": "bottom", "fontsize": layout.small, "color": DARK, "zorder": 5}
            text["path_effects"] = [withStroke(linewidth=2, foreground="white")]  # readable on the line
            offset = (0, 0.4 * layout.type)
            axes.annotate(f"{ratio.value:.2f}", (ratio.value, y), offset, textcoords="offset points", **text)
        if name in pair.published:
            hollow: Any = {"color": COLOURS[3], "markerfacecolor": "none", "markersize": 0.75 * layout.type}
            axes.plot(pair.published[name], y, "D", zorder=3, **hollow)
    direction = BETTER[quantity.better]
    axes.set_title(quantity.title.replace(" in ", "\nin "), fontsize=layout.small, pad=3)
    axes.set_xlabel(direction, fontsize=layout.small, color=FAINT, labelpad=1)
    upper = axes.get_xlim()[1]
    tick = next((tick for limit, tick in TICKS.items() if upper < limit), 10.0)
    axes.xaxis.set_major_locator(FixedLocator([1 / tick, 1.0, tick]))
    axes.xaxis.set_minor_locator(NullLocator())
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x:.2g}"))
    axes.tick_params(axis="x", labelsize=layout.small)
    axes.tick_params(axis="y", length=0)
    axes.spines[["right", "top", "left"]].set_visible(False)


def _key(pairs: Sequence[Pair], title: str, columns: int) -> tuple[list[Line2D], list[str]]:
    conditions = "; ".join(dict.fromkeys(str(pair.conditions) for pair in pairs))
    handles = [Line2D([], [], color=COLOURS[1], marker="o", linewidth=1.5, markersize=4)]
    text = f"the first over the second, median and range of rounds: {title}{', ' if title else ''}{conditions}"
    labels = [textwrap.fill(text, 62 * columns)]
    if any(pair.published for pair in pairs):
        hollow: Any = {"color": COLOURS[3], "markerfacecolor": "none", "linestyle": ""}
        handles.append(Line2D([], [], marker="D", markersize=5, **hollow))
        labels.append("as published, on one V100")
    return handles, labels
