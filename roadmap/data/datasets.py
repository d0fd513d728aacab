"""The data sets that have a name: what kind each is of, and how users' own are read.

What the study knows of one (`Dataset`) is described in `ablations.yaml`, or by the plug-in that declares it. How the
built-in ones are read is in `runner/data/datasets.py`; a folder of images needs no name here.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Literal

from roadmap.data.dataset import Dataset
from roadmap.plugins import Registry, code_of
from roadmap.serialization import from_data, to_data

Kind = Literal["memory", "folder", "packed"]
Read = Callable[[Path | None], Any]  # of the path in --data NAME=PATH, if one is given


@dataclass(frozen=True)
class NamedDataset:
    """A data set by its name."""

    name: str
    kind: Kind  # "folder": of images; that it is packed shows where it lies
    read: Read | None = None  # None: one of runner/data/datasets.py
    description: Dataset | None = None  # None: that of ablations.yaml
    class_names: Callable[[], tuple[str, ...]] | None = None  # None: numbers, or those of its folders
    code: str | None = None  # of users' own: a hash of the file that defines it


DATASETS: Registry[NamedDataset] = Registry("data set", hint=", or an image folder's path (--plugin loads your own)")
for _name in ("digits", "fashion-mnist", "cifar10", "cifar100"):
    DATASETS.add(_name, NamedDataset(_name, "memory"))


def _imagenet_classes() -> tuple[str, ...]:
    from roadmap.data.robustness import imagenet_classes  # here, as what answers at once does without

    return imagenet_classes()


DATASETS.add("imagenet", NamedDataset("imagenet", "folder", class_names=_imagenet_classes))


def dataset(
    name: str,
    description: Dataset | None = None,
    *,
    kind: Literal["memory", "folder"] = "memory",
    class_names: Sequence[str] = (),
) -> Callable[[Read], Read]:
    """Registers the decorated function as what reads the data set `name`, for `--data`.

    It takes the path of `--data NAME=PATH`, or None, and gives by `kind`

    - "memory": (images, labels) of training, and the same of the held-out images: arrays or tensors, uint8 of shape
      N x C x H x W with C 1 or 3, and whole numbers from 0 of shape N;
    - "folder": the path of an image folder, packed or not.

    `description` is what the study knows of it; without one, `data` in `ablations.yaml` must describe it, and where
    both do, that in `ablations.yaml` counts. `class_names` are in the order of the labels. Raises ValueError where the
    name is taken, or where the description or the names of the classes can't be right.
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
    """The kind of a run's data. What has the hash of its files is a folder, whatever it is called."""
    if description.content is not None:
        return "folder"
    return DATASETS[name].kind if name in DATASETS else "memory"


def kind_of_folder(folder: Path) -> Kind:
    """Whether its images are packed."""
    from roadmap.data.packed_format import is_packed  # here, as what answers at once does without

    return "packed" if is_packed(folder) else "folder"


def has_class_names(name: str, description: Dataset) -> bool:
    """Whether the classes of a run's data have names, and not numbers alone."""
    named = DATASETS.get(name)
    return kind_of(name, description) != "memory" or (named is not None and named.class_names is not None)


def known_class_names(name: str, description: Dataset) -> tuple[str, ...] | None:
    """The classes of a run's data in the order of the network's outputs: names, or numbers from 0; None where they are
    the names of folders.
    """
    if not has_class_names(name, description):
        return tuple(map(str, range(description.classes)))
    named = DATASETS.get(name) if description.content is None else None
    return named.class_names() if named and named.class_names else None
