"""Augmentation of images together with boxes, masks and class maps, by torchvision.transforms.v2."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor
from torch.nn import functional as F
from torchvision import tv_tensors
from torchvision.transforms import v2
from torchvision.transforms.v2 import functional as vision

from roadmap.recipe import Recipe
from roadmap.tasks.heads import DetectorOptions, SegmenterOptions
from runner.data.dense.objects import LEAST_SIDE, ObjectSplit
from runner.data.dense.regions import VOID, RegionSplit
from runner.data.dense.samples import Make, Size, Target, scaled_size

CROP_TRIES = 10


class RandomSizedCrop(v2.Transform):  # type: ignore[misc]
    """A crop whose sides are drawn between two numbers of pixels, or the image's own if it is smaller."""

    def __init__(self, least: int, largest: int) -> None:
        super().__init__()
        self.least, self.largest = least, largest

    def make_params(self, flat_inputs: list[Any]) -> dict[str, int]:
        size = vision.get_size(flat_inputs[0])
        sides = [min(side, _draw(min(self.least, side), min(self.largest, side))) for side in size]
        corner = [_draw(0, side - own) for side, own in zip(size, sides, strict=True)]
        return {"top": corner[0], "left": corner[1], "height": sides[0], "width": sides[1]}

    _get_params = make_params  # its name before torchvision 0.22

    def transform(self, inpt: Any, params: dict[str, Any]) -> Any:
        return vision.crop(inpt, **params)

    _transform = transform


def _draw(low: int, high: int) -> int:
    """A whole number from low to high, by torch's global generator."""
    return int(torch.randint(low, high + 1, ()))


def detection_transform(recipe: Recipe, options: DetectorOptions) -> v2.Transform:
    """As the authors augment: half of the images resized, the others resized, cropped and resized again."""
    final = v2.RandomShortestSize(list(options.short_sides), max_size=options.longest_side, antialias=True)
    resize: v2.Transform = final
    if options.crop_short_sides:
        crop = [v2.RandomShortestSize(list(options.crop_short_sides), antialias=True)]
        resize = v2.RandomChoice([final, v2.Compose([*crop, RandomSizedCrop(*options.crop_sides), final])])
    flip = [v2.RandomHorizontalFlip(recipe.horizontal_flip)] if recipe.horizontal_flip else []
    return v2.Compose([*flip, resize, v2.SanitizeBoundingBoxes(min_size=LEAST_SIDE, labels_getter=_labels)])


def _labels(inputs: Any) -> Any:
    return inputs[1]["labels"]


def training_objects(split: ObjectSplit, recipe: Recipe, options: DetectorOptions) -> Make:
    """A training image with its boxes (K x 4), labels (K, from 1) and masks (K x H x W)."""
    transform = detection_transform(recipe, options)

    def make(index: int) -> tuple[Tensor, Target]:
        objects, size = split.objects(index), split.size(index)
        which = objects.targets()
        image = tv_tensors.Image(_channels_first(split.read(index)))
        target = {
            "boxes": tv_tensors.BoundingBoxes(torch.from_numpy(objects.boxes[which]), format="XYXY", canvas_size=size),
            "labels": torch.from_numpy(objects.labels[which] + 1),
            "masks": tv_tensors.Mask(torch.from_numpy(objects.decoded_masks(which, size))),
        }
        image, target = transform(image, target)
        return image.as_subclass(Tensor), {key: value.as_subclass(Tensor) for key, value in target.items()}

    return make


def test_objects(split: ObjectSplit, options: DetectorOptions) -> Make:
    """A held-out image at its size of evaluation; its target has its own size as `original`."""

    def make(index: int) -> tuple[Tensor, Target]:
        size = split.size(index)
        image = _resized(
            _channels_first(split.read(index)), scaled_size(size, options.test_short_side, options.longest_side)
        )
        return image, {"original": size}

    return make


def training_regions(split: RegionSplit, recipe: Recipe, options: SegmenterOptions) -> Make:
    """A crop of a training image with the class of each pixel (H x W)."""
    distort = v2.RandomPhotometricDistort(hue=(-0.05, 0.05)) if options.photometric else None

    def make(index: int) -> tuple[Tensor, Target]:
        image, classes = _channels_first(split.read(index)), torch.from_numpy(split.read_classes(index))[None]
        low, high = options.scales
        scale = low + (high - low) * float(torch.rand(()))
        size = scaled_size(
            split.size(index), round(scale * options.test_short_side), round(scale * options.longest_side)
        )
        image = _resized(image, size)
        if classes.shape[1:] != size:
            classes = vision.resize(classes, list(size), v2.InterpolationMode.NEAREST)
        image, classes = _varied_crop(image, classes, options)
        if recipe.horizontal_flip and float(torch.rand(())) < recipe.horizontal_flip:
            image, classes = image.flip(2), classes.flip(2)
        if distort is not None:
            image = distort(image)
        below, beside = (options.crop - side for side in image.shape[1:])
        image = F.pad(image, (0, beside, 0, below))
        classes = F.pad(classes, (0, beside, 0, below), value=VOID)
        return image, {"classes": classes[0]}

    return make


def _varied_crop(image: Tensor, classes: Tensor, options: SegmenterOptions) -> tuple[Tensor, Tensor]:
    """A crop in which no class has too large a share, unless ten tries find none."""
    sides = [min(options.crop, side) for side in image.shape[1:]]
    for _ in range(CROP_TRIES):
        top, left = (_draw(0, side - own) for side, own in zip(image.shape[1:], sides, strict=True))
        window = (..., slice(top, top + sides[0]), slice(left, left + sides[1]))
        known = classes[window][classes[window] != VOID]
        counts = torch.bincount(known.long())
        if len(counts) and (counts > 0).sum() > 1 and counts.max() < options.largest_class * len(known):
            break
    return image[window], classes[window]


def test_regions(split: RegionSplit, options: SegmenterOptions) -> Make:
    """A held-out image at its size of evaluation, with the class of each of its own pixels."""

    def make(index: int) -> tuple[Tensor, Target]:
        size = scaled_size(split.size(index), options.test_short_side, options.longest_side)
        classes = torch.from_numpy(split.read_classes(index))
        return _resized(_channels_first(split.read(index)), size), {"classes": classes}

    return make


def _channels_first(pixels: Any) -> Tensor:
    return torch.from_numpy(pixels).permute(2, 0, 1).contiguous()


def _resized(image: Tensor, size: Size) -> Tensor:
    return image if tuple(image.shape[1:]) == size else vision.resize(image, list(size), antialias=True)
