"""What a recipe does to one image: timm's transforms, by Pillow, or faster on arrays."""

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
REDUCTIONS = (8, 4, 2, 1)  # of a JPEG's sides that is decoded


def training_transform(recipe: Recipe, dataset: Dataset) -> PillowFunction:
    """Crop, flip and RandAugment, which draw from the global generators."""
    crop_and_flip, colours, to_tensor = transforms_imagenet_train(
        recipe.image_size,
        scale=recipe.crop_scale,
        ratio=recipe.crop_ratio,
        hflip=recipe.horizontal_flip,
        color_jitter=None,  # type: ignore[arg-type]  # 0 would build an idle one
        auto_augment=recipe.randaugment,
        interpolation=recipe.interpolation,
        mean=dataset.mean,  # RandAugment fills with it
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
        _mend_posterize(randaugment)
    transform: PillowFunction = transforms.Compose([crop_and_flip, colours, to_tensor])
    return transform


def evaluation_transform(recipe: Recipe) -> PillowFunction:
    """Resize and centre crop; from 384 pixels on the whole image, squashed."""
    whole = recipe.evaluation_size is None
    transform: PillowFunction = transforms_imagenet_eval(
        recipe.image_size,
        crop_pct=1.0 if whole else recipe.evaluation_crop,
        crop_mode="squash" if whole else "center",
        interpolation=recipe.interpolation,
        normalize=False,
    )
    return transform


def _mend_posterize(randaugment: auto_augment.RandAugment) -> None:
    """Lets timm keep 0 bits of an image, which Pillow 12 and older did and 13 refuses: the image is black."""
    for operation in randaugment.ops:
        if operation.aug_fn is auto_augment.posterize:
            operation.aug_fn = _posterize


def _posterize(image: Image, bits_to_keep: int, **arguments: Any) -> Image:
    if bits_to_keep < 1:
        return image.point(lambda level: 0)
    result: Image = auto_augment.posterize(image, bits_to_keep, **arguments)
    return result


class PillowTransform:
    """A transform of Pillow's images: the reference."""

    def __init__(self, transform: PillowFunction) -> None:
        self.transform = transform

    def __call__(self, photo: EncodedImage) -> Tensor:
        return self.transform(photo.rgb()).permute(1, 2, 0)


class ArrayTransform:
    """The training transform on arrays: of the same random numbers, within some grey levels, the same image.

    It draws by the same functions of timm and torchvision in the same order, and decodes a photograph once it knows the
    crop, at the scale that the crop needs.
    """

    def __init__(self, recipe: Recipe, dataset: Dataset) -> None:
        self.recipe = recipe
        self.crop = self._random_resized if recipe.crop == "random-resized" else self._padded
        _, colours, _ = training_transform(recipe, dataset).transforms  # type: ignore[attr-defined]
        self.randaugment: list[auto_augment.RandAugment] = colours.transforms
        timms: Any = auto_augment.NAME_TO_OP
        for operation in itertools.chain.from_iterable(each.ops for each in self.randaugment):
            operation.aug_fn = ON_ARRAYS[timms[operation.name]]

    def __call__(self, photo: EncodedImage) -> Tensor:
        cv2.setNumThreads(1)  # whichever process this is; workers are the threads
        image = self.crop(photo)
        if self.recipe.horizontal_flip and torch.rand(1) < self.recipe.horizontal_flip:
            image = np.asarray(cv2.flip(image, 1), np.uint8)
        for randaugment in self.randaugment:
            image = randaugment(image)
        return torch.from_numpy(image)

    def _random_resized(self, photo: EncodedImage) -> Array:
        recipe, side = self.recipe, self.recipe.image_size
        top, left, height, width = RandomResizedCropAndInterpolation.get_params(
            photo.header, recipe.crop_scale, recipe.crop_ratio
        )
        if not height or not width:  # of an image of a pixel or two timm may take none
            top, left, height, width = 0, 0, *photo.size[::-1]
        reduction = next((each for each in REDUCTIONS if 2 * each * side <= min(height, width)), 1)
        pixels = photo.pixels(reduction)
        if reduction == 1:
            return _resized(pixels[top : top + height, left : left + width], (side, side), recipe.interpolation)
        # Pillow takes a box between pixels, which is worth its time where the box is of a large photograph.
        box = tuple(edge / reduction for edge in (left, top, left + width, top + height))
        how = Resampling[recipe.interpolation.upper()]
        return np.array(fromarray(pixels).resize((side, side), how, box=box))

    def _padded(self, photo: EncodedImage) -> Array:
        """Of the image with its shorter side resized, in a frame of black."""
        side, padding = self.recipe.image_size, self.recipe.crop_padding
        width, height = photo.size
        shorter = min(width, height)
        grown = (int(side * height / shorter), int(side * width / shorter))
        image = _resized(photo.pixels(), grown, self.recipe.interpolation)
        framed = cv2.copyMakeBorder(image, *(padding,) * 4, cv2.BORDER_CONSTANT)
        seen = torch.from_numpy(framed).permute(2, 0, 1)
        top, left, _, _ = transforms.RandomCrop.get_params(seen, (side, side))
        return np.ascontiguousarray(framed[top : top + side, left : left + side])


def _resized(image: Array, size: tuple[int, int], interpolation: str) -> Array:
    """To height x width, by torch's filters of uint8, which are Pillow's and vectorized."""
    if image.shape[:2] == size:
        return image
    # In one piece, for which torch has a faster way and gives the result in one.
    planes = torch.from_numpy(np.ascontiguousarray(image))[None].permute(0, 3, 1, 2)
    found = F.interpolate(planes, size, mode=interpolation, antialias=True, align_corners=False)
    return np.ascontiguousarray(found[0].permute(1, 2, 0).numpy())
