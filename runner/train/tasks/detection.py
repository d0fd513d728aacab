"""Object detection with masks: Mask R-CNN on a rung, evaluated by COCO's metrics."""

from __future__ import annotations

from collections.abc import Callable, Sequence

import numpy as np
import torch
from torch import Tensor, nn
from torch.utils.flop_counter import FlopCounterMode
from torchvision.models.detection.roi_heads import paste_masks_in_image

from roadmap.network.cost import Cost
from roadmap.record.predictions import Found as Recorded
from roadmap.record.predictions import Predicted
from roadmap.record.run import Run
from roadmap.tasks.heads import DetectorOptions
from runner.data.batches import EpochAndStep, Waiting
from runner.data.dense.objects import ObjectSplit, decoded, encoded
from runner.data.dense.pictures import shown
from runner.data.dense.samples import DenseTestBatches, DenseTrainingBatches, Target, scaled_size
from runner.data.dense.transforms import test_objects, training_objects
from runner.machine.distributed import World
from runner.machine.setup import Setup
from runner.train.tasks.backbone import BackboneTask
from runner.train.tasks.coco import Detection as Found
from runner.train.tasks.coco import coco_metrics
from runner.train.tasks.detector import BOX_SIDE, MASK_SIDE, Detector
from runner.train.tasks.task import Forward, Scores

MASK_THRESHOLD = 0.5
PICTURES = 8  # recorded for people


class Detection(BackboneTask[DetectorOptions]):
    """The objects of an image, each with a box and a mask."""

    def __init__(self, run: Run) -> None:
        super().__init__(run, DetectorOptions)

    def network(self) -> Detector:
        return Detector(self.backbone(), self.run.dataset.classes, self.options)

    def cost(self) -> Cost:
        """With heads, for as many proposals and masks as an image of the test has at most."""
        height, width = self.options.cost_size
        options = self.options
        with torch.device("meta"), FlopCounterMode(display=False) as counter, torch.no_grad():
            detector = self.network().eval()
            features = detector.features(torch.zeros(1, 3, height, width))
            detector.proposals.head(list(features.values()))
            boxes = torch.zeros(options.test_proposals, options.channels, BOX_SIDE, BOX_SIDE)
            masks = torch.zeros(options.detections, options.channels, MASK_SIDE, MASK_SIDE)
            detector.count_heads(boxes, masks)
        return Cost(sum(weight.numel() for weight in detector.parameters()), counter.get_total_flops() // 2)

    def training_batches(
        self,
        split: ObjectSplit,
        setup: Setup,
        rank: int,
        retries: Sequence[EpochAndStep],
        skip_bad: bool,
        waiting: Waiting,
    ) -> DenseTrainingBatches:
        make = training_objects(split, self.recipe, self.options)
        return DenseTrainingBatches(self.run, make, len(split), setup, rank, retries, skip_bad, waiting)

    def test_batches(
        self, split: ObjectSplit, setup: Setup, rank: int, skip_bad: bool, waiting: Waiting
    ) -> ObjectTestBatches:
        return ObjectTestBatches(self.run, split, self.options, setup, rank, skip_bad, waiting)

    def forward(self, forward: Forward, images: Tensor, targets: list[Target]) -> dict[str, Tensor]:
        objects = [{name: target[name] for name in ("boxes", "labels", "masks")} for target in targets]
        losses: dict[str, Tensor] = forward(images, [target["size"] for target in targets], objects)
        return losses

    def loss(self, output: dict[str, Tensor], targets: list[Target]) -> Tensor:
        return torch.stack([loss.float() for loss in output.values()]).sum()

    @torch.no_grad()
    def evaluate(
        self,
        model: nn.Module,
        batches: ObjectTestBatches,
        setup: Setup,
        world: World,
        between: Callable[[], None],
        *,
        last: bool,
    ) -> Scores:
        world.broadcast(model.buffers())
        model.eval()
        found: list[Found] = []
        batches.bad.count = 0
        for images, targets, indices in batches:
            between()
            if indices:
                with setup.autocast():
                    detected = model(images, [target["size"] for target in targets])
                found += map(found_in, indices, detected, targets)
        gathered = [own for of_process in world.all_gather(found) for own in of_process]
        if not gathered:  # in all processes
            raise ValueError("no held-out image can be read")
        # Of rank 0 only: the others wait for it.
        values = coco_metrics(batches.split, gathered) if world.rank == 0 else {}
        skipped = sum(world.all_gather(batches.bad.count))
        pictures = _pictures(batches.split, gathered) if last and world.rank == 0 else ()
        return Scores(world.all_gather(values)[0], skipped, predictions=pictures)


class ObjectTestBatches(DenseTestBatches):
    """With the split, whose objects the detections are compared with."""

    def __init__(
        self,
        run: Run,
        split: ObjectSplit,
        options: DetectorOptions,
        setup: Setup,
        rank: int,
        skip_bad: bool,
        waiting: Waiting,
    ) -> None:
        sizes = [scaled_size(split.size(i), options.test_short_side, options.longest_side) for i in range(len(split))]
        super().__init__(run, test_objects(split, options), np.array(sizes, np.int32), setup, rank, skip_bad, waiting)
        self.split = split


def _pictures(split: ObjectSplit, found: Sequence[Found]) -> tuple[Predicted, ...]:
    """Of the first images that have objects."""
    by_index = {own.index: own for own in found}
    chosen = [index for index in range(len(split)) if index in by_index and len(split.objects(index).targets())]
    pictures = []
    for index in chosen[:PICTURES]:
        objects, own, size = split.objects(index), by_index[index], split.size(index)
        which, everything = objects.targets(), np.arange(len(own.labels))
        truth = Recorded(objects.labels[which], objects.decoded_masks(which, size).astype(bool), objects.boxes[which])
        masks = decoded(own.masks, everything, size).astype(bool)
        pictures.append(shown(split.read(index), truth, Recorded(own.labels, masks, own.boxes, own.scores)))
    return tuple(pictures)


def found_in(index: int, detected: dict[str, Tensor], target: Target) -> Found:
    """What is found in an image, at the image's own size. Masks are encoded one by one, so that memory is bounded."""
    original, size = target["original"], target["size"]
    scale = torch.tensor([original[1] / size[1], original[0] / size[0]] * 2)
    boxes = detected["boxes"].float().cpu() * scale
    masks = detected["masks"].float().cpu()
    codes = []
    for mask, box in zip(masks, boxes, strict=True):
        pasted = paste_masks_in_image(mask[None], box[None], original)[0, 0]
        codes.append(encoded((pasted > MASK_THRESHOLD).numpy()))
    labels = detected["labels"].cpu().numpy() - 1
    return Found(index, boxes.numpy(), labels, detected["scores"].float().cpu().numpy(), codes)
