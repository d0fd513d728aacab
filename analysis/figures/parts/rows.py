"""The rows of bars: which bars share a row, its place, and the text next to it."""

from __future__ import annotations

from collections.abc import Sequence
from itertools import groupby
from typing import Any, Literal

from matplotlib.axes import Axes
from matplotlib.transforms import blended_transform_factory

from analysis.figures.parts.style import FAINT, Layout
from analysis.results import START, Bar, Series
from roadmap.study.references import REFERENCE
from roadmap.text import three_digits

Row = Sequence[Bar | None]

HEADING = 0.85  # of a group above its rungs, rows


def rows_of(series: Sequence[Series]) -> list[Row]:
    """A row for each rung with every series' bar; starts share a row, and references where no series has several."""
    is_single_reference = all(sum(bar.group == REFERENCE for bar in one_series.bars) <= 1 for one_series in series)
    tables = [{_key(one_series, bar, is_single_reference): bar for bar in one_series.bars} for one_series in series]
    keys = dict.fromkeys(key for table in tables for key in table)
    rows = [[table.get(key) for table in tables] for key in keys]
    return sorted(rows, key=lambda row: first(row).group == REFERENCE)  # references last


def _key(series: Series, bar: Bar, is_single_reference: bool) -> str:
    if bar.group == REFERENCE and is_single_reference:
        return REFERENCE
    return START if bar.rung == series.regime else bar.rung


def first(row: Row) -> Bar:
    return next(bar for bar in row if bar)


def places(rows: Sequence[Row], layout: Layout) -> list[float]:
    """The y of each row, with room for the groups' names if these stand above their rungs."""
    ys: list[float] = []
    y = 0.0
    for group, members in _grouped(rows):
        y += HEADING if _is_headed(group, layout) else 0
        ys += [y + i for i in range(len(members))]
        y += len(members)
    return ys


def _grouped(rows: Sequence[Row]) -> list[tuple[str, list[Row]]]:
    return [(group, list(members)) for group, members in groupby(rows, key=lambda row: first(row).group)]


def _is_headed(group: str, layout: Layout) -> bool:
    return not layout.group and group not in ("", REFERENCE)


def title(row: Row) -> str:
    titles = list(dict.fromkeys(bar.title for bar in row if bar))
    if len(titles) == 1:
        return titles[0]
    # ResNet-50 and ResNet-200 as ResNet-50/200
    stem, dash, _ = titles[0].rpartition("-")
    shared = dash and all(title.startswith(stem + dash) for title in titles)
    return titles[0] + "".join("/" + (title[len(stem) + 1 :] if shared else title) for title in titles[1:])


def room_of_titles(rows: Sequence[Row], layout: Layout) -> float:
    """The width of groups and titles left of the bars, inches."""
    return layout.group + layout.letter * max(len(title(row)) for row in rows) + 0.1


def write_titles(axes: Axes, rows: Sequence[Row], layout: Layout, left: float, macs: float) -> None:
    """Titles, groups and lines between groups, in the `left` inches left of the axes; `macs` of them are in use."""
    transform = blended_transform_factory(axes.figure.transSubfigure, axes.transData)
    row_places = iter(places(rows, layout))
    for group, members in _grouped(rows):
        ys = [next(row_places) for _ in members]
        for y, row in zip(ys, members, strict=True):
            _write(axes, title(row), y, macs * 72, "right")
        is_headed = _is_headed(group, layout)
        if ys[0] > 0:
            line_y = ys[0] - 0.5 - (HEADING if is_headed else 0)
            axes.plot([0.01, 0.99], [line_y] * 2, transform=transform, color="#bbbbbb", linewidth=0.6, clip_on=False)
        if group and group != REFERENCE:
            y = ys[0] - 0.4 - HEADING / 2 if is_headed else (ys[0] + ys[-1]) / 2
            name = group if is_headed else group.replace(" ", "\n", 1)
            bold: Any = {"fontweight": "bold", "fontsize": layout.type - 0.5, "linespacing": 0.95}
            _write(axes, name, y, left * 72 - (2.5 if is_headed else 8), "left", **bold)


def write_macs(axes: Axes, rows: Sequence[Row], layout: Layout, ys: Sequence[float]) -> None:
    """Multiply-adds left of the axes, in GFLOPs or MFLOPs."""
    biggest = max(bar.macs for row in rows for bar in row if bar)
    unit, name = (1e9, "GFLOPs") if biggest >= 1e8 else (1e6, "MFLOPs")
    _write(axes, name, -0.58, 4, "right", fontsize=layout.small, color=FAINT, va="bottom")
    for y, row in zip(ys, rows, strict=True):
        macs = " / ".join(f"{bar.macs / unit:.2f}" for bar in row if bar)
        _write(axes, macs, y, 4, "right", fontsize=layout.small, color=FAINT)


def write_throughput(axes: Axes, rows: Sequence[Row], layout: Layout, ys: Sequence[float], room: float) -> None:
    """Measured images/s right of the axes, in a column of `room` inches."""
    style: Any = {"fontsize": layout.small, "color": FAINT}
    _write(axes, "images/s", -0.58, -room * 72, "right", x=1.0, va="bottom", **style)
    for y, row in zip(ys, rows, strict=True):
        speeds = [bar.throughput for bar in row if bar]
        if any(speeds):
            text = " / ".join(three_digits(speed) if speed else "–" for speed in speeds)
            _write(axes, text, y, -room * 72, "right", x=1.0, **style)


def set_rows(axes: Axes, rows: Sequence[Row], layout: Layout) -> None:
    """Sets the limits for the rows, with the value's axis at the top."""
    axes.set_yticks([])
    axes.set_ylim(places(rows, layout)[-1] + 0.5, -0.5)
    axes.xaxis.tick_top()
    axes.xaxis.set_label_position("top")
    axes.set_facecolor("none")
    axes.spines[["right", "bottom"]].set_visible(False)


def _write(
    axes: Axes, text: str, y: float, points: float, align: Literal["left", "right"], x: float = 0.0, **style: Any
) -> None:
    place: Any = {"xycoords": axes.get_yaxis_transform(), "textcoords": "offset points", "ha": align}
    axes.annotate(text, (x, y), (-points, 0), **(place | {"va": "center"} | style))
