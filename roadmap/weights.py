"""Weights of a peer's network, loaded into the design that is the same network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import replace

from torch import Tensor, nn

from roadmap.design import Design
from roadmap.ladders import ladder
from roadmap.network import Network
from roadmap.plain import choices, differences


def torchvision_design(name: str) -> Design:
    """The design of a torchvision model. Raises ValueError for a name that is not among those known."""
    start, convnext = (ladder("resnet-50")[i].experiment.design for i in (0, -1))
    designs = {
        "resnet50": start,
        "resnet101": replace(start, depths=(3, 4, 23, 3)),
        "resnet152": replace(start, depths=(3, 8, 36, 3)),
        "convnext_tiny": convnext,
        "convnext_small": replace(convnext, depths=(3, 3, 27, 3)),
        "convnext_base": replace(convnext, depths=(3, 3, 27, 3), width=128),
        "convnext_large": replace(convnext, depths=(3, 3, 27, 3), width=192),
    }
    if name not in designs:
        raise ValueError(f"unknown torchvision model {name!r}; {choices(designs, name)}")
    return designs[name]


def load_torchvision(model: nn.Module, name: str, state_dict: Mapping[str, Tensor]) -> None:
    """Loads the state dict of torchvision's model `name` into a built design that is the same network.

    Raises ValueError, naming the first difference, where the design, or a tensor, is another.
    """
    if not isinstance(model, Network):
        raise ValueError(f"a model from roadmap.build is needed, not a {type(model).__name__}")
    different = differences(torchvision_design(name), model.design)
    if different:
        raise ValueError(f"this is not the network of torchvision's {name}: {different[0]}")
    rename = _convnext_name if name.startswith("convnext") else _resnet_name
    renamed = {rename(key): tensor for key, tensor in state_dict.items()}
    own = model.state_dict()
    for key, tensor in own.items():
        if key not in renamed:
            raise ValueError(f"the state dict of {name} has nothing for {key}")
        if renamed[key].numel() != tensor.numel():
            shapes = f"{list(tensor.shape)} here, {list(renamed[key].shape)} in the state dict of {name}"
            raise ValueError(f"{key} is {shapes}")
    unused = renamed.keys() - own.keys()
    if unused:
        raise ValueError(f"the state dict of {name} has {min(unused)}, which this network has not")
    # ConvNeXt's 1x1 convolutions are linear layers there, its layer scale has two more axes.
    model.load_state_dict({key: renamed[key].view_as(tensor) for key, tensor in own.items()})


def _resnet_name(key: str) -> str:
    """torchvision's name of a ResNet's tensor as ours."""
    key = re.sub(r"^(conv|bn)1\.", r"stem.0.\1.", key)
    key = re.sub(r"^layer(\d+)\.(\d+)\.", lambda found: f"stages.{int(found[1]) - 1}.blocks.{found[2]}.", key)
    key = re.sub(r"\.(conv|bn)(\d)\.", lambda found: f".convs.{int(found[2]) - 1}.{found[1]}.", key)
    key = key.replace(".downsample.0.", ".shortcut.conv.").replace(".downsample.1.", ".shortcut.norm.")
    return re.sub(r"^fc\.", "head.", key.replace(".bn.", ".norm."))


def _convnext_name(key: str) -> str:
    """torchvision's name of a ConvNeXt's tensor as ours: its odd features are stages, its even ones lie between."""
    inside = {
        "layer_scale": "scale",
        "block.0": "convs.0.conv",
        "block.2": "convs.0.norm",
        "block.3": "convs.1.conv",
        "block.5": "convs.2.conv",
    }
    ends = {"features.0.0": "stem.0.conv", "features.0.1": "stem.norm", "classifier.0": "norm", "classifier.2": "head"}
    for theirs, ours in ends.items():
        if key.startswith(theirs + "."):
            return key.replace(theirs, ours, 1)
    found = re.match(r"features\.(\d+)\.(\d+)\.(.*)", key)
    if not found:
        return key
    feature, position, rest = int(found[1]), found[2], found[3]
    if feature % 2 == 0:
        return f"stages.{feature // 2}.downsampling.{('norm', 'conv.conv')[int(position)]}.{rest}"
    for theirs, ours in inside.items():
        rest = re.sub(rf"^{re.escape(theirs)}(?=\.|$)", ours, rest)
    return f"stages.{(feature - 1) // 2}.blocks.{position}.{rest}"
