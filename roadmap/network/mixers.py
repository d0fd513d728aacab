"""What may stand in a block in place of its spatial convolution: a registry that the builder and the count read.

A `Conv` whose `mixer` names an entry here is built by it. Designs stay data: the name is all that they hold.
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
    """How a registered mixer is built and what it costs.

    `build` takes the layer (its channels, kernel, stride and bias) and gives a module from N x inputs x H x W to
    N x outputs x H/stride x W/stride. `parameters` takes the layer; `macs` the layer, and the sides, in pixels, of the
    image before and behind it.
    """

    name: str
    build: Callable[[Layer], Any]
    parameters: Callable[[Layer], int]
    macs: Callable[[Layer, int, int], int]
    code: str  # a hash of the file that defines it: another code is another network


MIXERS: Registry[Mixer] = Registry("mixer")
find_mixer = MIXERS.find


def mixer(
    name: str, *, parameters: Callable[[Layer], int], macs: Callable[[Layer, int, int], int]
) -> Callable[[Callable[[Layer], Any]], Callable[[Layer], Any]]:
    """Registers the decorated function, or module class, as what builds the mixer `name`."""

    def register(build: Callable[[Layer], Any]) -> Callable[[Layer], Any]:
        MIXERS.add(name, Mixer(name, build, parameters, macs, code_of(build)))
        return build

    return register


def network_code(design: Design | NamedModel) -> dict[str, str]:
    """Users' own mixers, or model, that a network is made of, by name, with the hash of each one's file."""
    if isinstance(design, NamedModel):
        return {str(design): find_model(design.name).code} if design.library == "own" else {}
    named: Iterable[str | None] = (conv.mixer for block in design.blocks for conv in block.convs)
    return {name: find_mixer(name).code for name in sorted({name for name in named if name})}
