"""The roadmap figure, in the manner of the paper's Figure 2."""

from __future__ import annotations

import textwrap
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

import matplotlib
from matplotlib import rcParams
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch

from analysis.figures.rows import (
    Row,
    places,
    room_of_titles,
    rows_of,
    set_rows,
    write_macs,
    write_throughput,
    write_titles,
)
from analysis.figures.style import (
    BEHIND,
    BEHIND_EDGE,
    DARK,
    DIVERGED,
    FAINT,
    HATCH,
    LAYOUTS,
    axis_title,
    colours_of,
    number,
    readable_on,
    spread_key,
)
from analysis.results import Bar, Series
from roadmap.record.metrics import Metric

Side = Literal["left", "right"]

RIGHT = 0.1  # inches
LEAST = 0.8  # of a panel's width, inches, whatever room the titles take


@dataclass(frozen=True)
class Panel:
    """One series, or two of which the second stands in grey behind the first."""

    series: Sequence[Series]
    absent: str = ""  # said where a row has no bar of its own here

    @property
    def bars(self) -> list[Bar]:
        return [bar for each in self.series for bar in each.bars]

    @property
    def reach(self) -> list[float]:
        """The ends of its error bars."""
        return [bar.value + sign * (bar.std or 0) for bar in self.bars if bar.value is not None for sign in (-1, 1)]


def draw_roadmap(series: Sequence[Series], columns: int = 2) -> Figure:
    """Horizontal bars in roadmap order: the first regime in colour, the second in grey behind it.

    Groups stand on the left, multiply-adds beside the titles, accuracies on the bars; hatched bars were tried and
    not adopted. For one column of a page, or two. Takes one series or two; raises ValueError for more, or for none that
    has a bar to draw.
    """
    return _draw([Panel(series)], columns)


def draw_side_by_side(own: Sequence[Series], published: Sequence[Series], columns: int = 2) -> Figure:
    """Two roadmap figures that share their rows. Raises ValueError as `draw_roadmap` does."""
    return _draw([Panel(own), Panel(published, "not in the paper")], columns)


