"""The batches that a run trains on and is evaluated on."""

from __future__ import annotations

import math
from collections.abc import Callable, Generator, Iterator, Sequence
from typing import TYPE_CHECKING, Any, Literal, Protocol

import torch
from torch import Tensor
from torch.utils.data import Dataset

from roadmap.recipe import Recipe
from roadmap.record.run import Run
from runner.data.augmentation import Erasing, Mixing, Normalization, padded_crops, resized
from runner.data.image import BadImage
from runner.data.loader import NO_IMAGES, Batch, SampleKey, load
from runner.data.shared_memory import evaluation_batch
from runner.data.splits import InMemoryImages, Split
from runner.machine.copies import to_device
from runner.machine.randomness import generator_for, seed_for, seed_globally
from runner.machine.setup import Setup

if TYPE_CHECKING:
    from runner.data.transforms import Transform

SUBSTITUTES = 16  # images that are tried instead of one that can't be read

EpochAndStep = tuple[int, int]
Waiting = Callable[[float], object]  # called while a batch is awaited, with the seconds so far


class Augmentation(Protocol):
    """Makes the images of a batch. Each depends only on (seed, epoch, index), not on the process."""

    def __call__(self, keys: Sequence[SampleKey]) -> Batch: ...


class Samples(Dataset[Batch]):
    """Augmented images by their keys."""

    def __init__(self, augmentation: Augmentation) -> None:
        self.augmentation = augmentation

    def __getitems__(self, keys: Sequence[SampleKey]) -> Batch:
        return self.augmentation(keys)


class PerImage:
    """Images that a transform makes one by one, each with its own seed."""

    def __init__(self, split: Split, transform: Transform, seed: int, substitutes: int) -> None:
        self.split, self.transform, self.seed, self.substitutes = split, transform, seed, substitutes

    def __call__(self, keys: Sequence[SampleKey]) -> Batch:
        images: list[Tensor] = []
        indices: list[int] = []
        bad: list[str] = []
        for epoch, index in keys:
            try:
                image_and_index = self._first_readable(epoch, index, bad)
            except OSError as error:
                return Batch(NO_IMAGES, NO_IMAGES, [], failure=str(error))
            if image_and_index:
                images.append(image_and_index[0])
                indices.append(image_and_index[1])
            elif self.substitutes:
                failure = f"{bad[-1]}; the {self.substitutes} images before it can't be read either"
                return Batch(NO_IMAGES, NO_IMAGES, [], bad, failure=failure)
        skipped = len({index for _, index in keys} - set(indices))
        stacked = torch.stack(images).permute(0, 3, 1, 2) if images else NO_IMAGES
        return Batch(stacked, self.split.labels[indices], indices, bad, skipped)

    def _first_readable(self, epoch: int, index: int, bad: list[str]) -> tuple[Tensor, int] | None:
        """The first image that can be read, from `index` on, and its index; appends the others' errors to `bad`."""
        for position in range(index, index + 1 + self.substitutes):
            candidate = position % len(self.split)
            try:
                image = self.split.image(candidate)
                seed_globally(seed_for(self.seed, "augment", epoch, candidate))
                return self.transform(image), candidate
            except BadImage as error:
                bad.append(str(error))
        return None


class WholeBatch:
    """Small images in memory, resized, cropped and flipped by whole batches: ten times as fast as one by one."""

    def __init__(self, split: InMemoryImages, recipe: Recipe, seed: int, training: bool) -> None:
        self.split, self.recipe, self.seed, self.training = split, recipe, seed, training
        self.epoch, self.draws = -1, torch.empty(0)

    def __call__(self, keys: Sequence[SampleKey]) -> Batch:
        """The keys are of one epoch."""
        indices = [index for _, index in keys]
        images = resized(self.split.images[indices], self.recipe)
        if self.training:
            where, flip_draws = self._draw(keys[0][0])[indices].split((2, 1), dim=1)
            images = padded_crops(images, where, self.recipe.crop_padding)
            flip = (flip_draws < self.recipe.horizontal_flip).view(-1, 1, 1, 1)
            images = torch.where(flip, images.flip(3), images)
        return Batch(images, self.split.labels[indices], indices)

    def _draw(self, epoch: int) -> Tensor:
        """Three uniform numbers for each image: how far down and right its crop is, and whether it is flipped."""
        if epoch != self.epoch:
            generator = generator_for(self.seed, "augment", epoch)
            self.epoch, self.draws = epoch, torch.rand(len(self.split), 3, generator=generator)
        return self.draws


