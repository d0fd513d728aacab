"""What a data set is, as plain data."""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True)
class Dataset:
    classes: int
    train_images: int
    test_images: int
    mean: tuple[float, float, float]  # a channel, of images scaled to 0..1
    std: tuple[float, float, float]
    recipe: dict[str, Any] = field(default_factory=dict)  # what this data needs changed in every recipe
    content: str | None = None  # of an image folder: a hash of its files' names and sizes

    def __post_init__(self) -> None:
        if min(self.classes, self.train_images, self.test_images) < 1:
            raise ValueError("classes, train_images and test_images must be positive")
        if min(self.std) <= 0:
            raise ValueError(f"std is {list(self.std)}, expected numbers above 0")
