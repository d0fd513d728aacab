"""The heads of detection and segmentation as plain data: the options of these two tasks."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Annotated, Literal

from roadmap.serialization.ranges import PROBABILITY, InvalidField, Range, check_fields

Size = Annotated[int, Range(1)]  # pixels
Count = Annotated[int, Range(1)]
Sizes = Annotated[tuple[int, ...], Range(1)]
BatchNorm = Literal["trained", "frozen"]


@dataclass(frozen=True)
class DetectorOptions:
    """Mask R-CNN (He et al., 2017) on a feature pyramid."""

    cascade: bool = False  # three stages of heads, each on the boxes of the one before (Cai and Vasconcelos, 2018)
    batch_norm: BatchNorm = "frozen"  # of the backbone: "frozen" keeps the statistics of pre-training, if there was any
    channels: Count = 256  # of the pyramid's maps
    anchor_scale: Annotated[float, Range(above=0)] = 8.0  # side of a map's anchors / its stride
    proposal_samples: Count = 256  # anchors of an image that the proposals' loss takes
    candidates: Count = 2000  # anchors of each map that compete to be proposals
    proposals: Count = 1000  # that remain in training
    test_proposals: Count = 1000  # that remain in evaluation
    box_samples: Count = 512  # proposals of an image that the boxes' loss takes, a quarter of them positive
    box_units: Count = 1024  # of the fully connected layers: two, in a cascade one
    mask_channels: Count = 256  # of the masks' convolutions
    mask_convolutions: Count = 4  # of the masks, before they are doubled in size
    score_threshold: Annotated[float, PROBABILITY] = 0.05  # below which nothing is found
    detections: Count = 100  # most of an image
    # images
    short_sides: Sizes = (480, 512, 544, 576, 608, 640, 672, 704, 736, 768, 800)  # in training, one at random
    longest_side: Size = 1333  # of the other side, at most
    crop_short_sides: Annotated[tuple[int, ...], Range(1)] = (400, 500, 600)  # of half of the images, before a crop
    crop_sides: Annotated[tuple[int, ...], Range(1)] = (384, 600)  # least and largest side of the crop
    test_short_side: Size = 800  # in evaluation
    cost_size: Annotated[tuple[int, int], Range(1)] = (800, 1280)  # height and width that are counted

    def __post_init__(self) -> None:
        check_fields(self)
        if not self.short_sides:
            raise InvalidField("short_sides must have at least one number of pixels (got [])")
        if self.crop_short_sides and (len(self.crop_sides) != 2 or self.crop_sides[0] > self.crop_sides[1]):
            raise InvalidField(f"crop_sides must be the least and the largest (got {list(self.crop_sides)})")


@dataclass(frozen=True)
class SegmenterOptions:
    """UPerNet (Xiao et al., 2018) with an auxiliary head of one convolution on the third map."""

    batch_norm: BatchNorm = "trained"  # of the backbone: "frozen" keeps the statistics of pre-training
    channels: Count = 512  # of the decoder
    head_norm: Literal["batchnorm", "layernorm", "identity"] = "batchnorm"  # batches of few images learn better without
    dropout: Annotated[float, Range(0, below=1)] = 0.1  # of channels, before the classes
    auxiliary_channels: Count = 256  # of the auxiliary head
    auxiliary_weight: Annotated[float, Range(0)] = 0.4  # of its loss
    # images
    crop: Size = 512  # side of training crops
    scales: Annotated[tuple[float, float], Range(above=0)] = (0.5, 2.0)  # of the image, before the crop
    largest_class: Annotated[float, PROBABILITY] = 0.75  # share of the crop above which another crop is tried
    photometric: bool = True  # changes of brightness, contrast, saturation and hue in training
    test_short_side: Size = 512  # in evaluation, and at scale 1 in training
    longest_side: Size = 2048  # of the other side, at most
    stride: Size = 341  # pixels between two windows of evaluation, each of the crop's size
    test_scales: Annotated[tuple[float, ...], Range(above=0)] = (0.5, 0.75, 1.0, 1.25, 1.5, 1.75)  # of multi-scale
    multi_scale: bool = False  # whether the last epoch is also evaluated at several scales with flips
    cost_size: Annotated[tuple[int, int], Range(1)] = (512, 2048)  # height and width that are counted

    def __post_init__(self) -> None:
        check_fields(self)
        if self.scales[0] > self.scales[1]:
            raise InvalidField(f"scales must be the least and the largest (got {list(self.scales)})")
        if self.stride > self.crop:
            raise InvalidField(f"stride must be at most the crop's {self.crop} pixels, else pixels are in no window")
