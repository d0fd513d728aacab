"""Draws the effects of steps over all orders, and the pairs that help or hinder each other."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib import colormaps
from matplotlib.axes import Axes
from matplotlib.cm import ScalarMappable
from matplotlib.colors import to_hex
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.attribution import Attribution, Interaction, StepEffect
from analysis.figures.parts.style import (
    COLOURS,
    DARK,
    FAINT,
    LAYOUTS,
    Layout,
    NotebookFigure,
    drawing,
    finish,
    readable_on,
)
from roadmap.record.metrics import Metric

# The single changes of a step, with their markers: (field of StepEffect, meaning, marker).
MARKS = (
    ("alone", "alone on the start", ">"),
    ("on_path", "in the paper's order", "D"),
    ("left_out", "taken out of all", "<"),
)
MAP = "PuOr_r"  # from purple to orange, which the colour-blind tell apart; dark at both ends, light in the middle
REST = 0.1  # share of the largest pairs, which have the same colour
FENCE = 3.0  # outliers are so many interquartile ranges beyond the quartiles
LARGEST_CELL = 0.5  # inches
NOISE = 0.35  # opacity of pairs within the noise
SMALLEST = 5.0  # points of type; with less room, numbers within the noise are left out


def draw_effects(attribution: Attribution, metric: Metric, title: str = "", columns: int = 2) -> Figure:
    """Each step's Shapley value with its interval, and its change alone, in the paper's order, and at the end.

    A change far beyond all others is an arrow at the edge, with its number.
    """
    layout, effects = LAYOUTS[columns], attribution.effects
    title_width = 0.25 + layout.letter * max(len(effect.title) for effect in effects)
    label_height = 0.42 + (0.022 * layout.small if title else 0)
    height = layout.row * (len(effects) + 3) + 0.13 + label_height
    with drawing(layout.style):
        figure = NotebookFigure(figsize=(layout.width, height))
        width_share = 0.98 - title_width / layout.width
        height_share = (height - 0.08 - label_height - 2 * layout.row) / height
        place = (title_width / layout.width, label_height / height, width_share, height_share)
        axes = figure.add_axes(place)
        low, high = _limits(effects)
        label = "Shapley value, 95 % interval" if any(effect.interval for effect in effects) else "Shapley value"
        for y, effect in enumerate(effects):
            _draw_effect(axes, y, effect, label, (low, high), layout)
        axes.axvline(0, color=FAINT, linewidth=0.8, zorder=0)
        axes.set_yticks(range(len(effects)), [effect.title for effect in effects])
        axes.tick_params(axis="y", length=0)
        axes.set(xlim=(low, high), ylim=(len(effects) - 0.4, -0.6))
        axes.spines[["right", "top", "left"]].set_visible(False)
        axes.set_xlabel(f"change of the {metric.title}" + (f"\n{title}" if title else ""), fontsize=layout.small)
        handles, labels = axes.get_legend_handles_labels()
        once = dict(zip(labels, handles, strict=True))  # a meaning may first occur in any row
        axes.legend(
            once.values(),
            once.keys(),
            loc="lower center",
            bbox_to_anchor=(0.5, axes.get_position().y1),
            bbox_transform=figure.transFigure,  # centred in the figure: in one column it is wider than the axes
            ncols=2,
            frameon=False,
            fontsize=layout.small,
        )
        finish(figure)
    return figure


def _limits(effects: Sequence[StepEffect]) -> tuple[float, float]:
    """Limits around all values except outliers: a few changes may be a hundred times the others."""
    values = [value for effect in effects for value in (effect.shapley, *(effect.interval or ())) if value is not None]
    values += [value for effect in effects for name, _, _ in MARKS if (value := getattr(effect, name)) is not None]
    low, high = np.quantile(values, [0.25, 0.75])
    fence = FENCE * max(high - low, 1e-9)
    inside = [0.0, *(value for value in values if low - fence <= value <= high + fence)]
    room = 0.05 * (max(inside) - min(inside)) or 1.0
    return min(inside) - room, max(inside) + room


def _draw_effect(
    axes: Axes, y: int, effect: StepEffect, label: str, limits: tuple[float, float], layout: Layout
) -> None:
    low, high = limits
    if effect.interval:
        axes.plot(np.clip(effect.interval, low, high), [y, y], color=COLOURS[1], linewidth=2.2, solid_capstyle="butt")
        for end, arrow in zip(effect.interval, "<>", strict=True):  # the interval ends outside the figure
            if not low <= end <= high:
                axes.plot(np.clip(end, low, high), y, arrow, color=COLOURS[1], markersize=layout.small, clip_on=False)
    if effect.shapley is not None:
        _mark(axes, y, effect.shapley, limits, layout, marker="o", color=COLOURS[1], label=label)
    for offset, (name, meaning, marker) in zip((-0.22, 0.0, 0.22), MARKS, strict=True):
        if (value := getattr(effect, name)) is not None:
            own = {"marker": marker, "color": COLOURS[3], "label": meaning, "face": "white"}
            _mark(axes, y + offset, value, limits, layout, **own)


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
    face: str | None = None,  # None: as `color`
) -> None:
    size = 0.55 * layout.type
    clipped = float(np.clip(value, *limits))
    style: Any = {"markerfacecolor": face or color, "markersize": size, "clip_on": False, "label": label}
    axes.plot([clipped], [y], marker, color=color, **style)
    if clipped != value:
        inwards = 1 if value < limits[0] else -1
        axes.annotate(
            f"{'←' if inwards > 0 else '→'} {value:+.1f}",
            (clipped, y),
            (inwards * layout.type, 0),
            textcoords="offset points",
            ha="left" if inwards > 0 else "right",
            va="center",
            color=color,
            fontsize=layout.small,
        )


def draw_interactions(attribution: Attribution, metric: Metric, title: str = "", columns: int = 2) -> Figure:
    """A heat map of the pairs: the effect of two steps together beyond the sum of their separate effects.

    Bold numbers are beyond noise. The colour scale ends below the largest pairs. Raises ValueError if the runs do not
    separate the pairs.
    """
    if not attribution.interactions:
        raise ValueError("the runs are too few to separate pairs of steps: `roadmap run --ablation orders:N` adds more")
    layout, pairs = LAYOUTS[columns], attribution.interactions
    titles = [attribution.titles[step] for step in attribution.steps]
    # Each pair is shown once, so the first step has no row and the last has no column.
    count, margin = len(attribution.steps) - 1, 0.15 + layout.letter * max(map(len, titles))
    cell = min((layout.width - margin - 0.15) / count, LARGEST_CELL)
    height = cell * count + margin * 0.8 + 0.75
    reach = float(np.quantile([abs(pair.value) for pair in pairs], 1 - REST)) or 1.0
    with drawing(layout.style):
        figure = NotebookFigure(figsize=(layout.width, height))
        place = (margin / layout.width, margin * 0.8 / height, cell * count / layout.width, cell * count / height)
        axes = figure.add_axes(place)
        values = np.full((count, count), np.nan)
        index = {step: i for i, step in enumerate(attribution.steps)}
        for pair in pairs:
            values[index[pair.second] - 1, index[pair.first]] = pair.value
        significant = {(index[pair.second] - 1, index[pair.first]) for pair in pairs if pair.verdict != "within noise"}
        alphas = np.array([[1.0 if (y, x) in significant else NOISE for x in range(count)] for y in range(count)])
        image = axes.imshow(
            np.clip(values, -reach, reach), alpha=alphas, cmap=MAP, vmin=-reach, vmax=reach, aspect="equal"
        )
        for pair in pairs:
            colour = to_hex(colormaps[MAP](0.5 + 0.5 * float(np.clip(pair.value / reach, -1, 1))))
            colour = colour if pair.verdict != "within noise" else "white"
            _write_pair(axes, index[pair.first], index[pair.second] - 1, pair, colour, min(layout.type, 20 * cell))
        axes.set_xticks(range(count), titles[:-1], rotation=40, ha="right", rotation_mode="anchor")
        axes.set_yticks(range(count), titles[1:])
        axes.tick_params(length=0, labelsize=layout.small)
        axes.spines[:].set_visible(False)
        scale_axes = figure.add_axes((0.5, 1 - 0.42 / height, 0.46, 0.1 / height))
        figure.colorbar(ScalarMappable(image.norm, MAP), cax=scale_axes, orientation="horizontal", extend="both")
        scale_axes.tick_params(labelsize=layout.small, length=2)
        meaning = _meaning(metric, title, len(significant), len(pairs))
        scale_axes.set_title(meaning, fontsize=layout.small, loc="right", pad=3)
        finish(figure)
    return figure


def _meaning(metric: Metric, title: str, significant: int, pairs: int) -> str:
    better = "help" if metric.higher_is_better else "hinder"
    text = f"together beyond each alone, {metric.title}; above 0 they {better}"
    text += f"\n{significant} of {pairs} beyond noise: framed"
    return text + (f"; {title}" if title else "")


def _write_pair(axes: Axes, x: int, y: int, pair: Interaction, colour: str, size: float) -> None:
    is_significant = pair.verdict != "within noise"
    if size < SMALLEST and not is_significant:
        return
    axes.text(
        x,
        y,
        f"{round(pair.value, 1) + 0.0:+.1f}",  # no -0.0
        ha="center",
        va="center",
        fontsize=max(size, SMALLEST),
        color=readable_on(colour),
        fontweight="bold" if is_significant else "normal",
        alpha=1.0 if is_significant else 0.75,
    )
    if is_significant:
        axes.add_patch(Rectangle((x - 0.48, y - 0.48), 0.96, 0.96, fill=False, edgecolor=DARK, linewidth=0.9))
