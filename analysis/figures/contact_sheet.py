"""The contact sheet of test images on which two rungs differ."""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import numpy as np
from matplotlib.figure import Figure

from analysis.disagreement import Disagreement
from analysis.figures.parts.style import STYLE, NotebookFigure, drawing, finish
from roadmap.text import many

COLUMNS, MOST = 8, 40  # pictures in a row, and on a sheet
WIDTH, ROW = 7.16, 1.24  # inches
LETTERS = 18  # of a class name
RIGHT, WRONG = "#1b7837", "#b2182b"


def draw_contact_sheet(disagreement: Disagreement, pictures: Sequence[np.ndarray[Any, Any]]) -> Figure:
    """A picture for each of the first rows of `disagreement.images`, with its class and both predictions."""
    rows = max(1, math.ceil(len(pictures) / COLUMNS))
    with drawing(STYLE):
        figure = NotebookFigure(figsize=(WIDTH, 0.4 + ROW * rows), layout="constrained")
        grid = list(figure.subplots(rows, COLUMNS, squeeze=False).flat)
        for axes in grid:
            axes.set_axis_off()
        shown = disagreement.images.head(len(pictures)).to_dict("records")
        for axes, picture, row in zip(grid, pictures, shown, strict=False):
            axes.imshow(picture, interpolation="nearest")
            axes.set_title(_short(row["label"]), fontsize=6.5, pad=2)
            for line, side in enumerate(("first", "second")):
                colour = RIGHT if row[side] == row["label"] else WRONG
                where: dict[str, Any] = {"transform": axes.transAxes, "ha": "center", "va": "top"}
                share = row[f"{side}_correct"]
                runs = "" if share in (0, 1) else f" ({share:.0%} right)"
                text = f"{'AB'[line]}: {_short(row[side])}{runs}"
                axes.text(0.5, -0.04 - 0.14 * line, text, color=colour, fontsize=6.5, **where)
        count = many(len(disagreement.images), "test image")
        figure.suptitle(f"A: {disagreement.first}   B: {disagreement.second}   {count} differ", fontsize=8)
        finish(figure)
    return figure


def _short(name: Any) -> str:
    text = str(name)
    return text if len(text) <= LETTERS else text[: LETTERS - 1] + "…"
