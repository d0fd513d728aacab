"""Draws the roadmap figure, in the style of the paper's Figure 2."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch

from analysis.figures.parts.rows import (
    Row,
    places,
    room_of_titles,
    rows_of,
    set_rows,
    write_macs,
    write_throughput,
    write_titles,
)
from analysis.figures.parts.style import (
    BEHIND,
    BEHIND_EDGE,
    DARK,
    DIVERGED,
    FAINT,
    HATCH,
    LAYOUTS,
    NotebookFigure,
    axis_title,
    colours_of,
    drawing,
    finish,
    number,
    readable_on,
    spread_key,
)
from analysis.results import Bar, Series
from roadmap.record.metrics import Metric

Side = Literal["left", "right"]

RIGHT = 0.1  # inches
LEAST = 0.8  # smallest width of a panel, inches


@dataclass(frozen=True)
class Panel:
    """One series, or two: the second in grey behind the first."""

    series: Sequence[Series]
    absent: str = ""  # the text in rows without a bar

    @property
    def bars(self) -> list[Bar]:
        return [bar for series in self.series for bar in series.bars]

    @property
    def reach(self) -> list[float]:
        """The ends of the error bars."""
        return [bar.value + sign * (bar.std or 0) for bar in self.bars if bar.value is not None for sign in (-1, 1)]


def draw_roadmap(series: Sequence[Series], columns: int = 2) -> Figure:
    """Horizontal bars in roadmap order: the first regime in colour, the second in grey behind it.

    Groups are on the left, multiply-adds next to the titles, accuracies on the bars; hatched bars were tried and not
    adopted. `columns` is the width in columns of a page. Raises ValueError for more than two series, and if there is
    no bar to draw.
    """
    return _draw([Panel(series)], columns)


def draw_side_by_side(own: Sequence[Series], published: Sequence[Series], columns: int = 2) -> Figure:
    """Two roadmap figures that share their rows. Raises ValueError as `draw_roadmap` does."""
    return _draw([Panel(own), Panel(published, "not in the paper")], columns)


def _draw(panels: Sequence[Panel], columns: int) -> Figure:
    for panel in panels:
        if not 1 <= len(panel.series) <= 2:
            raise ValueError(f"the figure takes one or two regimes (got {len(panel.series)}); choose one with --regime")
        if not panel.reach and not any(bar.diverged for bar in panel.bars):
            title = panel.series[0].metric.title
            raise ValueError(f"no finished run has a {title}: there is no bar to draw")
    layout, rows = LAYOUTS[columns], rows_of([series for panel in panels for series in panel.series])
    colours = colours_of(panels[0].series[0].groups, (bar.group for panel in panels for bar in panel.bars))
    keys = _keys(panels, colours)
    macs_widths = [layout.macs + (len(panel.series) - 1) * 0.8 * layout.macs for panel in panels]
    title_width = room_of_titles(rows, layout)
    right_margins = [
        macs_width + RIGHT if any(bar.throughput for bar in panel.bars) else RIGHT
        for panel, macs_width in zip(panels, macs_widths, strict=True)
    ]
    axes_width = max((layout.width - title_width - sum(macs_widths) - sum(right_margins)) / len(panels), LEAST)
    width = max(layout.width, title_width + sum(macs_widths) + axes_width * len(panels) + sum(right_margins))
    keys_per_line = 2 if len(panels) == 1 or columns == 2 else 1  # keys in a line
    headings = [
        _heading(panel, int((axes_width + layout.macs) / layout.letter)) if len(panels) > 1 else "" for panel in panels
    ]
    top = layout.type * (0.058 + 0.016 * max(heading.count("\n") for heading in headings))
    axes_height = layout.row * (places(rows, layout)[-1] + 1)
    measured_on = dict.fromkeys(series.measured_on for panel in panels for series in panel.series if series.measured_on)
    notes = [
        line
        for conditions in measured_on
        for line in textwrap.wrap(f"images/s: inference on {conditions}", int(width / (0.0085 * layout.small)))
    ]
    bottom = layout.type * 0.021 * -(-len(keys) // keys_per_line) + 0.08 + 0.02 * layout.small * len(notes)
    height = top + axes_height + bottom
    with drawing(layout.style):
        figure = NotebookFigure(figsize=(width, height))
        left, position = title_width, 0
        for panel, macs_width, right_margin, heading in zip(panels, macs_widths, right_margins, headings, strict=True):
            left += macs_width
            axes = figure.add_axes((left / width, bottom / height, axes_width / width, axes_height / height))
            own_rows = [row[position : position + len(panel.series)] for row in rows]
            axes.set_xlim(*_limits(panels, panel, layout.letter / axes_width))
            set_rows(axes, rows, layout)
            axes.set_xlabel(heading + axis_title(panel.series[0].metric))
            _draw_rows(axes, own_rows, places(rows, layout), panel, colours)
            write_macs(axes, own_rows, layout, places(rows, layout))
            if right_margin > RIGHT:
                write_throughput(axes, own_rows, layout, places(rows, layout), right_margin - RIGHT / 2)
            if position == 0:
                write_titles(axes, rows, layout, left, macs_width)
            left, position = left + axes_width + right_margin, position + len(panel.series)
        _add_legend(axes, keys, keys_per_line, 1 + (right_margins[-1] - RIGHT) / axes_width)
        style: Any = {"ha": "right", "va": "bottom", "fontsize": layout.small, "color": FAINT}
        figure.text(1 - RIGHT / 2 / width, 0.04 / height, "\n".join(notes), **style)
        # Drawn here, within the style's context.
        finish(figure)
    return figure


def _heading(panel: Panel, letters: int) -> str:
    """The title of a panel, in lines of so many letters."""
    titles = [panel.series[0].title, *(f"(grey: {series.title})" for series in panel.series[1:])]
    return "".join(f"{textwrap.fill(title, max(letters, 16))}\n" for title in titles)


def _keys(panels: Sequence[Panel], colours: Mapping[str, str]) -> list[tuple[Any, str]]:
    """The legend. Several panels have headings, which name the series, so the legend has only what they share."""
    keys: list[tuple[Any, str]] = []
    if len(panels) == 1:
        front, *behind = panels[0].series
        drawn_colours = dict.fromkeys(colours[bar.group] for bar in front.bars if bar.value is not None or bar.diverged)
        keys = [(tuple(Patch(facecolor=colour) for colour in list(drawn_colours)[-3:]), front.title)]
        keys += [(Patch(facecolor=BEHIND, edgecolor=BEHIND_EDGE), series.title) for series in behind]
    if not all(bar.adopted for panel in panels for bar in panel.bars):
        keys.append((Patch(facecolor="white", edgecolor="#444444", hatch=HATCH), "not adopted"))
    spread = spread_key(*(panel.bars for panel in panels), meaning=panels[0].series[0].spread)
    return keys + ([spread] if spread else [])


def _add_legend(axes: Axes, keys: Sequence[tuple[Any, str]], keys_per_line: int, end: float) -> None:
    """Below the axes, right-aligned at `end`, relative to the width of the axes."""
    handles, labels = zip(*keys, strict=True) if keys else ((), ())
    handlers = {tuple: HandlerTuple(ndivide=None, pad=0)}
    place: Any = {"loc": "upper right", "bbox_to_anchor": (end, 0), "ncols": keys_per_line, "frameon": False}
    axes.legend(handles, labels, handler_map=handlers, labelspacing=0.35, borderaxespad=0.2, **place)


def _limits(panels: Sequence[Panel], panel: Panel, letter: float) -> tuple[float, float]:
    """From a little below the lowest bar, so that small differences show, to a little above the highest.

    Panels of the same regimes have the same limits. `letter` is a letter's share of the width.
    """
    regimes = [other.regime for other in panel.series]
    panels_alike = [other for other in panels if [series.regime for series in other.series] == regimes]
    values = [value for other in panels_alike for value in other.reach] or [0.0, 100.0]
    low, high = min(values), max(values)
    room = max(high - low, 10.0 ** (1 - panel.series[0].metric.decimals))
    low, high = max(0.0, low - 0.35 * room), high + 0.04 * room
    # Room for the text right of the bars: the number of diverged runs, or the grey bars' values.
    diverged = any(bar.diverged and bar.value is not None for other in panels_alike for bar in other.bars)
    letters = 11 if diverged else 5 if len(panel.series) > 1 else 0
    share = min(letters * letter, 0.5)
    if len(panels) == 1 and len(panel.series) > 1:
        # Each front bar is long enough for its number, which would cover the grey bar's number otherwise.
        least = min((1 - share) / 2, 6.5 * letter)
        low = max(0.0, min(low, min(values) - least / (1 - share - least) * (high - min(values))))
    return low, high + share / (1 - share) * (high - low)


def _draw_rows(axes: Axes, rows: Sequence[Row], ys: Sequence[float], panel: Panel, colours: Mapping[str, str]) -> None:
    metric = panel.series[0].metric
    for y, (front, *behind) in zip(ys, rows, strict=True):
        for bar_behind in behind:
            if bar_behind and bar_behind.value is not None:
                _draw_bar(axes, y, bar_behind, BEHIND, height=0.86)
                ends = [bar.value + (bar.std or 0) for bar in (front, bar_behind) if bar and bar.value is not None]
                _write_value(axes, y, bar_behind, max(ends), metric, ha="left")
            elif bar_behind and bar_behind.diverged:
                _write_note(axes, 0.99, y, "grey diverged", DIVERGED, transform=axes.get_yaxis_transform(), ha="right")
        if front and front.value is not None:
            colour = colours[front.group]
            _draw_bar(axes, y, front, colour, height=0.58)
            _write_front_value(axes, y, front, colour, metric)
        else:
            _write_reason(axes, y, front, panel.absent)
        if front and front.value is not None and front.diverged:
            end = (front.value + (front.std or 0), y)
            style: Any = {"va": "center", "color": DIVERGED, "style": "italic"}
            axes.annotate(f"{front.diverged} diverged", end, (4, 0), textcoords="offset points", **style)


def _write_reason(axes: Axes, y: float, bar: Bar | None, absent: str) -> None:
    text, colour = (absent, FAINT) if bar is None else ("no finished run", FAINT)
    if bar and bar.diverged:
        text, colour = "diverged", DIVERGED
    if text:
        _write_note(axes, axes.get_xlim()[0], y, f"  {text}", colour)


def _write_note(axes: Axes, x: float, y: float, text: str, colour: str, **place: Any) -> None:
    axes.text(x, y, text, va="center", color=colour, style="italic", **place)


def _draw_bar(axes: Axes, y: float, bar: Bar, colour: str, height: float) -> None:
    assert bar.value is not None
    low = axes.get_xlim()[0]
    face, hatch = (colour, None) if bar.adopted else ("white", HATCH)
    edge = BEHIND_EDGE if colour == BEHIND else colour
    axes.barh(y, bar.value - low, height, left=low, color=face, edgecolor=edge, hatch=hatch, linewidth=0.8)
    if bar.std is not None:
        axes.errorbar(bar.value, y, xerr=bar.std, color=DARK, capsize=2, linewidth=0.8)


def _write_front_value(axes: Axes, y: float, bar: Bar, colour: str, metric: Metric) -> None:
    """On the bar if it is long enough, else next to it."""
    assert bar.value is not None
    end, (low, high) = bar.value - (bar.std or 0), axes.get_xlim()
    letter_width = 0.012 * rcParams["font.size"]  # inches, with some air
    fits = (end - low) / (high - low) * axes.get_window_extent().width / axes.figure.dpi > 4 * letter_width
    if not fits:
        _write_value(axes, y, bar, bar.value + (bar.std or 0), metric, ha="left", fontweight="bold")
        return
    face = colour if bar.adopted else "white"
    box = None if bar.adopted else {"facecolor": face, "edgecolor": "none", "pad": 0.5}
    style: Any = {"color": readable_on(face), "bbox": box, "fontweight": "bold"}
    _write_value(axes, y, bar, end, metric, ha="right", **style)


def _write_value(axes: Axes, y: float, bar: Bar, x: float, metric: Metric, ha: Side, **style: Any) -> None:
    assert bar.value is not None
    text = ", ".join(filter(None, [number(bar.value, metric), "no effect" if bar.no_effect else "", bar.note]))
    offset = (4 if ha == "left" else -4, 0)
    axes.annotate(text, (x, y), offset, textcoords="offset points", ha=ha, va="center", **({"color": DARK} | style))
