"""Models from outside this project: those of timm and torchvision by name, and custom models.

A named model can replace a design: it is built, counted, trained and hashed in the same way. Steps can't change it.
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
class CustomModel:
    """A model that a plug-in registered."""

    name: str
    build: Callable[..., nn.Module]  # takes num_classes and the arguments, returns a module
    code: str  # hash of the file that defines it; other code is another network


MODELS: Registry[CustomModel] = Registry("model", shown="own/{}")
find_model = MODELS.find


def model(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the decorated function, or module class, as the model `own/NAME`.

    It takes `num_classes` and the arguments of the study, all by keyword, and returns a module from images
    N x 3 x H x W to logits N x classes.
    """
    MODELS.check_name(name)

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        if name in STEPS:  # names of steps are names of rungs, and names of models are names of references
            raise ValueError(f"step {name!r} exists already")
        MODELS.add(name, CustomModel(name, build, code_of(build)))
        return build

    return register


def build_named(named: NamedModel, num_classes: int, image_size: int, drop_path: float) -> nn.Module:
    """The network, with weights that its library draws from torch's global generator.

    Raises ValueError with the message of the library if it has no such model, or can't build it with the arguments.
    """
    arguments = {"num_classes": num_classes, **named.filled(image_size, drop_path)}
    builder = builder_of(named)
    try:
        network = builder(**arguments)
    except Exception as error:  # libraries raise various errors for wrong arguments
        shown = ", ".join(f"{key}={value}" for key, value in arguments.items())
        raise ValueError(f"{named} can't be built with {shown}: {type(error).__name__}: {error}") from error
    if not callable(getattr(network, "parameters", None)):  # is a module; torch is not imported for this
        raise ValueError(f"{named} must return a torch.nn.Module (got {type(network).__name__})")
    if not any(weight.requires_grad for weight in network.parameters()):
        raise ValueError(f"{named} has no weights to train")
    return network


def builder_of(named: NamedModel) -> Callable[..., nn.Module]:
    """The function that builds the model. Imports its library. Raises ValueError if there is no such model."""
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
    """The names that are close to `name`, since a library has a thousand."""
    import difflib

    near = difflib.get_close_matches(name, names, n=5, cutoff=0.4)
    return f"similar names: {', '.join(near)}" if near else f"it has {len(names)} others"
