"""Finding the module or weight of a network that is not finite."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def first_not_finite(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """The first module in a forward pass whose output is not finite; None if all outputs are finite."""
    names: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, inputs: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                names.append(name)  # an inner module ends before the outer one

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            forward()
    finally:
        for hook in hooks:
            hook.remove()
    return names[0] if names else None


def not_finite_weight(model: nn.Module) -> str | None:
    """The first parameter or buffer that is not finite; None if all are finite."""
    tensors = [tensor for tensor in itertools.chain(model.parameters(), model.buffers()) if tensor.is_floating_point()]
    if nn.utils.get_total_norm(tensors).isfinite():  # one check for all; if it fails, it may only have overflowed
        return None
    states = model.state_dict()
    return next((name for name, tensor in states.items() if not torch.isfinite(tensor).all()), None)
