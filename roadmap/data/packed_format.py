"""Packed data sets: the images of a folder in a few large files, with an index of their content.

PACKED/
    packed.json         the index; written last, so a folder that has it is complete
    train-00000.arrow   Arrow IPC files of the training images, in the order of the folder's listing
    val-00000.arrow     and of the held-out ones
    packing.jsonl       only until it is complete: the options, then a line for each finished file
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from roadmap.files import read_json
from roadmap.serialization.plain_data import from_data
from roadmap.serialization.ranges import Range, check_fields

INDEX, JOURNAL = "packed.json", "packing.jsonl"
FORMAT = 1
SplitName = Literal["train", "val"]


@dataclass(frozen=True)
class PackOptions:
    """The options that, with the source, decide the bytes of a packed data set."""

    resize: Annotated[int | None, Range(1, 65_500)] = None  # largest shorter side, pixels; null: keep the bytes
    quality: Annotated[int | None, Range(1, 100)] = None  # of JPEG, for resized images
    shard_megabytes: Annotated[int, Range(1, 1_000_000)] = 256  # of source files in each file
    bad_images: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resize is None and self.quality is not None:
            raise ValueError("quality requires resize: without it the bytes of the images are kept")


@dataclass(frozen=True)
class ShardEntry:
    """One file of a split."""

    file: str
    images: int
    bytes: int
    sha256: str


@dataclass(frozen=True)
class SplitEntry:
    images_of_class: tuple[int, ...]  # in the order of the classes, as the images are
    shards: tuple[ShardEntry, ...]

    @property
    def images(self) -> int:
        return sum(self.images_of_class)


@dataclass(frozen=True)
class Index:
    """All of `packed.json`."""

    format: int
    content: str  # a hash; equal to `source` if no image was encoded again or left out
    source: str  # the content of the folder that was packed
    options: PackOptions
    reencoded: int  # number of images that were encoded again
    skipped: tuple[str, ...]  # a message for each image that was left out
    classes: tuple[str, ...]
    train: SplitEntry
    val: SplitEntry

    @property
    def splits(self) -> dict[SplitName, SplitEntry]:
        return {"train": self.train, "val": self.val}

    @property
    def images(self) -> int:
        return self.train.images + self.val.images


def is_packed(folder: Path) -> bool:
    """Whether the folder is a packed data set, complete or not."""
    return (folder / INDEX).is_file() or (folder / JOURNAL).is_file()


class Damaged(ValueError):
    """A packed data set is not as `roadmap data pack` wrote it."""


def read_index(folder: Path) -> Index:
    """The index. Raises ValueError for an incomplete data set or another format, and Damaged for an invalid index."""
    data = read_json(folder / INDEX)
    if data is None:
        raise ValueError(f"{folder}: its packing was not finished; the same `roadmap data pack` resumes it")
    if data.get("format") != FORMAT:
        raise ValueError(f"{folder / INDEX} has format {data.get('format')!r}; this version reads {FORMAT}")
    try:
        index: Index = from_data(Index, data)
    except ValueError as error:
        raise Damaged(f"{folder / INDEX}: {error}") from None
    for name, split in index.splits.items():
        if split.images != sum(shard.images for shard in split.shards):
            raise Damaged(f"{folder / INDEX}: {name}: the numbers of images by class and by shard differ")
        if len(split.images_of_class) != len(index.classes) or min(split.images_of_class) < 0:
            raise Damaged(f"{folder / INDEX}: {name}: images_of_class must have a number for each class")
    return index


def open_packed(folder: Path) -> Index:
    """The index of a folder. Raises ValueError if it is not packed, and Damaged or InvalidFile for a damaged index."""
    if not is_packed(folder):
        raise ValueError(f"{folder} is not a packed data set; `roadmap data pack` makes one")
    return read_index(folder)
