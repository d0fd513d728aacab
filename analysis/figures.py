"""The roadmap figure, in the manner of the paper's Figure 2."""

from __future__ import annotations

import io
from collections.abc import Mapping, Sequence
from itertools import groupby
from pathlib import Path
from typing import Any, Literal

import matplotlib
from matplotlib.axes import Axes
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.legend_handler import HandlerTuple
from matplotlib.patches import Patch
from matplotlib.transforms import blended_transform_factory

from analysis.results import REFERENCE, Bar, Series
from roadmap.record import write_whole

FORMATS = (".png", ".svg", ".pdf")

# Okabe and Ito's colours, which the colour-blind tell apart; one a group, in the study's order.
COLOURS = ("#999999", "#0072B2", "#E69F00", "#CC79A7", "#009E73", "#D55E00", "#56B4E9")
BEHIND, BEHIND_EDGE = "#d5d5d5", "#aaaaaa"  # the second regime's bars
HATCH = "/////"
DIVERGED = "#b00020"

# The figure's measures, inches.
WIDTH, ROW = 7.2, 0.27
LEFT, RIGHT, TOP, BOTTOM = 2.7, 0.1, 0.55, 0.35
GROUP, LETTER = 1.75, 0.065  # the room of groups and multiply-adds, and that of a letter of a title

STYLE: Any = {
    "font.size": 8.5,
    "svg.fonttype": "path",  # so that the figure looks the same without our fonts
    "pdf.fonttype": 42,
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "roadmap",  # so that the same bars give the same file
}


def draw_roadmap(series: Sequence[Series]) -> Figure:
    """Horizontal bars in roadmap order: the first regime in colour, the second in grey behind it.

    Groups stand on the left, multiply-adds beside the titles, accuracies on the bars; hatched bars were tried and
    not adopted. Takes one series or two; raises ValueError for more, or for none that has a bar to draw.
    """
    if not 1 <= len(series) <= 2:
        raise ValueError(f"the figure takes one regime or two, not {len(series)}: choose with --regime")
    rows = _rows(series)
    bars = [bar for row in rows for bar in row if bar and bar.value is not None]
    values = [(bar.value or 0) + sign * (bar.std or 0) for bar in bars for sign in (-1, 1)]
    if not values and any(bar.diverged for row in rows for bar in row if bar):
        values = [0.0, 100.0]
    if not values:
        raise ValueError("no run has finished: there is no bar to draw")
    with matplotlib.rc_context(STYLE):
        height = TOP + ROW * len(rows) + BOTTOM
        left = max(LEFT, GROUP + LETTER * max(len(_title(row)) for row in rows))
        width = WIDTH - LEFT + left
        figure = Figure(figsize=(width, height))
        axes = figure.add_axes((left / width, BOTTOM / height, 1 - (left + RIGHT) / width, ROW * len(rows) / height))
        low, high = _limits(values)
        colours = _colours(series, rows)
        for y, row in enumerate(rows):
            _draw_row(axes, y, row, low, colours)
        _label_rows(axes, rows, left)
        axes.set_xlim(low, high)
        axes.set_ylim(len(rows) - 0.5, -0.5)
        axes.xaxis.tick_top()
        axes.xaxis.set_label_position("top")
        axes.set_xlabel(series[0].metric.title)
        axes.spines[["right", "bottom"]].set_visible(False)
        _add_legend(axes, series, rows, colours)
        # Drawn now, while the style holds.
        figure.canvas.draw()
    return figure


def _add_legend(axes: Axes, series: Sequence[Series], rows: list[list[Bar | None]], colours: Mapping[str, str]) -> None:
    fronts = [row[0] for row in rows if row[0]]
    drawn = dict.fromkeys(colours[bar.group] for bar in fronts if bar.value is not None or bar.diverged)
    swatch = tuple(Patch(facecolor=colour) for colour in list(drawn)[-3:])
    keys: list[tuple[Any, str]] = [(swatch, series[0].title)]
    keys += [(Patch(facecolor=BEHIND, edgecolor=BEHIND_EDGE), behind.title) for behind in series[1:]]
    if not all(bar.adopted for row in rows for bar in row if bar):
        keys.append((Patch(facecolor="white", edgecolor="#444444", hatch=HATCH), "not adopted"))
    handles, labels = zip(*keys, strict=True)
    several = {tuple: HandlerTuple(ndivide=None, pad=0)}
    place = (1, -0.01)
    axes.legend(handles, labels, handler_map=several, loc="upper right", bbox_to_anchor=place, ncols=3, frameon=False)


def _rows(series: Sequence[Series]) -> list[list[Bar | None]]:
    """A row for each rung with every series' bar; starts share a row, and so do references."""
    tables = []
    for each in series:
        keyed = {}
        for i, bar in enumerate(each.bars):
            keyed["(start)" if i == 0 and not bar.group else bar.group if bar.group == REFERENCE else bar.rung] = bar
        tables.append(keyed)
    keys = list(tables[0])
    for table in tables[1:]:
        keys += [key for key in table if key not in keys]
    if REFERENCE in keys:
        keys.append(keys.pop(keys.index(REFERENCE)))
    return [[table.get(key) for table in tables] for key in keys]


def _first(row: list[Bar | None]) -> Bar:
    return next(bar for bar in row if bar)


def _limits(values: list[float]) -> tuple[float, float]:
    """From a little below the lowest bar, so that small differences show, to a little above the highest."""
    low, high = min(values), max(values)
    room = max(high - low, 1.0)
    return max(0.0, low - 0.35 * room), high + 0.08 * room


