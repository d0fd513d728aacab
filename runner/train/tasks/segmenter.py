"""UPerNet on the maps of a backbone: segmentation-models-pytorch's decoder, with the auxiliary head and the dropout
that it lacks. The decoder has a LayerNorm on each map, as the ConvNeXt authors have.
"""

from __future__ import annotations

import torch
from segmentation_models_pytorch.base.modules import Conv2dReLU
from segmentation_models_pytorch.decoders.upernet.decoder import UPerNetDecoder
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.tasks.heads import SegmenterOptions
from runner.train.tasks.backbone import Backbone

AUXILIARY_MAP = 2  # the third


class Segmenter(nn.Module):
    """Images N x 3 x H x W to logits N x classes x H x W; in training also those of the auxiliary head."""

    def __init__(self, backbone: Backbone, classes: int, options: SegmenterOptions) -> None:
        super().__init__()
        self.backbone = backbone
        # The decoder counts maps from the image's own resolution and takes those from the third on.
        channels, depth = (0, 0, *backbone.channels), len(backbone.channels) + 1
        self.decoder = UPerNetDecoder(channels, depth, options.channels, use_norm=options.head_norm)
        pooled = backbone.channels[-1] + len(self.decoder.psp.blocks) * options.channels
        # The decoder's own has a batch norm whatever it is asked for.
        self.decoder.psp.out_conv = Conv2dReLU(pooled, options.channels, 3, padding=1, use_norm=options.head_norm)
        self.classifier = _classifier(options.channels, classes, options.dropout)
        inputs = backbone.channels[AUXILIARY_MAP]
        self.auxiliary = nn.Sequential(
            Conv2dReLU(inputs, options.auxiliary_channels, 3, padding=1, use_norm=options.head_norm),
            *_classifier(options.auxiliary_channels, classes, options.dropout),
        )
        for head in (self.decoder, self.auxiliary[0]):
            _initialize(head)

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        size, maps = images.shape[2:], self.backbone(images)
        logits = self.classifier(self.decoder([images, images, *maps]))
        outputs = [logits]
        if self.training:
            norm = self.decoder.feature_norms[AUXILIARY_MAP]
            outputs.append(self.auxiliary(norm(maps[AUXILIARY_MAP])))
        return tuple(F.interpolate(own.float(), size, mode="bilinear", align_corners=False) for own in outputs)


def _classifier(channels: int, classes: int, dropout: float) -> nn.Sequential:
    layer = nn.Conv2d(channels, classes, 1)
    nn.init.normal_(layer.weight, std=0.01)
    torch.nn.init.zeros_(layer.bias)  # type: ignore[arg-type]
    return nn.Sequential(nn.Dropout2d(dropout), layer)


def _initialize(head: nn.Module) -> None:
    for module in head.modules():
        if isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
