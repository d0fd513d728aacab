"""Networks that are no designs of this project: those of timm and torchvision by name, and users' own functions.

A named model stands where a design stands: it is built, counted, trained and hashed alike. Steps rewrite designs alone.
"""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roadmap.design import NamedModel
from roadmap.plugins import Registry, code_of
from roadmap.steps import STEPS

if TYPE_CHECKING:
    from torch import nn


@dataclass(frozen=True)
class OwnModel:
    """A user's function."""

    name: str
    build: Callable[..., nn.Module]  # takes num_classes and the arguments, gives N x 3 x H x W -> N x classes
    code: str  # a hash of the file that defines it: another code is another network


MODELS: Registry[OwnModel] = Registry("model", shown="own/{}")
find_model = MODELS.find


def model(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the decorated function, or module class, as the model `own/NAME`.

    It takes `num_classes` and whatever arguments the study gives it, all by keyword, and gives a module from images
    N x 3 x H x W to logits N x classes.
    """
    MODELS.check_name(name)

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        if name in STEPS:  # of which rungs are called, as references are of models
            raise ValueError(f"step {name!r} exists already")
        MODELS.add(name, OwnModel(name, build, code_of(build)))
        return build

    return register


def build_named(named: NamedModel, num_classes: int, image_size: int, drop_path: float) -> nn.Module:
    """The network, with the weights that its library draws from torch's global generator.

    Raises ValueError with the library's own words where it has no such model, or can't build it so.
    """
    arguments = {"num_classes": num_classes, **named.filled(image_size, drop_path)}
    builder = builder_of(named)
    try:
        network = builder(**arguments)
    except Exception as error:  # whatever a library raises at arguments that do not fit
        told = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise ValueError(f"{named} can't be built with {told}: {type(error).__name__}: {error}") from error
    if not callable(getattr(network, "parameters", None)):  # without the import of torch, to ask whether it is a module
        raise ValueError(f"{named} gives a {type(network).__name__}; a torch.nn.Module is expected")
    if not any(weight.requires_grad for weight in network.parameters()):
        raise ValueError(f"{named} has no weights to train")
    return network


def builder_of(named: NamedModel) -> Callable[..., nn.Module]:
    """What builds it, its library imported. Raises ValueError where there is no such model."""
    if named.library == "own":
        return find_model(named.name).build
    if named.library == "torchvision":
        from torchvision import models

        if named.name not in models.list_models(models):
            raise ValueError(
                f"torchvision has no model {named.name!r}; {_near(models.list_models(models), named.name)}"
            )
        return functools.partial(models.get_model, named.name)
    import timm

    if not timm.is_model(named.name):
        raise ValueError(f"timm has no model {named.name!r}; {_near(timm.list_models(), named.name)}")
    return functools.partial(timm.create_model, named.name)


def _near(names: list[str], name: str) -> str:
    """Of a thousand names, those that are near."""
    import difflib

    near = difflib.get_close_matches(name, names, n=5, cutoff=0.4)
    return f"near are: {', '.join(near)}" if near else f"it has {len(names)} others"
