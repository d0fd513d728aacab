"""A design as a text drawing: the network with a line per stage, and the block as the paper draws it."""

from __future__ import annotations

import difflib

from roadmap.design import Activation, Design, NamedModel, Norm
from roadmap.network.plan import BlockPlan, Layer, StagePlan, plan
from roadmap.text import show

NORM_NAMES: dict[Norm, str] = {"bn": "BN", "ln": "LN"}
SUM = "+"
ACTIVATION_NAMES: dict[Activation, str] = {"relu": "ReLU", "gelu": "GELU"}


def layer_text(layer: Layer) -> str:
    """`d7x7, 96` for a depthwise convolution of kernel 7 to 96 channels, with its stride where it has one."""
    depthwise = "d" if layer.groups > 1 else ""
    mixing = layer.mixer or f"{depthwise}{layer.kernel}x{layer.kernel}"
    stride = f", stride {layer.stride}" if layer.stride > 1 else ""
    return f"{mixing}, {layer.outputs}{stride}" + (" +bias" if layer.bias else "")


def _norm_and_act(norm: Norm | None, act: Activation | None) -> list[str]:
    return ([NORM_NAMES[norm]] if norm else []) + ([ACTIVATION_NAMES[act]] if act else [])


def draw_network(design: Design | NamedModel) -> str:
    """A line each for the stem, the stages and the head. For a model of another library, its name and arguments."""
    if isinstance(design, NamedModel):
        return "\n".join([str(design), *(f"  {name}: {show(value)}" for name, value in design.arguments.items())])
    lines = around_blocks(design)
    stages = [f"stage {i}  {_stage_text(stage)}" for i, stage in enumerate(plan(design).stages, start=1)]
    return "\n".join([f"stem     {lines['stem']}", *stages, f"head     {lines['head']}"])


def around_blocks(design: Design) -> dict[str, str]:
    """The parts outside the blocks: the stem, the head, and the downsampling between stages."""
    network = plan(design)
    stem = [layer_text(network.stem), *_norm_and_act(network.stem.norm, network.stem.act)]
    stem += (["3x3 max pool, stride 2"] if network.pool else []) + _norm_and_act(network.stem_norm, None)
    head = ["global average pool", *_norm_and_act(network.head_norm, None), f"linear from {network.features}"]
    rule = design.downsampling
    bias = " +bias" if rule.bias else ""
    if rule.place == "between":
        halving = [*_norm_and_act(rule.norm, None), f"{rule.kernel}x{rule.kernel}, stride 2{bias}"]
    else:
        shortcut = f"in the block; shortcut {rule.kernel}x{rule.kernel}, stride 2{bias}"
        halving = [shortcut, *_norm_and_act(rule.norm, None)]
    return {"stem": " → ".join(stem), "downsampling": " → ".join(halving), "head": " → ".join(head)}


def _stage_text(stage: StagePlan) -> str:
    parts = []
    if stage.downsampling:
        parts = [*_norm_and_act(stage.downsampling_norm, None), layer_text(stage.downsampling)]
    block = stage.blocks[-1]
    inside = " · ".join(layer_text(layer) for layer in block.layers)
    parts.append(f"{len(stage.blocks)} × [{inside}]")
    projection = stage.blocks[0].shortcut
    text = " → ".join(parts)
    if not projection:
        return text
    shortcut = " → ".join([layer_text(projection), *_norm_and_act(projection.norm, projection.act)])
    return f"{text}, the first with shortcut {shortcut}"


def distinct_blocks(*designs: Design) -> list[dict[str, BlockPlan]]:
    """The last block of the first stage of each design; of every stage, if a design has different blocks."""
    stages = [plan(design).stages for design in designs]
    count = max(map(len, stages)) if any(len(set(design.blocks)) > 1 for design in designs) else 1
    return [{f"block of stage {i + 1}": plans[i].blocks[-1] for i in range(min(count, len(plans)))} for plans in stages]


def column(block: BlockPlan) -> list[str]:
    """The operations of a block in order: the residual branch, the sum, and the activation after it."""
    boxes = []
    for layer in block.layers:
        boxes += [layer_text(layer), *_norm_and_act(layer.norm, layer.act)]
    if block.layer_scale is not None:
        boxes.append(f"layer scale {block.layer_scale:g}")
    return [*boxes, SUM, *_norm_and_act(None, block.act)]


def draw_block(design: Design | NamedModel) -> str:
    """The blocks of a design, each a column with its shortcut. Empty for a model of another library."""
    if isinstance(design, NamedModel):
        return ""
    (blocks,) = distinct_blocks(design)
    return "\n\n".join(f"{title}\n{_draw(block)}" for title, block in blocks.items())


def _draw(block: BlockPlan) -> str:
    boxes = column(block)
    end = boxes.index(SUM)
    width = max(map(len, boxes)) + 4
    middle, edge = width // 2, width + 2
    lines = [f"{block.layers[0].inputs} channels".center(width), " " * middle + "├" + "─" * (edge - middle - 1) + "┐"]
    lines += [box.center(width).ljust(edge) + "│" for box in boxes[:end]]
    lines[2] += f" {layer_text(block.shortcut)}" if block.shortcut else ""
    lines.append(" " * middle + SUM + "─" * (edge - middle - 1) + "┘")
    lines += [text.center(width) for text in (*boxes[end + 1 :], f"{block.outputs} channels")]
    return "\n".join(line.rstrip() for line in lines)


def mark_changes(before: Design | NamedModel, after: Design | NamedModel) -> str:
    """The lines outside the blocks, and those of blocks that differ: - marks removed lines, + new ones."""
    if isinstance(before, NamedModel) or isinstance(after, NamedModel):
        return "\n".join(_marked(*(draw_network(design).splitlines() for design in (before, after))))
    old, new = distinct_blocks(before, after)
    lines = _marked(*([f"{key}: {text}" for key, text in around_blocks(design).items()] for design in (before, after)))
    for title in old | new:
        columns = [column(blocks[title]) if title in blocks else [] for blocks in (old, new)]
        if columns[0] != columns[1]:
            lines += ["", f"  {title}", *_marked(*([f"    {box}" for box in boxes] for boxes in columns))]
    return "\n".join(lines)


def _marked(before: list[str], after: list[str]) -> list[str]:
    return [line.rstrip() for line in difflib.ndiff(before, after) if not line.startswith("?")]
