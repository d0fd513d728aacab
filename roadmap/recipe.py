"""A training recipe as plain data: everything that decides how a design is trained."""

from __future__ import annotations

import re
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from roadmap.design import Design, NamedModel, comparable
from roadmap.plugins import Registry, code_of
from roadmap.serialization import Difference, differences, suggest

# timm's notation, such as rand-m9-mstd0.5-inc1; a part that timm doesn't know it would pass over without a word.
RANDAUGMENT = r"rand(-m\d+|-n[1-9]\d*|-p(0?\.\d+|0|1)|-mstd\d+(\.\d+)?|-mmax\d+|-inc[01])*"
WHOLE_IMAGE_SIZE = 384  # pixels; from here on evaluation takes the whole image
OptimizerField = Literal["momentum", "betas", "eps"]
OPTIMIZER_FIELDS: tuple[OptimizerField, ...] = ("momentum", "betas", "eps")  # that some optimizers use and others not
Build = Callable[[list[dict[str, Any]], "Recipe"], Any]  # parameter groups and a recipe to a torch optimizer


@dataclass(frozen=True)
class Optimizer:
    """How the weights follow the gradients."""

    name: str
    uses: tuple[OptimizerField, ...]
    build: Build | None = None  # None: one of runner/train/optimizer.py
    code: str | None = None  # of users' own: a hash of the file that defines it


OPTIMIZERS: Registry[Optimizer] = Registry("optimizer")
OPTIMIZERS.add("sgd", Optimizer("sgd", ("momentum",)))
OPTIMIZERS.add("adamw", Optimizer("adamw", ("betas", "eps")))


def optimizer(name: str, *, uses: Sequence[OptimizerField] = OPTIMIZER_FIELDS) -> Callable[[Build], Build]:
    """Registers the decorated function as what builds the optimizer `name`, for `recipe.optimizer`.

    It takes the parameter groups, a list of {"params": [...], "weight_decay": ...}, and the recipe, and gives a
    torch.optim.Optimizer, whose learning rate is then set before every step. `uses` are the recipe's fields that it
    reads. Raises ValueError where the name is taken, or where `uses` names another field.
    """
    for field in uses:
        if field not in OPTIMIZER_FIELDS:
            raise ValueError(f"optimizer {name!r}: uses has {field!r}; {suggest(OPTIMIZER_FIELDS, field)}")

    def register(build: Build) -> Build:
        OPTIMIZERS.add(name, Optimizer(name, tuple(uses), build, code_of(build)))
        return build

    return register


