"""What a recipe does to batches of images: small ones whole, and all of them on the device.

What is done to each image is in runner/data/transforms.py. timm, which imports all its networks with whatever is asked
of it, is imported where a recipe erases or mixes: nothing else here waits for that.
"""

from __future__ import annotations

import itertools
from collections.abc import Iterator, Sequence

import torch
from torch import Tensor
from torch.nn import functional as F

from roadmap.data.dataset import Dataset
from roadmap.recipe import Recipe
from runner.machine.randomness import seed_for, seed_globally

CACHE = 2**20  # bytes of floats that a core works on without waiting for the memory


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
        # Rows of pixels in the order in memory, a few images at a time: a third of the time.
        rows = images.permute(0, 2, 3, 1).flatten(2)
        mean, std = (each.view(3).repeat(images.shape[3]) for each in (self.mean, self.std))
        result = torch.empty(rows.shape, device=images.device)
        for few in slices(result):
            result[few].copy_(rows[few]).sub_(mean).div_(std)
        return result.view(len(images), *images.shape[2:], 3).permute(0, 3, 1, 2)


def slices(images: Tensor, multiple: int = 1) -> Iterator[slice]:
    """Of so many images, and multiples of some number, that a core has them at hand; on a GPU all at once."""
    fitting = CACHE // max(1, images[0].numel() * images.element_size()) if len(images) else 1
    size = max(1, fitting // multiple) * multiple if images.device.type == "cpu" else len(images)
    return (slice(start, min(start + size, len(images))) for start in range(0, len(images), max(1, size)))


class Erasing:
    """timm's random erasing, by pixel with normal noise, of normalized images; an image's is its own."""

    def __init__(self, recipe: Recipe, seed: int, device: str) -> None:
        from timm.data.random_erasing import RandomErasing

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

        `first` is the place of the first image in the step's global batch.
        """
        smoothed = F.one_hot(labels, self.classes) * (1 - self.smoothing) + self.smoothing / self.classes
        shares = torch.ones(len(images), 1)
        bounds = [0, *range(self.group - first % self.group, len(images), self.group), len(images)]
        for begin, end in itertools.pairwise(bounds):
            seed_globally(seed_for(self.seed, "mix", epoch, step, (first + begin) // self.group))
            shares[begin:end] = self._mix(images[begin:end])
        shares = shares.to(smoothed)
        neighbours = smoothed.view(-1, 2, self.classes).flip(1).view_as(smoothed)
        return smoothed * shares + neighbours * (1 - shares)

    def _mix(self, images: Tensor) -> float:
        """A group, each image with its neighbour, in place; returns the share that an image keeps of itself."""
        share, by_cutmix = self.draw._params_per_batch()
        if share == 1:
            return 1.0
        if not by_cutmix:
            for few in slices(images, multiple=2):
                even, odd = images[few][::2], images[few][1::2]
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
