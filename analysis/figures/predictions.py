"""Draws what transferred networks find in test images, beside what is in them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path
from typing import Any

import numpy as np
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import Rectangle

from analysis.figures.parts.style import STYLE, NotebookFigure, drawing, finish
from roadmap.record.predictions import Found, read_predictions

WIDTH, MOST = 7.2, 6  # inches, and images in a row
LEAST_SCORE = 0.5  # of a drawn object
PALETTE = np.array(
    [
        (230, 159, 0), (86, 180, 233), (0, 158, 115), (240, 228, 66), (0, 114, 178), (213, 94, 0), (204, 121, 167),
        (153, 153, 153), (170, 68, 153), (68, 170, 153), (136, 34, 85), (221, 204, 119),
    ]
)  # fmt: skip


def draw_predictions(folders: Mapping[str, Path], title: str) -> Figure:
    """A row of test images with what is in them, then a row for each run, by its rung, with what it finds."""
    recorded = {name: read_predictions(folder)[:MOST] for name, folder in folders.items()}
    first = next(iter(recorded.values()))
    rows = [("annotated", [predicted.truth for predicted in first])]
    rows += [(name, [predicted.found for predicted in own]) for name, own in recorded.items()]
    cell = WIDTH / max(len(first), 1)
    with drawing(STYLE):
        figure = NotebookFigure(figsize=(WIDTH, 0.35 + (cell + 0.05) * len(rows)), layout="constrained")
        grid = figure.subplots(len(rows), len(first), squeeze=False)
        for line, (name, findings) in zip(grid, rows, strict=True):
            for axes, predicted, found in zip(line, first, findings, strict=True):
                axes.imshow(predicted.image, interpolation="nearest")
                axes.set_xticks([])
                axes.set_yticks([])
                _draw_found(axes, found, predicted.image.shape[:2])
            line[0].set_ylabel(name, fontsize=7)
        figure.suptitle(title, fontsize=8)
        finish(figure)
    return figure


def _draw_found(axes: Axes, found: Found, size: tuple[int, ...]) -> None:
    overlay = np.zeros((*size, 4))
    # The largest region is the ground of the others: it has no colour.
    ground = int(found.masks.sum((1, 2)).argmax()) if found.boxes is None and len(found.masks) else None
    for i, (label, mask) in enumerate(zip(found.labels, found.masks, strict=True)):
        if i == ground or (found.scores is not None and found.scores[i] < LEAST_SCORE):
            continue
        colour = PALETTE[int(label) % len(PALETTE)] / 255
        overlay[mask] = (*colour, 0.55)
        if found.boxes is not None:
            left, top, right, bottom = map(float, found.boxes[i])
            edge: Any = {"fill": False, "edgecolor": colour, "linewidth": 0.9}
            axes.add_patch(Rectangle((left - 0.5, top - 0.5), right - left, bottom - top, **edge))
            score = "" if found.scores is None else f" {found.scores[i]:.1f}"
            box: Any = {"facecolor": "black", "alpha": 0.5, "pad": 0.4, "linewidth": 0}
            axes.text(left, top, f"{label}{score}", color="white", fontsize=4.5, va="bottom", bbox=box, clip_on=True)
    axes.imshow(overlay, interpolation="nearest")
