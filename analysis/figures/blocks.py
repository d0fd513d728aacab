"""Draws blocks, in the style of the paper's Figures 3 and 4."""

from __future__ import annotations

from collections.abc import Sequence
from difflib import SequenceMatcher
from pathlib import Path
from typing import Literal

from matplotlib.axes import Axes
from matplotlib.figure import Figure
from matplotlib.patches import FancyBboxPatch

from analysis.figures.parts.style import STYLE, NotebookFigure, drawing, finish, save_figure
from roadmap.design import Design
from roadmap.network.drawing import SUM, around_blocks, column, distinct_blocks, layer_text
from roadmap.network.plan import BlockPlan
from roadmap.study.rungs import Rung

Dash = Literal["-", "--"]
LINE, NEW, GONE = "#555555", "#D55E00", "#0072B2"
CONVOLUTION, SPATIAL, SMALL = "#dbe9f6", "#fde3c0", "#eeeeee"
WIDTH, ROW = 2.9, 0.42  # of a column and of a box, inches
SIDE = 1.02  # x of the shortcut, in the axes' units


def draw_rungs(*rungs: Rung) -> Figure:
    """One rung's block, or the change from one rung to another. Raises ValueError for another library's model."""
    designs = []
    for rung in rungs:
        design = rung.experiment.design
        if not isinstance(design, Design):
            raise ValueError(f"-o requires a rung with blocks: {rung.name} is {design}, a model of another library")
        designs.append((rung.name, design))
    return draw_block(rungs[0].title, designs[0][1]) if len(rungs) == 1 else draw_change(designs[0], designs[1])


def draw_block(title: str, design: Design) -> Figure:
    """The design's block, or the blocks of its stages if they differ."""
    (blocks,) = distinct_blocks(design)
    return _draw([(f"{title}\n{name}", design, block, set(), set()) for name, block in blocks.items()])


def draw_change(before: tuple[str, Design], after: tuple[str, Design]) -> Figure:
    """Two designs side by side: the blocks that differ, or the first block if none does.

    Boxes of the left one only have a dashed blue edge; boxes of the right one only have an orange edge. The lines
    below, about the layers around the blocks, have the same colours.
    """
    old, new = distinct_blocks(before[1], after[1])
    shared = [name for name in old if name in new]
    differing_blocks = [name for name in shared if column(old[name]) != column(new[name])] or shared[:1]
    surroundings = [around_blocks(design) for _, design in (before, after)]
    changed = {key for key in surroundings[0] if surroundings[0][key] != surroundings[1][key]}
    columns = []
    for name in differing_blocks:
        removed, added = changed_boxes(column(old[name]), column(new[name]))
        columns.append((f"{before[0]}\n{name}", before[1], old[name], removed, changed))
        columns.append((f"{after[0]}\n{name}", after[1], new[name], added, changed))
    return _draw(columns)


def save_rungs(rungs: Sequence[Rung], paths: Sequence[Path]) -> list[Path]:
    """Draws the blocks of one or two rungs into `paths`, and returns them; none if there are no paths."""
    return save_figure(draw_rungs(*rungs), paths) if paths else []


def changed_boxes(before: Sequence[str], after: Sequence[str]) -> tuple[set[int], set[int]]:
    """Positions of removed or moved boxes in the first, and of new boxes in the second."""
    removed: set[int] = set()
    added: set[int] = set()
    for kind, i, j, m, n in SequenceMatcher(a=before, b=after, autojunk=False).get_opcodes():
        if kind != "equal":
            removed |= set(range(i, j))
            added |= set(range(m, n))
    return removed, added


def _draw(columns: Sequence[tuple[str, Design, BlockPlan, set[int], set[str]]]) -> Figure:
    rows = max(len(column(block)) for _, _, block, _, _ in columns) + 4
    with drawing(STYLE):
        figure = NotebookFigure(figsize=(WIDTH * len(columns), ROW * rows + 0.5), layout="constrained")
        all_axes = figure.subplots(1, len(columns), squeeze=False)[0]
        for i, (axes, column_data) in enumerate(zip(all_axes, columns, strict=True)):
            title, design, block, marked_boxes, marked_lines = column_data
            colour = NEW if i % 2 else GONE
            _draw_block(axes, block, marked_boxes, colour, "-" if i % 2 else "--")
            _write_around(axes, design, marked_lines, colour, rows)
            axes.set_title(title, fontsize=9)
            axes.set_xlim(-1.4, 1.4)
            axes.set_ylim(rows - 0.5, -0.7)
            axes.axis("off")
        finish(figure)
    return figure


def _write_around(axes: Axes, design: Design, changed: set[str], colour: str, rows: int) -> None:
    for i, (key, text) in enumerate(around_blocks(design).items()):
        line = axes.text(0, rows - 1.9 + 0.55 * i, f"{key}: {text}", ha="center", va="center", fontsize=5, color=LINE)
        if key in changed:
            line.set(color=colour, fontweight="bold")


def _draw_block(axes: Axes, block: BlockPlan, changed: set[int], colour: str, dash: Dash) -> None:
    boxes = column(block)
    end = boxes.index(SUM) + 1
    axes.text(0, 0, f"{block.layers[0].inputs} channels", ha="center", va="center")
    for i, box in enumerate(boxes):
        if box == SUM:
            axes.text(0, i + 1, SUM, ha="center", va="center", fontsize=13, fontweight="bold")
        else:
            _box(axes, i + 1, box, *((colour, dash, 2.0) if i in changed else (LINE, "-", 0.8)))
    axes.text(0, len(boxes) + 1, f"{block.outputs} channels", ha="center", va="center")
    arrow = {"arrowstyle": "-|>", "color": LINE, "lw": 0.8}
    for i in range(len(boxes) + 1):
        axes.annotate("", (0, i + 0.74), (0, i + 0.28), arrowprops=arrow)
    axes.plot([0, SIDE, SIDE], [0.5, 0.5, end], color=LINE, lw=0.9)
    axes.annotate("", (0.12, end), (SIDE, end), arrowprops=arrow)
    if block.shortcut:
        axes.text(SIDE + 0.14, (end + 0.5) / 2, layer_text(block.shortcut), rotation=270, va="center", fontsize=7)


def _box(axes: Axes, y: float, text: str, colour: str, dash: Dash, weight: float) -> None:
    is_layer = "," in text
    face = SMALL if not is_layer else CONVOLUTION if text.startswith("1x1") else SPATIAL
    width, height = (1.5, 0.5) if len(text) > 8 or is_layer else (0.95, 0.42)
    corner, style = (-width / 2, y - height / 2), "round,pad=0.02"
    box = FancyBboxPatch(corner, width, height, boxstyle=style, facecolor=face, edgecolor=colour)
    box.set_linestyle(dash)
    box.set_linewidth(weight)
    axes.add_patch(box)
    axes.text(0, y, text, ha="center", va="center", fontsize=8)
