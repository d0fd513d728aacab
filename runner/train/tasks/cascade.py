"""The heads of Cascade Mask R-CNN (Cai and Vasconcelos, 2018) on torchvision's, as the ConvNeXt authors set them.

Each stage takes the boxes of the one before it, and asks more of a box that it takes for an object.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F
from torchvision.models.detection.roi_heads import RoIHeads, maskrcnn_inference, maskrcnn_loss
from torchvision.ops import clip_boxes_to_image, generalized_box_iou_loss

THRESHOLDS = (0.5, 0.6, 0.7)  # of each stage: overlap from which a box is an object's
DELTAS = ((0.1, 0.1, 0.2, 0.2), (0.05, 0.05, 0.1, 0.1), (0.033, 0.033, 0.067, 0.067))  # scales of x, y, width, height
LOSSES = (1.0, 0.5, 0.25)  # weights of the stages
BOX_LOSS = 10.0  # weight of the generalized IoU, which is computed on boxes and not on their deltas

Target = dict[str, Tensor]
Sizes = list[tuple[int, int]]
Features = dict[str, Tensor]


class CascadeHeads(nn.Module):
    """Takes what torchvision's RoIHeads takes, and returns what they return. Each stage has heads of its own."""

    def __init__(self, stages: Sequence[RoIHeads]) -> None:
        super().__init__()
        self.stages = nn.ModuleList(stages)

    def forward(
        self, features: Features, proposals: list[Tensor], sizes: Sizes, targets: list[Target] | None = None
    ) -> tuple[list[dict[str, Tensor]], dict[str, Tensor]]:
        if self.training:
            assert targets is not None
            return [], self._losses(features, proposals, sizes, targets)
        return self._found(features, proposals, sizes), {}

    def _losses(
        self, features: Features, proposals: list[Tensor], sizes: Sizes, targets: list[Target]
    ) -> dict[str, Tensor]:
        losses: dict[str, Tensor] = {}
        for number, (stage, weight) in enumerate(zip(self._all(), LOSSES, strict=True)):
            boxes, matched, labels, _ = stage.select_training_samples(proposals, targets)
            logits, deltas = _scored(stage, features, boxes, sizes)
            of_stage = _box_losses(stage, logits, deltas, boxes, matched, labels, targets)
            of_stage["mask"] = _mask_loss(stage, features, boxes, matched, labels, targets, sizes)
            losses |= {f"stage_{number}_{name}": weight * loss for name, loss in of_stage.items()}
            refined = _refined(stage, logits, deltas, boxes, sizes, torch.cat(labels))
            # The next stage adds the annotated boxes again.
            proposals = [
                after[~_among(before, target["boxes"])]
                for after, before, target in zip(refined, boxes, targets, strict=True)
            ]
        return losses

    def _found(self, features: Features, boxes: list[Tensor], sizes: Sizes) -> list[dict[str, Tensor]]:
        stages, all_logits = self._all(), []
        for stage in stages:
            logits, deltas = _scored(stage, features, boxes, sizes)
            all_logits.append(logits)
            if stage is not stages[-1]:
                boxes = _refined(stage, logits, deltas, boxes, sizes)
        mean = torch.stack(all_logits).mean(0)
        found, scores, labels = stages[-1].postprocess_detections(mean, deltas, boxes, sizes)
        of_stages = [maskrcnn_inference(_masks(stage, features, found, sizes), labels) for stage in stages]
        masks = [torch.stack(of_image).mean(0) for of_image in zip(*of_stages, strict=True)]
        return [
            {"boxes": own, "scores": score, "labels": label, "masks": mask}
            for own, score, label, mask in zip(found, scores, labels, masks, strict=True)
        ]

    def _all(self) -> list[Any]:
        return list(self.stages)


def _scored(stage: Any, features: Features, boxes: list[Tensor], sizes: Sizes) -> tuple[Tensor, Tensor]:
    """Logits, regions x classes, and deltas, regions x (4 classes)."""
    logits, deltas = stage.box_predictor(stage.box_head(stage.box_roi_pool(features, boxes, sizes)))
    return logits, deltas


def _masks(stage: Any, features: Features, boxes: list[Tensor], sizes: Sizes) -> Tensor:
    logits: Tensor = stage.mask_predictor(stage.mask_head(stage.mask_roi_pool(features, boxes, sizes)))
    return logits


def _box_losses(
    stage: Any,
    logits: Tensor,
    deltas: Tensor,
    boxes: list[Tensor],
    matched: list[Tensor],
    labels: list[Tensor],
    targets: list[Target],
) -> dict[str, Tensor]:
    all_labels = torch.cat(labels)
    positive = torch.where(all_labels > 0)[0]
    truth = torch.cat(
        [
            target["boxes"][own[label > 0]].to(deltas)
            for target, own, label in zip(targets, matched, labels, strict=True)
        ]
    )
    decoded = stage.box_coder.decode(deltas, boxes)[positive, all_labels[positive]]
    overlap = generalized_box_iou_loss(decoded, truth, reduction="sum") / max(1, len(all_labels))
    return {"class": F.cross_entropy(logits, all_labels), "box": BOX_LOSS * overlap}


def _mask_loss(
    stage: Any,
    features: Features,
    boxes: list[Tensor],
    matched: list[Tensor],
    labels: list[Tensor],
    targets: list[Target],
    sizes: Sizes,
) -> Tensor:
    positive = [own[label > 0] for own, label in zip(boxes, labels, strict=True)]
    which = [own[label > 0] for own, label in zip(matched, labels, strict=True)]
    masks, classes = ([target[key] for target in targets] for key in ("masks", "labels"))
    loss: Tensor = maskrcnn_loss(_masks(stage, features, positive, sizes), positive, masks, classes, which)
    return loss


def _refined(
    stage: Any, logits: Tensor, deltas: Tensor, boxes: list[Tensor], sizes: Sizes, labels: Tensor | None = None
) -> list[Tensor]:
    """The boxes as the stage corrects them: for the annotated class, else for the likeliest one that is an object's."""
    classes = logits[:, 1:].argmax(1) + 1
    if labels is not None:
        classes = torch.where(labels > 0, labels, classes)
    decoded = stage.box_coder.decode(deltas.detach(), boxes)[torch.arange(classes.shape[0]), classes]
    of_images = decoded.split([own.shape[0] for own in boxes])
    return [clip_boxes_to_image(own, size) for own, size in zip(of_images, sizes, strict=True)]


def _among(boxes: Tensor, others: Tensor) -> Tensor:
    """Whether each box is one of the others."""
    return (boxes[:, None] == others[None].to(boxes)).all(2).any(1)
