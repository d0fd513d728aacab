"""A design as a drawing of characters: its network in a line a stage, and its block in the manner of the paper."""

from __future__ import annotations

import difflib

from roadmap.design import Activation, Design, Norm
from roadmap.plan import BlockPlan, Layer, StagePlan, plan

NORM_NAMES: dict[Norm, str] = {"bn": "BN", "ln": "LN"}
ACTIVATION_NAMES: dict[Activation, str] = {"relu": "ReLU", "gelu": "GELU"}


def layer_text(layer: Layer) -> str:
    """`d7x7, 96` for a depthwise convolution of kernel 7 to 96 channels, with its stride where it has one."""
    depthwise = "d" if layer.groups > 1 else ""
    mixing = layer.mixer or f"{depthwise}{layer.kernel}x{layer.kernel}"
    stride = f", stride {layer.stride}" if layer.stride > 1 else ""
    return f"{mixing}, {layer.outputs}{stride}" + (" +bias" if layer.bias else "")


def _behind(norm: Norm | None, act: Activation | None) -> list[str]:
    return ([NORM_NAMES[norm]] if norm else []) + ([ACTIVATION_NAMES[act]] if act else [])


def draw_network(design: Design) -> str:
    """A line for the stem, each stage and the head."""
    network = plan(design)
    stem = [layer_text(network.stem), *_behind(network.stem.norm, network.stem.act)]
    stem += (["3x3 max pool, stride 2"] if network.pool else []) + _behind(network.stem_norm, None)
    head = ["global average pool", *_behind(network.head_norm, None), f"linear from {network.features}"]
    lines = [f"stem     {' → '.join(stem)}"]
    lines += [f"stage {i}  {_stage_text(stage)}" for i, stage in enumerate(network.stages, start=1)]
    return "\n".join([*lines, f"head     {' → '.join(head)}"])


def _stage_text(stage: StagePlan) -> str:
    parts = []
    if stage.downsampling:
        parts = [*_behind(stage.downsampling_norm, None), layer_text(stage.downsampling)]
    block = stage.blocks[-1]
    inside = " · ".join(layer_text(layer) for layer in block.layers)
    parts.append(f"{len(stage.blocks)} × [{inside}]")
    projection = stage.blocks[0].shortcut
    text = " → ".join(parts)
    if not projection:
        return text
    shortcut = " → ".join([layer_text(projection), *_behind(projection.norm, projection.act)])
    return f"{text}, the first with shortcut {shortcut}"


def distinct_blocks(design: Design) -> dict[str, BlockPlan]:
    """The last block of the first stage, or of each stage where they differ, by what it stands for."""
    stages = plan(design).stages
    if len(set(design.blocks)) == 1:
        return {"block of stage 1" if len(stages) > 1 else "block": stages[0].blocks[-1]}
    return {f"block of stage {i}": stage.blocks[-1] for i, stage in enumerate(stages, start=1)}


def block_boxes(block: BlockPlan) -> list[str]:
    """What the residual branch goes through, a box each, in order."""
    boxes = []
    for layer in block.layers:
        boxes += [layer_text(layer), *_behind(layer.norm, layer.act)]
    if block.layer_scale is not None:
        boxes.append(f"layer scale {block.layer_scale:g}")
    return boxes


def behind_sum(block: BlockPlan) -> list[str]:
    return _behind(None, block.act)


def draw_block(design: Design) -> str:
    """The design's blocks, each a column with the shortcut beside it."""
    return "\n\n".join(f"{title}\n{_draw(block)}" for title, block in distinct_blocks(design).items())


def _draw(block: BlockPlan) -> str:
    boxes = block_boxes(block)
    width = max(map(len, boxes)) + 4
    middle, edge = width // 2, width + 2
    shortcut = f" {layer_text(block.shortcut)}" if block.shortcut else ""
    lines = [f"{block.layers[0].inputs} channels".center(width), " " * middle + "├" + "─" * (edge - middle - 1) + "┐"]
    lines += [box.center(width).ljust(edge) + "│" for box in boxes]
    lines[2] += shortcut
    lines.append(" " * middle + "+" + "─" * (edge - middle - 1) + "┘")
    lines += [text.center(width) for text in (*behind_sum(block), f"{block.outputs} channels")]
    return "\n".join(line.rstrip() for line in lines)


def mark_changes(before: Design, after: Design) -> str:
    """The network and the blocks as lines, those that went marked with -, those that came with +."""
    old, new = (_lines(design) for design in (before, after))
    return "\n".join(line.rstrip() for line in difflib.ndiff(old, new) if not line.startswith("?"))


def _lines(design: Design) -> list[str]:
    lines = draw_network(design).splitlines()
    for title, block in distinct_blocks(design).items():
        lines += [f"{title}:", *(f"    {box}" for box in block_boxes(block)), "    + shortcut"]
        lines += [f"    {text}" for text in behind_sum(block)]
    return lines
