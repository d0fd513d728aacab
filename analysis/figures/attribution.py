"""What steps are worth in all orders, and the pairs that help or hinder each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import matplotlib
import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.attribution import Attribution, Interaction, StepEffect
from analysis.figures.style import COLOURS, DARK, FAINT, LAYOUTS, Layout, readable_on
from roadmap.record.metrics import Metric

# Where a step stands, with the mark of what it changes there: (field of Worth, what it is, marker).
MARKS = (
    ("alone", "alone on the start", ">"),
    ("on_path", "in the paper's order", "D"),
    ("left_out", "taken out of all", "<"),
)
MAP = "PuOr_r"  # from purple to orange, which the colour-blind tell apart; dark at both ends, light in the middle
REST = 0.1  # of the pairs, whose values the colours need not tell apart
FENCE = 3.0  # interquartile ranges beyond the quartiles, where outliers begin
LARGEST_CELL = 0.5  # inches
NOISE = 0.35  # how strongly the colours of pairs within the noise are drawn
SMALLEST = 5.0  # points of type; where there is no room for it, the numbers that are noise are left out


def draw_effects(found: Attribution, metric: Metric, title: str = "", columns: int = 2) -> Figure:
    """Each step's Shapley value with its interval, and what it changes alone, in the paper's order, and at the end.

    A change that is far beyond all others is an arrow at the edge, with its number.
    """
    layout, effects = LAYOUTS[columns], found.effects
    left = 0.25 + layout.letter * max(len(effect.title) for effect in effects)
    under = 0.42 + (0.022 * layout.small if title else 0)
    height = layout.row * (len(effects) + 3) + 0.13 + under
    with matplotlib.rc_context(layout.style):
        figure = Figure(figsize=(layout.width, height))
        across, down = 0.98 - left / layout.width, (height - 0.08 - under - 2 * layout.row) / height
        place = (left / layout.width, under / height, across, down)
        axes = figure.add_axes(place)
        low, high = _limits(effects)
        for y, effect in enumerate(effects):
            _draw_effect(axes, y, effect, low, high, layout)
        axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(effects)), [effect.title for effect in effects])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(low, high), ylim=(len(effects) - 0.4, -0.6))
        axes.spines[["right", "top", "left"]].set_visible(False)
        axes.set_xlabel(f"change of the {metric.title}" + (f"\n{title}" if title else ""), fontsize=layout.small)
        axes.legend(loc="lower center", bbox_to_anchor=(0.5, 1.0), ncols=2, frameon=False, fontsize=layout.small)
        figure.canvas.draw()
    return figure


def _limits(effects: Sequence[StepEffect]) -> tuple[float, float]:
    """Around all that is no outlier: a few changes may be a hundred times the others."""
    values = [value for effect in effects for value in (effect.shapley, *(effect.interval or ())) if value is not None]
    values += [value for effect in effects for name, _, _ in MARKS if (value := getattr(effect, name)) is not None]
    low, high = np.quantile(values, [0.25, 0.75])
    fence = FENCE * max(high - low, 1e-9)
    inside = [0.0, *(value for value in values if low - fence <= value <= high + fence)]
    room = 0.05 * (max(inside) - min(inside)) or 1.0
    return min(inside) - room, max(inside) + room


def _draw_effect(axes: Axes, y: int, effect: StepEffect, low: float, high: float, layout: Layout) -> None:
    first = y == 0
    if effect.interval:
        axes.plot(np.clip(effect.interval, low, high), [y, y], color=COLOURS[1], linewidth=2.2, solid_capstyle="butt")
        for end, arrow in zip(effect.interval, "<>", strict=True):  # that it goes on beyond the figure
            if not low <= end <= high:
                axes.plot(np.clip(end, low, high), y, arrow, color=COLOURS[1], markersize=layout.small, clip_on=False)
    if effect.shapley is not None:
        said = "Shapley value, 95 % interval" if effect.interval else "Shapley value"
        _mark(axes, y, effect.shapley, (low, high), layout, marker="o", color=COLOURS[1], label=said if first else None)
    for offset, (name, meaning, marker) in zip((-0.22, 0.0, 0.22), MARKS, strict=True):
        if (value := getattr(effect, name)) is not None:
            label = meaning if first else None
            _mark(
                axes, y + offset, value, (low, high), layout, marker=marker, color=COLOURS[3], label=label, face="white"
            )


def _mark(
    axes: Axes,
    y: float,
    value: float,
    limits: tuple[float, float],
    layout: Layout,
    *,
    marker: str,
    color: str,
    label: str | None,
    face: str | None = None,  # the colour's where none is given
) -> None:
    size = 0.55 * layout.type
    drawn = float(np.clip(value, *limits))
    look: Any = {"markerfacecolor": face or color, "markersize": size, "clip_on": False, "label": label}
    axes.plot([drawn], [y], marker, color=color, **look)
    if drawn != value:
        inwards = 1 if value < limits[0] else -1
        axes.annotate(
            f"{'←' if inwards > 0 else '→'} {value:+.1f}",
            (drawn, y),
            (inwards * layout.type, 0),
            textcoords="offset points",
            ha="left" if inwards > 0 else "right",
            va="center",
            color=color,
            fontsize=layout.small,
        )


def draw_interactions(found: Attribution, metric: Metric, title: str = "", columns: int = 2) -> Figure:
    """A heat map of the pairs: what two steps are worth together beyond what each is worth without the other.

    Numbers in bold are more than noise. The colours reach as far as all but the largest pairs need. Raises ValueError
    where pairs were not told apart.
    """
    if not found.interactions:
        raise ValueError("the runs do not tell pairs of steps apart: `roadmap run --ablation orders:N` adds some")
    layout, titles, pairs = LAYOUTS[columns], [found.titles[step] for step in found.steps], found.interactions
    # A pair stands once, so that the first step has no row and the last no column.
    count, margin = len(found.steps) - 1, 0.15 + layout.letter * max(map(len, titles))
    cell = min((layout.width - margin - 0.15) / count, LARGEST_CELL)
    height = cell * count + margin * 0.8 + 0.75
    reach = float(np.quantile([abs(each.value) for each in pairs], 1 - REST)) or 1.0
    with matplotlib.rc_context(layout.style):
        figure = Figure(figsize=(layout.width, height))
        place = (margin / layout.width, margin * 0.8 / height, cell * count / layout.width, cell * count / height)
        axes = figure.add_axes(place)
        values = np.full((count, count), np.nan)
        at = {step: i for i, step in enumerate(found.steps)}
        for each in pairs:
            values[at[each.second] - 1, at[each.first]] = each.value
        told = {(at[each.second] - 1, at[each.first]) for each in pairs if each.verdict != "within noise"}
        faint = np.array([[1.0 if (y, x) in told else NOISE for x in range(count)] for y in range(count)])
        drawn = axes.imshow(
            np.clip(values, -reach, reach), alpha=faint, cmap=MAP, vmin=-reach, vmax=reach, aspect="equal"
        )
        for each in pairs:
            colour = to_hex(colormaps[MAP](0.5 + 0.5 * float(np.clip(each.value / reach, -1, 1))))
            colour = colour if each.verdict != "within noise" else "white"
            _write_pair(axes, at[each.first], at[each.second] - 1, each, colour, min(layout.type, 20 * cell))
        axes.set_xticks(range(count), titles[:-1], rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), titles[1:])
        axes.tick_params(length=0, labelsize=layout.small)
        axes.spines[:].set_visible(False)
        scale = figure.add_axes((0.5, 1 - 0.42 / height, 0.46, 0.1 / height))
        figure.colorbar(ScalarMappable(drawn.norm, MAP), cax=scale, orientation="horizontal", extend="both")
        scale.tick_params(labelsize=layout.small, length=2)
        scale.set_title(_meaning(metric, title, len(told), len(pairs)), fontsize=layout.small, loc="right", pad=3)
        figure.canvas.draw()
    return figure


def _meaning(metric: Metric, title: str, told: int, pairs: int) -> str:
    better = "help" if metric.higher_is_better else "hinder"
    said = f"together beyond each alone, {metric.title}; above 0 they {better}\n{told} of {pairs} beyond noise: framed"
    return said + (f"; {title}" if title else "")


def _write_pair(axes: Axes, x: int, y: int, pair: Interaction, colour: str, size: float) -> None:
    told = pair.verdict != "within noise"
    if size < SMALLEST and not told:
        return
    axes.text(
        x,
        y,
        f"{round(pair.value, 1) + 0.0:+.1f}",  # no -0.0
        ha="center",
        va="center",
        fontsize=max(size, SMALLEST),
        color=readable_on(colour),
        fontweight="bold" if told else "normal",
        alpha=1.0 if told else 0.75,
    )
    if told:
        axes.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, fill=False, edgecolor=DARK, linewidth=0.9))
