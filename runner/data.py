"""The data sets by name, and the batches that training takes from them."""

from __future__ import annotations

import random
from collections.abc import Callable

import numpy as np
import torch
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing
from torch import Tensor
from torch.nn import functional as F

from roadmap.recipe import Recipe
from roadmap.record import Run
from runner.randomness import generator_for, seed_for, seed_torch
from runner.sources import Split


class Normalization:
    """uint8 images to normalized floats of three channels, channels last in memory."""

    def __init__(self, run: Run) -> None:
        self.mean = torch.tensor(run.dataset.mean).view(3, 1, 1) * 255
        self.std = torch.tensor(run.dataset.std).view(3, 1, 1) * 255

    def __call__(self, images: Tensor) -> Tensor:
        return ((images - self.mean) / self.std).contiguous(memory_format=torch.channels_last)


class TrainingBatches:
    """The batches of a run. Each is a function of (seed, epoch, step) alone, whatever was drawn before.

    What augmentation does to an image depends on (seed, epoch, index) alone.
    """

    def __init__(self, run: Run, split: Split) -> None:
        self.recipe, self.seed, self.split = run.experiment.recipe, run.seed, split
        self.normalize = Normalization(run)
        self.steps = len(split) // self.recipe.batch_size  # an epoch's; the rest sits out, others each epoch
        self.mix = _mixer(self.recipe, run.dataset.classes)
        self.erase = _eraser(self.recipe)
        self._epoch = -1

    def __call__(self, epoch: int, step: int) -> tuple[Tensor, Tensor]:
        """Images B x 3 x H x W, and targets: class indices B, or probabilities B x classes where images are mixed."""
        if epoch != self._epoch:
            self._draw(epoch)
        size = self.recipe.batch_size
        index = self.order[step * size : (step + 1) * size]
        images = self.normalize(crop_and_flip(self.split.images[index], self.draws[index], self.recipe))
        if self.erase:
            for image, i in zip(images, index.tolist(), strict=True):
                _seed_globally(seed_for(self.seed, "erase", epoch, i))
                self.erase(image)
        targets = self.split.labels[index]
        if self.mix:
            _seed_globally(seed_for(self.seed, "mix", epoch, step))
            images, targets = self.mix(images, targets)
        return images, targets

    def _draw(self, epoch: int) -> None:
        """The epoch's order, and five uniform numbers for each image."""
        self._epoch = epoch
        self.order = torch.randperm(len(self.split), generator=generator_for(self.seed, "order", epoch))
        self.draws = torch.rand(len(self.split), 5, generator=generator_for(self.seed, "augment", epoch))


def crop_and_flip(images: Tensor, draws: Tensor, recipe: Recipe) -> Tensor:
    """The recipe's crop and mirror image of uint8 images, by five numbers from 0 to 1 for each; the result is float."""
    images = images.float()
    where, shape, mirror = draws[:, 0:2], draws[:, 2:4], draws[:, 4]
    if recipe.crop == "random-resized":
        images = _random_resized_crop(images, where, shape, recipe)
    elif recipe.crop_padding:
        images = _padded_crop(images, where, recipe.crop_padding)
    mirrored = (mirror < recipe.horizontal_flip).view(-1, 1, 1, 1)
    return torch.where(mirrored, images.flip(3), images) if recipe.horizontal_flip else images


def _padded_crop(images: Tensor, where: Tensor, padding: int) -> Tensor:
    """A crop of the images' own size out of the images padded with black."""
    count, channels, height, width = images.shape
    top, left = (where * (2 * padding + 1)).long().unbind(1)
    rows = (top[:, None] + torch.arange(height)).view(count, 1, height, 1)
    columns = (left[:, None] + torch.arange(width)).view(count, 1, 1, width)
    padded = F.pad(images, (padding,) * 4)
    return padded[torch.arange(count).view(-1, 1, 1, 1), torch.arange(channels).view(1, -1, 1, 1), rows, columns]


def _random_resized_crop(images: Tensor, where: Tensor, shape: Tensor, recipe: Recipe) -> Tensor:
    """A crop of random area and aspect, within the image, resized to the image's size."""
    area = torch.lerp(torch.tensor(recipe.crop_scale[0]), torch.tensor(recipe.crop_scale[1]), shape[:, 0])
    low, high = torch.tensor(recipe.crop_ratio).log()
    ratio = torch.lerp(low, high, shape[:, 1]).exp()
    size = torch.stack(((area * ratio).sqrt(), (area / ratio).sqrt()), 1).clamp(max=1)  # share of width, of height
    center = (2 * where - 1) * (1 - size)
    theta = torch.cat((torch.diag_embed(size), center.unsqueeze(2)), 2)
    grid = F.affine_grid(theta, list(images.shape), align_corners=False)
    resized = F.grid_sample(images, grid, mode=recipe.interpolation, padding_mode="reflection", align_corners=False)
    return resized.clamp(0, 255)


def _mixer(recipe: Recipe, classes: int) -> Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] | None:
    """timm's mixup and cutmix over a batch, with smoothed labels."""
    if not recipe.mix_probability or not (recipe.mixup or recipe.cutmix):
        return None
    mixup: Callable[[Tensor, Tensor], tuple[Tensor, Tensor]] = Mixup(
        mixup_alpha=recipe.mixup,
        cutmix_alpha=recipe.cutmix,
        prob=recipe.mix_probability,
        switch_prob=recipe.mix_switch_probability,
        label_smoothing=recipe.label_smoothing,
        num_classes=classes,
    )
    return mixup


def _eraser(recipe: Recipe) -> Callable[[Tensor], Tensor] | None:
    """timm's random erasing of one image, in place, filled by pixel with normal noise."""
    if not recipe.random_erasing:
        return None
    erasing: Callable[[Tensor], Tensor] = RandomErasing(recipe.random_erasing, mode="pixel", device="cpu")
    return erasing


def _seed_globally(seed: int) -> None:
    """timm draws from the global generators of Python, NumPy and torch."""
    random.seed(seed)
    np.random.seed(seed % 2**32)
    seed_torch(seed)