def _draw(panels: Sequence[Panel], columns: int) -> Figure:
    for panel in panels:
        if not 1 <= len(panel.series) <= 2:
            raise ValueError(f"the figure takes one regime or two, not {len(panel.series)}: choose with --regime")
        if not panel.reach and not any(bar.diverged for bar in panel.bars):
            what = panel.series[0].metric.title
            raise ValueError(f"no run has finished with a {what}: there is no bar to draw")
    layout, rows = LAYOUTS[columns], rows_of([each for panel in panels for each in panel.series])
    colours = colours_of(panels[0].series[0].groups, (bar.group for panel in panels for bar in panel.bars))
    keys = _keys(panels, colours)
    rooms = [layout.macs + (len(panel.series) - 1) * 0.8 * layout.macs for panel in panels]
    titles = room_of_titles(rows, layout)
    rights = [
        room + RIGHT if any(bar.throughput for bar in panel.bars) else RIGHT
        for panel, room in zip(panels, rooms, strict=True)
    ]
    wide = max((layout.width - titles - sum(rooms) - sum(rights)) / len(panels), LEAST)
    width = max(layout.width, titles + sum(rooms) + wide * len(panels) + sum(rights))
    beside = 2 if len(panels) == 1 or columns == 2 else 1  # keys in a line
    headings = [
        _heading(panel, int((wide + layout.macs) / layout.letter)) if len(panels) > 1 else "" for panel in panels
    ]
    top = layout.type * (0.058 + 0.016 * max(heading.count("\n") for heading in headings))
    tall = layout.row * (places(rows, layout)[-1] + 1)
    measured_on = dict.fromkeys(each.measured_on for panel in panels for each in panel.series if each.measured_on)
    notes = [
        line
        for where in measured_on
        for line in textwrap.wrap(f"images/s: inference on {where}", int(width / (0.0085 * layout.small)))
    ]
    bottom = layout.type * 0.021 * -(-len(keys) // beside) + 0.08 + 0.02 * layout.small * len(notes)
    height = top + tall + bottom
    with matplotlib.rc_context(layout.style):
        figure = Figure(figsize=(width, height))
        left, at = titles, 0
        for panel, room, right, heading in zip(panels, rooms, rights, headings, strict=True):
            left += room
            axes = figure.add_axes((left / width, bottom / height, wide / width, tall / height))
            own = [row[at : at + len(panel.series)] for row in rows]
            axes.set_xlim(*_limits(panels, panel, layout.letter / wide))
            set_rows(axes, rows, layout)
            axes.set_xlabel(heading + axis_title(panel.series[0].metric))
            _draw_rows(axes, own, places(rows, layout), panel, colours)
            write_macs(axes, own, layout, places(rows, layout))
            if right > RIGHT:
                write_throughput(axes, own, layout, places(rows, layout), right - RIGHT / 2)
            if at == 0:
                write_titles(axes, rows, layout, left, room)
            left, at = left + wide + right, at + len(panel.series)
        _add_legend(axes, keys, beside, 1 + (rights[-1] - RIGHT) / wide)
        below: Any = {"ha": "right", "va": "bottom", "fontsize": layout.small, "color": FAINT}
        figure.text(1 - RIGHT / 2 / width, 0.04 / height, "\n".join(notes), **below)
        # Drawn now, while the style holds.
        figure.canvas.draw()
    return figure


def _heading(panel: Panel, letters: int) -> str:
    """What a panel shows, in lines of so many letters."""
    titles = [panel.series[0].title, *(f"(grey: {each.title})" for each in panel.series[1:])]
    return "".join(f"{textwrap.fill(title, max(letters, 16))}\n" for title in titles)


def _keys(panels: Sequence[Panel], colours: Mapping[str, str]) -> list[tuple[Any, str]]:
    """Of several panels, what they share: their headings name the series."""
    keys: list[tuple[Any, str]] = []
    if len(panels) == 1:
        front, *behind = panels[0].series
        drawn = dict.fromkeys(colours[bar.group] for bar in front.bars if bar.value is not None or bar.diverged)
        keys = [(tuple(Patch(facecolor=colour) for colour in list(drawn)[-3:]), front.title)]
        keys += [(Patch(facecolor=BEHIND, edgecolor=BEHIND_EDGE), each.title) for each in behind]
    if not all(bar.adopted for panel in panels for bar in panel.bars):
        keys.append((Patch(facecolor="white", edgecolor="#444444", hatch=HATCH), "not adopted"))
    spread = spread_key(*(panel.bars for panel in panels), what=panels[0].series[0].spread)
    return keys + ([spread] if spread else [])


def _add_legend(axes: Axes, keys: Sequence[tuple[Any, str]], beside: int, end: float) -> None:
    """Under the axes, to `end` on the right, in their width."""
    handles, labels = zip(*keys, strict=True) if keys else ((), ())
    several = {tuple: HandlerTuple(ndivide=None, pad=0)}
    place: Any = {"loc": "upper right", "bbox_to_anchor": (end, 0), "ncols": beside, "frameon": False}
    axes.legend(handles, labels, handler_map=several, labelspacing=0.35, borderaxespad=0.2, **place)


def _limits(panels: Sequence[Panel], panel: Panel, letter: float) -> tuple[float, float]:
    """From a little below the lowest bar, so that small differences show, to a little above the highest.

    The same for panels of the same regimes. `letter` is a letter's share of the width.
    """
    regimes = [each.regime for each in panel.series]
    alike = [each for each in panels if [series.regime for series in each.series] == regimes]
    values = [value for each in alike for value in each.reach] or [0.0, 100.0]
    low, high = min(values), max(values)
    room = max(high - low, 10.0 ** (1 - panel.series[0].metric.decimals))
    low, high = max(0.0, low - 0.35 * room), high + 0.04 * room
    # What is written behind the bars: that runs diverged, or the grey bars' figures.
    diverged = any(bar.diverged and bar.value is not None for each in alike for bar in each.bars)
    letters = 11 if diverged else 5 if len(panel.series) > 1 else 0
    share = min(letters * letter, 0.5)
    if len(panels) == 1 and len(panel.series) > 1:
        # Every bar holds its number, which stood in the grey bar's way otherwise.
        least = min((1 - share) / 2, 6.5 * letter)
        low = max(0.0, min(low, min(values) - least / (1 - share - least) * (high - min(values))))
    return low, high + share / (1 - share) * (high - low)


def _draw_rows(axes: Axes, rows: Sequence[Row], ys: Sequence[float], panel: Panel, colours: Mapping[str, str]) -> None:
    metric = panel.series[0].metric
    for y, (front, *behind) in zip(ys, rows, strict=True):
        for each in behind:
            if each and each.value is not None:
                _draw_bar(axes, y, each, BEHIND, height=0.86)
                ends = [bar.value + (bar.std or 0) for bar in (front, each) if bar and bar.value is not None]
                _write_value(axes, y, each, max(ends), metric, ha="left")
            elif each and each.diverged:
                _say(axes, 0.99, y, "grey diverged", DIVERGED, transform=axes.get_yaxis_transform(), ha="right")
        if front and front.value is not None:
            colour = colours[front.group]
            _draw_bar(axes, y, front, colour, height=0.58)
            _write_front_value(axes, y, front, colour, metric)
        else:
            _say_why_none(axes, y, front, panel.absent)
        if front and front.value is not None and front.diverged:
            right = (front.value + (front.std or 0), y)
            said: Any = {"va": "center", "color": DIVERGED, "style": "italic"}
            axes.annotate(f"{front.diverged} diverged", right, (4, 0), textcoords="offset points", **said)


def _say_why_none(axes: Axes, y: float, bar: Bar | None, absent: str) -> None:
    said, colour = (absent, FAINT) if bar is None else ("no finished run", FAINT)
    if bar and bar.diverged:
        said, colour = "diverged", DIVERGED
    if said:
        _say(axes, axes.get_xlim()[0], y, f"  {said}", colour)


def _say(axes: Axes, x: float, y: float, said: str, colour: str, **place: Any) -> None:
    axes.text(x, y, said, va="center", color=colour, style="italic", **place)


def _draw_bar(axes: Axes, y: float, bar: Bar, colour: str, height: float) -> None:
    assert bar.value is not None
    low = axes.get_xlim()[0]
    face, hatch = (colour, None) if bar.adopted else ("white", HATCH)
    edge = BEHIND_EDGE if colour == BEHIND else colour
    axes.barh(y, bar.value - low, height, left=low, color=face, edgecolor=edge, hatch=hatch, linewidth=0.8)
    if bar.std is not None:
        axes.errorbar(bar.value, y, xerr=bar.std, color=DARK, capsize=2, linewidth=0.8)


def _write_front_value(axes: Axes, y: float, bar: Bar, colour: str, metric: Metric) -> None:
    """On the bar, where it is long enough."""
    assert bar.value is not None
    end, (low, high) = bar.value - (bar.std or 0), axes.get_xlim()
    letter = 0.012 * rcParams["font.size"]  # inches, with some air
    fits = (end - low) / (high - low) * axes.get_window_extent().width / axes.figure.dpi > 4 * letter
    if not fits:
        _write_value(axes, y, bar, bar.value + (bar.std or 0), metric, ha="left", fontweight="bold")
        return
    face = colour if bar.adopted else "white"
    box = None if bar.adopted else {"facecolor": face, "edgecolor": "none", "pad": 0.5}
    style: Any = {"color": readable_on(face), "bbox": box, "fontweight": "bold"}
    _write_value(axes, y, bar, end, metric, ha="right", **style)


def _write_value(axes: Axes, y: float, bar: Bar, x: float, metric: Metric, ha: Side, **style: Any) -> None:
    assert bar.value is not None
    said = number(bar.value, metric) + (", no effect" if bar.no_effect else "")
    away = (4 if ha == "left" else -4, 0)
    axes.annotate(said, (x, y), away, textcoords="offset points", ha=ha, va="center", **({"color": DARK} | style))
