"""The steps from a ResNet to a ConvNeXt. Each is a small function that rewrites a design or a recipe.

Source: "A ConvNet for the 2020s" (Liu et al., 2022), section 2. The name of the first argument of a step
is what it rewrites: `design`, `recipe` or `experiment`. The keyword-only arguments are its parameters; their values for
each regime are in `ablations.yaml`. Steps work in any order and on any design.
"""

from __future__ import annotations

import inspect
import re
from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import cached_property
from typing import Annotated, Any

from roadmap.design import SAME, Activation, Block, Design, Norm, map_blocks, map_convs, resnet
from roadmap.plugins import Registry
from roadmap.recipe import Experiment, Recipe
from roadmap.serialization.plain_data import from_data
from roadmap.serialization.ranges import Range, field_types
from roadmap.text import suggest


class NoEffect(ValueError):
    """A step did not change the experiment."""


@dataclass(frozen=True)
class Step:
    """A named function that rewrites an experiment. `ablations.yaml` has groups, titles and parameters of a study."""

    name: str
    function: Callable[..., Any]
    group: str = ""  # if the study has no group for it
    title: str = ""

    @cached_property
    def subject(self) -> str:
        """The argument that the function rewrites: "design", "recipe" or "experiment"."""
        return next(iter(inspect.signature(self.function).parameters), "")

    @cached_property
    def parameters(self) -> dict[str, Any]:
        """The type of each parameter. Variants set the first one."""
        parameters = inspect.signature(self.function).parameters.values()
        names = [parameter.name for parameter in parameters if parameter.kind is inspect.Parameter.KEYWORD_ONLY]
        try:
            return {name: field_types(self.function).get(name, Any) for name in names}
        except NameError as error:
            raise ValueError(f"step {self.name!r}: an annotation of its parameters: {error}") from None

    @cached_property
    def required(self) -> list[str]:
        """The parameters without a default."""
        signature = inspect.signature(self.function).parameters
        return [name for name in self.parameters if signature[name].default is inspect.Parameter.empty]

    def __call__(self, experiment: Experiment, **parameters: Any) -> Experiment:
        """The rewritten experiment. Raises NoEffect if it is the same as before."""
        subject = experiment if self.subject == "experiment" else getattr(experiment, self.subject)
        try:
            changed = self.function(subject, **parameters)
        except ValueError:
            raise
        except Exception as error:
            raise ValueError(f"step {self.name!r} fails: {type(error).__name__}: {error}") from error
        if type(changed) is not type(subject):
            expected, actual = type(subject).__name__, type(changed).__name__
            raise ValueError(f"step {self.name!r} must return {expected} (got {actual})")
        changes: dict[str, Any] = {self.subject: changed}
        result: Experiment = changed if self.subject == "experiment" else replace(experiment, **changes)
        if result == experiment:
            raise NoEffect(f"step {self.name!r} changes nothing here")
        return result

    def variant(self, value: Any, where: str) -> dict[str, Any]:
        """The parameters of a variant: `value` for the first one. Raises ValueError if the step has no parameters."""
        if not self.parameters:
            raise ValueError(f"{where}: step {self.name!r} has no parameter to vary")
        return self.check_parameters({next(iter(self.parameters)): value}, where)

    def check_parameters(self, data: dict[str, Any], where: str) -> dict[str, Any]:
        """Plain data as parameters of the step. Raises ValueError with the key path of an invalid parameter."""
        types = self.parameters
        for key in data:
            if key not in types:
                raise ValueError(f"{where}.{key}: step {self.name!r} has no such parameter; {suggest(types, key)}")
        return {key: from_data(types[key], value, f"{where}.{key}") for key, value in data.items()}


# Names that roadmap/study/grammar.py reads as a step.
NAME = re.compile(r"(?!all$|all-steps$|without-|only-|order[1-9]\d{0,3}-\d)[a-z]\w*([.-]\w+)*")
STEPS: Registry[Step] = Registry("step", hint="")
find_step = STEPS.find


def step(name: str, *, group: str = "", title: str = "") -> Callable[[Callable[..., Any]], Step]:
    """Registers the decorated function as the step `name`. Raises ValueError for an invalid signature or name."""
    STEPS.check_name(name)
    if not NAME.fullmatch(name):
        reserved = "all, without-..., only-... and order1-... have another meaning"
        raise ValueError(
            f"a step's name must be words of letters and digits, such as no-bias (got {name!r}); {reserved}"
        )

    def register(function: Callable[..., Any]) -> Step:
        new_step = Step(name, function, group, title or name)
        if new_step.subject not in ("design", "recipe", "experiment"):
            raise ValueError(f"step {name!r}: its first argument must be design, recipe or experiment")
        for parameter in list(inspect.signature(function).parameters.values())[1:]:
            if parameter.kind is not inspect.Parameter.KEYWORD_ONLY:
                raise ValueError(f"step {name!r}: its parameter {parameter.name!r} must be keyword-only, after a *")
        return STEPS.add(name, new_step)

    return register


@step("recipe")
def recipe(recipe: Recipe, *, to: Recipe) -> Recipe:
    """Replaces the whole training recipe."""
    return to


@step("stage-ratio")
def stage_ratio(design: Design, *, depths: tuple[int, ...], widen_to: int = 0) -> Design:
    """Sets the numbers of blocks in the stages. A larger `widen_to` is the new width, to keep the FLOPs."""
    return replace(design, depths=depths, width=widen_to if widen_to > design.widths[0] else design.width)


