"""Loads weights of timm and torchvision into the same network of this project."""

from __future__ import annotations

import argparse
import re
import warnings
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

import torch
from torch import Tensor, nn

from roadmap.design import Design, NamedModel, comparable, resnet
from roadmap.network.modules import Network
from roadmap.serialization.plain_data import differences
from roadmap.steps import convnext_design
from roadmap.text import suggest


def peer_design(name: str) -> Design:
    """The design of a network of torchvision or timm, by its name there. Raises ValueError for an unknown name."""
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

    Raises ValueError with the first difference if the design or a tensor does not match.
    """
    if name in ("resnet200", "convnext_xlarge"):
        raise ValueError(f"torchvision has no model {name!r}; use load_timm")
    load_renamed(model, peer_design(name), own_names(state_dict), name)


def load_timm(model: nn.Module, name: str, state_dict: Mapping[str, Tensor]) -> None:
    """Loads the state dict of timm's model `name` into a built design that is the same network.

    Raises ValueError with the first difference if the design or a tensor does not match.
    """
    name = name.partition(".")[0]  # a tag, as in convnext_tiny.fb_in1k, selects weights of the same network
    load_renamed(model, peer_design(name), own_names(state_dict), name)


def own_names(state_dict: Mapping[str, Tensor]) -> dict[str, Tensor]:
    """The tensors with the names of this project, from those of torchvision, timm or ConvNeXt's authors."""
    rename = next((function for mark, function in _RENAMED.items() if any(mark in key for key in state_dict)), str)
    return {rename(key): tensor for key, tensor in state_dict.items()}


def load_peer(model: nn.Module, design: Design | NamedModel, peer: str, state_dict: Mapping[str, Tensor]) -> None:
    """Loads weights of `peer`, `torchvision/NAME` or `timm/NAME`, into the network of a design.

    Raises ValueError if they are of another network.
    """
    library, slash, name = peer.partition("/")
    loaders = {"torchvision": load_torchvision, "timm": load_timm}
    if not slash or library not in loaders:
        raise ValueError(f"the model must be torchvision/NAME or timm/NAME (got {peer!r})")
    if isinstance(model, Network):
        loaders[library](model, name, state_dict)
        return
    if str(design) != peer.partition(".")[0]:  # a tag selects weights of the same network
        raise ValueError(f"this is the network of {design}, not of {peer}")
    try:
        model.load_state_dict(dict(state_dict))
    except RuntimeError as error:
        raise ValueError(f"the weights are not of this network: {' '.join(str(error).split())[:200]}") from None


def read_state_dict(path: Path) -> dict[str, Tensor]:
    """The state dict in a .safetensors file, or in a file saved by torch: alone, or in a training checkpoint.

    The prefixes that DistributedDataParallel and torch.compile give to all names are removed. Raises ValueError with
    what prevents reading: the class of an object, or the name of an entry that is no tensor.
    """
    if not path.is_file():
        raise ValueError(f"{path}: no such file")
    content = _read_content(path)
    # Training checkpoints have the weights below one of these keys.
    key = next((key for key in ("model", "state_dict") if isinstance(content, dict) and key in content), None)
    where, state = (path, content) if key is None else (f"{path}: {key!r}", content[key])
    if not isinstance(state, dict):
        raise ValueError(f"{where} must be a state dict (got {type(state).__name__}); save model.state_dict()")
    for name, tensor in state.items():
        if not isinstance(tensor, Tensor):
            raise ValueError(f"{where} must have a tensor for each name (got {type(tensor).__name__} for {name!r})")
    while prefix := next((each for each in WRAPPERS if state and all(name.startswith(each) for name in state)), None):
        state = {name.removeprefix(prefix): tensor for name, tensor in state.items()}
    return dict(state)


WRAPPERS = ("module.", "_orig_mod.")  # of DistributedDataParallel and torch.compile


def _read_content(path: Path) -> Any:
    """What a file holds, without running code of it. Raises ValueError with the objects that would run code."""
    try:
        if path.suffix == ".safetensors":
            from safetensors.torch import load_file

            return load_file(str(path))
        # timm's checkpoints have the options of the training.
        with torch.serialization.safe_globals([argparse.Namespace]), warnings.catch_warnings():
            warnings.simplefilter("ignore")  # about TorchScript, which is refused
            return torch.load(path, map_location="cpu", weights_only=True)
    except Exception as error:  # the readers of the formats raise various errors
        if "TorchScript" in str(error):
            raise ValueError(f"{path} is a TorchScript program: save the state dict of its network") from None
        if objects := _code_objects(path):
            save = "save the state dict alone: torch.save(model.state_dict(), FILE)"
            raise ValueError(f"{path} holds {', '.join(objects)}, which can run code; {save}") from None
        raise ValueError(f"{path} can't be read as weights: it is damaged, or has another format") from None


