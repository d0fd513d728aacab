"""Learning rates that fall from the head to the stem, as ConvNeXt's authors fine-tune (BEiT, Bao et al., 2022).

The layers follow from the stages and blocks of the network, not from the names of its parameters.
"""

from __future__ import annotations

import math
from collections.abc import Iterator
from typing import Any

from torch import nn

from roadmap.network.modules import Network
from roadmap.recipe import Recipe

BLOCKS = 3  # of the third stage, in one layer
Layers = list[tuple[nn.Module, int]]


def layer_scales(model: nn.Module, recipe: Recipe) -> dict[int, float]:
    """The factor of the learning rate of each parameter of the backbone, by its id; of others it is 1."""
    if recipe.layer_decay == 1:
        return {}
    layers, last = backbone_layers(model, by_stage=recipe.layer_decay_by == "stage")
    return {
        id(parameter): recipe.layer_decay ** (last + 1 - layer)
        for module, layer in layers
        for parameter in module.parameters()
    }


def backbone_layers(model: nn.Module, *, by_stage: bool) -> tuple[Layers, int]:
    """The parts of the backbone with the number of the layer of each, and the number of the last.

    By layer: the stem is 0, the first two stages are 1 and 2, each with its downsampling; the third stage's
    downsampling is 3, and its blocks are 3, three to a layer; the fourth stage is the last. By stage: the stem and all
    downsampling are 0, the stages 1 to 4, and between the last stage and the head are as many numbers as by layer.

    Raises ValueError for a network without stages.
    """
    network = next((module for module in model.modules() if isinstance(module, Network)), None)
    if network is None:
        return _library_layers(model)
    third = len(network.stages[2].blocks) if len(network.stages) > 2 else 0  # type: ignore[arg-type]
    last = BLOCKS + math.ceil(third / BLOCKS)
    return list(_by_stage(network) if by_stage else _by_layer(network, last)), last


def _by_stage(network: Network) -> Iterator[tuple[nn.Module, int]]:
    yield network.stem, 0
    for number, stage in enumerate(network.stages, start=1):
        yield stage.downsampling, 0  # type: ignore[misc]
        yield stage.blocks, number  # type: ignore[misc]


def _by_layer(network: Network, last: int) -> Iterator[tuple[nn.Module, int]]:
    yield network.stem, 0
    for index, stage in enumerate(network.stages):
        yield stage.downsampling, min(index + 1, BLOCKS) if index < 3 else last  # type: ignore[misc]
        for position, block in enumerate(stage.blocks):  # type: ignore[arg-type]
            yield block, index + 1 if index < 2 else BLOCKS + position // BLOCKS if index == 2 else last


def _library_layers(model: nn.Module) -> tuple[Layers, int]:
    """Of a network of timm: the layers of its coarse groups, which are its stages."""
    from timm.models import group_parameters

    network: Any = next((module for module in model.modules() if hasattr(module, "group_matcher")), None)
    if network is None:
        raise ValueError("recipe.layer_decay needs a network with stages: a rung, or a model of timm")
    groups = group_parameters(network, network.group_matcher(coarse=True), reverse=True)
    classifier = network.get_classifier()
    of_classifier = {id(weight) for weight in classifier.parameters()} if isinstance(classifier, nn.Module) else set()
    parameters = {name: own for name, own in network.named_parameters() if id(own) not in of_classifier}
    layers: Layers = [
        (nn.ParameterList([parameters[name]]), layer) for name, layer in groups.items() if name in parameters
    ]
    return layers, max((layer for _, layer in layers), default=0)
