"""Weights of a peer's network, loaded into the design that is the same network."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path

import torch
from torch import Tensor, nn

from roadmap.design import Design, NamedModel, comparable, resnet
from roadmap.network.modules import Network
from roadmap.serialization import differences, suggest
from roadmap.steps import convnext_design


def peer_design(name: str) -> Design:
    """The design of a peer's network by the name that torchvision and timm give it, where it is one of this study's.

    Raises ValueError for a name that is not among those known.
    """
    designs = {
        "resnet50": resnet(64, (3, 4, 6, 3)),
        "resnet101": resnet(64, (3, 4, 23, 3)),
        "resnet152": resnet(64, (3, 8, 36, 3)),
        "resnet200": resnet(64, (3, 24, 36, 3)),
        "convnext_tiny": convnext_design(96, (3, 3, 9, 3)),
        "convnext_small": convnext_design(96, (3, 3, 27, 3)),
        "convnext_base": convnext_design(128, (3, 3, 27, 3)),
        "convnext_large": convnext_design(192, (3, 3, 27, 3)),
        "convnext_xlarge": convnext_design(256, (3, 3, 27, 3)),
    }
    if name not in designs:
        raise ValueError(f"unknown model {name!r}; {suggest(designs, name)}")
    return designs[name]


def load_torchvision(model: nn.Module, name: str, state_dict: Mapping[str, Tensor]) -> None:
    """Loads the state dict of torchvision's model `name` into a built design that is the same network.

    Raises ValueError, naming the first difference, where the design, or a tensor, is another.
    """
    if name in ("resnet200", "convnext_xlarge"):
        raise ValueError(f"torchvision has no model {name!r}; timm has: load_timm")
    rename = _torchvision_convnext_name if name.startswith("convnext") else _resnet_name
    load_renamed(model, peer_design(name), {rename(key): tensor for key, tensor in state_dict.items()}, name)


def load_timm(model: nn.Module, name: str, state_dict: Mapping[str, Tensor]) -> None:
    """Loads the state dict of timm's model `name` into a built design that is the same network.

    Raises ValueError, naming the first difference, where the design, or a tensor, is another.
    """
    name = name.partition(".")[0]  # a tag, as in convnext_tiny.fb_in1k, names weights of the same network
    rename = _timm_convnext_name if name.startswith("convnext") else _resnet_name
    load_renamed(model, peer_design(name), {rename(key): tensor for key, tensor in state_dict.items()}, name)


def load_peer(model: nn.Module, design: Design | NamedModel, written: str, state_dict: Mapping[str, Tensor]) -> None:
    """Loads weights of `torchvision/NAME` or `timm/NAME` into a design's network.

    Raises ValueError where they are of another network.
    """
    library, slash, name = written.partition("/")
    loaders = {"torchvision": load_torchvision, "timm": load_timm}
    if not slash or library not in loaders:
        raise ValueError(f"{written!r} names no peer's model: torchvision/NAME and timm/NAME do")
    if isinstance(model, Network):
        loaders[library](model, name, state_dict)
        return
    if str(design) != written.partition(".")[0]:  # a tag names weights of the same network
        raise ValueError(f"this is the network of {design}, not of {written}")
    try:
        model.load_state_dict(dict(state_dict))
    except RuntimeError as error:
        raise ValueError(f"the weights are not of this network: {' '.join(str(error).split())[:200]}") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """Of a .safetensors file, or one that torch saved. Raises ValueError where it holds something else."""
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return dict(load_file(str(path)))
        found = torch.load(path, map_location="cpu", weights_only=True)
    except Exception:  # what the formats' readers raise is their own
        raise ValueError(f"{path} can't be read as weights: it is damaged, or of another kind") from None
    # ConvNeXt's and DeiT's authors keep theirs below such a key.
    found = found.get("model", found.get("state_dict", found)) if isinstance(found, dict) else found
    if not isinstance(found, dict) or not all(isinstance(each, Tensor) for each in found.values()):
        raise ValueError(f"{path} holds no weights by name")
    return found


def load_renamed(model: nn.Module, design: Design, tensors: Mapping[str, Tensor], name: str) -> None:
    """Loads tensors that have our names into a model of that design; `name` is the peer's, for errors."""
    if not isinstance(model, Network):
        raise ValueError(f"a model from roadmap.build is needed, not a {type(model).__name__}")
    theirs, ours = comparable(design, model.design)
    different = differences(theirs, ours)
    if different:
        raise ValueError(f"this is not the network of {name}: {different[0]}")
    own = model.state_dict()
    # Files from before there was such a count load in the peers too.
    tensors = {key: each for key, each in own.items() if key.endswith("num_batches_tracked")} | dict(tensors)
    for key, tensor in own.items():
        if key not in tensors:
            raise ValueError(f"the state dict of {name} has nothing for {key}")
        if tensors[key].squeeze().shape != tensor.squeeze().shape:
            shapes = f"{list(tensor.shape)} here, {list(tensors[key].shape)} in the state dict of {name}"
            raise ValueError(f"{key} is {shapes}")
    unused = tensors.keys() - own.keys()
    if unused:
        raise ValueError(f"the state dict of {name} has {min(unused)}, which this network has not")
    # ConvNeXt's 1x1 convolutions are linear layers there, and torchvision's layer scale has two more axes.
    model.load_state_dict({key: tensors[key].view_as(tensor) for key, tensor in own.items()})


def _resnet_name(key: str) -> str:
    """torchvision's and timm's name of a ResNet's tensor as ours."""
    key = re.sub(r"^(conv|bn)1\.", r"stem.0.\1.", key)
    key = re.sub(r"^layer(\d+)\.(\d+)\.", lambda found: f"stages.{int(found[1]) - 1}.blocks.{found[2]}.", key)
    key = re.sub(r"\.(conv|bn)(\d)\.", lambda found: f".convs.{int(found[2]) - 1}.{found[1]}.", key)
    key = key.replace(".downsample.0.", ".shortcut.conv.").replace(".downsample.1.", ".shortcut.norm.")
    return re.sub(r"^fc\.", "head.", key.replace(".bn.", ".norm."))


def _torchvision_convnext_name(key: str) -> str:
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


def _timm_convnext_name(key: str) -> str:
    """timm's name of a ConvNeXt's tensor as ours."""
    key = key.replace(".downsample.0.", ".downsampling.norm.").replace(".downsample.1.", ".downsampling.conv.conv.")
    inside = {"norm": "convs.0.norm", "conv_dw": "convs.0.conv", "mlp.fc1": "convs.1.conv", "mlp.fc2": "convs.2.conv"}
    for theirs, ours in inside.items():
        key = re.sub(rf"(blocks\.\d+)\.{re.escape(theirs)}\.", rf"\1.{ours}.", key)
    key = re.sub(r"(blocks\.\d+)\.gamma$", r"\1.scale", key)
    ends = {"stem.0.": "stem.0.conv.", "stem.1.": "stem.norm.", "head.norm.": "norm.", "head.fc.": "head."}
    for theirs, ours in ends.items():
        if key.startswith(theirs):
            return ours + key.removeprefix(theirs)
    return key
