"""Networks that are no designs of this project: those of timm and torchvision by name, and users' own functions.

A named model stands where a design stands: it is built, counted, trained and hashed alike. Steps rewrite designs alone.
"""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Callable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from roadmap.plain import choices
from roadmap.plugins import code_of, load_installed

if TYPE_CHECKING:
    from torch import nn

# What stands for the run's own values in a model's arguments.
FILLED = ("{image_size}", "{drop_path}")


@dataclass(frozen=True)
class NamedModel:
    """A network by its name in the library that builds it. Its weights begin as the library draws them."""

    library: Literal["timm", "torchvision", "own"]  # "own": a function that `model` registered
    name: str
    # Plain data. "{image_size}" (pixels) and "{drop_path}" are filled in from the recipe.
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)

    def __str__(self) -> str:
        return f"{self.library}/{self.name}"

    @staticmethod
    def parse(written: str, arguments: dict[str, Any]) -> NamedModel:
        """`timm/NAME`, `torchvision/NAME` or `own/NAME`. Raises ValueError for what is no such."""
        library, slash, name = written.partition("/")
        if not (slash and name) or library not in ("timm", "torchvision", "own"):
            raise ValueError(f"{written!r} is no model; timm/NAME, torchvision/NAME and own/NAME are")
        return NamedModel(library, name, arguments)  # type: ignore[arg-type]  # as the line above holds

    @property
    def idle(self) -> set[str]:
        """The recipe's fields that have no say in it."""
        takes_drop_path = "{drop_path}" in self.arguments.values()
        return {"initialization"} | (set() if takes_drop_path else {"drop_path"})

    def filled(self, image_size: int, drop_path: float) -> dict[str, Any]:
        """The arguments with the recipe's values."""
        values = dict(zip(FILLED, (image_size, drop_path), strict=True))
        return {
            name: values.get(value, value) if isinstance(value, str) else value
            for name, value in self.arguments.items()
        }


@dataclass(frozen=True)
class OwnModel:
    """A user's function."""

    name: str
    build: Callable[..., nn.Module]  # takes num_classes and the arguments, gives N x 3 x H x W -> N x classes
    code: str  # a hash of the file that defines it: another code is another network


MODELS: dict[str, OwnModel] = {}


def model(name: str) -> Callable[[Callable[..., Any]], Callable[..., Any]]:
    """Registers the decorated function, or module class, as the model `own/NAME`.

    It takes `num_classes` and whatever arguments the study gives it, all by keyword, and gives a module from images
    N x 3 x H x W to logits N x classes.
    """

    def register(build: Callable[..., Any]) -> Callable[..., Any]:
        from roadmap.steps import STEPS  # which import what imports this

        if name in MODELS or name in STEPS:
            raise ValueError(f"a {'model' if name in MODELS else 'step'} {name!r} exists already")
        MODELS[name] = OwnModel(name, build, code_of(build))
        return build

    return register


def find_model(name: str) -> OwnModel:
    """The user's model of that name, of an installed package where need be. Raises ValueError where there is none."""
    if name not in MODELS:
        load_installed()
    if name not in MODELS:
        known = choices(MODELS, name) if MODELS else "none is registered"
        raise ValueError(f"unknown model own/{name}; {known} (--plugin loads the file that defines it)")
    return MODELS[name]


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


def count_named(named: NamedModel, image_size: int, num_classes: int) -> tuple[int, int]:
    """Parameters and multiply-adds of one image, by torch's own counter; kept in a file for the next process.

    Counted are convolutions and matrix products, those of attention among them, one multiply-add
    as one: what the paper's tables count. Norms, activations, softmax, biases and pooling count nothing.
    Raises ValueError where the model can't be built.
    """
    arguments = json.dumps(named.arguments, sort_keys=True)
    return _counted(named.library, named.name, arguments, image_size, num_classes)


@functools.cache
def _counted(library: Any, name: str, arguments: str, image_size: int, num_classes: int) -> tuple[int, int]:
    named = NamedModel(library, name, json.loads(arguments))
    key = "; ".join([str(named), arguments, f"{image_size} pixels", f"{num_classes} classes", *_versions(named)])
    found = _read_counts().get(key)
    if found is None:
        found = Count(key, *_count(named, num_classes, image_size))
        _keep_count(found)
    return found.parameters, found.macs


def _count(named: NamedModel, num_classes: int, image_size: int) -> tuple[int, int]:
    """On shapes alone, where nothing is allocated or computed; of a user's model that asks for values, on some."""
    try:
        return _count_on("meta", named, num_classes, image_size)
    except ValueError:
        if named.library != "own":  # whose models all count so: the error is what it says
            raise
        return _count_on("cpu", named, num_classes, image_size)


def _count_on(device: str, named: NamedModel, num_classes: int, image_size: int) -> tuple[int, int]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device(device), _plain_attention():
        network = build_named(named, num_classes, image_size, 0.0).eval()
        images = torch.zeros(1, 3, image_size, image_size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            try:
                logits = network(images)
            except Exception as error:
                raise ValueError(f"{named} takes no image of {image_size} pixels: {error}") from error
    shape = list(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
    if shape != [1, num_classes]:
        raise ValueError(f"{named} gives {shape} for one image; logits of {num_classes} classes are expected")
    # A multiply-add is two of what torch counts.
    return sum(weight.numel() for weight in network.parameters()), counter.get_total_flops() // 2


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """As the matrix products that the counter knows: of a CPU's fused attention it knows nothing."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _versions(named: NamedModel) -> list[str]:
    """Of all that a count depends on: a user's model may be of any of them."""
    from importlib.metadata import version

    own = [find_model(named.name).code] if named.library == "own" else []
    return own + [f"{library} {version(library)}" for library in ("timm", "torchvision", "torch")]


@dataclass(frozen=True)
class Count:
    """A line of the file that keeps counts."""

    model: str  # with all that the count depends on
    parameters: int
    macs: int


FORMAT = 2  # 1 had counts of users' models without their attention


def counts_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "roadmap" / "counts.jsonl"


def _read_counts() -> dict[str, Count]:
    from roadmap.record import read_records

    try:
        return {found.model: found for found in read_records(counts_file(), Count, FORMAT)}
    except OSError:
        return {}


def _keep_count(found: Count) -> None:
    from roadmap.record import append_record

    path = counts_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append_record(path, found, FORMAT)
    except OSError:  # then it is counted again
        return
