"""A design as a drawing of characters: its network in a line a stage, and its block in the manner of the paper."""

from __future__ import annotations

from roadmap.design import Activation, Design, Norm
from roadmap.plan import BlockPlan, Layer, StagePlan, plan

NORM_NAMES: dict[Norm, str] = {"bn": "BN", "ln": "LN"}
ACTIVATION_NAMES: dict[Activation, str] = {"relu": "ReLU", "gelu": "GELU"}


def layer_text(layer: Layer) -> str:
    """`d7x7, 96` for a depthwise convolution of kernel 7 to 96 channels, with its stride where it has one."""
    depthwise = "d" if layer.groups > 1 else ""
    stride = f", stride {layer.stride}" if layer.stride > 1 else ""
    return f"{depthwise}{layer.kernel}x{layer.kernel}, {layer.outputs}{stride}" + (" +bias" if layer.bias else "")


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
    return text + (f", the first with shortcut {layer_text(projection)}" if projection else "")


def draw_block(design: Design) -> str:
    """The block of the first stage that has no projection; of each stage where they differ."""
    network = plan(design)
    if len(set(design.blocks)) == 1:
        return _draw(network.stages[0].blocks[-1])
    return "\n\n".join(f"stage {i}\n{_draw(stage.blocks[-1])}" for i, stage in enumerate(network.stages, start=1))


def _draw(block: BlockPlan) -> str:
    boxes = []
    for layer in block.layers:
        boxes += [layer_text(layer), *_behind(layer.norm, layer.act)]
    if block.layer_scale is not None:
        boxes.append(f"layer scale {block.layer_scale:g}")
    width = max(map(len, boxes)) + 4
    shortcut = layer_text(block.shortcut) if block.shortcut else ""
    inputs = f"{block.layers[0].inputs} channels"
    lines = [inputs.center(width), "│".center(width).rstrip() + "─" * (width // 2) + "┐"]
    edge = width + (width + 1) // 2 - width // 2 * 2
    for box in boxes:
        lines.append(box.center(width).ljust(edge) + "│" + (f" {shortcut}" if shortcut and box is boxes[0] else ""))
    lines.append("+".center(width).rstrip() + "─" * (width // 2) + "┘")
    if block.act:
        lines.append(ACTIVATION_NAMES[block.act].center(width))
    lines.append(f"{block.outputs} channels".center(width))
    return "\n".join(line.rstrip() for line in lines)