def choose_augmentation(run: Run, split: Split, augment: Literal["fast", "reference"] | None) -> Augmentation:
    """How the images of a split are made: by whole batches, one by one on arrays, or one by one with Pillow.

    `augment` is the execution's field; None for evaluation, which only resizes and crops.
    """
    recipe, dataset, training = run.experiment.recipe, run.dataset, augment is not None
    if isinstance(split, InMemoryImages) and split.is_square:
        fast = augment == "fast" and run.crops_by_batch
        if fast or (not training and recipe.evaluation_size in (None, recipe.image_size)):
            return WholeBatch(split, recipe, run.seed, training)
    # Slow to import.
    from runner.data.transforms import ArrayTransform, PillowTransform, evaluation_transform, training_transform

    if augment == "fast":
        return PerImage(split, ArrayTransform(recipe, dataset), run.seed, substitutes=SUBSTITUTES)
    if augment == "reference":
        transform = PillowTransform(training_transform(recipe, dataset))
        return PerImage(split, transform, run.seed, substitutes=SUBSTITUTES)
    return PerImage(split, PillowTransform(evaluation_transform(recipe)), run.seed, substitutes=0)


def epoch_order(count: int, seed: int, epoch: int, batch_size: int, retries: Sequence[EpochAndStep] = ()) -> Tensor:
    """The order in which an epoch takes the images.

    `retries` are the epochs and steps from which a diverged run was resumed: the rest of such an epoch is in another
    order.
    """
    order = torch.randperm(count, generator=generator_for(seed, "order", epoch))
    for attempt, (of_epoch, step) in enumerate(retries, start=1):
        if of_epoch == epoch:
            remaining = order[step * batch_size :]
            new_order = torch.randperm(len(remaining), generator=generator_for(seed, "order", epoch, "retry", attempt))
            order = torch.cat((order[: step * batch_size], remaining[new_order]))
    return order


class OrderedBatches:
    """A process's share of the batches of a run, in parts that its device computes one after another.

    The images of a step's global batch depend only on (seed, epoch, step), and the augmentation of an image only on
    (seed, epoch, index); the numbers of processes, parts and workers change nothing. `finish` is for each task.
    """

    def __init__(
        self,
        run: Run,
        count: int,
        samples: Samples,
        setup: Setup,
        rank: int,
        retries: Sequence[EpochAndStep] = (),
        skip_bad: bool = False,
        waiting: Waiting = lambda seconds: None,
    ) -> None:
        """`count`: of the training images."""
        self.waiting, self.samples = waiting, samples
        self.run, self.recipe, self.setup, self.rank, self.retries = run, run.experiment.recipe, setup, rank, retries
        # The remaining images of an epoch are not used in it.
        self.count, self.steps = count, count // self.recipe.batch_size
        self.part_size = self.recipe.batch_size // (setup.processes * setup.accumulation)
        self.normalize = Normalization(run.dataset, setup.device)
        self.bad = BadImages(skip_bad)

    def finish(self, batch: Batch, epoch: int, step: int, first: int) -> tuple[Tensor, Any]:
        """Images B x 3 x H x W and their targets, on the device; `first` is the first image's index in the step."""
        raise NotImplementedError

    def stream(self, epoch: int, step: int) -> Generator[tuple[Tensor, Any], None, None]:
        """The parts of batches from that step to the end of training."""
        batches = load(self.samples, self._keys(epoch, step), self.setup, self.waiting)
        for (of_epoch, of_step, part), batch in zip(self._parts(epoch, step), batches, strict=True):
            self.bad.record(batch)
            yield self.finish(batch, of_epoch, of_step, self._first(part))

    def _parts(self, epoch: int, step: int) -> Iterator[tuple[int, int, int]]:
        for of_epoch in range(epoch, self.recipe.epochs):
            for of_step in range(step if of_epoch == epoch else 0, self.steps):
                yield from ((of_epoch, of_step, part) for part in range(self.setup.accumulation))

    def _keys(self, epoch: int, step: int) -> Iterator[list[SampleKey]]:
        order, order_epoch = torch.empty(0), -1
        seed = self.run.seed if self.recipe.order_seed is None else self.recipe.order_seed
        for of_epoch, of_step, part in self._parts(epoch, step):
            if of_epoch != order_epoch:
                order = epoch_order(self.count, seed, of_epoch, self.recipe.batch_size, self.retries)
                order_epoch = of_epoch
            first = of_step * self.recipe.batch_size + self._first(part)
            yield [(of_epoch, index) for index in order[first : first + self.part_size].tolist()]

    def _first(self, part: int) -> int:
        """The index of a part's first image in its step's global batch."""
        return (self.rank * self.setup.accumulation + part) * self.part_size


