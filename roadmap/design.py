"""A network as plain data: what is rewritten by the steps, then counted, drawn, hashed and built.

Everything here is a value. `roadmap.network.plan` resolves it into layers with channels; `roadmap.cost` counts
those, `roadmap.build` makes modules of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal

from roadmap.serialization import InvalidField, Range, check_fields

Norm = Literal["bn", "ln"]
Activation = Literal["relu", "gelu"]

MAX_BLOCKS = 10_000  # a slip of the hand, beyond any network there is

# A convolution of this width gives as many channels as it gets.
SAME: Final = "same"


@dataclass(frozen=True)
class Conv:
    """One convolution of a block, with the norm and the activation behind it."""

    kernel: Annotated[int, Range(1, odd=True)]  # side of the square kernel, pixels; odd, to keep the size of the image
    width: Annotated[float | Literal["same"], Range(above=0)]  # output channels over the stage's width, or its input's
    depthwise: bool = False  # one group a channel
    norm: Norm | None = "bn"  # directly behind the convolution
    act: Activation | None = None  # behind the norm
    bias: bool = False  # added to each output channel
    mixer: str | None = None  # an entry of roadmap.network.mixers in place of the convolution

    def __post_init__(self) -> None:
        check_fields(self)
        if self.depthwise and self.width != SAME:
            raise InvalidField(f"width must be {SAME!r} in a depthwise convolution (got {self.width})")

    @property
    def is_spatial(self) -> bool:
        return self.kernel > 1 or self.mixer is not None


@dataclass(frozen=True)
class Block:
    """A residual block: the convolutions in order, then the sum with the shortcut."""

    convs: tuple[Conv, ...]  # in order; at least one has a width of its own
    act: Activation | None = None  # behind the sum
    layer_scale: float | None = None  # start of a learned scale per channel on the residual branch

    def __post_init__(self) -> None:
        if all(conv.width == SAME for conv in self.convs):
            raise InvalidField(f"convs must have one of another width than {SAME!r}, which decides the block's output")


@dataclass(frozen=True)
class Stem:
    """What the image meets first. Its width is the stage's, or that of the blocks' output."""

    kernel: Annotated[int, Range(1)]  # side of the square kernel, pixels
    stride: Annotated[int, Range(1)]  # pixels
    norm: Norm | None  # behind the convolution
    act: Activation | None  # behind the norm
    bias: bool  # added to each output channel
    pool: bool  # 3x3 max pooling of stride 2 behind the activation
    width: Literal["stage", "block"] = "stage"  # output channels: the first stage's width, or its blocks' output
    last_norm: Norm | None = None  # behind everything else in the stem

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Downsampling:
    """How the resolution halves from one stage to the next.

    "shortcut": the first block of a stage takes the stride in its spatial convolution, and its shortcut is a
    convolution with the norm behind it (also where only the channels change).
    "between": a convolution of its own between the stages, with the norm before it; the blocks change nothing.
    """

    place: Literal["shortcut", "between"]  # on the shortcut of a stage's first block, or between the stages
    kernel: Annotated[int, Range(1)]  # side of the square kernel, pixels; odd on a shortcut
    norm: Norm | None  # behind the convolution of a shortcut, before that between stages
    bias: bool  # added to each output channel

    def __post_init__(self) -> None:
        check_fields(self)
        if self.place == "shortcut" and self.kernel % 2 == 0:
            raise InvalidField(f"kernel must be odd on a shortcut (got {self.kernel})")


@dataclass(frozen=True)
class Design:
    """A whole network, up to the number of classes."""

    width: Annotated[int | tuple[int, ...], Range(1)]  # channels of the first stage, doubled in each later; or of each
    depths: Annotated[tuple[int, ...], Range(1)]  # blocks in each stage
    stem: Stem  # what the image meets first
    block: Block | tuple[Block, ...]  # one for all stages, or one for each stage
    downsampling: Downsampling  # how the resolution halves from one stage to the next
    head_norm: Norm | None = None  # between the global pooling and the linear layer

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.depths:
            raise InvalidField("depths must have at least one stage (got [])")
        if sum(self.depths) > MAX_BLOCKS:
            raise InvalidField(f"depths must be at most {MAX_BLOCKS} blocks in all (got {list(self.depths)})")
        if len(self.widths) != len(self.depths):
            raise InvalidField(
                f"width must be one number, or one for each of {len(self.depths)} stages (got {self.width})"
            )
        if isinstance(self.block, tuple) and len(self.block) != len(self.depths):
            raise InvalidField(
                f"block must be one, or one for each of {len(self.depths)} stages (got {len(self.block)})"
            )

    @property
    def widths(self) -> tuple[int, ...]:
        """The width of each stage, channels."""
        if isinstance(self.width, tuple):
            return self.width
        return tuple(self.width * 2**i for i in range(len(self.depths)))

    @property
    def blocks(self) -> tuple[Block, ...]:
        """The block of each stage."""
        return self.block if isinstance(self.block, tuple) else (self.block,) * len(self.depths)

    @property
    def has_batch_norm(self) -> bool:
        around = (self.stem.norm, self.stem.last_norm, self.downsampling.norm, self.head_norm)
        return "bn" in (*around, *(conv.norm for block in self.blocks for conv in block.convs))


# What stands for the run's own values in a model's arguments.
FILLED = ("{image_size}", "{drop_path}")


@dataclass(frozen=True)
class NamedModel:
    """A network by its name in the library that builds it. Its weights begin as the library draws them."""

    library: Literal["timm", "torchvision", "own"]  # "own": a function that `model` registered
    name: str  # in the library
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)  # {image_size} and {drop_path}: the recipe's

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
    def unused_fields(self) -> set[str]:
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


# The bottleneck of torchvision's ResNet-50, v1.5: the stride sits on the 3x3.
RESNET_BLOCK = Block(
    (Conv(1, width=1.0, act="relu"), Conv(3, width=1.0, act="relu"), Conv(1, width=4.0)),
    act="relu",
)


def resnet(width: int, depths: tuple[int, ...]) -> Design:
    """A ResNet of bottlenecks (He et al., 2016, as torchvision and timm build it)."""
    return Design(
        width=width,
        depths=depths,
        stem=Stem(kernel=7, stride=2, norm="bn", act="relu", bias=False, pool=True),
        block=RESNET_BLOCK,
        downsampling=Downsampling("shortcut", kernel=1, norm="bn", bias=False),
    )


def simplest(design: Design) -> Design:
    """The same network in the fewest words: one block, and one width, where they serve for all stages."""
    width, block = design.width, design.block
    if isinstance(width, tuple) and width == tuple(width[0] * 2**i for i in range(len(width))):
        width = width[0]
    if isinstance(block, tuple) and len(set(block)) == 1:
        block = block[0]
    return replace(design, width=width, block=block)


def comparable(*designs: Design) -> tuple[Design, ...]:
    """The same networks in words of the same shape: stage by stage, where one of them needs it."""
    designs = tuple(map(simplest, designs))
    if any(isinstance(design.block, tuple) for design in designs):
        designs = tuple(replace(design, block=design.blocks) for design in designs)
    if any(isinstance(design.width, tuple) for design in designs):
        designs = tuple(replace(design, width=design.widths) for design in designs)
    return designs


def map_blocks(design: Design, function: Callable[[Block], Block]) -> Design:
    """The design with every stage's block replaced by what `function` makes of it."""
    if isinstance(design.block, tuple):
        return replace(design, block=tuple(function(block) for block in design.block))
    return replace(design, block=function(design.block))


def map_convs(design: Design, function: Callable[[Conv], Conv]) -> Design:
    """The design with every convolution of its blocks replaced by what `function` makes of it."""
    return map_blocks(design, lambda block: replace(block, convs=tuple(function(conv) for conv in block.convs)))
