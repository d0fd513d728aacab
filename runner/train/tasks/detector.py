"""Mask R-CNN, or Cascade Mask R-CNN, on the maps of a backbone: torchvision's pyramid, proposals and heads, as the
ConvNeXt authors set them.

Differences to mmdetection's, which the authors use, are listed in docs/transfer.md.
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torchvision.models.detection.anchor_utils import AnchorGenerator
from torchvision.models.detection.faster_rcnn import FastRCNNConvFCHead, FastRCNNPredictor, TwoMLPHead
from torchvision.models.detection.image_list import ImageList
from torchvision.models.detection.mask_rcnn import MaskRCNNHeads, MaskRCNNPredictor
from torchvision.models.detection.roi_heads import RoIHeads
from torchvision.models.detection.rpn import RegionProposalNetwork, RPNHead
from torchvision.ops import FeaturePyramidNetwork, roi_align
from torchvision.ops.feature_pyramid_network import LastLevelMaxPool
from torchvision.ops.poolers import LevelMapper

from roadmap.network.modules import LayerNorm
from roadmap.tasks.heads import DetectorOptions
from runner.train.tasks.backbone import Backbone
from runner.train.tasks.cascade import DELTAS, THRESHOLDS, CascadeHeads

BOX_SIDE, MASK_SIDE = 7, 14  # cells of a region that the heads take
CASCADE_CONVOLUTIONS = 4  # of the boxes' heads
RATIOS = (0.5, 1.0, 2.0)  # of an anchor's height and width

Target = dict[str, Tensor]  # boxes K x 4, labels K (from 1), masks K x H x W


class Detector(nn.Module):
    """Images to losses, with targets; without them to detections."""

    def __init__(self, backbone: Backbone, classes: int, options: DetectorOptions) -> None:
        super().__init__()
        self.backbone = backbone
        self.norms = nn.ModuleList(LayerNorm(channels, eps=1e-6) for channels in backbone.channels)
        self.pyramid = FeaturePyramidNetwork(list(backbone.channels), options.channels, LastLevelMaxPool())
        self.proposals = _proposals(backbone.strides, options)
        self.heads = (_cascade if options.cascade else _heads)(backbone.strides, classes, options)

    def features(self, images: Tensor) -> dict[str, Tensor]:
        """The maps of the pyramid, from the finest to one of twice the last stride."""
        maps = zip(self.norms, self.backbone(images), strict=True)
        features: dict[str, Tensor] = self.pyramid({str(i): norm(own) for i, (norm, own) in enumerate(maps)})
        return features

    def forward(self, images: Tensor, sizes: list[tuple[int, int]], targets: list[Target] | None = None) -> Any:
        """Images are N x 3 x H x W, normalized and padded with 0; `sizes` are their heights and widths without that.

        Returns the losses by name, or for each image its boxes, labels (from 1), scores and masks (K x 1 x 28 x 28,
        probabilities within the box).
        """
        features = self.features(images)
        listed = ImageList(images, sizes)
        regions, losses = self.proposals(listed, features, targets)
        found, head_losses = self.heads(features, regions, sizes, targets)
        return losses | head_losses if self.training else found

    def count_heads(self, boxes: Tensor, masks: Tensor) -> None:
        """Computes what the heads compute for pooled regions, for counting."""
        stages: list[Any] = list(self.heads.stages) if isinstance(self.heads, CascadeHeads) else [self.heads]
        for stage in stages:
            stage.box_predictor(stage.box_head(boxes))
            stage.mask_predictor(stage.mask_head(masks))


class InFullPrecision(nn.Module):
    """A head whose outputs are fp32: boxes are decoded, and losses computed, without the overflows of fp16."""

    def __init__(self, head: nn.Module) -> None:
        super().__init__()
        self.head = head

    def forward(self, *inputs: Any) -> Any:
        return _float(self.head(*inputs))


def _float(value: Any) -> Any:
    if isinstance(value, Tensor):
        return value.float()
    return type(value)(map(_float, value))


class AlignedPooling(nn.Module):
    """Regions from the pyramid level of their size, aligned to half pixels (Lin et al., 2017; `aligned` of roi_align).

    torchvision's own pooling shifts regions by half a cell.
    """

    def __init__(self, strides: Sequence[int], side: int) -> None:
        super().__init__()
        self.strides, self.output_size = tuple(strides), (side, side)
        # A region of 7 cells of a stage of stride 4 times 8 belongs to the first level, as in the paper at stride 4.
        first = round(math.log2(strides[0]))
        self.mapper = LevelMapper(
            first, first + len(strides) - 1, canonical_scale=56 * strides[0], canonical_level=first + 2
        )

    def forward(self, features: dict[str, Tensor], boxes: list[Tensor], sizes: list[tuple[int, int]]) -> Tensor:
        """Regions x channels x side x side."""
        owner = torch.cat([torch.full_like(own[:, :1], i) for i, own in enumerate(boxes)])
        regions = torch.cat([owner, torch.cat(boxes)], dim=1)
        levels = self.mapper(boxes)
        parts, owners = [], []
        for level, (stride, own) in enumerate(zip(self.strides, features.values(), strict=False)):
            here = torch.where(levels == level)[0]
            # In fp32: at 1,000 pixels bf16 knows coordinates to 4 pixels.
            pooled = roi_align(own.float(), regions[here].float(), self.output_size, 1 / stride, -1, aligned=True)
            parts.append(pooled.to(own.dtype))
            owners.append(here)
        in_order: Tensor = torch.cat(parts)[torch.cat(owners).sort()[1]]
        return in_order


def _proposals(strides: Sequence[int], options: DetectorOptions) -> RegionProposalNetwork:
    all_strides = (*strides, 2 * strides[-1])
    anchors = AnchorGenerator(
        tuple((round(options.anchor_scale * stride),) for stride in all_strides), (RATIOS,) * len(all_strides)
    )
    return RegionProposalNetwork(
        anchors,
        InFullPrecision(RPNHead(options.channels, len(RATIOS))),
        fg_iou_thresh=0.7,
        bg_iou_thresh=0.3,
        batch_size_per_image=options.proposal_samples,
        positive_fraction=0.5,
        pre_nms_top_n={"training": options.candidates, "testing": min(options.candidates, options.test_proposals)},
        post_nms_top_n={"training": options.proposals, "testing": options.test_proposals},
        nms_thresh=0.7,
    )


def _heads(
    strides: Sequence[int],
    classes: int,
    options: DetectorOptions,
    threshold: float = 0.5,
    deltas: Sequence[float] = DELTAS[0],
) -> RoIHeads:
    """The heads of boxes and masks. `threshold`: overlap of a region that is an object's; `deltas`: scales of boxes."""
    mask_layers = (options.mask_channels,) * options.mask_convolutions
    predictor = FastRCNNPredictor(options.box_units, classes + 1)
    nn.init.normal_(predictor.cls_score.weight, std=0.01)
    nn.init.normal_(predictor.bbox_pred.weight, std=0.001)
    for layer in (predictor.cls_score, predictor.bbox_pred):
        nn.init.zeros_(layer.bias)
    return RoIHeads(
        AlignedPooling(strides, BOX_SIDE),
        _box_head(options),
        InFullPrecision(predictor),
        fg_iou_thresh=threshold,
        bg_iou_thresh=threshold,
        batch_size_per_image=options.box_samples,
        positive_fraction=0.25,
        bbox_reg_weights=tuple(1 / scale for scale in deltas),
        score_thresh=options.score_threshold,
        nms_thresh=0.5,
        detections_per_img=options.detections,
        mask_roi_pool=AlignedPooling(strides, MASK_SIDE),
        mask_head=MaskRCNNHeads(options.channels, mask_layers, 1),
        mask_predictor=InFullPrecision(
            MaskRCNNPredictor(mask_layers[-1] if mask_layers else options.channels, options.mask_channels, classes + 1)
        ),
    )


def _cascade(strides: Sequence[int], classes: int, options: DetectorOptions) -> CascadeHeads:
    return CascadeHeads([_heads(strides, classes, options, *own) for own in zip(THRESHOLDS, DELTAS, strict=True)])


def _box_head(options: DetectorOptions) -> nn.Module:
    """Two fully connected layers; in a cascade four convolutions and one, as the authors have them."""
    head: nn.Module
    if options.cascade:
        size, convolutions = (options.channels, BOX_SIDE, BOX_SIDE), [options.channels] * CASCADE_CONVOLUTIONS
        head = FastRCNNConvFCHead(size, convolutions, [options.box_units], nn.BatchNorm2d)
    else:
        head = TwoMLPHead(options.channels * BOX_SIDE**2, options.box_units)
    return head
