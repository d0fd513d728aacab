"""What a recipe does to images: timm's own transforms, and for small images in memory crops of whole batches."""

from __future__ import annotations

import itertools
from collections.abc import Callable, Sequence
from typing import Any

import torch
from PIL.Image import Image
from timm.data import auto_augment
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from timm.data.transforms_factory import transforms_imagenet_eval, transforms_imagenet_train
from torch import Tensor
from torch.nn import functional as F
from torchvision import transforms
from torchvision.transforms import InterpolationMode

from roadmap.recipe import Recipe
from roadmap.study import Dataset
from runner.randomness import seed_for, seed_globally

Transform = Callable[[Image], Tensor]  # RGB to uint8, 3 x S x S


def training_transform(recipe: Recipe, dataset: Dataset) -> Transform:
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
    transform: Transform = transforms.Compose([crop_and_flip, colours, to_tensor])
    return transform


def evaluation_transform(recipe: Recipe) -> Transform:
    """Resize and centre crop; from 384 pixels on the whole image, squashed."""
    whole = recipe.evaluation_size is None
    transform: Transform = transforms_imagenet_eval(
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


def padded_crops(images: Tensor, where: Tensor, padding: int) -> Tensor:
    """Crops of the images' own size out of the images padded with black.

    `where` has two numbers from 0 to 1 for each image: how far down, and how far right.
    """
    count, channels, height, width = images.shape
    top, left = (where * (2 * padding + 1)).long().unbind(1)
    rows = (top[:, None] + torch.arange(height)).view(count, 1, height, 1)
    columns = (left[:, None] + torch.arange(width)).view(count, 1, 1, width)
    padded = F.pad(images, (padding,) * 4)
    return padded[torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1), rows, columns]


def resized(images: Tensor, recipe: Recipe) -> Tensor:
    """Images of the training size, uint8 as they were."""
    if images.shape[-2:] == (recipe.image_size,) * 2:
        return images
    wide = F.interpolate(
        images.float(), recipe.image_size, mode=recipe.interpolation, align_corners=False, antialias=True
    )
    return wide.round().clamp(0, 255).to(torch.uint8)


class Normalization:
    """uint8 images to normalized floats of three channels."""

    def __init__(self, dataset: Dataset, device: str) -> None:
        self.mean = torch.tensor(dataset.mean, device=device).view(3, 1, 1) * 255
        self.std = torch.tensor(dataset.std, device=device).view(3, 1, 1) * 255

    def __call__(self, images: Tensor) -> Tensor:
        return (images - self.mean) / self.std


class Erasing:
    """timm's random erasing, by pixel with normal noise, of normalized images; an image's is its own."""

    def __init__(self, recipe: Recipe, seed: int, device: str) -> None:
        self.seed = seed
        self.erase = RandomErasing(recipe.random_erasing, mode="pixel", device=device)

    def __call__(self, images: Tensor, epoch: int, indices: Sequence[int]) -> None:
        """In place. `indices` are the images' own in the data set."""
        for image, index in zip(images, indices, strict=True):
            seed_globally(seed_for(self.seed, "erase", epoch, index))
            self.erase(image)


class Mixing:
    """timm's mixup and cutmix of neighbours in a batch, with smoothed labels.

    What is drawn is drawn for each group of the global batch, so that it is the same however the batch is shared by
    devices and parts.
    """

    def __init__(self, recipe: Recipe, classes: int, seed: int) -> None:
        self.seed, self.group = seed, recipe.mix_group
        self.mix = Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mix_probability,
            switch_prob=recipe.mix_switch_probability,
            label_smoothing=recipe.label_smoothing,
            num_classes=classes,
        )

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, step: int, first: int) -> tuple[Tensor, Tensor]:
        """Mixed images, in an order of their own, and probabilities B x classes.

        `first` is the place of the first image in the step's global batch.
        """
        mixed = []
        bounds = [0, *range(self.group - first % self.group, len(images), self.group), len(images)]
        for begin, end in itertools.pairwise(bounds):
            # timm mixes the first with the last, and so on inwards: this makes pairs of what were neighbours.
            order = torch.cat((torch.arange(begin, end, 2), torch.arange(begin + 1, end, 2).flip(0)))
            seed_globally(seed_for(self.seed, "mix", epoch, step, (first + begin) // self.group))
            mixed.append(self.mix(images[order.to(images.device)], labels[order.to(labels.device)]))
        return torch.cat([part for part, _ in mixed]), torch.cat([targets for _, targets in mixed])
