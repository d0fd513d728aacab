"""A design resolved into layers with channels, which are then counted, drawn and built.

Only this module resolves relative widths, strides and shortcuts, so the cost of a network always fits the network.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from dataclasses import dataclass, replace
from itertools import pairwise
from typing import Literal

from roadmap.design import SAME, Activation, Block, Conv, Design, Norm


@dataclass(frozen=True)
class Layer:
    """A convolution, then a norm, then an activation."""

    inputs: int  # channels
    outputs: int  # channels
    kernel: int  # pixels
    stride: int = 1  # pixels
    groups: int = 1
    bias: bool = False
    norm: Norm | None = None
    act: Activation | None = None
    mixer: str | None = None  # an entry of roadmap.network.mixers that replaces the convolution
    dilation: int = 1  # pixels from one weight of the kernel to the next

    @property
    def padding(self) -> int:
        """Pixels on every side; 0 for patches that do not overlap."""
        return 0 if self.kernel == self.stride else self.kernel // 2

    def size(self, size: int) -> int:
        """The side of the output in pixels, for an input of this side."""
        return (size + 2 * self.padding - self.kernel) // self.stride + 1


@dataclass(frozen=True)
class BlockPlan:
    layers: tuple[Layer, ...]
    shortcut: Layer | None  # None: the identity
    act: Activation | None
    layer_scale: float | None

    @property
    def outputs(self) -> int:
        return self.layers[-1].outputs


@dataclass(frozen=True)
class StagePlan:
    downsampling_norm: Norm | None
    downsampling: Layer | None  # the convolution between this stage and the one before
    blocks: tuple[BlockPlan, ...]

    @property
    def outputs(self) -> int:
        return self.blocks[-1].outputs

    @property
    def stride(self) -> int:
        layers = [layer for block in self.blocks for layer in block.layers]
        return math.prod(layer.stride for layer in ([self.downsampling] if self.downsampling else []) + layers)


@dataclass(frozen=True)
class NetworkPlan:
    stem: Layer
    pool: bool  # 3x3 max pooling of stride 2 after the convolution of the stem
    stem_norm: Norm | None  # after everything else in the stem
    stages: tuple[StagePlan, ...]
    head_norm: Norm | None

    @property
    def features(self) -> int:
        """Input channels of the linear layer."""
        return self.stages[-1].outputs

    @property
    def strides(self) -> tuple[int, ...]:
        """Pixels of the image per pixel of each stage's output."""
        stem = self.stem.stride * (2 if self.pool else 1)
        return tuple(stem * math.prod(stage.stride for stage in self.stages[: i + 1]) for i in range(len(self.stages)))


def plan(design: Design) -> NetworkPlan:
    """The layers of a design, for images of three channels. Raises ValueError for a width below 1."""
    widths = design.widths
    outputs = [block_outputs(block, width) for block, width in zip(design.blocks, widths, strict=True)]
    stem = design.stem
    stem_outputs = outputs[0] if stem.width == "block" else widths[0]
    first = Layer(3, stem_outputs, stem.kernel, stem.stride, 1, stem.bias, stem.norm, stem.act)
    stages = tuple(
        _stage(design, i, inputs, widths[i]) for i, (inputs, _) in enumerate(pairwise((stem_outputs, *outputs)))
    )
    return NetworkPlan(first, stem.pool, stem.last_norm, stages, design.head_norm)


def dilated(network: NetworkPlan, output_stride: int) -> NetworkPlan:
    """The layers with dilation in place of the strides that would lead beyond `output_stride` (Yu et al., 2017).

    Every pixel of the smaller map keeps its value, up to what is padded at the borders. Raises ValueError for a stride
    that is none of the stages', and for mixers, which have no dilation.
    """
    if output_stride not in network.strides:
        strides = ", ".join(map(str, network.strides))
        raise ValueError(f"output_stride must be one of the stages' strides, {strides} (got {output_stride})")
    stages, rate = [], 1
    for stage, stride in zip(network.stages, network.strides, strict=True):
        stages.append(_dilated_stage(stage, rate) if stride > output_stride else stage)
        rate *= stage.stride if stride > output_stride else 1
    return replace(network, stages=tuple(stages))


def _dilated_stage(stage: StagePlan, rate: int) -> StagePlan:
    """The stage without its strides, for an input that has `rate` times the pixels of before on each side."""
    downsampling, blocks = stage.downsampling, []
    if downsampling:
        downsampling, rate = _dilated_layer(downsampling, rate), rate * downsampling.stride
    for block in stage.blocks:
        shortcut, layers = block.shortcut and _dilated_layer(block.shortcut, rate), []
        for layer in block.layers:
            layers.append(_dilated_layer(layer, rate))
            rate *= layer.stride
        blocks.append(replace(block, layers=tuple(layers), shortcut=shortcut))
    return replace(stage, downsampling=downsampling, blocks=tuple(blocks))


def _dilated_layer(layer: Layer, rate: int) -> Layer:
    if layer.mixer:
        raise ValueError(f"output_stride requires convolutions: the mixer {layer.mixer} can't be dilated")
    return replace(layer, stride=1, dilation=rate if layer.kernel > 1 else 1)


def block_outputs(block: Block, width: int) -> int:
    """Output channels of a block: those of its last convolution whose width is not SAME."""
    return _channels([conv.width for conv in block.convs if conv.width != SAME][-1], width)


def _channels(relative: float | Literal["same"], width: int) -> int:
    channels = round(float(relative) * width)
    if channels < 1:
        raise ValueError(f"{relative} times the width {width} of the stage leaves no channel")
    return channels


def _stage(design: Design, index: int, inputs: int, width: int) -> StagePlan:
    block, rule = design.blocks[index], design.downsampling
    outputs = block_outputs(block, width)
    needs_stride = index > 0
    between = None
    if rule.place == "between" and needs_stride:
        between = Layer(inputs, outputs, rule.kernel, stride=2, bias=rule.bias)
        inputs, needs_stride = outputs, False
    blocks = [_block(design, block, inputs, outputs, width, stride=2 if needs_stride else 1)]
    if design.depths[index] > 1:
        blocks += [_block(design, block, outputs, outputs, width, stride=1)] * (design.depths[index] - 1)
    return StagePlan(rule.norm if between else None, between, tuple(blocks))


def _block(design: Design, block: Block, inputs: int, outputs: int, width: int, stride: int) -> BlockPlan:
    shortcut = None
    if stride != 1 or inputs != outputs:
        rule = design.downsampling
        if rule.place == "between":
            raise ValueError(f"stem.width must be block: the stem has {inputs} output channels, the blocks {outputs}")
        shortcut = Layer(inputs, outputs, rule.kernel, stride, 1, rule.bias, rule.norm)
    layers = tuple(_layers(block.convs, inputs, width, stride))
    return BlockPlan(layers, shortcut, block.act, block.layer_scale)


def _layers(convs: tuple[Conv, ...], channels: int, width: int, stride: int) -> Iterator[Layer]:
    """The convolutions of a block. The first spatial one has the stride; if none is spatial, the first."""
    strided = next((i for i, conv in enumerate(convs) if conv.is_spatial), 0)
    for i, conv in enumerate(convs):
        outputs = channels if conv.width == SAME else _channels(conv.width, width)
        yield Layer(
            channels,
            outputs,
            conv.kernel,
            stride if i == strided else 1,
            channels if conv.depthwise else 1,
            conv.bias,
            conv.norm,
            conv.act,
            conv.mixer,
        )
        channels = outputs
