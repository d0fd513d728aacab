"""Images with a class for each pixel: a split of a segmentation data set.

Within the program classes count from 0, and pixels of no class are VOID. Where files count otherwise, `LabelRule` is
the one place that translates, for reading and back for writing.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

import numpy as np
from numpy.typing import NDArray

VOID = 255


@dataclass(frozen=True)
class LabelRule:
    """How the numbers in a file of labels mean classes. VOID and numbers below `first`, the first class, are none.

    ADE20K has `first` 1, plain masks 0.
    """

    first: int
    classes: int

    def read(self, stored: NDArray[np.integer], where: str) -> NDArray[np.uint8]:
        """Stored numbers to classes. Raises ValueError with the file for a number that is none."""
        void = (stored == VOID) | (stored < self.first)
        wrong = ~void & (stored >= self.first + self.classes)
        if wrong.any() or (stored < 0).any():
            low, high = self.first, self.first + self.classes - 1
            given = int(stored[wrong].max()) if wrong.any() else int(stored.min())
            raise ValueError(f"{where}: label {given} is none of {self.classes} classes, {low} to {high}, or {VOID}")
        return np.where(void, VOID, stored.astype(np.int64) - self.first).astype(np.uint8)

    def write(self, classes: NDArray[np.uint8]) -> NDArray[np.uint8]:
        """Classes to stored numbers."""
        void = 0 if self.first else VOID
        return np.where(classes == VOID, void, classes.astype(np.int64) + self.first).astype(np.uint8)


@dataclass(frozen=True)
class RegionSplit:
    """Images and the class of each pixel."""

    read: Callable[[int], NDArray[np.uint8]]  # uint8, H x W x 3, RGB
    read_classes: Callable[[int], NDArray[np.uint8]]  # H x W, classes from 0 or VOID
    sizes: NDArray[np.int32]  # N x 2: height and width

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def highest_label(self) -> int:
        """0: the labels of each map are checked when it is read."""
        return 0

    def size(self, index: int) -> tuple[int, int]:
        """Height and width."""
        return int(self.sizes[index, 0]), int(self.sizes[index, 1])
