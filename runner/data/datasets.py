"""Reading data sets: those named in `roadmap/data/datasets.py`, those that users register, and image folders.

This module imports no large library: the reading functions import what they need.
"""

from __future__ import annotations

import gzip
import os
import sys
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.data.annotated_folders import (
    class_names_of_objects,
    class_names_of_regions,
    is_object_folder,
    is_region_folder,
)
from roadmap.data.datasets import DATASETS, NamedDataset, kind_of_folder, known_class_names
from roadmap.data.image_folders import check_layout, list_images
from roadmap.data.packed_format import read_index
from roadmap.record.run import Run
from roadmap.serialization.plain_data import user_path
from roadmap.tasks.registry import CLASSIFICATION
from runner.data.splits import DenseSplit, ImageFiles, InMemoryImages, Splits

if TYPE_CHECKING:
    from torch import Tensor

FIRST_HELD_OUT_DIGIT = 1287  # where the eleventh of 14 sheets begins
DEBIAN_FASHION_MNIST = Path("/usr/share/datasets/fashion-mnist")


def downloads() -> Path:
    """The folder in which named data sets are searched, and into which they are downloaded."""
    return user_path(os.environ.get("ROADMAP_DATA", "data"))


class Absent(ValueError):
    """A data set is in none of its usual folders."""

    def __init__(self, name: str, *searched: Path) -> None:
        super().__init__(f"{name}: not in {' and '.join(map(str, searched))}")
        self.name = name


@dataclass(frozen=True)
class Source:
    """How a data set is found, read and downloaded."""

    look: Callable[[Path | None], Path | None]  # its place, from a given path, or None for the usual one; or Absent
    read: Callable[[Any], Splits | tuple[DenseSplit, DenseSplit]]  # takes what `look` returns
    classes: Callable[[Any], tuple[str, ...]] | None = None  # reads class names from a folder; None: known without it
    fetch: Callable[[], object] | None = None  # downloads it to `downloads()`; None: it can't be downloaded

    def find(self, path: Path | None) -> Path | None:
        """As `look`, but an absent data set is downloaded. Raises ValueError without one."""
        try:
            return self.look(path)
        except Absent as absent:
            if self.fetch is None:
                raise
            _download(absent, self.fetch)
            return self.look(None)


def _find_digits(path: Path | None) -> Path:
    if path is not None:
        raise ValueError(f"digits={path}: the digits come with scikit-learn; use --data digits, without a path")
    from importlib.metadata import files  # a slow import: as long as all others of a dry run

    (file,) = (file.locate() for file in files("scikit-learn") or () if file.name == "digits.csv.gz")
    return Path(str(file))


def _read_digits(file: Path) -> Splits:
    """1,797 scans of handwritten digits, 8x8 grey. The last four sheets of digits are held out.

    The file names no writers. But the scans are in the order of the sheets, each of which begins with 0 to 9 three
    times: 14 sheets by 13 writers (https://archive.ics.uci.edu/dataset/80). So no sheet is in both halves.
    """
    images, labels = _digits(file)
    first = FIRST_HELD_OUT_DIGIT
    return InMemoryImages(images[:first], labels[:first]), InMemoryImages(images[first:], labels[first:])


def _read_scenes(file: Path) -> tuple[DenseSplit, DenseSplit]:
    from runner.data.dense.embedded import object_splits

    return object_splits(*_scans(file))


def _read_scene_regions(file: Path) -> tuple[DenseSplit, DenseSplit]:
    from runner.data.dense.embedded import region_splits

    return region_splits(*_scans(file))


def _scans(file: Path) -> tuple[tuple[Any, Any], tuple[Any, Any]]:
    """The scans N x 8 x 8 and their labels, for training and held out."""
    first, second = (
        (split.images[:, 0].numpy(), split.labels.numpy())
        for split in _read_digits(file)
        if isinstance(split, InMemoryImages)
    )
    return first, second


def _read_digits_of_version_1(file: Path) -> Splits:
    """The split of earlier runs: every fourth scan of each digit is held out."""
    from torch.nn import functional as F

    images, labels = _digits(file)
    scans_so_far = F.one_hot(labels).cumsum(0)[range(len(labels)), labels]
    held_out = scans_so_far % 4 == 1
    return InMemoryImages(images[~held_out], labels[~held_out]), InMemoryImages(images[held_out], labels[held_out])


