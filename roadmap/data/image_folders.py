"""Image folders: train/ and val/, each with a folder of images for every class, the usual layout of ImageNet.

A packed folder (roadmap/data/packed_format.py) can replace the folder that it was made from.
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
from roadmap.serialization import user_path

TRAINING, HELD_OUT = ("train",), ("val", "validation", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
# The statistics of ImageNet, as usual for photographs.
MEAN, STD = (0.485, 0.456, 0.406), (0.229, 0.224, 0.225)


def named_path(text: str) -> tuple[str | None, Path]:
    """The parts of NAME=PATH, or None and a path. Raises ValueError if the name or the path is missing."""
    name, equals, path = text.partition("=")
    named = bool(equals) and os.sep not in name
    if not text or (named and not (name and path)):
        raise ValueError(f"--data must be a name, a path, or NAME=PATH (got {text!r})")
    return (name, user_path(path)) if named else (None, user_path(text))


@dataclass(frozen=True)
class Listing:
    """The images of one split, in order."""

    root: Path
    classes: tuple[str, ...]
    names: tuple[str, ...]  # relative to the root
    labels: tuple[int, ...]  # for each name, an index into the classes

    def as_of(self, classes: tuple[str, ...], source: str) -> Listing:
        """The listing with labels that are indices into `classes`, those of `source`.

        Raises ValueError for a class that is not among them.
        """
        unknown = sorted(set(self.classes) - set(classes))
        if unknown:
            raise ValueError(f"{self.root}: class {unknown[0]!r} is not among those of {source}")
        if classes == self.classes:
            return self
        indices = {name: index for index, name in enumerate(classes)}
        new_labels = [indices[name] for name in self.classes]
        return Listing(self.root, classes, self.names, tuple(new_labels[label] for label in self.labels))

    @property
    def content(self) -> str:
        """A hash of the names and sizes of the files."""
        return content_of([_lines(self)])


def list_classes(root: Path) -> Listing:
    """The images of a folder with a subfolder for each class. Raises ValueError if there is none."""
    return _list_split(root, _classes_in(root))


@cache
def list_images(folder: Path) -> tuple[Listing, Listing]:
    """The training and held-out images of a folder. Raises ValueError with the missing part of the layout."""
    train, held_out = (_list_split(*_split_root(check_layout(folder), names)) for names in (TRAINING, HELD_OUT))
    return train, held_out.as_of(train.classes, str(train.root))


def check_layout(folder: Path) -> Path:
    """The folder, after a check of its layout, packed or not. Raises ValueError with the missing part."""
    folder = Path(os.path.expanduser(folder))  # ~NAME stays if there is no such user
    if is_packed(folder):
        read_index(folder)
        return folder
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder; it must have train/CLASS/IMAGE and val/CLASS/IMAGE")
    for names in (TRAINING, HELD_OUT):
        _split_root(folder, names)
    return folder


def _split_root(folder: Path, names: tuple[str, ...]) -> tuple[Path, tuple[str, ...]]:
    """The folder of a split, and the classes in it."""
    root = next((folder / name for name in names if (folder / name).is_dir()), None)
    if root is None:
        valid = " or ".join(f"{name}/" for name in names)
        raise ValueError(f"{folder} must have {valid}, with a folder of images for each class")
    return root, _classes_in(root)


def _classes_in(root: Path) -> tuple[str, ...]:
    classes = tuple(sorted(entry.name for entry in os.scandir(root) if _is_class(entry)))
    if not classes:
        files = sum(1 for _ in os.scandir(root))
        raise ValueError(f"{root} must have a folder of images for each class (got {files} files and no folder)")
    return classes


def _list_split(root: Path, classes: tuple[str, ...]) -> Listing:
    names: list[str] = []
    labels: list[int] = []
    for label, name in enumerate(classes):
        images = _images_below(root, name)
        if not images:
            raise ValueError(f"{root / name}: no image; names of images end in {', '.join(SUFFIXES)}")
        names += images
        labels += [label] * len(images)
    return Listing(root, classes, tuple(names), tuple(labels))


def _is_class(entry: os.DirEntry[str]) -> bool:
    return entry.is_dir() and not entry.name.startswith(".")


def _images_below(root: Path, name: str) -> list[str]:
    """The images in all folders below root/name, in order: names relative to the root."""
    images = []
    for entry in os.scandir(root / name):
        if _is_class(entry):
            images += _images_below(root, f"{name}/{entry.name}")
        elif entry.name.lower().endswith(SUFFIXES) and not entry.name.startswith("."):
            images.append(f"{name}/{entry.name}")
    return sorted(images)


@cache
def describe_folder(folder: Path) -> Dataset:
    """The description of an image folder, packed or not, with a hash of the names and sizes of its files."""
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
    """A hash of the content of a folder, from a line for each image of each split."""
    digest = hashlib.sha256()
    for lines in splits:
        for line in lines:
            digest.update(line + b"\n")
        digest.update(b"\n")
    return digest.hexdigest()[:16]


def content_line(name: bytes, size: int, checksum: int | None = None) -> bytes:
    """The line of an image: name and size of its file, and a checksum if its bytes are not those of the file."""
    return name + (b" %d" % size if checksum is None else b" %d %016x" % (size, checksum))


@cache
def file_sizes(listing: Listing) -> tuple[int, ...]:
    """The size of each file in bytes, in the order of the listing. Raises OSError."""
    return tuple(os.stat(listing.root / name).st_size for name in listing.names)


def _lines(listing: Listing) -> Iterable[bytes]:
    # Names that are not valid in the encoding of the system are written unchanged.
    names = (name.encode(errors="surrogateescape") for name in listing.names)
    return map(content_line, names, file_sizes(listing))