class TrainingBatches(OrderedBatches):
    """Images to classify. Their targets are classes B, or probabilities B x classes if images are mixed."""

    def __init__(
        self,
        run: Run,
        split: Split,
        setup: Setup,
        rank: int,
        retries: Sequence[EpochAndStep] = (),
        skip_bad: bool = False,
        waiting: Waiting = lambda seconds: None,
    ) -> None:
        samples = Samples(choose_augmentation(run, split, setup.augment))
        super().__init__(run, len(split), samples, setup, rank, retries, skip_bad, waiting)
        self.erase = Erasing(self.recipe, run.seed, setup.device) if self.recipe.random_erasing else None
        self.mix = Mixing(self.recipe, run.dataset.classes, run.seed) if self.recipe.mixes else None

    def finish(self, batch: Batch, epoch: int, step: int, first: int) -> tuple[Tensor, Any]:
        """Moves a batch to the device, where it is normalized, erased and mixed."""
        images = self.normalize(move(batch.images, self.setup))
        targets = move(batch.labels, self.setup)
        if self.erase:
            self.erase(images, epoch, batch.indices)
        if self.mix:
            targets = self.mix(images, targets, epoch, step, first)
        return images.contiguous(memory_format=self.setup.memory_format), targets


class EvaluationBatches:
    """A process's share of the held-out images: each image is in exactly one share, once."""

    def __init__(
        self,
        run: Run,
        split: Split,
        setup: Setup,
        rank: int,
        skip_bad: bool = False,
        waiting: Waiting = lambda seconds: None,
    ) -> None:
        self.waiting = waiting
        self.setup, self.samples = setup, Samples(choose_augmentation(run, split, None))
        self.classes = run.dataset.classes
        self.normalize = Normalization(run.dataset, setup.device)
        self.labels = split.labels
        self.indices = range(rank, len(split), setup.processes)
        part = run.experiment.recipe.batch_size // (setup.processes * setup.accumulation)
        self.batch_size = evaluation_batch(part)
        most = math.ceil(len(split) / setup.processes)
        self.rounds = math.ceil(most / self.batch_size)  # the same in all processes
        self.bad = BadImages(skip_bad)

    def __iter__(self) -> Iterator[tuple[Tensor, Tensor, list[int]]]:
        """Images B x 3 x H x W, classes B, and indices into the data set; B may be 0 in the last round."""
        starts = [round_ * self.batch_size for round_ in range(self.rounds)]
        keys = ([(0, index) for index in self.indices[start : start + self.batch_size]] for start in starts)
        for batch in load(self.samples, keys, self.setup, self.waiting):
            self.bad.record(batch)
            images = self.normalize(move(batch.images, self.setup))
            images = images.contiguous(memory_format=self.setup.memory_format)
            yield images, move(batch.labels, self.setup), batch.indices


class BadImages:
    """Handles images that can't be read: they end the run, or are counted and reported."""

    def __init__(self, skip: bool) -> None:
        self.skip, self.count = skip, 0
        self.messages: dict[str, bool] = {}  # each error, and whether it was reported

    def record(self, batch: Batch) -> None:
        """Raises BadImage with the file, unless it is skipped."""
        if batch.bad and not self.skip:
            raise BadImage(f"{batch.bad[0]}; --set execution.bad_images=skip trains without it")
        if batch.failure:
            raise BadImage(batch.failure)
        self.count += batch.skipped
        self.messages = dict.fromkeys(batch.bad, False) | self.messages

    def unreported(self) -> list[str]:
        """The errors that this function has not returned before."""
        new = [message for message, was_reported in self.messages.items() if not was_reported]
        self.messages |= dict.fromkeys(new, True)
        return new


def move(tensor: Tensor, setup: Setup) -> Tensor:
    """The tensor on the device."""
    return to_device(tensor, setup.device)