def _digits(file: Path) -> tuple[Tensor, Tensor]:
    """Read from scikit-learn's file: importing scikit-learn takes each process a second and 75 MiB."""
    import numpy as np
    import torch

    table = torch.from_numpy(np.loadtxt(str(file), delimiter=",", dtype=np.float32))
    return (table[:, :-1].view(-1, 1, 8, 8) * (255 / 16)).round().to(torch.uint8), table[:, -1].long()


def _find_fashion_mnist(path: Path | None) -> Path:
    """The folder of Debian's package dataset-fashion-mnist, or of the usual download."""
    folders = [path] if path else [DEBIAN_FASHION_MNIST, downloads() / "FashionMNIST" / "raw"]
    for folder in folders:
        if _idx_file(folder, "train-images-idx3-ubyte"):
            return folder
    _refuse_path(path, "train-images-idx3-ubyte (or .gz) and its three companions")
    raise Absent("fashion-mnist", *folders)


def _fetch_fashion_mnist() -> None:
    from torchvision.datasets import FashionMNIST

    FashionMNIST(str(downloads()), download=True)


def _read_fashion_mnist(folder: Path) -> Splits:
    """Zalando's photographs of clothes, 28x28, grey."""
    train, held_out = (
        InMemoryImages(
            _read_idx(folder, f"{name}-images-idx3-ubyte").unsqueeze(1),
            _read_idx(folder, f"{name}-labels-idx1-ubyte").long(),
        )
        for name in ("train", "t10k")
    )
    return train, held_out


def _idx_file(folder: Path, name: str) -> Path | None:
    return next((path for path in (folder / name, folder / f"{name}.gz") if path.is_file()), None)


def _read_idx(folder: Path, name: str) -> Tensor:
    """A file in MNIST's format: two zero bytes, the type (8 is uint8), the dimensions, their sizes, the numbers."""
    import numpy as np
    import torch

    path = _idx_file(folder, name)
    if path is None:
        raise ValueError(f"{folder} does not contain {name} (or .gz)")
    try:
        content = gzip.decompress(path.read_bytes()) if path.suffix == ".gz" else path.read_bytes()
        if content[:3] != b"\0\0\x08":
            raise ValueError("its first bytes are not those of the format")
        start = 4 + 4 * content[3]
        shape = np.frombuffer(content[4:start], dtype=">u4").astype(int)
        return torch.from_numpy(np.frombuffer(content, dtype=np.uint8, offset=start).reshape(shape).copy())
    except (OSError, EOFError, ValueError, IndexError, zlib.error) as error:
        raise ValueError(f"{path} can't be read in MNIST's format: {error}") from None


def _cifar(name: str, folder: str) -> Source:
    """CIFAR-10 or CIFAR-100, 32x32, as torchvision reads and downloads them."""

    def kind() -> Any:
        from torchvision import datasets

        return getattr(datasets, name.upper())

    def look(path: Path | None) -> Path:
        # The path is the folder itself, or its parent.
        root = path.parent if path and path.name == folder else path or downloads()
        if not (root / folder).is_dir():
            _refuse_path(path, f"{folder}/")
            raise Absent(name, root / folder)
        return root

    def read(root: Path) -> Splits:
        import torch

        try:
            halves = [kind()(str(root), train=train) for train in (True, False)]
        except RuntimeError:
            where = root / folder
            raise ValueError(f"{where}: files of {name} are missing or damaged; remove it to download again") from None
        train, held_out = (
            InMemoryImages(torch.from_numpy(half.data).permute(0, 3, 1, 2), torch.tensor(half.targets))
            for half in halves
        )
        return train, held_out

    return Source(look, read, fetch=lambda: kind()(str(downloads()), download=True))


