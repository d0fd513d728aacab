"""Blocks as figures, in the manner of the paper's Figures 3 and 4."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher

import matplotlib
from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from analysis.figures import STYLE
from roadmap.design import Design
from roadmap.drawing import behind_sum, block_boxes, distinct_blocks, layer_text
from roadmap.plan import BlockPlan

PLAIN, SPATIAL, SMALL, CHANGED = "#dbe9f6", "#fde3c0", "#eeeeee", "#D55E00"
COLUMN, ROW = 2.4, 0.42  # inches
SIDE = 1.02  # where the shortcut runs, in the axes' units


def draw_blocks(designs: Sequence[tuple[str, Design]]) -> Figure:
    """The blocks of one design or several, side by side under their titles.

    Of several, boxes that the design before has not are edged in colour.
    """
    columns = [(title, name, block) for title, design in designs for name, block in distinct_blocks(design).items()]
    compared = len(designs) > 1
    rows = max(len(block_boxes(block)) + len(behind_sum(block)) for _, _, block in columns) + 3
    with matplotlib.rc_context(STYLE):
        figure = Figure(figsize=(COLUMN * len(columns), ROW * rows + 0.5), layout="constrained")
        for axes, (title, name, block) in zip(figure.subplots(1, len(columns), squeeze=False)[0], columns, strict=True):
            former = next((old for other, where, old in columns if compared and where == name and other != title), None)
            first = title == designs[0][0]
            changed = set() if first or former is None else new_boxes(block_boxes(former), block_boxes(block))
            _draw_block(axes, block, changed)
            axes.set_title(f"{title}\n{name}", fontsize=9)
            axes.set_xlim(-1.25, 1.45)
            axes.set_ylim(rows - 0.3, -0.7)
            axes.axis("off")
        figure.canvas.draw()
    return figure


def new_boxes(before: Sequence[str], after: Sequence[str]) -> set[int]:
    """Positions of the boxes that came or moved."""
    steps = SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes()
    return {i for kind, _, _, first, last in steps if kind in ("insert", "replace") for i in range(first, last)}


def _draw_block(axes: Axes, block: BlockPlan, changed: set[int]) -> None:
    boxes = block_boxes(block)
    end = len(boxes) + 1
    axes.text(0, 0, f"{block.layers[0].inputs} channels", ha="center", va="center")
    for i, box in enumerate(boxes):
        _box(axes, i + 1, box, edge=CHANGED if i in changed else "#555555")
    axes.text(0, end, "+", ha="center", va="center", fontsize=13, fontweight="bold")
    rest = [*behind_sum(block), f"{block.outputs} channels"]
    for i, text in enumerate(rest, start=end + 1):
        if i <= end + len(rest) - 1:
            _box(axes, i, text, edge="#555555")
        else:
            axes.text(0, i, text, ha="center", va="center")
    for i in range(end + len(rest)):
        axes.annotate("", (0, i + 0.74), (0, i + 0.28), arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 0.8})
    axes.plot([0, SIDE, SIDE], [0.5, 0.5, end], color="#555555", lw=0.9)
    axes.annotate("", (0.12, end), (SIDE, end), arrowprops={"arrowstyle": "-|>", "color": "#555555", "lw": 0.9})
    if block.shortcut:
        axes.text(
            SIDE + 0.14, (end + 0.5) / 2, layer_text(block.shortcut), rotation=270, ha="center", va="center", fontsize=7
        )


def _box(axes: Axes, y: float, text: str, edge: str) -> None:
    convolution = "," in text
    face = SMALL if not convolution else SPATIAL if text[0] == "d" or not text.startswith("1x1") else PLAIN
    size = (1.5, 0.5) if convolution or len(text) > 8 else (0.95, 0.42)
    box = FancyBboxPatch(
        (-size[0] / 2, y - size[1] / 2), *size, boxstyle="round,pad=0.02", facecolor=face, edgecolor=edge
    )
    box.set_linewidth(2 if edge == CHANGED else 0.8)
    axes.add_patch(box)
    axes.text(0, y, text, ha="center", va="center", fontsize=8)
