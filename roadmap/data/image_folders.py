"""Image folders: train/ and val/, each with a folder of images for every class, as ImageNet is usually kept.

A folder that was packed (roadmap/data/packed_format.py) stands for the one it was made of.
"""

from __future__ import annotations

import hashlib
import os
from collections.abc import Iterable
from dataclasses import dataclass
from functools import cache
from pathlib import Path

from roadmap.data.dataset import Dataset
from roadmap.data.packed_format import is_packed, read_index

TRAINING, HELD_OUT = ("train",), ("val", "validation", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
# Those of ImageNet, as is usual for photographs.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def named_path(written: str) -> tuple[str | None, str]:
    """The parts of NAME=PATH, or None and a path. Raises ValueError where one of them is missing."""
    name, equals, path = written.partition("=")
    named = bool(equals) and os.sep not in name
    if not written or (named and not (name and path)):
        raise ValueError(f"--data {written or repr(written)}: a name, a path, or NAME=PATH is expected")
    return (name, path) if named else (None, written)


@dataclass(frozen=True)
class Listing:
    """The images of one split, in order."""

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]  # relative to the root
    labels: tuple[int, ...]  # index into the classes, of each name

    def as_of(self, classes: tuple[str, ...], whose: str) -> Listing:
        """With the labels that its classes have among others. Raises ValueError for a class that is not among them."""
        strange = sorted(set(self.classes) - set(classes))
        if strange:
            raise ValueError(f"{self.root}: class {strange[0]!r} is not among those of {whose}")
        if classes == self.classes:
            return self
        places = {name: place for place, name in enumerate(classes)}
        moved = [places[name] for name in self.classes]
        return Listing(self.root, classes, self.names, tuple(moved[label] for label in self.labels))

    @property
    def content(self) -> str:
        """A hash of its files' names and sizes."""
        return content_of([_lines(self)])


def list_classes(root: Path) -> Listing:
    """The images of a folder that has one of images for each class. Raises ValueError where it has none."""
    return _list_split(root, _classes_in(root))


@cache
def list_images(folder: Path) -> tuple[Listing, Listing]:
    """The training and held-out images of a folder. Raises ValueError with what was looked for and not found."""
    train, held_out = (_list_split(*_split_root(check_layout(folder), names)) for names in (TRAINING, HELD_OUT))
    return train, held_out.as_of(train.classes, str(train.root))


def check_layout(folder: Path) -> Path:
    """The folder, once it is seen to be one of images, or packed. Raises ValueError with what was not found."""
    folder = Path(os.path.expanduser(folder))  # which leaves a home that nobody has as it is
    if is_packed(folder):
        read_index(folder)
        return folder
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; one with train/CLASS/IMAGE and val/CLASS/IMAGE was looked for")
    for names in (TRAINING, HELD_OUT):
        _split_root(folder, names)
    return folder


def _split_root(folder: Path, names: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """The folder of a split, and the classes in it."""
    root = next((folder / name for name in names if (folder / name).is_dir()), None)
    if root is None:
        wanted = " or ".join(f"{name}/" for name in names)
        raise ValueError(f"{folder}: {wanted} was looked for and is not there, with a folder of images for each class")
    return root, _classes_in(root)


def _classes_in(root: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if _is_class(entry)))
    if not classes:
        found = sum(1 for _ in os.scandir(root))
        raise ValueError(f"{root}: {found} files and no folders; a folder of images for each class was looked for")
    return classes


def _list_split(root: Path, classes: tuple[str, ...]) -> Listing:
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = _images_below(root, name)
        if not images:
            raise ValueError(f"{root / name}: no image; files ending in {', '.join(SUFFIXES)} were looked for")
        names += images
        labels += [label] * len(images)
    return Listing(root, classes, tuple(names), tuple(labels))


def _is_class(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _images_below(root: Path, name: str) -> list[str]:
    """Names relative to the root, in order, in all folders below."""
    found = []
    for entry in os.scandir(root / name):
        if _is_class(entry):
            found += _images_below(root, f"{name}/{entry.name}")
        elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
            found.append(f"{name}/{entry.name}")
    return sorted(found)


@cache
def describe_folder(folder: Path) -> Dataset:
    """An image folder, or a packed one, as a data set. What it holds, by the names and sizes of its files, is part of
    it.
    """
    folder = Path(os.path.expanduser(folder))
    if is_packed(folder):
        index = read_index(folder)
        return Dataset(len(index.classes), index.train.images, index.val.images, MEAN, STD, content=index.content)
    train, held_out = list_images(folder)
    if len(train.classes) < 2:
        raise ValueError(f"{train.root}: {train.classes[0]!r} is the only class; two or more are needed")
    content = content_of(_lines(listing) for listing in (train, held_out))
    return Dataset(len(train.classes), len(train.names), len(held_out.names), MEAN, STD, content=content)


def content_of(splits: Iterable[Iterable[bytes]]) -> str:
    """A hash of what a folder holds, by a line for each image of each split."""
    digest = hashlib.sha256()
    for lines in splits:
        for line in lines:
            digest.update(line + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def content_line(name: bytes, size: int, checksum: int | None = None) -> bytes:
    """An image's line: its file's name and size, and a checksum where its bytes are no longer the file's."""
    return name + (b" %d" % size if checksum is None else b" %d %016x" % (size, checksum))


@cache
def file_sizes(listing: Listing) -> tuple[int, ...]:
    """Bytes of each file, in the listing's order. Raises OSError."""
    return tuple(os.stat(listing.root / name).st_size for name in listing.names)


def _lines(listing: Listing) -> Iterable[bytes]:
    # Names that are no text in this system's encoding are written as they are.
    names = (name.encode(errors="surrogateescape") for name in listing.names)
    return map(content_line, names, file_sizes(listing))
