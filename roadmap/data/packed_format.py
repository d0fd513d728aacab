"""Packed data sets: the images of a folder in a few large files, with an index that tells what they hold.

PACKED/
    packed.json         the index; written last, so that a folder that has it is whole
    train-00000.arrow   Arrow IPC files of the training images, in the order of the folder's listing
    val-00000.arrow     and of the held-out ones
    packing.jsonl       only while it is made: what was asked, then a line for each file that is finished
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from roadmap.files import read_json
from roadmap.serialization import Range, check_fields, from_data

INDEX, JOURNAL = "packed.json", "packing.jsonl"
FORMAT = 1
SplitName = Literal["train", "val"]


@dataclass(frozen=True)
class PackOptions:
    """What decides the bytes of a packed data set, beside its source."""

    resize: Annotated[int | None, Range(1, 65_500)] = None  # pixels of the shorter side at most; null: bytes are kept
    quality: Annotated[int | None, Range(1, 100)] = None  # JPEG's, of images that are resized
    shard_megabytes: Annotated[int, Range(1, 1_000_000)] = 256  # of the source's files in each file
    bad_images: Literal["stop", "skip"] = "stop"

    def __post_init__(self) -> None:
        check_fields(self)
        if self.resize is None and self.quality is not None:
            raise ValueError("quality requires resize, without which the images' bytes are kept")


@dataclass(frozen=True)
class ShardEntry:
    """One file."""

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
    content: str  # what it holds: that of the folder, if no image was encoded anew or left out
    source: str  # the content of the folder that it was packed from
    options: PackOptions
    reencoded: int  # images
    skipped: tuple[str, ...]  # what was wrong with images that were left out
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
    """Whether there is a packed data set, or the beginning of one."""
    return (folder / INDEX).is_file() or (folder / JOURNAL).is_file()


class Damaged(ValueError):
    """A packed data set is not as it was written."""


def read_index(folder: Path) -> Index:
    """Raises ValueError where the data set is not whole, or not of this version, and Damaged where it can't be so."""
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
            raise Damaged(f"{folder / INDEX}: {name}: the classes' images and the shards' are not as many")
        if len(split.images_of_class) != len(index.classes) or min(split.images_of_class) < 0:
            raise Damaged(f"{folder / INDEX}: {name}: not a number of images for each class")
    return index


def open_packed(folder: Path) -> Index:
    """Its index. Raises ValueError where the folder is not packed, and Damaged or InvalidFile for a damaged index."""
    if not is_packed(folder):
        raise ValueError(f"{folder} is no packed data set; a folder that `roadmap data pack` made is expected")
    return read_index(folder)