@dataclass(frozen=True)
class Recipe:
    """The training hyper-parameters. `ablations.yaml` holds the values of the paper's two recipes."""

    # schedule
    epochs: int
    warmup_epochs: int  # linear from 0
    batch_size: int  # images a step, over all devices
    optimizer: str  # sgd, adamw, or a plug-in's
    learning_rate: float  # after warm-up, at this batch size
    schedule: Literal["step", "cosine"]
    min_learning_rate: float  # where the cosine ends
    decay_epochs: int  # "step": epochs between two decays
    decay_factor: float  # "step": what each decay multiplies by
    # optimizer
    momentum: float  # SGD
    betas: tuple[float, float]  # AdamW
    eps: float  # AdamW
    weight_decay: float
    decay_norms_and_biases: bool  # whether weight decay also takes biases, norms and layer scale
    # augmentation
    image_size: int  # side of the training and evaluation crop, pixels
    crop: Literal["padded", "random-resized"]  # "padded": of the image at its training size, or larger
    crop_padding: int  # "padded": pixels added on every side before the crop
    crop_scale: tuple[float, float]  # "random-resized": share of the image's area
    crop_ratio: tuple[float, float]  # "random-resized": width over height
    interpolation: Literal["bilinear", "bicubic"]  # wherever an image is resized, in training and evaluation
    horizontal_flip: float  # probability
    randaugment: str | None  # timm's notation
    mixup: float  # alpha of the Beta distribution; 0 is off
    cutmix: float  # alpha of the Beta distribution; 0 is off
    mix_probability: float  # that a batch is mixed at all
    mix_switch_probability: float  # that it is by cutmix, where both are on
    mix_group: int  # images of a batch that are mixed alike, in pairs; the paper's batch a device
    random_erasing: float  # probability; filled by pixel with normal noise
    # regularization
    label_smoothing: float
    drop_path: float  # of the last block; grows linearly from 0 at the first
    clip_gradients: float | None  # the largest norm of a step's gradient; null leaves it as it is
    # evaluation
    evaluation_crop: float  # below 384 pixels, the share of the resized side that the centre crop keeps; above, all
    # the rest
    initialization: Literal["torchvision", "truncated-normal"]  # the latter: std 0.02, biases 0
    ema: float | None  # decay a step of the averaged weights
    sync_batch_norm: bool  # statistics over all devices' images, not each device's own (on GPUs)
    precision: Literal["auto", "fp32", "bf16", "fp16"]  # "auto": what is faster on the device; the record has it

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _require(0 <= self.warmup_epochs < self.epochs, "warmup_epochs", self.warmup_epochs, f"0 to {self.epochs - 1}")
        for name in ("batch_size", "decay_epochs", "image_size", "mix_group"):
            _require(getattr(self, name) >= 1, name, getattr(self, name), "at least 1")
        for name in ("learning_rate", "eps"):
            _require(getattr(self, name) > 0, name, getattr(self, name), "above 0")
        for name in ("min_learning_rate", "decay_factor", "weight_decay", "mixup", "cutmix", "crop_padding"):
            _require(getattr(self, name) >= 0, name, getattr(self, name), "at least 0")
        for name in ("momentum", "label_smoothing", "drop_path"):
            _require(0 <= getattr(self, name) < 1, name, getattr(self, name), "from 0 to below 1")
        for name in ("horizontal_flip", "mix_probability", "mix_switch_probability", "random_erasing"):
            _require(0 <= getattr(self, name) <= 1, name, getattr(self, name), "from 0 to 1")
        _require(all(0 <= beta < 1 for beta in self.betas), "betas", list(self.betas), "two numbers from 0 to below 1")
        for name in ("crop_scale", "crop_ratio"):
            low, high = getattr(self, name)
            _require(0 < low <= high, name, [low, high], "two rising numbers above 0")
        for name in ("batch_size", "mix_group"):
            even = getattr(self, name) % 2 == 0
            _require(even or not self.mixes, name, getattr(self, name), "an even number to mix images in pairs")
        randaugment = self.randaugment
        written = randaugment is None or _is_randaugment(randaugment)
        _require(written, "randaugment", randaugment, "null or timm's notation, such as rand-m9-mstd0.5-inc1")
        crop, clip = self.evaluation_crop, self.clip_gradients
        _require(0 < crop <= 1, "evaluation_crop", crop, "above 0 to 1")
        _require(clip is None or clip > 0, "clip_gradients", clip, "null or above 0")
        _require(self.ema is None or 0 < self.ema < 1, "ema", self.ema, "null or between 0 and 1")

    @property
    def mixes(self) -> bool:
        """Whether images are mixed, by mixup or cutmix."""
        return self.mix_probability > 0 and (self.mixup > 0 or self.cutmix > 0)

    def shared_by(self, processes: int) -> bool:
        """Whether the batch can be shared alike, without parting a pair of images that are mixed."""
        return self.batch_size % (processes * (2 if self.mixes else 1)) == 0

    @property
    def evaluation_size(self) -> int | None:
        """Pixels of the shorter side before the centre crop; None where the whole image is taken, squashed.

        As in the released ConvNeXt code: resize 256 and crop 224, but no crop from 384 pixels on.
        """
        return None if self.image_size >= WHOLE_IMAGE_SIZE else int(self.image_size / self.evaluation_crop)

    @property
    def idle(self) -> set[str]:
        """The fields that have no say, given the others."""
        names: set[str] = set()
        if self.optimizer in OPTIMIZERS:  # else its plug-in is not loaded, and nothing is known of it
            names |= set(OPTIMIZER_FIELDS).difference(OPTIMIZERS[self.optimizer].uses)
        names |= {"min_learning_rate"} if self.schedule == "step" else {"decay_epochs", "decay_factor"}
        names |= {"crop_padding"} if self.crop == "random-resized" else {"crop_scale", "crop_ratio"}
        names |= {"decay_norms_and_biases"} if not self.weight_decay else set()
        names |= {"evaluation_crop"} if self.evaluation_size is None else set()
        names |= set() if self.mixes else {"mix_group"}
        if not self.mix_probability or not (self.mixup and self.cutmix):
            names.add("mix_switch_probability")
        if not self.mixup and not self.cutmix:
            names.add("mix_probability")
        return names


def _is_randaugment(written: str) -> bool:
    """timm's notation, with every part once, and a magnitude that timm does not cut off."""
    parts = re.findall(r"-([a-z]+)([\d.]+)", written)
    values = {name: float(value) for name, value in parts}
    whole = re.fullmatch(RANDAUGMENT, written) is not None and len(values) == len(parts)
    return whole and values.get("m", 0) <= values.get("mmax", 10)


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}, expected {expected}")


@dataclass(frozen=True)
class Experiment:
    """What a step rewrites: a design and the recipe that trains it."""

    design: Design | NamedModel
    recipe: Recipe

    @property
    def idle(self) -> set[str]:
        """The recipe's fields that have no say, given the others and the design."""
        if isinstance(self.design, NamedModel):
            return self.recipe.idle | self.design.idle
        return self.recipe.idle | (set() if self.design.has_batch_norm else {"sync_batch_norm"})


def changes(before: Experiment, after: Experiment) -> list[Difference]:
    """What differs, the designs in words of the same shape."""
    old, new = before.design, after.design
    if isinstance(old, Design) and isinstance(new, Design):
        old, new = comparable(old, new)
    return [*differences(old, new, "design"), *differences(before.recipe, after.recipe, "recipe")]
