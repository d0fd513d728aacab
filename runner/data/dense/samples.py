"""Batches of images with targets of any number: made by workers, padded to one size, normalized on the device."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Sequence
from itertools import groupby
from typing import Any, Protocol

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor
from torch.nn import functional as F

from roadmap.record.run import Run
from runner.data.augmentation import Normalization
from runner.data.batches import BadImages, EpochAndStep, OrderedBatches, Samples, Waiting, move
from runner.data.image import BadImage
from runner.data.loader import NO_IMAGES, Batch, SampleKey, load
from runner.machine.randomness import seed_for, seed_globally
from runner.machine.setup import Setup

DIVISOR = 32  # pixels: the sides of padded images are its multiples
EVALUATION_IMAGES = 16  # of a device at a time

Size = tuple[int, int]  # height and width, pixels
Target = dict[str, Any]  # tensors, and `size` of the image without padding


class DenseSplit(Protocol):
    """Images with targets of any number."""

    def __len__(self) -> int: ...

    def size(self, index: int) -> Size: ...


Make = Callable[[int], tuple[Tensor, Target]]  # of an index: the image, uint8, 3 x H x W, and its target


class DenseSamples:
    """Images with their targets, each transformed with its own seed, in one padded batch."""

    def __init__(self, make: Make, seed: int, divisor: int) -> None:
        self.make, self.seed, self.divisor = make, seed, divisor

    def __call__(self, keys: Sequence[SampleKey]) -> Batch:
        images, targets, indices, bad = [], [], [], []
        for epoch, index in keys:
            seed_globally(seed_for(self.seed, "augment", epoch, index))
            try:
                image, target = self.make(index)
            except BadImage as error:
                bad.append(str(error))
                continue
            except (OSError, ValueError) as error:
                return Batch(NO_IMAGES, [], [], failure=str(error))
            images.append(image)
            targets.append({**target, "size": tuple(image.shape[1:])})
            indices.append(index)
        batch = padded(images, self.divisor) if images else NO_IMAGES
        failure = None if images or not keys else f"{bad[-1]}; no other image of the batch can be read"
        return Batch(batch, targets, indices, bad, len(bad), failure)


def padded(images: Sequence[Tensor], divisor: int) -> Tensor:
    """Images C x H x W of any sizes in one batch, padded with 0 to multiples of `divisor`."""
    height, width = padded_size([(image.shape[1], image.shape[2]) for image in images], divisor)
    return torch.stack([F.pad(image, (0, width - image.shape[2], 0, height - image.shape[1])) for image in images])


def padded_size(sizes: Sequence[Size], divisor: int) -> Size:
    """The size of the batch of images of these sizes."""
    height, width = (math.ceil(max(size[side] for size in sizes) / divisor) * divisor for side in (0, 1))
    return height, width


def on_device(batch: Batch, normalize: Normalization, setup: Setup) -> tuple[Tensor, list[Target]]:
    """Normalized images, 0 where they are padded, and the targets."""
    images = normalize(move(batch.images, setup).contiguous())
    for image, target in zip(images, batch.labels, strict=True):
        height, width = target["size"]
        image[:, height:], image[:, :, width:] = 0, 0
    targets = [
        {key: move(value, setup) if isinstance(value, Tensor) else value for key, value in target.items()}
        for target in batch.labels
    ]
    return images.contiguous(memory_format=setup.memory_format), targets


class DenseTrainingBatches(OrderedBatches):
    """Padded images, and a list of targets."""

    def __init__(
        self,
        run: Run,
        make: Make,
        count: int,
        setup: Setup,
        rank: int,
        retries: Sequence[EpochAndStep],
        skip_bad: bool,
        waiting: Waiting,
    ) -> None:
        samples = Samples(DenseSamples(make, run.seed, DIVISOR))
        super().__init__(run, count, samples, setup, rank, retries, skip_bad, waiting)

    def finish(self, batch: Batch, epoch: int, step: int, first: int) -> tuple[Tensor, Any]:
        return on_device(batch, self.normalize, self.setup)


class DenseTestBatches:
    """A process's share of the held-out images. Each image is in one share, once.

    Images of a batch have one padded size, so that what is found in an image does not depend on the others.
    """

    def __init__(
        self, run: Run, make: Make, sizes: NDArray[np.int32], setup: Setup, rank: int, skip_bad: bool, waiting: Waiting
    ) -> None:
        """`sizes`: N x 2, of the images as `make` returns them."""
        self.setup, self.waiting = setup, waiting
        self.samples = Samples(DenseSamples(make, run.seed, DIVISOR))
        self.normalize = Normalization(run.dataset, setup.device)
        batches = list(_of_one_size(sizes))
        self.own = batches[rank :: setup.processes]
        self.rounds = math.ceil(len(batches) / setup.processes)  # the same in all processes
        self.bad = BadImages(skip_bad)

    def __iter__(self) -> Iterator[tuple[Tensor, list[Target], list[int]]]:
        """Padded images, targets, and indices into the data set; in the last round there may be none."""
        keys = ([(0, index) for index in indices] for indices in self.own)
        for batch in load(self.samples, keys, self.setup, self.waiting):
            self.bad.record(batch)
            yield (*on_device(batch, self.normalize, self.setup), batch.indices)
        for _ in range(self.rounds - len(self.own)):
            yield torch.empty(0), [], []


def _of_one_size(sizes: NDArray[np.int32]) -> Iterator[list[int]]:
    padded_sizes = [padded_size([(int(height), int(width))], DIVISOR) for height, width in sizes]
    order = sorted(range(len(sizes)), key=lambda index: padded_sizes[index])
    for _, group in groupby(order, key=lambda index: padded_sizes[index]):
        indices = list(group)
        for start in range(0, len(indices), EVALUATION_IMAGES):
            yield indices[start : start + EVALUATION_IMAGES]


def scaled_size(size: Size, short_side: int, longest_side: int) -> Size:
    """The size of an image whose shorter side becomes `short_side`, unless its longer one would exceed the limit."""
    scale = min(short_side / min(size), longest_side / max(size))
    height, width = (max(1, round(side * scale)) for side in size)
    return height, width