@step("patchify-stem")
def patchify_stem(design: Design, *, patch: int = 4) -> Design:
    """The stem becomes a convolution over patches without overlap: with bias, without norm, activation and pooling."""
    stem = replace(design.stem, kernel=patch, stride=patch, bias=True, norm=None, act=None, pool=False)
    return replace(design, stem=stem)


@step("depthwise")
def depthwise(design: Design) -> Design:
    """The block's spatial convolution becomes depthwise."""
    return map_convs(design, lambda conv: replace(conv, depthwise=True, width=SAME) if conv.is_spatial else conv)


@step("width")
def width(design: Design, *, width: int) -> Design:
    """Sets the width of the first stage."""
    return replace(design, width=width)


@step("inverted-bottleneck")
def inverted_bottleneck(design: Design, *, expansion: float = 4.0) -> Design:
    """Input and output of a block get the width of the stage; the hidden width is a multiple of it."""

    def invert(block: Block) -> Block:
        hidden = tuple(conv if conv.width == SAME else replace(conv, width=expansion) for conv in block.convs[:-1])
        return replace(block, convs=(*hidden, replace(block.convs[-1], width=1.0)))

    return map_blocks(design, invert)


@step("move-up-depthwise")
def move_up_depthwise(design: Design) -> Design:
    """The spatial convolution comes first in the block."""

    def move_up(block: Block) -> Block:
        return replace(block, convs=tuple(sorted(block.convs, key=lambda conv: not conv.is_spatial)))

    return map_blocks(design, move_up)


@step("kernel-size")
def kernel_size(design: Design, *, kernel: Annotated[int, Range(3, odd=True)]) -> Design:
    """Sets the kernel of the spatial convolution; odd, to keep the image size."""
    return map_convs(design, lambda conv: replace(conv, kernel=kernel) if conv.is_spatial else conv)


@step("gelu")
def gelu(design: Design) -> Design:
    """Every ReLU becomes a GELU."""

    def swap(act: Activation | None) -> Activation | None:
        return "gelu" if act == "relu" else act

    design = map_convs(design, lambda conv: replace(conv, act=swap(conv.act)))
    design = map_blocks(design, lambda block: replace(block, act=swap(block.act)))
    return replace(design, stem=replace(design.stem, act=swap(design.stem.act)))


@step("fewer-activations")
def fewer_activations(design: Design) -> Design:
    """Only the activation before the last convolution of a block stays."""

    def reduce(block: Block) -> Block:
        kept = len(block.convs) - 2
        convs = (conv if i == kept else replace(conv, act=None) for i, conv in enumerate(block.convs))
        return replace(block, convs=tuple(convs), act=None)

    return map_blocks(design, reduce)


@step("fewer-norms")
def fewer_norms(design: Design) -> Design:
    """Only the norm after the spatial convolution of a block stays. Shortcuts keep their norms."""
    return map_convs(design, lambda conv: conv if conv.is_spatial else replace(conv, norm=None))


@step("layer-norm")
def layer_norm(design: Design) -> Design:
    """Every BN becomes an LN. The convolutions of blocks get biases, which have no effect before BN."""

    def swap(norm: Norm | None) -> Norm | None:
        return "ln" if norm == "bn" else norm

    design = map_convs(design, lambda conv: replace(conv, norm=swap(conv.norm), bias=True))
    return replace(
        design,
        stem=replace(design.stem, norm=swap(design.stem.norm), last_norm=swap(design.stem.last_norm)),
        downsampling=replace(design.downsampling, norm=swap(design.downsampling.norm)),
        head_norm=swap(design.head_norm),
    )


@step("final-norm")
def final_norm(design: Design) -> Design:
    """Adds an LN after the global pooling: a separate rung in the authors' ablation code."""
    return replace(design, head_norm="ln")


@step("separate-downsampling")
def separate_downsampling(design: Design, *, norms: bool = True) -> Design:
    """Adds a 2x2 convolution of stride 2 with bias between stages. Blocks have no stride and no projection.

    `norms` adds an LN before each of these convolutions, one after the stem and one after the global pooling.
    """
    between = replace(design.downsampling, place="between", kernel=2, norm="ln" if norms else None, bias=True)
    stem = replace(design.stem, width="block", last_norm="ln" if norms else design.stem.last_norm)
    return replace(design, downsampling=between, stem=stem, head_norm="ln" if norms else design.head_norm)


@step("layer-scale")
def layer_scale(design: Design, *, initial: float = 1e-6) -> Design:
    """Adds a learned scale per channel to the residual branch (Touvron et al., 2021)."""
    return map_blocks(design, lambda block: replace(block, layer_scale=initial))


# All steps that change the design but not its width and depths.
CONVNEXT_STEPS = (
    "patchify-stem", "depthwise", "inverted-bottleneck", "move-up-depthwise", "gelu", "fewer-activations",
    "fewer-norms", "layer-norm", "separate-downsampling", "layer-scale",
)  # fmt: skip


def convnext_design(width: int, depths: tuple[int, ...]) -> Design:
    """A ConvNeXt as in the released code, independent of the YAML of a study."""
    design: Design = STEPS["kernel-size"].function(resnet(width, depths), kernel=7)
    for name in CONVNEXT_STEPS:
        design = STEPS[name].function(design)
    return design
