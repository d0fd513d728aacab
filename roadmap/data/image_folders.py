"""Image folders: train/ and val/, each with a folder of images for every class, the usual layout of ImageNet.

A packed folder (roadmap/data/packed_format.py) can replace the folder that it was made from.
"""

from __future__ import annotations

import hashlib
import os
from collections import Counter
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from roadmap.data.dataset import Dataset
from roadmap.data.packed_format import is_packed, read_index
from roadmap.serialization.plain_data import user_path
from roadmap.text import many

TRAINING, HELD_OUT = ("train",), ("val", "validation", "test")
SUFFIXES = (".jpg", ".jpeg", ".png", ".webp", ".bmp", ".ppm", ".pgm", ".tif", ".tiff")
MOST_NAMED = 5  # classes, or types of files, in a message
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
    ignored: tuple[str, ...] = ()  # files in the folders of the classes that are no images by their names
    outside: tuple[str, ...] = ()  # files directly in the root, without a class

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
        return replace(self, classes=classes, labels=tuple(new_labels[label] for label in self.labels))

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
    paths = [folder / name for name in names]
    for path in paths:
        if path.is_symlink() and not path.exists():
            raise _leads_nowhere(path)
    root = next((path for path in paths if path.is_dir()), None)
    if root is None:
        valid = " or ".join(f"{name}/" for name in names)
        raise ValueError(f"{folder} must have {valid}, with a folder of images for each class")
    return root, _classes_in(root)


def _classes_in(root: Path) -> tuple[str, ...]:
    with os.scandir(root) as entries:
        classes = tuple(sorted(entry.name for entry in entries if _is_class(entry)))
    if not classes:
        files = len(os.listdir(root))
        raise ValueError(f"{root} must have a folder of images for each class (got {files} files and no folder)")
    return classes


def _list_split(root: Path, classes: tuple[str, ...]) -> Listing:
    names: list[str] = []
    labels: list[int] = []
    ignored: list[str] = []
    for label, name in enumerate(classes):
        files = _files_below(root, name)
        images = [file for file in files if _is_image(file)]
        if not images:
            raise ValueError(f"{root / name}: no image; names of images end in {', '.join(SUFFIXES)}")
        names += images
        labels += [label] * len(images)
        if len(images) < len(files):
            ignored += [file for file in files if not _is_image(file)]
    with os.scandir(root) as entries:
        outside = tuple(sorted(entry.name for entry in entries if entry.is_file() and not entry.name.startswith(".")))
    return Listing(root, classes, tuple(names), tuple(labels), tuple(ignored), outside)


def _is_image(name: str) -> bool:
    return name.lower().endswith(SUFFIXES)


def _is_class(entry: os.DirEntry[str]) -> bool:
    """Whether it is a folder. Raises ValueError for a link to a folder that is absent, such as of an unmounted disk."""
    if entry.name.startswith("."):
        return False
    if entry.is_symlink() and not os.path.exists(entry.path) and not _is_image(entry.name):
        raise _leads_nowhere(Path(entry.path))
    return entry.is_dir()


def _leads_nowhere(link: Path) -> ValueError:
    return ValueError(
        f"{link} is a link to {os.readlink(link)}, which is not there; mount its disk, or remove the link"
    )


def _files_below(root: Path, name: str) -> list[str]:
    """The files in all folders below root/name, in order, without hidden ones: names relative to the root."""
    files = []
    with os.scandir(root / name) as entries:
        for entry in entries:
            if _is_class(entry):
                files += _files_below(root, f"{name}/{entry.name}")
            elif not entry.name.startswith("."):
                files.append(f"{name}/{entry.name}")
    return sorted(files)


def describe_content(folder: Path) -> str:
    """One line on an image folder, packed or not: images, classes, files of other types, classes never held out."""
    folder = Path(os.path.expanduser(folder))
    if is_packed(folder):
        index = read_index(folder)
        classes, ignored, outside = index.classes, list[str](), list[str]()
        counts = index.val.images_of_class
        not_held_out = [name for name, count in zip(classes, counts, strict=True) if not count]
        images = index.images
    else:
        train, held_out = list_images(folder)
        classes, ignored = train.classes, [*train.ignored, *held_out.ignored]
        outside = [f"{listing.root.name}/{name}" for listing in (train, held_out) for name in listing.outside]
        labels = set(held_out.labels)
        not_held_out = [name for label, name in enumerate(classes) if label not in labels]
        images = len(train.names) + len(held_out.names)
    parts = [f"{many(images, 'image')} in {len(classes)} classes"]
    if ignored:
        types = Counter(os.path.splitext(name)[1].lower() or "no suffix" for name in ignored)
        shown = ", ".join(f"{count} {suffix}" for suffix, count in types.most_common(MOST_NAMED))
        parts.append(f"{many(len(ignored), 'file')} of other types ignored ({shown})")
    if outside:
        parts.append(f"{many(len(outside), 'file')} outside the class folders ignored ({_first(outside)})")
    if not_held_out:
        parts.append(f"without validation images: {_first(not_held_out)}")
    return f"{folder}: {'; '.join(parts)}"


def _first(names: Sequence[str]) -> str:
    more = f" and {len(names) - MOST_NAMED} more" if len(names) > MOST_NAMED else ""
    return ", ".join(names[:MOST_NAMED]) + more


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


def look_again() -> None:
    """Forgets the folders that were listed in this process: their files may have changed since."""
    for listed in (list_images, describe_folder, file_sizes):
        listed.cache_clear()


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
