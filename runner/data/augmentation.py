"""Augmentation of batches: crops of small images, and what is done on the device to images of any size.

Augmentation of single images is in runner/data/transforms.py. timm is imported only if a recipe erases or mixes: the
import is slow, because it loads all of timm's networks.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from roadmap.data.dataset import Dataset
from roadmap.recipe import Recipe
from runner.machine.copies import to_device
from runner.machine.randomness import seed_for, seed_globally

CACHE = 2**20  # bytes of floats that fit in a core's cache


def padded_crops(images: Tensor, where: Tensor, padding: int) -> Tensor:
    """Crops with the images' size from the images padded with black.

    `where` has two numbers from 0 to 1 for each image: how far down, and how far right.
    """
    count, channels, height, width = images.shape
    top, left = (where * (2 * padding + 1)).long().unbind(1)
    rows = (top[:, None] + torch.arange(height)).view(count, 1, height, 1)
    columns = (left[:, None] + torch.arange(width)).view(count, 1, 1, width)
    padded = F.pad(images, (padding,) * 4)
    return padded[torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1), rows, columns]


def resized(images: Tensor, recipe: Recipe) -> Tensor:
    """N x C x H x W, uint8, to N x C x S x S of the training size S."""
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
        if images.shape[1] == 1 or images.is_contiguous():
            return (images - self.mean) / self.std
        # Rows of pixels in memory order, a few images at a time, take a third of the time.
        rows = images.permute(0, 2, 3, 1).flatten(2)
        mean, std = (values.view(3).repeat(images.shape[3]) for values in (self.mean, self.std))
        result = torch.empty(rows.shape, device=images.device)
        for part in slices(result):
            result[part].copy_(rows[part]).sub_(mean).div_(std)
        return result.view(len(images), *images.shape[2:], 3).permute(0, 3, 1, 2)


def slices(images: Tensor, multiple: int = 1) -> Iterator[slice]:
    """Slices of as many images as fit in a core's cache, in multiples of `multiple`; on a GPU one slice of all."""
    images_in_cache = CACHE // max(1, images[0].numel() * images.element_size()) if len(images) else 1
    size = max(1, images_in_cache // multiple) * multiple if images.device.type == "cpu" else len(images)
    return (slice(start, min(start + size, len(images))) for start in range(0, len(images), max(1, size)))


class Erasing:
    """timm's random erasing of normalized images, with normal noise for each pixel. Each image has its own seed."""

    def __init__(self, recipe: Recipe, seed: int, device: str) -> None:
        from timm.data.random_erasing import RandomErasing

        self.seed = seed
        self.erase = RandomErasing(recipe.random_erasing, mode="pixel", device=device)

    def __call__(self, images: Tensor, epoch: int, indices: Sequence[int]) -> None:
        """Erases in place. `indices` are those of the images in the data set."""
        for image, index in zip(images, indices, strict=True):
            seed_globally(seed_for(self.seed, "erase", epoch, index))
            self.erase(image)


class Mixing:
    """timm's mixup and cutmix of neighbours in a batch, with smoothed labels.

    Random numbers are drawn for each group of the global batch, so that they do not depend on how devices and parts
    share the batch.
    """

    def __init__(self, recipe: Recipe, classes: int, seed: int) -> None:
        from timm.data.mixup import Mixup, cutmix_bbox_and_lam

        self.seed, self.group, self.classes, self.smoothing = seed, recipe.mix_group, classes, recipe.label_smoothing
        self.draw = Mixup(
            mixup_alpha=recipe.mixup,
            cutmix_alpha=recipe.cutmix,
            prob=recipe.mix_probability,
            switch_prob=recipe.mix_switch_probability,
        )
        self.draw_box = cutmix_bbox_and_lam

    def __call__(self, images: Tensor, labels: Tensor, epoch: int, step: int, first: int) -> Tensor:
        """Mixes the images in place, and returns probabilities B x classes.

        `first` is the index of the first image in the step's global batch.
        """
        one_hot = torch.zeros(len(labels), self.classes, device=labels.device).scatter_(1, labels.view(-1, 1), 1.0)
        smoothed = one_hot * (1 - self.smoothing) + self.smoothing / self.classes
        shares = torch.ones(len(images), 1)
        bounds = [0, *range(self.group - first % self.group, len(images), self.group), len(images)]
        for begin, end in itertools.pairwise(bounds):
            seed_globally(seed_for(self.seed, "mix", epoch, step, (first + begin) // self.group))
            shares[begin:end] = self._mix(images[begin:end])
        shares = to_device(shares, smoothed.device.type).to(smoothed.dtype)
        neighbours = smoothed.view(-1, 2, self.classes).flip(1).view_as(smoothed)
        return smoothed * shares + neighbours * (1 - shares)

    def _mix(self, images: Tensor) -> float:
        """Mixes a group in place, each image with its neighbour; returns the share that an image keeps of itself."""
        share, by_cutmix = self.draw._params_per_batch()
        if share == 1:
            return 1.0
        if not by_cutmix:
            for part in slices(images, multiple=2):
                even, odd = images[part][::2], images[part][1::2]
                mixed = even.lerp(odd, 1 - share)
                odd.lerp_(even, 1 - share)
                even.copy_(mixed)
            return float(share)
        (top, bottom, left, right), share = self.draw_box(images.shape, share)
        inside = images[:, :, top:bottom, left:right]
        kept = inside[::2].clone()
        inside[::2] = inside[1::2]
        inside[1::2] = kept
        return float(share)
