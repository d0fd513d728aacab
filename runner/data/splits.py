"""A split of a data set: its images, in memory or in files, and their labels."""

from __future__ import annotations

import os
from dataclasses import dataclass
from typing import TYPE_CHECKING, Protocol

from roadmap.data.image_folders import Listing
from runner.data.image import EncodedImage

if TYPE_CHECKING:
    from torch import Tensor


class Split(Protocol):
    """The training or the held-out images of a data set."""

    @property
    def labels(self) -> Tensor: ...  # int64, N

    def __len__(self) -> int: ...

    @property
    def highest_label(self) -> int: ...

    def image(self, index: int) -> EncodedImage:
        """Raises BadImage with the file if it is damaged, and OSError if it can't be opened."""


class DenseSplit(Protocol):
    """Images with objects or regions (runner/data/dense)."""

    @property
    def highest_label(self) -> int: ...

    def __len__(self) -> int: ...

    def size(self, index: int) -> tuple[int, int]:
        """Height and width in pixels."""


@dataclass(frozen=True)
class InMemoryImages:
    """Images of one size, all in memory."""

    images: Tensor  # uint8, N x C x H x W; C is 1 or 3
    labels: Tensor  # int64, N

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def highest_label(self) -> int:
        return int(self.labels.max())

    @property
    def is_square(self) -> bool:
        return self.images.shape[2] == self.images.shape[3]

    def image(self, index: int) -> EncodedImage:
        from PIL import Image

        pixels = self.images[index].permute(1, 2, 0).numpy()
        return EncodedImage(Image.fromarray(pixels.squeeze(2) if pixels.shape[2] == 1 else pixels))


class Encoded:
    """Images as the bytes of files, decoded on request."""

    labels: Tensor  # int64, N

    def __len__(self) -> int:
        return len(self.labels)

    @property
    def highest_label(self) -> int:
        return int(self.labels.max())

    def encoded(self, index: int) -> bytes | memoryview:
        """The bytes of an image's file. Raises OSError if it can't be opened, and BadImage if it is damaged."""
        raise NotImplementedError

    def where(self, index: int) -> str:
        """The image's file, for messages."""
        raise NotImplementedError

    def image(self, index: int) -> EncodedImage:
        return EncodedImage(self.encoded(index), lambda: self.where(index))


class ImageFiles(Encoded):
    """Images in files, read on request."""

    def __init__(self, listing: Listing) -> None:
        import numpy as np
        import torch

        self.root, self.labels = listing.root, torch.tensor(listing.labels)
        # One array: with a million strings, workers would copy the pages of their reference counts.
        self.names = np.array([os.fsencode(name) for name in listing.names])

    def encoded(self, index: int) -> bytes:
        with open(self.where(index), "rb", buffering=0) as file:
            return file.read()

    def where(self, index: int) -> str:
        return os.path.join(self.root, os.fsdecode(self.names[index]))


Splits = tuple[Split, Split]  # training, held out
