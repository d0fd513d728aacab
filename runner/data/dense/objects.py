"""Images with annotated objects: a split of a detection data set, and its reading from COCO's format.

All annotations are in a few arrays: forked workers share them, where lists of objects would be copied bit by bit by
their reference counts.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools import mask as rle

LEAST_SIDE = 1.0  # pixels; a thinner box is no target


@dataclass(frozen=True)
class Objects:
    """The objects of an image."""

    boxes: NDArray[np.float32]  # K x 4: left, top, right, bottom, pixels
    labels: NDArray[np.int64]  # K, from 0
    crowd: NDArray[np.bool_]  # K; a group of objects, which is no target, and no error to find
    areas: NDArray[np.float32]  # K, pixels, as annotated
    masks: list[dict[str, Any]]  # K, in COCO's run-length encoding

    def targets(self) -> NDArray[np.int64]:
        """The indices of those that a detector is trained on."""
        sides = self.boxes[:, 2:] - self.boxes[:, :2]
        return np.flatnonzero(~self.crowd & (sides >= LEAST_SIDE).all(1))

    def decoded_masks(self, which: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
        """K x height x width, 0 or 1."""
        return decoded(self.masks, which, size)


@dataclass(frozen=True)
class Annotation:
    """One object, as a reader finds it."""

    label: int  # from 0
    box: tuple[float, float, float, float]  # left, top, right, bottom, pixels
    area: float  # pixels
    mask: dict[str, Any]  # in COCO's run-length encoding
    crowd: bool = False


@dataclass(frozen=True)
class ObjectSplit:
    """Images and their objects. `read` returns the pixels of an image, uint8, H x W x 3, RGB."""

    read: Callable[[int], NDArray[np.uint8]]
    sizes: NDArray[np.int32]  # N x 2: height and width
    ids: NDArray[np.int64]  # N, of the images in their file
    first: NDArray[np.int64]  # N + 1: where the objects of each image begin
    boxes: NDArray[np.float32]
    label_of: NDArray[np.int64]
    crowd: NDArray[np.bool_]
    areas: NDArray[np.float32]
    codes: NDArray[np.uint8]  # the run lengths of all masks
    first_code: NDArray[np.int64]

    @staticmethod
    def of(
        read: Callable[[int], NDArray[np.uint8]],
        sizes: Sequence[tuple[int, int]],
        ids: Sequence[int],
        annotations: Iterable[Sequence[Annotation]],
    ) -> ObjectSplit:
        counts: list[int] = []
        flat: list[Annotation] = []
        for of_image in annotations:
            counts.append(len(of_image))
            flat += of_image
        codes = [np.frombuffer(own.mask["counts"], np.uint8) for own in flat]
        return ObjectSplit(
            read,
            np.array(sizes, np.int32).reshape(-1, 2),
            np.array(ids, np.int64),
            np.concatenate([[0], np.cumsum(counts)]).astype(np.int64),
            np.array([own.box for own in flat], np.float32).reshape(-1, 4),
            np.array([own.label for own in flat], np.int64),
            np.array([own.crowd for own in flat], np.bool_),
            np.array([own.area for own in flat], np.float32),
            np.concatenate(codes) if codes else np.zeros(0, np.uint8),
            np.concatenate([[0], np.cumsum([len(code) for code in codes])]).astype(np.int64),
        )

    def __len__(self) -> int:
        return len(self.sizes)

    @property
    def highest_label(self) -> int:
        return int(self.label_of.max(initial=0))

    def size(self, index: int) -> tuple[int, int]:
        """Height and width."""
        return int(self.sizes[index, 0]), int(self.sizes[index, 1])

    def objects(self, index: int) -> Objects:
        part = slice(self.first[index], self.first[index + 1])
        masks = [
            {
                "size": list(self.size(index)),
                "counts": self.codes[self.first_code[i] : self.first_code[i + 1]].tobytes(),
            }
            for i in range(part.start, part.stop)
        ]
        return Objects(self.boxes[part], self.label_of[part], self.crowd[part], self.areas[part], masks)


def decoded(masks: Sequence[dict[str, Any]], which: NDArray[np.int64], size: tuple[int, int]) -> NDArray[np.uint8]:
    """The masks of these indices, K x height x width, 0 or 1."""
    if not len(which):
        return np.zeros((0, *size), np.uint8)
    stacked: NDArray[np.uint8] = rle.decode([masks[i] for i in which])
    return np.ascontiguousarray(stacked.transpose(2, 0, 1))


def encoded(mask: NDArray[np.bool_]) -> dict[str, Any]:
    """A mask H x W in COCO's run-length encoding."""
    code: dict[str, Any] = rle.encode(np.asfortranarray(mask.astype(np.uint8)))
    return code


def box_of(mask: NDArray[np.bool_]) -> tuple[float, float, float, float]:
    """The box around the pixels of a mask that is not empty."""
    rows, columns = np.flatnonzero(mask.any(1)), np.flatnonzero(mask.any(0))
    return float(columns[0]), float(rows[0]), float(columns[-1] + 1), float(rows[-1] + 1)