def _code_objects(path: Path) -> list[str]:
    """The classes and functions in a file of torch that are not among those that are safe to read."""
    try:
        return sorted({*torch.serialization.get_unsafe_globals_in_checkpoint(path)} - {"argparse.Namespace"})
    except Exception:  # no file of torch, or a damaged one
        return []


def load_renamed(model: nn.Module, design: Design, tensors: Mapping[str, Tensor], name: str) -> None:
    """Loads tensors with the names of this project into a model of that design. `name` is for error messages."""
    if not isinstance(model, Network):
        raise ValueError(f"the model must be made by roadmap.build (got {type(model).__name__})")
    expected, actual = comparable(design, model.design)
    different = differences(expected, actual)
    if different:
        raise ValueError(f"this is not the network of {name}: {different[0]}")
    state = model.state_dict()
    # Old files do not have these counts; timm and torchvision load them, too.
    tensors = {key: tensor for key, tensor in state.items() if key.endswith("num_batches_tracked")} | dict(tensors)
    for key, tensor in state.items():
        if key not in tensors:
            others = tensors.keys() - state.keys()
            unknown = f", and {min(others)}, which this network does not have" if others else ""
            raise ValueError(f"the state dict of {name} has no tensor for {key}{unknown}")
        if tensors[key].squeeze().shape != tensor.squeeze().shape:
            shapes = f"{list(tensor.shape)} here, {list(tensors[key].shape)} in the state dict of {name}"
            raise ValueError(f"{key} is {shapes}")
    unused = tensors.keys() - state.keys()
    if unused:
        raise ValueError(f"the state dict of {name} has {min(unused)}, which this network does not have")
    # 1x1 convolutions of ConvNeXt are linear layers there, and the layer scale of torchvision has two more axes.
    model.load_state_dict({key: tensors[key].view_as(tensor) for key, tensor in state.items()})


def _resnet_name(key: str) -> str:
    """The name here of a tensor of a ResNet in torchvision and timm."""
    key = re.sub(r"^(conv|bn)1\.", r"stem.0.\1.", key)
    key = re.sub(r"^layer(\d+)\.(\d+)\.", lambda match: f"stages.{int(match[1]) - 1}.blocks.{match[2]}.", key)
    key = re.sub(r"\.(conv|bn)(\d)\.", lambda match: f".convs.{int(match[2]) - 1}.{match[1]}.", key)
    key = key.replace(".downsample.0.", ".shortcut.conv.").replace(".downsample.1.", ".shortcut.norm.")
    return re.sub(r"^fc\.", "head.", key.replace(".bn.", ".norm."))


def _torchvision_convnext_name(key: str) -> str:
    """The name here of a tensor of a ConvNeXt in torchvision, where odd features are stages, even ones downsampling."""
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
    match = re.match(r"features\.(\d+)\.(\d+)\.(.*)", key)
    if not match:
        return key
    feature, position, suffix = int(match[1]), match[2], match[3]
    if feature % 2 == 0:
        return f"stages.{feature // 2}.downsampling.{('norm', 'conv.conv')[int(position)]}.{suffix}"
    for theirs, ours in inside.items():
        suffix = re.sub(rf"^{re.escape(theirs)}(?=\.|$)", ours, suffix)
    return f"stages.{(feature - 1) // 2}.blocks.{position}.{suffix}"


def _timm_convnext_name(key: str) -> str:
    """The name here of a tensor of a ConvNeXt in timm."""
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


def _authors_convnext_name(key: str) -> str:
    """The name here of a tensor of a ConvNeXt in its authors' code (facebookresearch/ConvNeXt)."""
    inside = {"dwconv": "convs.0.conv", "norm": "convs.0.norm", "pwconv1": "convs.1.conv", "pwconv2": "convs.2.conv"}
    key = key.replace("downsample_layers.0.0.", "stem.0.conv.").replace("downsample_layers.0.1.", "stem.norm.")
    key = re.sub(r"^downsample_layers\.(\d+)\.0\.", r"stages.\1.downsampling.norm.", key)
    key = re.sub(r"^downsample_layers\.(\d+)\.1\.", r"stages.\1.downsampling.conv.conv.", key)
    key = re.sub(r"^stages\.(\d+)\.(\d+)\.gamma$", r"stages.\1.blocks.\2.scale", key)
    return re.sub(
        r"^stages\.(\d+)\.(\d+)\.(\w+)\.",
        lambda match: f"stages.{match[1]}.blocks.{match[2]}.{inside.get(match[3], match[3])}.",
        key,
    )


# By what is in some name of the library's tensors and in none of the others'.
_RENAMED: dict[str, Callable[[str], str]] = {
    "downsample_layers.": _authors_convnext_name,
    "features.": _torchvision_convnext_name,
    ".conv_dw.": _timm_convnext_name,
    "layer1.": _resnet_name,
}
