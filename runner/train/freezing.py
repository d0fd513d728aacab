"""Parts of a network that are not trained: their weights and statistics stay, and they have no drop path."""

from __future__ import annotations

from types import MethodType

from torch import nn

from roadmap.network.modules import Network


def keep_fixed(part: nn.Module) -> None:
    """Excludes a part from training, also when the network around it is set to train."""
    part.requires_grad_(False)
    part.eval()
    part.train = MethodType(_stay, part)  # type: ignore[method-assign]


def keep_fixed_except(module: nn.Module, trained: nn.Module) -> None:
    """Excludes everything but a part of the module."""
    for parameter in module.parameters(recurse=False):
        parameter.requires_grad_(False)
    for child in module.children():
        if any(part is trained for part in child.modules()):
            if child is not trained:
                keep_fixed_except(child, trained)
        else:
            keep_fixed(child)


def stem_of(network: nn.Module) -> nn.Module:
    """Raises ValueError for another library's network."""
    if not isinstance(network, Network):
        raise ValueError("--frozen stem needs a rung: other libraries' networks have no part of that name")
    return network.stem


def _stay(part: nn.Module, mode: bool = True) -> nn.Module:
    return part
