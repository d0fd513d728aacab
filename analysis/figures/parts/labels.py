"""Places labels next to points, without overlaps."""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from matplotlib.axes import Axes

from analysis.figures.parts.style import FAINT

LETTER, LINE = 0.62, 1.15  # width and height of a letter, relative to the type size
AWAY = (2.0, 5.0, 9.0, 14.0, 20.0, 27.0, 35.0, 45.0, 58.0, 74.0)  # from a point's edge, points
TURNS = [math.pi * turn / 8 for turn in (0, 4, 12, 8, 2, 14, 6, 10, 1, 15, 3, 13, 5, 11, 7, 9)]  # main directions first

Box = tuple[float, float, float, float]  # left, bottom, right, top; points


@dataclass(frozen=True)
class Label:
    text: str
    x: float
    y: float
    radius: float  # of its point
    std: float | None  # the reach of its error bar
    style: dict[str, Any]


def write_labels(axes: Axes, labels: Sequence[Label], type_size: float) -> None:
    """Writes each label at the first free place around its point, with a line to the point if it is far away.

    Without a free place a label is written on a bubble, at worst on another label. Set limits and scales before.
    """
    to_points = 72 / axes.figure.dpi

    def position(x: float, y: float) -> tuple[float, float]:
        x_points, y_points = axes.transData.transform((x, y)) * to_points
        return float(x_points), float(y_points)

    centres = [position(label.x, label.y) for label in labels]
    # A label may cover the rim of a big bubble, but not its middle.
    occupied = [_around(x, y, label.radius * 0.8) for (x, y), label in zip(centres, labels, strict=True)]
    for label in labels:
        if label.std is not None:
            (x, low), (_, high) = position(label.x, label.y - label.std), position(label.x, label.y + label.std)
            occupied.append((x - 1.5, low, x + 1.5, high))
    axes_box = axes.bbox.frozen()
    written: list[Box] = []
    inside = (axes_box.x0 * to_points, axes_box.y0 * to_points, axes_box.x1 * to_points, axes_box.y1 * to_points)
    for label, (x, y) in zip(labels, centres, strict=True):
        (left, bottom, right, top), distance = (
            _free_place(label, x, y, type_size, occupied, written, inside)
            or _free_place(label, x, y, type_size, written, (), inside)
            or _free_place(label, x, y, type_size, (), (), inside)
            or ((x, y, x, y), 0.0)
        )
        occupied.append((left, bottom, right, top))
        written.append((left, bottom, right, top))
        offset = ((left + right) / 2 - x, (bottom + top) / 2 - y)
        line: Any = {"arrowstyle": "-", "color": FAINT, "linewidth": 0.4, "shrinkA": 1, "shrinkB": label.radius}
        style: Any = {"fontsize": type_size, "ha": "center", "va": "center", "zorder": 6} | label.style
        arrow = line if distance > AWAY[1] else None
        axes.annotate(label.text, (label.x, label.y), offset, textcoords="offset points", arrowprops=arrow, **style)


def _free_place(
    label: Label, x: float, y: float, type_size: float, occupied: Sequence[Box], written: Sequence[Box], inside: Box
) -> tuple[Box, float] | None:
    """The first free box and its distance; the line to it crosses no other label. None if there is none."""
    half_width, half_height = LETTER * type_size * (len(label.text) + 0.5) / 2, LINE * type_size / 2
    for distance in AWAY:
        for turn in TURNS:
            offset = label.radius + distance
            to_x = x + math.cos(turn) * (offset + half_width)
            to_y = y + math.sin(turn) * (offset + half_height)
            box = (to_x - half_width, to_y - half_height, to_x + half_width, to_y + half_height)
            within = box[0] >= inside[0] and box[1] >= inside[1] and box[2] <= inside[2] and box[3] <= inside[3]
            crossed = any(_crosses(x, y, to_x, to_y, other) for other in written)
            if within and not crossed and not any(overlap(box, other) for other in occupied):
                return box, distance
    return None


def _around(x: float, y: float, radius: float) -> Box:
    return x - radius, y - radius, x + radius, y + radius


def _crosses(x: float, y: float, to_x: float, to_y: float, box: Box) -> bool:
    """Whether the line between two places crosses the box, checked at 17 points."""
    fractions = [fraction / 16 for fraction in range(17)]
    points = [(x + fraction * (to_x - x), y + fraction * (to_y - y)) for fraction in fractions]
    return any(box[0] < point_x < box[2] and box[1] < point_y < box[3] for point_x, point_y in points)


def overlap(first: Box, second: Box) -> bool:
    return first[0] < second[2] and second[0] < first[2] and first[1] < second[3] and second[1] < first[3]
