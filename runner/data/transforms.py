"""Augmentation of single images: timm's transforms with Pillow, or faster on arrays."""

from __future__ import annotations

import itertools
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import torch
from PIL.Image import Image, Resampling, fromarray
from timm.data import auto_augment
from timm.data.transforms import RandomResizedCropAndInterpolation
from timm.data.transforms_factory import transforms_imagenet_eval, transforms_imagenet_train
from torch import Tensor
from torch.nn import functional as F
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from roadmap.data.dataset import Dataset
from roadmap.recipe import Recipe
from runner.data.image import EncodedImage
from runner.data.randaugment_ops import ON_ARRAYS, Array

PillowFunction = Callable[[Image], Tensor]  # RGB to uint8, 3 x S x S
Transform = Callable[[EncodedImage], Tensor]  # to uint8, S x S x 3
REDUCTIONS = (8, 4, 2, 1)  # by which a JPEG's sides are divided in decoding


def training_transform(recipe: Recipe, dataset: Dataset) -> PillowFunction:
    """Crop, flip and RandAugment. Their random numbers are from the global generators."""
    crop_and_flip, colours, to_tensor = transforms_imagenet_train(
        recipe.image_size,
        scale=recipe.crop_scale,
        ratio=recipe.crop_ratio,
        hflip=recipe.horizontal_flip,
        color_jitter=None,  # type: ignore[arg-type]  # 0 would add a transform without effect
        auto_augment=recipe.randaugment,
        interpolation=recipe.interpolation,
        mean=dataset.mean,  # the fill colour of RandAugment
        normalize=False,
        separate=True,
    )
    if recipe.crop == "padded":
        crop_and_flip = transforms.Compose(
            [
                transforms.Resize(recipe.image_size, InterpolationMode(recipe.interpolation)),
                transforms.RandomCrop(recipe.image_size, padding=recipe.crop_padding or None),
                transforms.RandomHorizontalFlip(recipe.horizontal_flip),
            ]
        )
    for randaugment in colours.transforms:
        _allow_zero_bits(randaugment)
    transform: PillowFunction = transforms.Compose([crop_and_flip, colours, to_tensor])
    return transform


def evaluation_transform(recipe: Recipe) -> PillowFunction:
    """Resize and centre crop; from 384 pixels on the whole image, resized to a square."""
    whole = recipe.evaluation_size is None
    transform: PillowFunction = transforms_imagenet_eval(
        recipe.image_size,
        crop_pct=1.0 if whole else recipe.evaluation_crop,
        crop_mode="squash" if whole else "center",
        interpolation=recipe.interpolation,
        normalize=False,
    )
    return transform


def _allow_zero_bits(randaugment: auto_augment.RandAugment) -> None:
    """Lets timm keep 0 bits of an image, which becomes black. Pillow up to 12 did so; Pillow 13 refuses."""
    for operation in randaugment.ops:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = _posterize


def _posterize(image: Image, bits_to_keep: int, **arguments: Any) -> Image:
    if bits_to_keep < 1:
        return image.point(lambda level: 0)
    result: Image = auto_augment.posterize(image, bits_to_keep, **arguments)
    return result


class PillowTransform:
    """The reference: a transform of Pillow images."""

    def __init__(self, transform: PillowFunction) -> None:
        self.transform = transform

    def __call__(self, encoded: EncodedImage) -> Tensor:
        return self.transform(encoded.rgb()).permute(1, 2, 0)


class ArrayTransform:
    """The training transform on arrays. Its images equal those of the reference within some grey levels.

    It draws random numbers with the same functions of timm and torchvision, in the same order. It decodes an image
    after drawing the crop, at the scale that the crop needs.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.recipe = recipe
        self.crop = self._random_resized if recipe.crop == "random-resized" else self._padded
        _, colours, _ = training_transform(recipe, dataset).transforms  # type: ignore[attr-defined]
        self.randaugment: list[auto_augment.RandAugment] = colours.transforms
        timm_functions: Any = auto_augment.NAME_TO_OP
        for operation in itertools.chain.from_iterable(randaugment.ops for randaugment in self.randaugment):
            operation.aug_fn = ON_ARRAYS[timm_functions[operation.name]]

    def __call__(self, encoded: EncodedImage) -> Tensor:
        cv2.setNumThreads(1)  # set here because each worker process needs it; the workers are the parallelism
        image = self.crop(encoded)
        if self.recipe.horizontal_flip and torch.rand(1) < self.recipe.horizontal_flip:
            image = np.asarray(cv2.flip(image, 1), np.uint8)
        for randaugment in self.randaugment:
            image = randaugment(image)
        return torch.from_numpy(image)

    def _random_resized(self, encoded: EncodedImage) -> Array:
        recipe, side = self.recipe, self.recipe.image_size
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(
            encoded.header, recipe.crop_scale, recipe.crop_ratio
        )
        if not height or not width:  # for an image of one or two pixels timm may draw an empty crop
            top, left, height, width = 0, 0, *encoded.size[::-1]
        reduction = next((number for number in REDUCTIONS if 2 * number * side <= min(height, width)), 1)
        if reduction == 1:
            return _resized(encoded.part(top, left, height, width), (side, side), recipe.interpolation)
        pixels = encoded.pixels(reduction)
        # Slower, but Pillow takes a box with fractional edges, which the crop of a reduced image has.
        box = tuple(edge / reduction for edge in (left, top, left + width, top + height))
        resampling = Resampling[recipe.interpolation.upper()]
        return np.array(fromarray(pixels).resize((side, side), resampling, box=box))

    def _padded(self, encoded: EncodedImage) -> Array:
        """A crop of the image with its shorter side resized, in a black frame."""
        side, padding = self.recipe.image_size, self.recipe.crop_padding
        width, height = encoded.size
        shorter = min(width, height)
        size = (int(side * height / shorter), int(side * width / shorter))
        image = _resized(encoded.pixels(), size, self.recipe.interpolation)
        framed = cv2.copyMakeBorder(image, *(padding,) * 4, cv2.BORDER_CONSTANT)
        framed_tensor = torch.from_numpy(framed).permute(2, 0, 1)
        top, left, _, _ = transforms.RandomCrop.get_params(framed_tensor, (side, side))
        return np.ascontiguousarray(framed[top : top + side, left : left + side])


def _resized(image: Array, size: tuple[int, int], interpolation: str) -> Array:
    """Resizes to height x width, by torch's uint8 filters: those of Pillow, vectorized."""
    if image.shape[:2] == size:
        return image
    # torch is faster with a contiguous array, and returns one.
    planes = torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2)
    result = F.interpolate(planes, size, mode=interpolation, antialias=True, align_corners=False)
    return np.ascontiguousarray(result[0].permute(1, 2, 0).numpy())
