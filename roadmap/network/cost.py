"""Parameters and multiply-adds of a design, by arithmetic; of a model of another library, by torch's counter.

As in the paper's tables, multiply-adds are those of the convolutions and the linear layer. A multiply-add counts as
one. Norms, activations, biases and pooling are not counted.
"""

from __future__ import annotations

import itertools
from dataclasses import dataclass
from functools import lru_cache

from roadmap.design import Design, NamedModel
from roadmap.network.counts import count_named
from roadmap.network.mixers import find_mixer
from roadmap.network.plan import BlockPlan, Layer, NetworkPlan, plan

# A training step costs as much as three forward passes: one forward, and two for the gradients.
PASSES = 3


@dataclass(frozen=True)
class Cost:
    parameters: int
    macs: int  # multiply-adds of one image


def cost(design: Design | NamedModel, input_size: int = 224, num_classes: int = 1000) -> Cost:
    """The cost of a design for square images of `input_size` pixels.

    Raises ValueError if the image is too small for the design.
    """
    if isinstance(design, NamedModel):
        return Cost(*count_named(design, input_size, num_classes))
    has_mixers = any(conv.mixer for block in design.blocks for conv in block.convs)  # a plug-in may replace those
    return (_cost.__wrapped__ if has_mixers else _cost)(design, input_size, num_classes)


@lru_cache(maxsize=16_384)  # a design that is drawn at equal cost is counted again when it is shown
def _cost(design: Design, input_size: int, num_classes: int) -> Cost:
    network = plan(design)
    counter = _count(network, input_size)
    counter.norm(network.head_norm, network.features)
    counter.parameters += (network.features + 1) * num_classes
    counter.macs += network.features * num_classes
    return Cost(counter.parameters, counter.macs)


def activations(design: Design, input_size: int) -> int:
    """The outputs of all convolutions for one image, as Radosavovic et al. (2020) count them.

    Raises ValueError if the image is too small for the design.
    """
    return _count(plan(design), input_size).activations


@dataclass(frozen=True)
class Depthwise:
    """The share of the depthwise convolutions, which are limited by memory and not by arithmetic."""

    macs: int  # multiply-adds of one image
    values: int  # numbers that are read and written, inputs and outputs of one image


def depthwise(design: Design | NamedModel, input_size: int) -> Depthwise:
    """Nothing for a model of another library. Raises ValueError if the image is too small for the design."""
    if isinstance(design, NamedModel):
        return Depthwise(0, 0)
    counter = _count(plan(design), input_size)
    return Depthwise(counter.depthwise_macs, counter.depthwise_values)


def map_size(design: Design, input_size: int) -> int:
    """The side of the last map in pixels. Raises ValueError if the image is too small for the design."""
    return _count(plan(design), input_size).size


def _count(network: NetworkPlan, input_size: int) -> _Counter:
    """Counts everything before the head."""
    counter = _Counter(input_size)
    counter.layer(network.stem)
    if network.pool:
        counter.size = (counter.size - 1) // 2 + 1
    counter.norm(network.stem_norm, network.stem.outputs)
    for stage in network.stages:
        if stage.downsampling:
            counter.norm(stage.downsampling_norm, stage.downsampling.inputs)
            counter.layer(stage.downsampling)
        for block, same in itertools.groupby(stage.blocks):
            counter.block(block, times=sum(1 for _ in same))
    return counter


class _Counter:
    """Sums over the layers, and the current side of the image."""

    def __init__(self, size: int) -> None:
        self.input_size = self.size = size
        self.parameters = self.macs = self.activations = self.depthwise_macs = self.depthwise_values = 0

    def layer(self, layer: Layer) -> None:
        before = self.size
        self.size = layer.size(self.size)
        if self.size < 1:
            raise ValueError(f"images of {self.input_size} pixels are too small for this design")
        self.activations += layer.outputs * self.size**2
        if layer.mixer:
            mixer = find_mixer(layer.mixer)
            self.parameters += mixer.parameters(layer)
            self.macs += mixer.macs(layer, before, self.size)
        else:
            weights = layer.outputs * layer.inputs // layer.groups * layer.kernel**2
            self.parameters += weights + (layer.outputs if layer.bias else 0)
            self.macs += weights * self.size**2
            if layer.groups == layer.inputs > 1:
                self.depthwise_macs += weights * self.size**2
                self.depthwise_values += layer.inputs * before**2 + layer.outputs * self.size**2
        self.norm(layer.norm, layer.outputs)

    def norm(self, norm: str | None, channels: int) -> None:
        self.parameters += 2 * channels if norm else 0

    def block(self, block: BlockPlan, times: int) -> None:
        """So many equal blocks, one after the other."""
        before = self._sums
        self._block(block)
        if times > 1:  # then it keeps the size of the image
            added = [after - first for after, first in zip(self._sums, before, strict=True)]
            self._sums = tuple(after + (times - 1) * own for after, own in zip(self._sums, added, strict=True))

    @property
    def _sums(self) -> tuple[int, ...]:
        return self.parameters, self.macs, self.activations, self.depthwise_macs, self.depthwise_values

    @_sums.setter
    def _sums(self, sums: tuple[int, ...]) -> None:
        self.parameters, self.macs, self.activations, self.depthwise_macs, self.depthwise_values = sums

    def _block(self, block: BlockPlan) -> None:
        size = self.size
        for layer in block.layers:
            self.layer(layer)
        self.parameters += block.outputs if block.layer_scale is not None else 0
        if block.shortcut:
            self.size = size
            self.layer(block.shortcut)
