"""What a data set is, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Annotated, Any

from roadmap.serialization import Range, check_fields


@dataclass(frozen=True)
class Dataset:
    classes: Annotated[int, Range(1)]  # number of labels
    train_images: Annotated[int, Range(1)]  # number of images in the training split
    test_images: Annotated[int, Range(1)]  # number of images in the held-out split
    mean: tuple[float, float, float]  # a channel, of images scaled to 0..1
    std: Annotated[tuple[float, float, float], Range(above=0)]  # a channel, of images scaled to 0..1
    recipe: dict[str, Any] = field(default_factory=dict)  # what this data needs changed in every recipe
    content: str | None = None  # of an image folder: a hash of its files' names and sizes

    def __post_init__(self) -> None:
        check_fields(self)
