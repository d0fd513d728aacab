"""The data sets by name: the kind of each, and the functions of plug-ins that read them.

`ablations.yaml`, or the plug-in, has the description (`Dataset`). `runner/data/datasets.py` reads the built-in ones.
Image folders given by path have no entry here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from roadmap.data.dataset import Dataset
from roadmap.plugins import Registry, code_of
from roadmap.serialization.plain_data import from_data, to_data

Kind = Literal["memory", "folder", "packed"]
DIGITS = tuple(map(str, range(10)))
Read = Callable[[Path | None], Any]  # of the path in --data NAME=PATH, if one is given


@dataclass(frozen=True)
class NamedDataset:
    """An entry of DATASETS."""

    name: str
    kind: Kind  # "folder": of images; whether it is packed depends on the path
    read: Read | None = None  # None: runner/data/datasets.py reads it
    description: Dataset | None = None  # None: it is in ablations.yaml
    class_names: Callable[[], tuple[str, ...]] | None = None  # None: numbers, or names of folders
    code: str | None = None  # of custom data sets: hash of the file that defines it


DATASETS: Registry[NamedDataset] = Registry("data set", hint=", or an image folder's path (--plugin loads your own)")
for _name in ("digits", "fashion-mnist", "cifar10", "cifar100"):
    DATASETS.add(_name, NamedDataset(_name, "memory"))

# Scenes of digits (runner/data/dense/scenes.py), with objects or with a class for each pixel.
DATASETS.add("scenes", NamedDataset("scenes", "memory", class_names=lambda: DIGITS))
DATASETS.add("coco", NamedDataset("coco", "folder"))
DATASETS.add("ade20k", NamedDataset("ade20k", "folder", class_names=lambda: tuple(map(str, range(150)))))
DATASETS.add("scene-regions", NamedDataset("scene-regions", "memory", class_names=lambda: ("ground", *DIGITS)))


def _imagenet_classes() -> tuple[str, ...]:
    from roadmap.data.robustness import imagenet_classes  # imported late to keep `roadmap list` fast

    return imagenet_classes()


DATASETS.add("imagenet", NamedDataset("imagenet", "folder", class_names=_imagenet_classes))


def dataset(
    name: str,
    description: Dataset | None = None,
    *,
    kind: Literal["memory", "folder"] = "memory",
    class_names: Sequence[str] = (),
) -> Callable[[Read], Read]:
    """Registers the decorated function, which reads the data set `name` of `--data`.

    It takes the path of `--data NAME=PATH`, or None, and returns for the `kind`

    - "memory": (images, labels) for training, and the same for the held-out images: arrays or tensors, uint8 of shape
      N x C x H x W with C 1 or 3, and integers from 0 of shape N;
    - "folder": the path of an image folder, packed or not.

    Without a `description`, `data` in `ablations.yaml` must describe the data set; if both do, the one in
    `ablations.yaml` is used. `class_names` are in the order of the labels. Raises ValueError if the
    name is taken, or if the description or the names of the classes can't be right.
    """
    DATASETS.check_name(name)
    if kind not in ("memory", "folder"):
        raise ValueError(f"data set {name!r}: kind must be 'memory' or 'folder' (got {kind!r})")

    if description is not None:
        if not isinstance(description, Dataset):
            raise ValueError(f"data set {name!r}: its description must be a roadmap.Dataset (got {description!r})")
        description = from_data(Dataset, to_data(description), f"data set {name!r}")  # which checks each field's type
        if class_names and len(class_names) != description.classes:
            counts = f"the {description.classes} classes (got {len(class_names)})"
            raise ValueError(f"data set {name!r}: class_names must be as many as {counts}")

    def register(read: Read) -> Read:
        names = (lambda: tuple(class_names)) if class_names else None
        DATASETS.add(name, NamedDataset(name, kind, read, description, names, code_of(read)))
        return read

    return register


def kind_of(name: str, description: Dataset) -> Kind:
    """The kind of the data of a run. A description with a hash of its files is that of a folder."""
    if description.content is not None:
        return "folder"
    return DATASETS[name].kind if name in DATASETS else "memory"


def kind_of_folder(folder: Path) -> Kind:
    """The kind of a folder: whether its images are packed."""
    from roadmap.data.packed_format import is_packed  # imported late to keep `roadmap list` fast

    return "packed" if is_packed(folder) else "folder"


def has_class_names(name: str, description: Dataset) -> bool:
    """Whether the classes of the data have names, and not only numbers."""
    entry = DATASETS.get(name)
    return kind_of(name, description) != "memory" or (entry is not None and entry.class_names is not None)


def known_class_names(name: str, description: Dataset) -> tuple[str, ...] | None:
    """The classes of the data in the order of the outputs of the network: names, or numbers from 0.

    None if they are the names of folders.
    """
    if not has_class_names(name, description):
        return tuple(map(str, range(description.classes)))
    entry = DATASETS.get(name) if description.content is None else None
    return entry.class_names() if entry and entry.class_names else None
