"""A network as plain data. Steps rewrite it; then it is counted, drawn, hashed and built.

All classes here are immutable values. `roadmap.network.plan` resolves a design into layers with channels.
`roadmap.cost` counts them, `roadmap.build` makes modules of them.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field, replace
from typing import Annotated, Any, Final, Literal

from roadmap.serialization.ranges import InvalidField, Range, check_fields

Norm = Literal["bn", "ln"]
Activation = Literal["relu", "gelu"]

MAX_BLOCKS = 10_000  # more than any real network; probably a typing error

# A convolution of this width has as many output channels as input channels.
SAME: Final = "same"


@dataclass(frozen=True)
class Conv:
    """One convolution of a block, with the norm and the activation after it."""

    kernel: Annotated[int, Range(1, odd=True)]  # side of the square kernel, pixels; odd, to keep the image size
    width: Annotated[float | Literal["same"], Range(above=0)]  # output channels / width of the stage; "same": its input
    depthwise: bool = False  # one group per channel
    norm: Norm | None = "bn"  # directly after the convolution
    act: Activation | None = None  # after the norm
    bias: bool = False  # added to each output channel
    mixer: str | None = None  # an entry of roadmap.network.mixers that replaces the convolution

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

    convs: tuple[Conv, ...]  # in order; at least one has a width other than "same"
    act: Activation | None = None  # after the sum
    layer_scale: float | None = None  # initial value of a learned scale per channel of the residual branch

    def __post_init__(self) -> None:
        if all(conv.width == SAME for conv in self.convs):
            raise InvalidField(f"convs must have one with another width than {SAME!r}, for the output of the block")


@dataclass(frozen=True)
class Stem:
    """The first layers. Their width is that of the first stage, or that of the output of its blocks."""

    kernel: Annotated[int, Range(1)]  # side of the square kernel, pixels
    stride: Annotated[int, Range(1)]  # pixels
    norm: Norm | None  # after the convolution
    act: Activation | None  # after the norm
    bias: bool  # added to each output channel
    pool: bool  # 3x3 max pooling of stride 2 after the activation
    width: Literal["stage", "block"] = "stage"  # output channels: width of the first stage, or output of its blocks
    last_norm: Norm | None = None  # after everything else in the stem

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class Downsampling:
    """How the resolution halves from one stage to the next.

    "shortcut": the first block of a stage takes the stride in its spatial convolution, and its shortcut is a
    convolution with the norm after it (also if only the channels change).
    "between": a separate convolution between the stages, with the norm before it; the blocks keep the resolution.
    """

    place: Literal["shortcut", "between"]  # on the shortcut of a stage's first block, or between the stages
    kernel: Annotated[int, Range(1)]  # side of the square kernel, pixels; odd on a shortcut
    norm: Norm | None  # after the convolution of a shortcut, before that between stages
    bias: bool  # added to each output channel

    def __post_init__(self) -> None:
        check_fields(self)
        if self.place == "shortcut" and self.kernel % 2 == 0:
            raise InvalidField(f"kernel must be odd on a shortcut (got {self.kernel})")


@dataclass(frozen=True)
class Design:
    """A whole network except for the number of classes."""

    width: Annotated[int | tuple[int, ...], Range(1)]  # channels of the first stage, doubled in later ones; or of each
    depths: Annotated[tuple[int, ...], Range(1)]  # blocks in each stage
    stem: Stem  # the first layers
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


# Placeholders in the arguments of a model, replaced by values of the run.
FILLED = ("{image_size}", "{drop_path}")


@dataclass(frozen=True)
class NamedModel:
    """A network by its name in the library that builds it and draws its initial weights."""

    library: Literal["timm", "torchvision", "own"]  # "own": a model that `roadmap.model` registered
    name: str  # in the library
    arguments: dict[str, Any] = field(default_factory=dict, hash=False)  # {image_size}, {drop_path}: the recipe's

    def __str__(self) -> str:
        return f"{self.library}/{self.name}"

    @staticmethod
    def parse(text: str, arguments: dict[str, Any]) -> NamedModel:
        """The model `timm/NAME`, `torchvision/NAME` or `own/NAME`. Raises ValueError for other texts."""
        library, slash, name = text.partition("/")
        if not (slash and name) or library not in ("timm", "torchvision", "own"):
            raise ValueError(f"a model must be timm/NAME, torchvision/NAME or own/NAME (got {text!r})")
        return NamedModel(library, name, arguments)  # type: ignore[arg-type]  # checked above

    @property
    def unused_fields(self) -> set[str]:
        """The fields of the recipe that the model does not use."""
        takes_drop_path = "{drop_path}" in self.arguments.values()
        return {"initialization"} | (set() if takes_drop_path else {"drop_path"})

    def filled(self, image_size: int, drop_path: float) -> dict[str, Any]:
        """The arguments with the values of the recipe."""
        values = dict(zip(FILLED, (image_size, drop_path), strict=True))
        return {
            name: values.get(value, value) if isinstance(value, str) else value
            for name, value in self.arguments.items()
        }


# The bottleneck of torchvision's ResNet-50, v1.5: the 3x3 convolution has the stride.
RESNET_BLOCK = Block(
    (Conv(1, width=1.0, act="relu"), Conv(3, width=1.0, act="relu"), Conv(1, width=4.0)),
    act="relu",
)


def resnet(width: int, depths: tuple[int, ...], *, pool: bool = True) -> Design:
    """A ResNet of bottlenecks (He et al., 2016, as torchvision and timm build it).

    Without the pooling of the stem all maps are twice as large, as small images need them.
    """
    return Design(
        width=width,
        depths=depths,
        stem=Stem(kernel=7, stride=2, norm="bn", act="relu", bias=False, pool=pool),
        block=RESNET_BLOCK,
        downsampling=Downsampling("shortcut", kernel=1, norm="bn", bias=False),
    )


def simplest(design: Design) -> Design:
    """The same network in the shortest form: one block and one width, if they are valid for all stages."""
    width, block = design.width, design.block
    if isinstance(width, tuple) and width == tuple(width[0] * 2**i for i in range(len(width))):
        width = width[0]
    if isinstance(block, tuple) and len(set(block)) == 1:
        block = block[0]
    return replace(design, width=width, block=block)


def comparable(*designs: Design) -> tuple[Design, ...]:
    """The same networks in forms of the same shape: with a value for each stage, if one of them needs it."""
    designs = tuple(map(simplest, designs))
    if any(isinstance(design.block, tuple) for design in designs):
        designs = tuple(replace(design, block=design.blocks) for design in designs)
    if any(isinstance(design.width, tuple) for design in designs):
        designs = tuple(replace(design, width=design.widths) for design in designs)
    return designs


def map_blocks(design: Design, function: Callable[[Block], Block]) -> Design:
    """The design with every stage's block replaced by the result of `function`."""
    if isinstance(design.block, tuple):
        return replace(design, block=tuple(function(block) for block in design.block))
    return replace(design, block=function(design.block))


def map_convs(design: Design, function: Callable[[Conv], Conv]) -> Design:
    """The design with every convolution of its blocks replaced by the result of `function`."""
    return map_blocks(design, lambda block: replace(block, convs=tuple(function(conv) for conv in block.convs)))
