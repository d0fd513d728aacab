"""The registry of mixers: modules that can replace the spatial convolution of a block.

A `Conv` names its `mixer`; a design has only the name. Building and counting look it up here.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any

from roadmap.design import NamedModel
from roadmap.network.library_models import find_model
from roadmap.plugins import Registry, code_of

if TYPE_CHECKING:
    from roadmap.design import Design
    from roadmap.network.plan import Layer


@dataclass(frozen=True)
class Mixer:
    """How a registered mixer is built, and its cost.

    `build` takes the layer (its channels, kernel, stride and bias) and returns a module from N x inputs x H x W to
    N x outputs x H/stride x W/stride. `parameters` takes the layer. `macs` takes the layer and the sides, in pixels, of
    its input and output.
    """

    name: str
    build: Callable[[Layer], Any]
    parameters: Callable[[Layer], int]
    macs: Callable[[Layer, int, int], int]
    code: str  # hash of the file that defines it; other code is another network


MIXERS: Registry[Mixer] = Registry("mixer")
find_mixer = MIXERS.find


def mixer(
    name: str, *, parameters: Callable[[Layer], int], macs: Callable[[Layer, int, int], int]
) -> Callable[[Callable[[Layer], Any]], Callable[[Layer], Any]]:
    """Registers the decorated function, or module class, as the mixer `name`."""

    def register(build: Callable[[Layer], Any]) -> Callable[[Layer], Any]:
        MIXERS.add(name, Mixer(name, build, parameters, macs, code_of(build)))
        return build

    return register


def network_code(design: Design | NamedModel) -> dict[str, str]:
    """The custom mixers, or the custom model, of a network: hash of the file by name."""
    if isinstance(design, NamedModel):
        return {str(design): find_model(design.name).code} if design.library == "own" else {}
    mixers: Iterable[str | None] = (conv.mixer for block in design.blocks for conv in block.convs)
    return {name: find_mixer(name).code for name in sorted({name for name in mixers if name})}
