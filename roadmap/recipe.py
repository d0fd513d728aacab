"""A training recipe as plain data: everything that decides how a design is trained."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

from roadmap.design import Design


@dataclass(frozen=True)
class Recipe:
    """The training hyper-parameters. `ablations.yaml` holds the values of the paper's two recipes."""

    # schedule
    epochs: int
    warmup_epochs: int  # linear from 0
    batch_size: int  # images a step, over all devices
    optimizer: Literal["sgd", "adamw"]
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
    crop: Literal["padded", "random-resized"]
    crop_padding: int  # "padded": pixels added on every side before the crop
    crop_scale: tuple[float, float]  # "random-resized": share of the image's area
    crop_ratio: tuple[float, float]  # "random-resized": width over height
    interpolation: Literal["bilinear", "bicubic"]
    horizontal_flip: float  # probability
    randaugment: str | None  # timm's notation
    mixup: float  # alpha of the Beta distribution; 0 is off
    cutmix: float  # alpha of the Beta distribution; 0 is off
    mix_probability: float  # that a batch is mixed at all
    mix_switch_probability: float  # that it is by cutmix, where both are on
    random_erasing: float  # probability; filled by pixel with normal noise
    # regularization
    label_smoothing: float
    drop_path: float  # of the last block; grows linearly from 0 at the first
    # the rest
    initialization: Literal["torchvision", "truncated-normal"]  # the latter: std 0.02, biases 0
    ema: float | None  # decay a step of the averaged weights
    precision: Literal["auto", "fp32", "bf16"]  # "auto": what is faster on the device; the record has it

    def __post_init__(self) -> None:
        _require(self.epochs >= 1, "epochs", self.epochs, "at least 1")
        _require(0 <= self.warmup_epochs < self.epochs, "warmup_epochs", self.warmup_epochs, f"0 to {self.epochs - 1}")
        for name in ("batch_size", "decay_epochs", "image_size"):
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
        mixes = self.mix_probability > 0 and (self.mixup > 0 or self.cutmix > 0)
        even = self.batch_size % 2 == 0
        _require(even or not mixes, "batch_size", self.batch_size, "an even number to mix images in pairs")
        _require(self.ema is None or 0 < self.ema < 1, "ema", self.ema, "null or between 0 and 1")

    @property
    def idle(self) -> set[str]:
        """The fields that have no say, given the others."""
        names: set[str] = set()
        names |= {"momentum"} if self.optimizer == "adamw" else {"betas", "eps"}
        names |= {"min_learning_rate"} if self.schedule == "step" else {"decay_epochs", "decay_factor"}
        names |= {"crop_padding"} if self.crop == "random-resized" else {"crop_scale", "crop_ratio", "interpolation"}
        if not self.mix_probability or not (self.mixup and self.cutmix):
            names.add("mix_switch_probability")
        if not self.mixup and not self.cutmix:
            names.add("mix_probability")
        return names


def _require(holds: bool, name: str, value: object, expected: str) -> None:
    if not holds:
        raise ValueError(f"{name} is {value}, expected {expected}")


@dataclass(frozen=True)
class Experiment:
    """What a step rewrites: a design and the recipe that trains it."""

    design: Design
    recipe: Recipe
