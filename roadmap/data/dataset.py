"""The description of a data set, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any, Literal

from roadmap.serialization.plain_data import added_in
from roadmap.serialization.ranges import Range, check_fields

# A class for the image (classification), objects with boxes and masks (detection), or a class for each pixel
# (segmentation).
Annotations = Literal["classes", "objects", "regions"]


@dataclass(frozen=True)
class Dataset:
    classes: Annotated[int, Range(1)]  # number of labels
    train_images: Annotated[int, Range(1)]  # number of images in the training split
    test_images: Annotated[int, Range(1)]  # number of images in the held-out split
    mean: tuple[float, float, float]  # per channel, of images scaled to 0..1
    std: Annotated[tuple[float, float, float], Range(above=0)]  # per channel, of images scaled to 0..1
    recipe: dict[str, Any] = field(default_factory=dict)  # changes to every recipe that is used with this data
    content: str | None = None  # of an image folder: hash of the names and sizes of its files
    version: Annotated[int, Range(1)] = field(default=1, metadata=added_in("0.2"))  # of how it is read and split
    annotations: Annotations = field(default="classes", metadata=added_in("0.2"))  # what each image has

    def __post_init__(self) -> None:
        check_fields(self)
