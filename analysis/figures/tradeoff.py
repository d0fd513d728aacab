"""Draws the rungs' metric against their cost, as bubbles, in the style of the paper's Figure 1."""

from __future__ import annotations

from collections.abc import Iterator, Mapping, Sequence
from typing import Any

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.legend import Legend
from matplotlib.legend_handler import HandlerTuple
from matplotlib.lines import Line2D
from matplotlib.ticker import FuncFormatter, LogLocator, NullFormatter

from analysis.figures.parts.labels import Label, write_labels
from analysis.figures.parts.style import (
    BEHIND,
    BEHIND_EDGE,
    COLOURS,
    DARK,
    FAINT,
    LAYOUTS,
    Layout,
    NotebookFigure,
    axis_title,
    colours_of,
    drawing,
    finish,
    spread_key,
)
from analysis.tradeoff import Line, Point, Tradeoff

WIDE_RANGE = 6.0  # the x axis is logarithmic from this ratio of its ends on
BIGGEST = {1: 5.0, 2: 8.0}  # largest radius of a bubble, by columns, points
OTHERS = "#bdbdbd"  # the lines of the models' families
UNITS = {1e9: "G", 1e6: "M", 1e3: "k"}


def draw_tradeoff(tradeoff: Tradeoff, columns: int = 2) -> Figure:
    """Numbered bubbles. Their area is proportional to multiply-adds, or to parameters if x is multiply-adds.

    The first path has the groups' colours, others are grey; hollow bubbles were not adopted.
    """
    layout, is_wide = LAYOUTS[columns], columns == 2
    colours = colours_of(tradeoff.groups, (point.group for path in tradeoff.paths for point in path.points))
    numbers, radii = _numbers(tradeoff), _radii(tradeoff, BIGGEST[columns])
    keys, marks = _key_of_numbers(tradeoff, numbers, colours), _key_of_marks(tradeoff)
    line_height = layout.small * 0.0212  # of a legend, inches
    legend_lines = [0 if is_wide else -(-len(keys) // 3), -(-len(marks) // (3 if is_wide else 2))]
    axis_height = 0.062 * layout.type  # of the x axis
    bottom = axis_height + line_height * sum(legend_lines) + 0.12
    left, axes_height = 0.075 * layout.type, 4.2 if is_wide else 2.7
    right = 1.45 if is_wide and keys else 0.1
    width, height = layout.width, bottom + axes_height + 0.1
    with drawing(layout.style):
        figure = NotebookFigure(figsize=(width, height))
        axes = figure.add_axes((left / width, bottom / height, (width - left - right) / width, axes_height / height))
        _set_scales(axes, tradeoff)
        for family in tradeoff.families:
            _draw_line(axes, family, ["white"] * len(family.points), radii, is_model=True)
        for i, path in reversed(list(enumerate(tradeoff.paths))):
            _draw_line(axes, path, [colours[p.group] if i == 0 else BEHIND for p in path.points], radii)
        write_labels(axes, list(_labels(tradeoff, numbers, radii)), layout.small)
        right_of_axes: Any = {"loc": "upper left", "bbox_to_anchor": (1.02, 1)}
        below_axes: Any = {"loc": "upper left", "bbox_to_anchor": (-0.08, -axis_height / axes_height), "ncols": 3}
        if keys:
            _add_legend(axes, keys, layout, **(right_of_axes if is_wide else below_axes))
        marks_y = -(axis_height + line_height * legend_lines[0]) / axes_height
        place = below_axes | {"bbox_to_anchor": (-0.08, marks_y), "ncols": 3 if is_wide else 2}
        _add_legend(axes, marks, layout, **place)
        finish(figure)
    return figure


def _add_legend(axes: Axes, keys: Sequence[tuple[Any, str]], layout: Layout, **place: Any) -> None:
    handles, labels = zip(*keys, strict=True)
    spacing: Any = {"frameon": False, "borderaxespad": 0.0, "handletextpad": 0.6, "columnspacing": 1.0}
    handlers: Any = {tuple: HandlerTuple(ndivide=None, pad=0)}
    axes.add_artist(Legend(axes, handles, labels, fontsize=layout.small, handler_map=handlers, **spacing, **place))


def _points(tradeoff: Tradeoff) -> list[Point]:
    return [point for line in (*tradeoff.paths, *tradeoff.families) for point in line.points]


def _numbers(tradeoff: Tradeoff) -> dict[str, int]:
    """The number of each rung, by its title; all starts share one number."""
    titles = dict.fromkeys(_title(point) for path in tradeoff.paths for point in path.points)
    return {title: number for number, title in enumerate(titles, start=1)}


def _title(point: Point) -> str:
    return point.title if point.group else "start"


def _radii(tradeoff: Tradeoff, biggest: float) -> dict[Point, float]:
    largest = max(point.size for point in _points(tradeoff))
    return {point: max(biggest * (point.size / largest) ** 0.5, 1.2) for point in _points(tradeoff)}


def _set_scales(axes: Axes, tradeoff: Tradeoff) -> None:
    points = _points(tradeoff)
    xs = [point.x for point in points]
    ys = [point.y + sign * (point.std or 0) for point in points for sign in (-1, 1)]
    unit, letter = _unit(max(xs))
    if max(xs) / min(xs) >= WIDE_RANGE:
        axes.set_xscale("log")
        axes.xaxis.set_major_locator(LogLocator(subs=(1, 2, 5)))
        axes.xaxis.set_minor_formatter(NullFormatter())
        axes.set_xlim(min(xs) / 1.25, max(xs) * 1.25)
    else:
        room = 0.1 * (max(xs) - min(xs)) or 0.1 * max(xs)
        axes.set_xlim(min(xs) - room, max(xs) + room)
    axes.xaxis.set_major_formatter(FuncFormatter(lambda x, _: f"{x / unit:g}{letter}"))
    room = 0.08 * (max(ys) - min(ys)) or 1.0
    axes.set_ylim(min(ys) - room, max(ys) + room)
    axes.set_xlabel(tradeoff.x_title)
    axes.set_ylabel(axis_title(tradeoff.metric))
    axes.grid(color="#eeeeee", linewidth=0.6)
    axes.set_axisbelow(True)
    axes.spines[["right", "top"]].set_visible(False)


def _unit(biggest: float) -> tuple[float, str]:
    if biggest < 1e5:
        return 1.0, ""
    return next((unit, letter) for unit, letter in UNITS.items() if biggest >= unit)


def _draw_line(
    axes: Axes, line: Line, colours: Sequence[str], radii: Mapping[Point, float], is_model: bool = False
) -> None:
    adopted = [point for point in line.points if point.adopted]
    style: Any = {"linestyle": "--" if is_model else "-", "color": OTHERS if is_model else BEHIND_EDGE}
    axes.plot([p.x for p in adopted], [p.y for p in adopted], linewidth=0.7, zorder=2, **style)
    for point, colour in zip(line.points, colours, strict=True):
        edge = BEHIND_EDGE if colour == BEHIND else FAINT if is_model else colour
        face = "white" if is_model or not point.adopted else colour
        circle: Any = {"marker": "o", "linestyle": "", "markersize": 2 * radii[point], "markerfacecolor": face}
        edged: Any = {"markeredgecolor": edge if not point.adopted or is_model else "white", "markeredgewidth": 0.6}
        axes.plot([point.x], [point.y], zorder=3 if is_model else 4, alpha=0.9, **circle, **edged)
        if point.std is not None:
            axes.errorbar(point.x, point.y, yerr=point.std, color=DARK, capsize=1.5, linewidth=0.7, zorder=5)


def _labels(tradeoff: Tradeoff, key: Mapping[str, int], radii: Mapping[Point, float]) -> Iterator[Label]:
    """The labels. Earlier ones get better places."""
    bold: Any = {"fontweight": "bold", "color": DARK}
    for path in tradeoff.paths[:1]:
        for point in path.points:
            yield Label(_label(point, key), point.x, point.y, radii[point], point.std, bold)
    for line in tradeoff.families:
        for point in line.points:
            yield Label(point.title, point.x, point.y, radii[point], None, {"color": FAINT, "style": "italic"})
    for path in tradeoff.paths[1:]:
        for point in path.points:
            yield Label(_label(point, key), point.x, point.y, radii[point], point.std, {"color": FAINT})


def _label(point: Point, key: Mapping[str, int]) -> str:
    return f"{key[_title(point)]} {point.note}".rstrip()


def _mark(colour: str, edge: str, size: float = 5) -> Line2D:
    return Line2D([], [], marker="o", linestyle="", markersize=size, markerfacecolor=colour, markeredgecolor=edge)


def _key_of_numbers(tradeoff: Tradeoff, key: Mapping[str, int], colours: Mapping[str, str]) -> list[tuple[Any, str]]:
    shown = {_title(point): point for path in reversed(tradeoff.paths) for point in path.points}
    return [
        (_mark(colours[point.group] if point.adopted else "white", colours[point.group]), f"{number}  {title}")
        for title, number in key.items()
        for point in [shown[title]]
    ]


def _key_of_marks(tradeoff: Tradeoff) -> list[tuple[Any, str]]:
    points = [point for path in tradeoff.paths for point in path.points]
    coloured_marks = tuple(_mark(colour, colour) for colour in COLOURS[1:4])
    keys: list[tuple[Any, str]] = [(coloured_marks, path.title) for path in tradeoff.paths[:1]]
    keys += [(_mark(BEHIND, BEHIND_EDGE), path.title) for path in tradeoff.paths[1:]]
    if not all(point.adopted for point in points):
        keys.append((_mark("white", DARK), "not adopted"))
    if tradeoff.families:
        keys.append((_mark("white", FAINT), tradeoff.families_title))
    sizes = tuple(_mark("white", DARK, size) for size in (2, 4, 6))
    keys.append((sizes, f"area: {'parameters' if tradeoff.x == 'macs' else 'multiply-adds'}"))
    spread = spread_key(points)
    return keys + ([spread] if spread else [])