def _folder(name: str, as_published: bool = False) -> Source:
    """An image folder, or a packed one. `as_published`: the images must have the bytes that were published."""

    def find(path: Path | None) -> Path:
        try:
            root = check_layout(path or downloads() / name)
        except ValueError as error:
            raise ValueError(str(error) + ("" if path else f"; --data {name}=PATH sets its path")) from None
        packed = kind_of_folder(root) == "packed"
        if as_published and packed and (reencoded := read_index(root).reencoded):
            raise ValueError(
                f"{name}={root}: {reencoded} of its images were re-encoded, so it is not {name} as published; "
                f"use it under another name: --data small-{name}={root}"
            )
        return root

    return Source(find, _read_folder, _folder_classes)


def _read_folder(root: Path) -> Splits:
    if kind_of_folder(root) == "packed":
        from runner.data.packed_reader import Packed

        return Packed(root, "train"), Packed(root, "val")
    train, held_out = list_images(root)
    return ImageFiles(train), ImageFiles(held_out)


def _folder_classes(root: Path) -> tuple[str, ...]:
    return read_index(root).classes if kind_of_folder(root) == "packed" else list_images(root)[0].classes


def _object_folder(name: str) -> Source:
    """A folder in COCO's format."""

    def read(root: Path) -> tuple[DenseSplit, DenseSplit]:
        from runner.data.dense.files import read_object_folder

        return read_object_folder(root)

    return Source(_annotated(name, is_object_folder, "annotations/*.json"), read, class_names_of_objects)


def _region_folder(name: str, first: int, classes: int) -> Source:
    """A folder of images and of maps of classes, whose numbers begin with `first`."""

    def read(root: Path) -> tuple[DenseSplit, DenseSplit]:
        from runner.data.dense.files import read_region_folder
        from runner.data.dense.regions import LabelRule

        return read_region_folder(root, LabelRule(first, classes))

    names = None if first else class_names_of_regions
    return Source(_annotated(name, is_region_folder, "images/ and annotations/"), read, names)


def _annotated(name: str, is_one: Callable[[Path], bool], wanted: str) -> Callable[[Path | None], Path]:
    def look(path: Path | None) -> Path:
        root = path or downloads() / name
        if not is_one(root):
            raise ValueError(
                f"{root} does not contain {wanted}" + ("" if path else f"; --data {name}=PATH sets its path")
            )
        return root

    return look


def _declared(named: NamedDataset) -> Source:
    """A data set that a user registered."""

    def call(path: Path | None) -> Any:
        assert named.read is not None
        try:
            return named.read(path)
        except Exception as error:  # whatever a user's code raises
            raise ValueError(f"data set {named.name!r} can't be read: {type(error).__name__}: {error}") from error

    if named.kind == "memory":
        return Source(lambda path: path, lambda path: _in_memory(named.name, call(path)))

    def find(path: Path | None) -> Path:
        folder = call(path)
        if not isinstance(folder, str | os.PathLike):
            raise ValueError(f"data set {named.name!r} must return the path of a folder (got {folder!r})")
        return check_layout(Path(folder))

    return Source(find, _read_folder, None if named.class_names else _folder_classes)


def _in_memory(name: str, splits: Any) -> Splits:
    """Raises ValueError unless a user's function returned two splits of images and labels."""
    expected = "((images, labels), (images, labels)), training and held out"
    try:
        (images, labels), (held_out_images, held_out_labels) = splits
    except (TypeError, ValueError):
        raise ValueError(f"data set {name!r} must return {expected}") from None
    return _one_split(name, images, labels), _one_split(name, held_out_images, held_out_labels)


def _one_split(name: str, images: Any, labels: Any) -> InMemoryImages:
    import torch

    pixels, classes = torch.as_tensor(images), torch.as_tensor(labels)
    if pixels.dtype != torch.uint8 or pixels.ndim != 4 or pixels.shape[1] not in (1, 3):
        shape = " x ".join(map(str, pixels.shape))
        raise ValueError(f"data set {name!r}: images must be uint8, N x 1 or 3 x H x W (got {pixels.dtype}, {shape})")
    if classes.is_floating_point() or classes.shape != pixels.shape[:1] or int(classes.min()) < 0:
        raise ValueError(f"data set {name!r}: labels must be whole numbers from 0, one for each image")
    return InMemoryImages(pixels.contiguous(), classes.long())


