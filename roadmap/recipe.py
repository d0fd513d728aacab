"""A training recipe as plain data: all settings of the training of a design."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from roadmap.design import Design, NamedModel, comparable
from roadmap.plugins import Registry, code_of
from roadmap.serialization.plain_data import Difference, added_in, differences
from roadmap.serialization.ranges import PROBABILITY, InvalidField, Range, Text, check_fields
from roadmap.text import suggest

# timm's notation, such as rand-m9-mstd0.5-inc1. Checked here, because timm silently ignores unknown parts.
RANDAUGMENT_PARTS = r"rand(-m\d+|-n[1-9]\d*|-p(0?\.\d+|0|1)|-mstd\d+(\.\d+)?|-mmax\d+|-inc[01])*"
RANDAUGMENT = "timm's notation, such as rand-m9-mstd0.5-inc1"
WHOLE_IMAGE_SIZE = 384  # pixels; from this size on, evaluation uses the whole image
Initialization = Literal["torchvision", "truncated-normal", "pytorch"]
Precision = Literal["auto", "fp32", "bf16", "fp16", "fp16-on-cuda"]
Epochs = Annotated[tuple[int, ...], Range(1)]
Steps = Annotated[int, Range(0)]
Share = Annotated[float, Range(above=0, maximum=1)]
Factor = Annotated[float, Range(above=0)]
DecayBy = Literal["layer", "stage"]
OptimizerField = Literal["momentum", "betas", "eps"]
OPTIMIZER_FIELDS: tuple[OptimizerField, ...] = ("momentum", "betas", "eps")  # used by some optimizers only
Build = Callable[[list[dict[str, Any]], "Recipe"], Any]  # (parameter groups, recipe) -> torch optimizer


@dataclass(frozen=True)
class Optimizer:
    """An optimizer by its name, with the fields of the recipe that it uses."""

    name: str
    uses: tuple[OptimizerField, ...]
    build: Build | None = None  # None: runner/train/optimizer.py builds it
    code: str | None = None  # of custom ones: hash of the file that defines it


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
OPTIMIZERS.add("sgd", Optimizer("sgd", ("momentum",)))
OPTIMIZERS.add("adamw", Optimizer("adamw", ("betas", "eps")))


def optimizer(name: str, *, uses: Sequence[OptimizerField] = OPTIMIZER_FIELDS) -> Callable[[Build], Build]:
    """Registers the decorated function, which builds the optimizer `name` of `recipe.optimizer`.

    It takes the parameter groups, a list of {"params": [...], "weight_decay": ...}, and the recipe, and returns a
    torch.optim.Optimizer. The engine sets the learning rate before every step. `uses` are the fields of the recipe that
    the function reads. Raises ValueError if the name is taken, or if `uses` has another field.
    """
    OPTIMIZERS.check_name(name)
    if isinstance(uses, str):
        raise ValueError(f"optimizer {name!r}: uses must be a list of fields (got {uses!r})")
    for used in uses:
        if used not in OPTIMIZER_FIELDS:
            raise ValueError(f"optimizer {name!r}: uses has {used!r}; {suggest(OPTIMIZER_FIELDS, used)}")

    def register(build: Build) -> Build:
        OPTIMIZERS.add(name, Optimizer(name, tuple(uses), build, code_of(build)))
        return build

    return register


def _is_randaugment(text: str) -> bool:
    """Whether it is timm's notation, with each part at most once, and a magnitude within timm's limit."""
    parts = re.findall(r"-([a-z]+)([\d.]+)", text)
    values = {name: float(value) for name, value in parts}
    is_valid = re.fullmatch(RANDAUGMENT_PARTS, text) is not None and len(values) == len(parts)
    return is_valid and values.get("m", 0) <= values.get("mmax", 10)


@dataclass(frozen=True)
class Recipe:
    """The training hyper-parameters. `ablations.yaml` holds the values of the paper's two recipes."""

    # schedule
    epochs: Annotated[int, Range(1)]  # passes over the training images
    warmup_epochs: Annotated[int, Range(0)]  # the learning rate rises linearly from 0
    batch_size: Annotated[int, Range(1)]  # images per step, over all devices
    optimizer: str  # sgd, adamw, or one of a plug-in
    learning_rate: Annotated[float, Range(above=0)]  # after warm-up, for this batch size
    schedule: Literal["step", "cosine", "linear"]  # how the learning rate falls after warm-up
    min_learning_rate: Annotated[float, Range(0)]  # at the end of "cosine" and "linear"
    decay_epochs: Annotated[int, Range(1)]  # "step": epochs between two decays
    decay_factor: Annotated[float, Range(0)]  # "step": factor of each decay
    # optimizer
    momentum: Annotated[float, Range(0, below=1)]  # of SGD
    betas: Annotated[tuple[float, float], Range(0, below=1)]  # of AdamW
    eps: Annotated[float, Range(above=0)]  # of AdamW
    weight_decay: Annotated[float, Range(0)]  # decoupled from the gradient in AdamW, added to it in SGD
    decay_norms_and_biases: bool  # apply weight decay also to biases, norms and layer scale
    # augmentation
    image_size: Annotated[int, Range(1)]  # side of the training and evaluation crop, pixels
    crop: Literal["padded", "random-resized"]  # "padded": a crop of the image at its training size or larger
    crop_padding: Annotated[int, Range(0)]  # "padded": pixels added on every side before the crop
    crop_scale: Annotated[tuple[float, float], Range(above=0)]  # "random-resized": least and largest share of the area
    crop_ratio: Annotated[tuple[float, float], Range(above=0)]  # "random-resized": least and largest width / height
    interpolation: Literal["bilinear", "bicubic"]  # of resizing, in training and evaluation
    horizontal_flip: Annotated[float, PROBABILITY]  # probability
    randaugment: Annotated[str | None, Text(RANDAUGMENT, _is_randaugment)]  # timm's notation; null: off
    mixup: Annotated[float, Range(0)]  # alpha of the Beta distribution; 0: off
    cutmix: Annotated[float, Range(0)]  # alpha of the Beta distribution; 0: off
    mix_probability: Annotated[float, PROBABILITY]  # probability that a batch is mixed
    mix_switch_probability: Annotated[float, PROBABILITY]  # probability of cutmix, if both are on
    mix_group: Annotated[int, Range(1)]  # images mixed with the same draw, in pairs; the paper's batch per device
    random_erasing: Annotated[float, PROBABILITY]  # probability; erased pixels are filled with normal noise
    # regularization
    label_smoothing: Annotated[float, Range(0, below=1)]  # share of the target that is spread over all classes
    drop_path: Annotated[float, Range(0, below=1)]  # rate of the last block; grows linearly from 0 at the first
    clip_gradients: Annotated[float | None, Range(above=0)]  # largest norm of the gradient of a step; null: off
    # evaluation
    evaluation_crop: Annotated[float, Range(above=0, maximum=1)]  # kept share of the resized side, below 384 pixels
    # model and numbers
    initialization: Initialization  # "truncated-normal": std 0.02, biases 0; "pytorch": only linear layers
    ema: Annotated[float | None, Range(above=0, below=1)]  # decay per step of the averaged weights; null: off
    sync_batch_norm: bool  # statistics over the images of all devices (on GPUs)
    precision: Precision  # "auto": the fastest on the device, which the record has; "fp16-on-cuda": elsewhere as "auto"
    order_seed: Annotated[int | None, Range(0)] = field(default=None, metadata=added_in("0.2"))  # null: the run's seed
    decay_at: Epochs = field(default=(), metadata=added_in("0.2"))  # "step": decays, instead of every `decay_epochs`
    warmup_steps: Steps = field(default=0, metadata=added_in("0.2"))  # instead of `warmup_epochs`; 0: not given
    layer_decay: Share = field(default=1.0, metadata=added_in("0.2"))  # of the learning rate, from a layer to the next
    layer_decay_by: DecayBy = field(default="layer", metadata=added_in("0.2"))  # what a layer is: blocks, or stages
    head_init_scale: Factor = field(default=1.0, metadata=added_in("0.2"))  # of the weights of a new classifier

    def __post_init__(self) -> None:
        check_fields(self)
        if self.warmup_epochs >= self.epochs:
            raise InvalidField(f"warmup_epochs must be below epochs, {self.epochs} (got {self.warmup_epochs})")
        if list(self.decay_at) != sorted(set(self.decay_at)):
            raise InvalidField(f"decay_at must be rising numbers (got {list(self.decay_at)})")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            if low > high:
                raise InvalidField(f"{name} must be two rising numbers (got {[low, high]})")
        for name in ("batch_size", "mix_group"):
            if self.mixes and getattr(self, name) % 2:
                raise InvalidField(f"{name} must be even to mix images in pairs (got {getattr(self, name)})")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed by mixup or cutmix."""
        return self.mix_probability > 0 and (self.mixup > 0 or self.cutmix > 0)

    def shared_by(self, processes: int) -> bool:
        """Whether the batch can be divided evenly without separating the two images of a mixed pair."""
        return self.batch_size % (processes * (2 if self.mixes else 1)) == 0

    @property
    def evaluation_size(self) -> int | None:
        """Pixels of the shorter side before the centre crop; None if the whole image is resized to a square.

        As in the released ConvNeXt code: resize to 256 and crop 224, but no crop from 384 pixels on.
        """
        return None if self.image_size >= WHOLE_IMAGE_SIZE else int(self.image_size / self.evaluation_crop)

    @property
    def unused_fields(self) -> set[str]:
        """The fields that are not used, given the others."""
        names: set[str] = set()
        if self.optimizer in OPTIMIZERS:  # else its plug-in is not loaded
            names |= set(OPTIMIZER_FIELDS).difference(OPTIMIZERS[self.optimizer].uses)
        names |= {"min_learning_rate"} if self.schedule == "step" else {"decay_epochs", "decay_factor", "decay_at"}
        names |= {"decay_epochs"} if self.decay_at else set()
        names |= {"warmup_epochs"} if self.warmup_steps else set()
        names |= {"layer_decay_by"} if self.layer_decay == 1 else set()
        names |= {"crop_padding"} if self.crop == "random-resized" else {"crop_scale", "crop_ratio"}
        names |= {"decay_norms_and_biases"} if not self.weight_decay else set()
        names |= {"evaluation_crop"} if self.evaluation_size is None else set()
        names |= set() if self.mixes else {"mix_group"}
        if not self.mix_probability or not (self.mixup and self.cutmix):
            names.add("mix_switch_probability")
        if not self.mixup and not self.cutmix:
            names.add("mix_probability")
        return names


@dataclass(frozen=True)
class Experiment:
    """A design and the recipe that trains it. Steps rewrite experiments."""

    design: Design | NamedModel
    recipe: Recipe

    @property
    def unused_fields(self) -> set[str]:
        """The fields of the recipe that are not used, given the others and the design."""
        if isinstance(self.design, NamedModel):
            return self.recipe.unused_fields | self.design.unused_fields
        return self.recipe.unused_fields | (set() if self.design.has_batch_norm else {"sync_batch_norm"})


def changes(before: Experiment, after: Experiment) -> list[Difference]:
    """The differences, with both designs in forms of the same shape."""
    old, new = before.design, after.design
    if isinstance(old, Design) and isinstance(new, Design):
        old, new = comparable(old, new)
    return [*differences(old, new, "design"), *differences(before.recipe, after.recipe, "recipe")]
