"""Where a network stopped giving finite numbers."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import torch
from torch import Tensor, nn


def first_not_finite(model: nn.Module, forward: Callable[[], object]) -> str | None:
    """The name of the first module, in the order of a forward pass, whose output is not finite; None where all are."""
    found: list[str] = []

    def watch(name: str) -> Callable[[nn.Module, Any, Any], None]:
        def hook(module: nn.Module, given: Any, output: Any) -> None:
            if isinstance(output, Tensor) and not torch.isfinite(output).all():
                found.append(name)  # a module inside another ends before it

        return hook

    hooks = [module.register_forward_hook(watch(name)) for name, module in model.named_modules() if name]
    try:
        with torch.no_grad():
            forward()
    finally:
        for each in hooks:
            each.remove()
    return found[0] if found else None


def not_finite_weight(model: nn.Module) -> str | None:
    """The first parameter or buffer that is not finite; None where all are."""
    numbers = [each for each in itertools.chain(model.parameters(), model.buffers()) if each.is_floating_point()]
    if nn.utils.get_total_norm(numbers).isfinite():  # one look at all; where it is not, it may only have overflowed
        return None
    states = model.state_dict()
    return next((name for name, tensor in states.items() if not torch.isfinite(tensor).all()), None)