def _refuse_path(path: Path | None, wanted: str) -> None:
    if path is not None:
        raise ValueError(f"{path} does not contain {wanted}")


def _download(absent: Absent, fetch: Callable[[], object]) -> None:
    """Raises ValueError with the searched folders if the download fails."""
    print(f"{absent}; downloading to {downloads()}/", file=sys.stderr, flush=True)
    try:
        fetch()
    except (OSError, RuntimeError) as error:
        hint = f"--data {absent.name}=PATH sets its path"
        raise ValueError(f"{absent}, and the download failed: {error}; {hint}") from None


BUILT_IN = {
    "digits": Source(_find_digits, _read_digits),
    "scenes": Source(_find_digits, _read_scenes),
    "scene-regions": Source(_find_digits, _read_scene_regions),
    "fashion-mnist": Source(_find_fashion_mnist, _read_fashion_mnist, fetch=_fetch_fashion_mnist),
    "cifar10": _cifar("cifar10", "cifar-10-batches-py"),
    "cifar100": _cifar("cifar100", "cifar-100-python"),
    "coco": _object_folder("coco"),
    "ade20k": _region_folder("ade20k", 1, 150),  # 0 is no class
    "imagenet": _folder("imagenet", as_published=True),
}
# How runs of earlier versions of a data set read it. The others have one version.
EARLIER = {"digits": {1: Source(_find_digits, _read_digits_of_version_1)}}


def source(run: Run) -> Source:
    """The source of a run's data set. Raises ValueError if this version can't read it."""
    if run.dataset.content is not None:
        if run.dataset.annotations == "objects":
            return _object_folder(run.data)
        if run.dataset.annotations == "regions":
            return _region_folder(run.data, 0, run.dataset.classes)
        return _folder(run.data)
    named = DATASETS.find(run.data)
    return _declared(named) if named.read else _built_in(run.data, run.dataset.version)


def _built_in(name: str, version: int) -> Source:
    sources = EARLIER.get(name, {})
    sources = sources | {len(sources) + 1: BUILT_IN[name]}
    if version not in sources:
        raise ValueError(f"data set {name!r} has version {' or '.join(map(str, sources))} (got {version})")
    return sources[version]


def load_data(run: Run, path: Path | str | None = None) -> Any:
    """A run's training and held-out images, from a path, or by default from the usual folder: Splits, or two
    DenseSplits if each image has objects or regions.

    Raises ValueError if they are not there, or differ from the study's description.
    """
    run_source = source(run)
    splits = run_source.read(run_source.find(Path(path) if path else None))
    counts, expected = tuple(map(len, splits)), (run.dataset.train_images, run.dataset.test_images)
    if counts != expected:
        raise ValueError(f"data set {run.data!r} must have {expected} training and test images (got {counts})")
    classes = 1 + max(split.highest_label for split in splits)
    if classes > run.dataset.classes:
        raise ValueError(f"data set {run.data!r} must have {run.dataset.classes} classes (got {classes})")
    return splits


def class_names(run: Run, path: Path | str | None = None) -> tuple[str, ...]:
    """The classes of a run's data, in the order of the network's outputs.

    Names of folders, or declared names, or numbers from 0. Raises ValueError if the data are not there.
    """
    run_source = source(run)
    if run_source.classes is not None:
        return run_source.classes(run_source.find(Path(path) if path else None))
    names = known_class_names(run.data, run.dataset)
    assert names is not None  # else the source has `classes`
    return names


def check_trainable(run: Run) -> None:
    """Raises ValueError if the runner can't train a run's recipe on its data, before anything is read."""
    recipe = run.experiment.recipe
    source(run)
    if run.task == CLASSIFICATION and run.dataset.annotations != "classes":
        raise ValueError(
            f"data set {run.data!r} has {run.dataset.annotations}, not classes; `roadmap transfer` uses it"
        )
    images = run.dataset.train_images
    if recipe.batch_size > images:
        hint = f"; --set recipe.batch_size={2 ** (images.bit_length() - 1)} fits" if images > 1 else ""
        raise ValueError(
            f"{run.name}: recipe.batch_size must be at most {images}, the training images of {run.data} "
            f"(got {recipe.batch_size}){hint}"
        )
