"""The parameters that a space can vary. Each is a function that puts a value into a design.

A plug-in adds its own:

    @roadmap.parameter("head-width")
    def head_width(design, value):
        return ...  # a roadmap.Design
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import Any

from roadmap.design import SAME, Block, Design
from roadmap.plugins import Registry
from roadmap.spaces.definition import Value
from roadmap.steps import STEPS

Apply = Callable[..., Design]
Read = Callable[[Design], "Drawn | None"]  # None: the design has no such value
Drawn = Value | tuple[Value, ...]  # of one parameter; a tuple has one for each stage


@dataclass(frozen=True)
class Parameter:
    """An entry of PARAMETERS."""

    name: str
    apply: Apply  # takes a design, and the value or the tuple of values
    by_stage: bool = False  # whether it has a value for each stage
    first: int = 0  # stages without one, from the first
    read: Read | None = None  # the value of a design; None: a design does not show it


PARAMETERS: Registry[Parameter] = Registry("parameter of a design space", hint="")


def parameter(
    name: str, *, by_stage: bool = False, first: int = 0, read: Read | None = None
) -> Callable[[Apply], Apply]:
    """Registers the decorated function as the parameter `name` of design spaces.

    It takes a design and a value, `by_stage` a tuple with one for each stage from the stage `first` on, and returns the
    changed design. `read` gives the value that a design has, which figures mark. Raises ValueError if the name is
    taken.
    """
    PARAMETERS.check_name(name)

    def register(function: Apply) -> Apply:
        PARAMETERS.add(name, Parameter(name, function, by_stage, first, read))
        return function

    return register


def _single(values: tuple[Value, ...] | None) -> Value | None:
    """The value that all stages have; None if they differ."""
    return values[0] if values and len(set(values)) == 1 else None


def _kernels(design: Design) -> tuple[int, ...]:
    return tuple(max(conv.kernel for conv in block.convs) for block in design.blocks)


def _expansions(design: Design) -> tuple[float, ...] | None:
    """None for blocks whose hidden width is not a multiple of the stage's."""
    widths = [
        max((conv.width for conv in block.convs[:-1] if conv.width != SAME), default=0) for block in design.blocks
    ]
    outputs = {block.convs[-1].width for block in design.blocks}
    return tuple(map(float, widths)) if outputs == {1.0} and all(widths) else None


def _growth(design: Design) -> tuple[float, ...]:
    return tuple(wide / narrow for narrow, wide in itertools.pairwise(design.widths))


def _block_after(step: str, block: Block, design: Design, **values: Any) -> Block:
    """The block after a step of the roadmap."""
    changed: Design = STEPS[step].function(replace(design, block=block), **values)
    assert isinstance(changed.block, Block)
    return changed.block


def _each(step: str, key: str, design: Design, values: Sequence[Value]) -> Design:
    """Another block for each stage."""
    blocks = zip(design.blocks, values, strict=True)
    return replace(design, block=tuple(_block_after(step, block, design, **{key: value}) for block, value in blocks))


@parameter("patch", read=lambda design: design.stem.stride if design.stem.kernel == design.stem.stride else None)
def patch(design: Design, value: int) -> Design:
    """The side and stride of the stem's patches, pixels."""
    changed: Design = STEPS["patchify-stem"].function(design, patch=value)
    return changed


@parameter("expansion", read=lambda design: _single(_expansions(design)))
def expansion(design: Design, value: float) -> Design:
    """The hidden width of a block over the width of its stage."""
    return _each("inverted-bottleneck", "expansion", design, [value] * len(design.depths))


@parameter("expansions", by_stage=True, read=_expansions)
def expansions(design: Design, values: Sequence[float]) -> Design:
    return _each("inverted-bottleneck", "expansion", design, values)


@parameter("kernel", read=lambda design: _single(_kernels(design)))
def kernel(design: Design, value: int) -> Design:
    """The side of the spatial kernels, pixels."""
    changed: Design = STEPS["kernel-size"].function(design, kernel=value)
    return changed


@parameter("kernels", by_stage=True, read=_kernels)
def kernels(design: Design, values: Sequence[int]) -> Design:
    return _each("kernel-size", "kernel", design, values)


@parameter("depths", by_stage=True, read=lambda design: design.depths)
def depths(design: Design, values: Sequence[int]) -> Design:
    """The blocks of each stage."""
    return replace(design, depths=tuple(values))


@parameter("growth", by_stage=True, first=1, read=_growth)
def growth(design: Design, values: Sequence[float]) -> Design:
    """The width of each stage from the second on over that of the stage before it."""
    widths = [float(design.widths[0])]
    for value in values:
        widths.append(widths[-1] * value)
    return replace(design, width=tuple(max(1, round(width)) for width in widths))


APPLIED = "steps"  # the parameter whose values are steps of the roadmap, applied before all others (study/spaces.py)
QUANTIZED = ("blocks", "slope", "multiplier")


def quantized_linear(design: Design, blocks: int, slope: float, multiplier: float) -> Design:
    """Depths and widths by RegNet's rule (Radosavovic et al., 2020, section 3.3).

    Block j of `blocks` has the width w0 (1 + slope j), of which the nearest power of `multiplier` times w0 is taken;
    equal ones are a stage. w0 is the width of the first stage. Raises ValueError for another number of stages than
    before.
    """
    powers = [round(math.log(1 + slope * j) / math.log(multiplier)) for j in range(blocks)]
    stages = sorted(set(powers))
    if len(stages) != len(design.depths):
        raise ValueError(f"{blocks} blocks of slope {slope} and multiplier {multiplier} have {len(stages)} stages")
    first = design.widths[0]
    widths = tuple(max(1, round(first * multiplier**power)) for power in stages)
    return replace(design, width=widths, depths=tuple(powers.count(power) for power in stages))


def apply_all(design: Design, drawn: Mapping[str, Drawn]) -> Design:
    """The design with all drawn values, in the order of the registry. Raises ValueError if they don't fit together."""
    applied: Any = {name: entry.apply for name, entry in PARAMETERS.items() if name in drawn}
    given: dict[str, tuple[Any, ...]] = {name: (drawn[name],) for name in applied}
    if all(name in drawn for name in QUANTIZED):
        applied, given = applied | {"blocks": quantized_linear}, given | {"blocks": tuple(map(drawn.get, QUANTIZED))}
    for name, apply in applied.items():
        try:
            design = apply(design, *given[name])
        except (TypeError, ArithmeticError) as error:  # a text for a number, or a multiplier of 1
            raise ValueError(f"parameter {name!r} can't be {drawn[name]!r}: {error}") from None
    return design


def check_parameters(names: Sequence[str]) -> None:
    """Raises ValueError for a name that is no parameter."""
    quantized = [name for name in names if name in QUANTIZED]
    if quantized and len(quantized) < len(QUANTIZED):
        raise ValueError(f"{', '.join(QUANTIZED)} belong together (got {', '.join(quantized)})")
    if quantized and "depths" in names:
        raise ValueError(f"depths follow from {', '.join(QUANTIZED)}, and can't vary too")
    for name in names:
        if name not in QUANTIZED and name != APPLIED:
            PARAMETERS.find(name)
