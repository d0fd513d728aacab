"""The optimizer of a recipe and its learning rate."""

from __future__ import annotations

import math
from typing import Any

import torch
from torch import nn

from roadmap.recipe import OPTIMIZERS, Build, Recipe
from runner.train.layer_decay import layer_scales


def learning_rate(recipe: Recipe, progress: float, steps: int = 1) -> float:
    """The learning rate at a progress from 0, the first step, to 1, the end of the last epoch.

    `steps` is the number of an epoch. Linear from 0 over the warm-up; then a cosine or a line to the minimum over the
    remaining epochs, or a decay every `decay_epochs` epochs, or at those of `decay_at`, counted from the start.
    """
    epoch = progress * recipe.epochs
    warm_up = recipe.warmup_steps / steps if recipe.warmup_steps else recipe.warmup_epochs
    if epoch < warm_up:
        return recipe.learning_rate * epoch / warm_up
    if recipe.schedule == "step":
        # By rounding, the progress may be slightly below a whole epoch.
        passed = math.floor(epoch / recipe.decay_epochs + 1e-9)
        decays = sum(epoch + 1e-9 >= decay for decay in recipe.decay_at) if recipe.decay_at else passed
        return recipe.learning_rate * recipe.decay_factor**decays
    share = (epoch - warm_up) / (recipe.epochs - warm_up)
    amplitude = recipe.learning_rate - recipe.min_learning_rate
    if recipe.schedule == "linear":
        return recipe.min_learning_rate + amplitude * (1 - share)
    return recipe.min_learning_rate + amplitude * (1 + math.cos(math.pi * share)) / 2


# The last parts of their names in torchvision's models, which do not say themselves what is not decayed.
NOT_DECAYED = frozenset({"class_token", "pos_embedding", "relative_position_bias_table", "layer_scale"})


def parameter_groups(model: nn.Module, recipe: Recipe) -> list[dict[str, Any]]:
    """The trained parameters: of each layer of the recipe's `layer_decay` those with weight decay, and those without.

    Unless the recipe decays them too, those without are biases, norms, layer scales, embeddings and class tokens. Of
    timm's models these are the parameters that the model excludes itself. The engine multiplies the learning rate by
    a group's `scale`.
    """
    excluded_names = _excluded_names(model)
    scales = layer_scales(model, recipe)
    groups: dict[tuple[float, bool], list[nn.Parameter]] = {}
    for name, parameter in model.named_parameters():
        if parameter.requires_grad:
            decays = recipe.decay_norms_and_biases or (parameter.ndim > 1 and name not in excluded_names)
            groups.setdefault((scales.get(id(parameter), 1.0), not decays), []).append(parameter)
    return [
        {"params": parameters, "weight_decay": 0.0 if plain else recipe.weight_decay}
        | ({"scale": scale} if scale != 1 else {})
        for (scale, plain), parameters in sorted(groups.items(), key=lambda group: group[0])
    ]


def _excluded_names(model: nn.Module) -> set[str]:
    """The parameters that a network of another library does not decay."""
    names = {name for name, _ in model.named_parameters() if name.rpartition(".")[2] in NOT_DECAYED}
    for prefix, module in model.named_modules():  # of timm, within a detector too
        own = getattr(module, "no_weight_decay", None)
        names |= {f"{prefix}.{name}".lstrip(".") for name in own()} if callable(own) else set()
    return names


def make_sgd(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.SGD:
    """The fused form, which is the fastest for small networks."""
    optimizer = torch.optim.SGD(groups, lr=recipe.learning_rate, momentum=recipe.momentum, fused=True)
    if recipe.momentum:
        # torch makes these in the first step and leaves them unset if that is called off, as where fp16 overflows.
        for group in optimizer.param_groups:
            for parameter in group["params"]:
                optimizer.state[parameter]["momentum_buffer"] = torch.zeros_like(parameter)
    return optimizer


def make_adamw(groups: list[dict[str, Any]], recipe: Recipe) -> torch.optim.AdamW:
    """The fused form, as for SGD."""
    return torch.optim.AdamW(groups, lr=recipe.learning_rate, betas=recipe.betas, eps=recipe.eps, fused=True)


BUILT_IN: dict[str, Build] = {"sgd": make_sgd, "adamw": make_adamw}


def make_optimizer(model: nn.Module, recipe: Recipe) -> torch.optim.Optimizer:
    """The recipe's optimizer for a model's parameters. A run that began with another form of it (fused or not) resumes
    with that form, which its state contains.

    Raises ValueError for an unknown optimizer, and if a user's function fails or returns something else.
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
    """Loads an optimizer's state, and sets its form (fused or not) to that of the state."""
    optimizer.load_state_dict(state)
    # GradScaler reads this attribute: a fused optimizer divides by the scale itself, other forms can't.
    optimizer._step_supports_amp_scaling = all(group.get("fused") for group in optimizer.param_groups)  # type: ignore[attr-defined]