def _colours(series: Sequence[Series], rows: list[list[Bar | None]]) -> dict[str, str]:
    """By the study's groups, whichever of them are drawn; the start and references are grey."""
    groups = list(dict.fromkeys(["", *series[0].groups, *(_first(row).group for row in rows)]))
    coloured = {group: COLOURS[i % len(COLOURS)] for i, group in enumerate(groups)}
    return coloured | {"": COLOURS[0], REFERENCE: COLOURS[0]}


def _draw_row(axes: Axes, y: int, row: list[Bar | None], low: float, colours: dict[str, str]) -> None:
    for behind in row[1:]:
        if behind and behind.value is not None:
            _draw_bar(axes, y, behind, low, BEHIND, height=0.86)
        elif behind and behind.diverged:
            at = axes.get_yaxis_transform()
            axes.text(0.99, y, "grey diverged", transform=at, ha="right", va="center", color=DIVERGED, style="italic")
    front = row[0]
    if front is None:
        return
    if front.value is None:
        said, colour = ("diverged", DIVERGED) if front.diverged else ("no finished run", "#777777")
        axes.text(low, y, f"  {said}", va="center", color=colour, style="italic")
        return
    _draw_bar(axes, y, front, low, colours[front.group], height=0.58)
    if front.diverged:
        right = (front.value + (front.std or 0), y)
        said = f"{front.diverged} diverged"
        axes.annotate(said, right, (4, 0), textcoords="offset points", va="center", color=DIVERGED, style="italic")


def _draw_bar(axes: Axes, y: int, bar: Bar, low: float, colour: str, height: float) -> None:
    assert bar.value is not None
    hatch = None if bar.adopted else HATCH
    face = colour if bar.adopted else "white"
    edge = BEHIND_EDGE if colour == BEHIND else colour
    axes.barh(y, bar.value - low, height, left=low, color=face, edgecolor=edge, hatch=hatch, linewidth=0.8)
    if bar.std is not None:
        axes.errorbar(bar.value, y, xerr=bar.std, color="#222222", capsize=2, linewidth=0.8)
    axes.annotate(
        _one_decimal(bar.value) + (", no effect" if bar.no_effect else ""),
        (bar.value - (bar.std or 0), y),
        (-4, 0),
        textcoords="offset points",
        ha="right",
        va="center",
        color=_readable_on(face),
        bbox=None if bar.adopted else {"facecolor": face, "edgecolor": "none", "pad": 0.5},
        fontweight="normal" if colour == BEHIND else "bold",
    )


def _one_decimal(number: float) -> str:
    """Halves up, as the paper rounds: 80.35, which no float holds exactly, is 80.4."""
    return f"{number + 1e-9:.1f}"


def _readable_on(colour: str) -> str:
    """Dark or white, whichever stands out more."""
    red, green, blue = to_rgb(colour)
    return "#222222" if 0.299 * red + 0.587 * green + 0.114 * blue > 0.5 else "white"


def _label_rows(axes: Axes, rows: list[list[Bar | None]], left: float) -> None:
    """Left of the bars: multiply-adds, titles, and the groups with lines between them. `left` is that room, inches."""
    beside = axes.get_yaxis_transform()

    def write(text: str, y: float, points: float, align: Literal["left", "right"], **style: Any) -> None:
        axes.annotate(
            text, (0, y), (-points, 0), xycoords=beside, textcoords="offset points", ha=align, va="center", **style
        )

    biggest = max(bar.macs for row in rows for bar in row if bar)
    unit, name = (1e9, "GFLOPs") if biggest >= 1e8 else (1e6, "MFLOPs")
    axes.set_yticks([])
    write(name, -0.58, 4, "right", fontsize=7, color="#555555")
    titles_at = 68 if any(len(row) > 1 and all(row) for row in rows) else 38
    for y, row in enumerate(rows):
        macs = " / ".join(f"{bar.macs / unit:.2f}" for bar in row if bar)
        write(macs, y, 4, "right", fontsize=7, color="#555555")
        write(_title(row), y, titles_at, "right")
    y = 0
    for group, members in groupby(rows, key=lambda row: _first(row).group):
        size = len(list(members))
        if y:
            across = blended_transform_factory(axes.figure.transSubfigure, axes.transData)
            axes.plot([0.01, 0.99], [y - 0.5] * 2, transform=across, color="#bbbbbb", linewidth=0.6, clip_on=False)
        if group and group != REFERENCE:
            middle, style = y + (size - 1) / 2, {"fontweight": "bold", "fontsize": 8, "linespacing": 0.95}
            write(group.replace(" ", "\n", 1), middle, left * 72 - 8, "left", **style)
        y += size


def _title(row: list[Bar | None]) -> str:
    titles = list(dict.fromkeys(bar.title for bar in row if bar))
    if len(titles) == 1:
        return titles[0]
    # ResNet-50 and ResNet-200 as ResNet-50/200
    stem, dash, _ = titles[0].rpartition("-")
    shared = dash and all(title.startswith(stem + dash) for title in titles)
    return titles[0] + "".join("/" + (title[len(stem) + 1 :] if shared else title) for title in titles[1:])


def save_figure(figure: Figure, paths: Sequence[Path]) -> list[Path]:
    """Writes the figure to each path, by its suffix; returns the paths. Raises ValueError for another suffix."""
    for path in paths:
        if path.suffix.lower() not in FORMATS:
            raise ValueError(f"{path}: a figure ends in {', '.join(FORMATS)}")
    for path in paths:
        path.parent.mkdir(parents=True, exist_ok=True)
        kind, drawn = path.suffix.lower(), io.BytesIO()
        metadata = {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(kind)
        with matplotlib.rc_context(STYLE):
            figure.savefig(drawn, format=kind[1:], dpi=200, metadata=metadata)
        write_whole(path, drawn.getvalue())
    return list(paths)
