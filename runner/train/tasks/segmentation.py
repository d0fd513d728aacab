"""Semantic segmentation: UPerNet on a rung, evaluated by the mean IoU of the classes."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor, nn
from torch.nn import functional as F
from torch.utils.flop_counter import FlopCounterMode

from roadmap.network.cost import Cost
from roadmap.record.predictions import Predicted
from roadmap.record.run import Run
from roadmap.tasks.heads import SegmenterOptions
from runner.data.batches import EpochAndStep, Waiting
from runner.data.dense.pictures import regions, shown
from runner.data.dense.regions import VOID, RegionSplit
from runner.data.dense.samples import DenseTestBatches, DenseTrainingBatches, Target, scaled_size
from runner.data.dense.transforms import test_regions, training_regions
from runner.machine.distributed import World
from runner.machine.setup import Setup
from runner.train.tasks.backbone import BackboneTask
from runner.train.tasks.segmenter import Segmenter
from runner.train.tasks.task import Forward, Scores

PICTURES = 8  # recorded for people


class Segmentation(BackboneTask[SegmenterOptions]):
    """A class for each pixel."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, SegmenterOptions)

    def network(self) -> Segmenter:
        return Segmenter(self.backbone(), self.run.dataset.classes, self.options)

    def cost(self) -> Cost:
        """With heads; the auxiliary one, which only training uses, has parameters and no multiply-adds."""
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            segmenter = self.network().eval()
            segmenter(torch.zeros(1, 3, *self.options.cost_size))
        return Cost(sum(weight.numel() for weight in segmenter.parameters()), counter.get_total_flops() // 2)

    def training_batches(
        self,
        split: RegionSplit,
        setup: Setup,
        rank: int,
        retries: Sequence[EpochAndStep],
        skip_bad: bool,
        waiting: Waiting,
    ) -> DenseTrainingBatches:
        make = training_regions(split, self.recipe, self.options)
        return DenseTrainingBatches(self.run, make, len(split), setup, rank, retries, skip_bad, waiting)

    def test_batches(
        self, split: RegionSplit, setup: Setup, rank: int, skip_bad: bool, waiting: Waiting
    ) -> RegionTestBatches:
        options = self.options
        sizes = [scaled_size(split.size(i), options.test_short_side, options.longest_side) for i in range(len(split))]
        make = test_regions(split, options)
        batches = RegionTestBatches(self.run, make, np.array(sizes, np.int32), setup, rank, skip_bad, waiting)
        batches.read = split.read
        return batches

    def forward(self, forward: Forward, images: Tensor, targets: list[Target]) -> tuple[Tensor, ...]:
        outputs: tuple[Tensor, ...] = forward(images)
        return outputs

    def loss(self, output: tuple[Tensor, ...], targets: list[Target]) -> Tensor:
        """The mean cross entropy of the pixels that have a class, with that of the auxiliary head."""
        size = output[0].shape[2:]
        classes = torch.stack([_filled(target["classes"], size) for target in targets]).long()
        pixels = (classes != VOID).sum().clamp(min=1)
        main, auxiliary = (
            F.cross_entropy(logits.float(), classes, ignore_index=VOID, reduction="sum") / pixels for logits in output
        )
        return main + self.options.auxiliary_weight * auxiliary

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        batches: RegionTestBatches,
        setup: Setup,
        world: World,
        between: Callable[[], None],
        *,
        last: bool,
    ) -> Scores:
        world.broadcast(model.buffers())
        model.eval()
        several = self.options.multi_scale and last
        counts = torch.zeros(2, *(self.run.dataset.classes,) * 2, dtype=torch.float64)
        batches.bad.count = 0
        pictures: list[Predicted] = []
        for images, targets, indices in batches:
            between()
            for image, target, index in zip(images, targets, indices, strict=True):
                height, width = target["size"]
                own = image[None, :, :height, :width]
                predicted = self.predicted(self.logits(model, own, setup), target["classes"])
                counts[0] += self._confusion(predicted, target["classes"])
                if last and world.rank == 0 and len(pictures) < PICTURES and (target["classes"] % VOID).any():
                    truth, found = (regions(classes.cpu().numpy()) for classes in (target["classes"], predicted))
                    pictures.append(shown(batches.read(index), truth, found))
                if several:
                    averaged = self.predicted(self.averaged(model, own, setup), target["classes"])
                    counts[1] += self._confusion(averaged, target["classes"])
        # A confusion matrix is a sum of whole numbers, so it is exact in any order.
        counts = world.all_reduce(counts.to(setup.device)).cpu()
        skipped = sum(world.all_gather(batches.bad.count))
        if not counts[0].sum():
            raise ValueError("no held-out image can be read, or none has a pixel with a class")
        values = region_metrics(counts[0]) | ({"miou_ms": region_metrics(counts[1])["miou"]} if several else {})
        return Scores(values, skipped, predictions=tuple(pictures))

    def logits(self, model: nn.Module, image: Tensor, setup: Setup) -> Tensor:
        """The logits of an image 1 x 3 x H x W, averaged over sliding windows of the size of training's crops."""
        _, _, height, width = image.shape
        crop, total = self.options.crop, image.new_zeros(1, self.run.dataset.classes, height, width)
        count = image.new_zeros(1, 1, height, width)
        for top in _starts(height, crop, self.options.stride):
            for left in _starts(width, crop, self.options.stride):
                window = (..., slice(top, top + crop), slice(left, left + crop))
                with setup.autocast():
                    (own,) = model(image[window].contiguous(memory_format=setup.memory_format))
                total[window] += own.float()
                count[window] += 1
        return total / count

    def averaged(self, model: nn.Module, image: Tensor, setup: Setup) -> Tensor:
        """The mean probabilities over scales and mirror images."""
        size, views = image.shape[2:], []
        for scale in self.options.test_scales:
            sides = [max(1, round(side * scale)) for side in size]
            resized = F.interpolate(image, sides, mode="bilinear", align_corners=False)
            for mirrored in (False, True):
                logits = self.logits(model, resized.flip(3) if mirrored else resized, setup)
                logits = F.interpolate(
                    logits.flip(3) if mirrored else logits, size, mode="bilinear", align_corners=False
                )
                views.append(logits.softmax(1))
        return torch.stack(views).mean(0)

    def predicted(self, scores: Tensor, classes: Tensor) -> Tensor:
        """The predicted class of each pixel of the image at its own size, that of `classes`."""
        size = classes.shape
        return F.interpolate(scores, size, mode="bilinear", align_corners=False).argmax(1)[0].to(classes)

    def _confusion(self, predicted: Tensor, classes: Tensor) -> Tensor:
        """Counts of pixels, classes x predicted classes."""
        number, known = self.run.dataset.classes, classes != VOID
        pairs = classes[known].long() * number + predicted[known].long()
        return torch.bincount(pairs, minlength=number**2).view(number, number).double().cpu()


