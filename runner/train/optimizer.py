"""The optimizer of a recipe and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from roadmap.recipe import OPTIMIZERS, Build, Recipe


def learning_rate(recipe: Recipe, progress: float) -> float:
    """The learning rate at a progress from 0, the first step, to 1, the end of the last epoch.

    Linear from 0 over the warm-up; then a cosine to the minimum over the epochs that are left, or a decay every
    so many epochs, counted from the start.
    """
    epoch = progress * recipe.epochs
    if epoch < recipe.warmup_epochs:
        return recipe.learning_rate * epoch / recipe.warmup_epochs
    if recipe.schedule == "step":
        # A progress that is a hair short of a whole epoch, by rounding, is that epoch.
        return recipe.learning_rate * recipe.decay_factor ** math.floor(epoch / recipe.decay_epochs + 1e-9)
    share = (epoch - recipe.warmup_epochs) / (recipe.epochs - recipe.warmup_epochs)
    amplitude = recipe.learning_rate - recipe.min_learning_rate
    return recipe.min_learning_rate + amplitude * (1 + math.cos(math.pi * share)) / 2


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """Parameters that weight decay takes, and those that it leaves by the recipe: biases, norms and layer scales, and
    what a library's model names itself, such as embeddings of places.
    """
    named: set[str] = getattr(model, "no_weight_decay", set)()  # timm's models have such a method
    decayed: list[nn.Parameter] = []
    left: list[nn.Parameter] = []
    for name, parameter in model.named_parameters():
        takes = recipe.decay_norms_and_biases or (parameter.ndim > 1 and name not in named)
        (decayed if takes else left).append(parameter)
    return [
        {"params": decayed, "weight_decay": recipe.weight_decay},
        {"params": left, "weight_decay": 0.0},
    ]


def make_sgd(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.SGD:
    """In its fused form, which is the fastest for small networks."""
    return torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)


def make_adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.AdamW:
    """In its fused form too."""
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps, fused=True)


BUILT_IN: dict[str, Build] = {"sgd": make_sgd, "adamw": make_adamw}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer of a model's parameters. A run that began with another form of it resumes with that form:
    its state says so.

    Raises ValueError for an unknown optimizer, and where a user's own function fails or gives something else.
    """
    groups = [group for group in parameter_groups(model, recipe) if group["params"]]
    name = recipe.optimizer
    build = OPTIMIZERS.find(name).build or BUILT_IN[name]
    try:
        optimizer = build(groups, recipe)
    except Exception as error:  # whatever a user's code raises
        raise ValueError(f"optimizer {name!r} can't be built: {type(error).__name__}: {error}") from error
    if not isinstance(optimizer, torch.optim.Optimizer):
        raise ValueError(f"optimizer {name!r} must return a torch.optim.Optimizer (got {type(optimizer).__name__})")
    return optimizer


def load_optimizer(optimizer: torch.optim.Optimizer, state: dict[str, Any]) -> None:
    """Brings an optimizer to a state, and to the form that the state is of."""
    optimizer.load_state_dict(state)
    # A fused one divides by a GradScaler's scale itself, which the scaler asks it by this name; no other form can.
    optimizer._step_supports_amp_scaling = all(group.get("fused") for group in optimizer.param_groups)  # type: ignore[attr-defined]