class RegionTestBatches(DenseTestBatches):
    """With the pixels of the images, for pictures."""

    read: Callable[[int], NDArray[np.uint8]]


def _starts(side: int, crop: int, stride: int) -> list[int]:
    """Where windows begin, the last of them at the border."""
    return sorted({min(start, max(0, side - crop)) for start in range(0, max(1, side - crop + stride), stride)})


def _filled(classes: Tensor, size: Sequence[int]) -> Tensor:
    """Classes H x W, padded to the size of the batch with pixels that have none."""
    return F.pad(classes, (0, size[1] - classes.shape[1], 0, size[0] - classes.shape[0]), value=VOID)


def region_metrics(confusion: Tensor) -> dict[str, float | tuple[float | None, ...]]:
    """The metrics, in percent, of counts of pixels, classes x predicted classes.

    A class that no pixel has, and none is predicted to have, is left out of the means; None in the list of classes.
    """
    hits, of_class, predicted = confusion.diagonal(), confusion.sum(1), confusion.sum(0)
    union = of_class + predicted - hits
    ious, accuracies = 100 * hits / union, 100 * hits / of_class
    return {
        "miou": ious[union > 0].mean().item(),
        "iou_by_class": tuple(None if value.isnan() else value.item() for value in ious),
        "pixel_accuracy": (100 * hits.sum() / confusion.sum()).item(),
        "class_accuracy": accuracies[of_class > 0].mean().item(),
    }
