"""Images of other distributions, for evaluation: ImageNet-A, -R, -Sketch and -C, or any folder with one per class.

    FOLDER/CLASS/IMAGE                                  ImageNet-A, ImageNet-R and ImageNet-Sketch
    FOLDER/[ARCHIVE/]CORRUPTION/SEVERITY/CLASS/IMAGE    ImageNet-C; its archives unpack to blur, digital, noise, ...

Results are kept in the folder of the run, a line for each part. ImageNet-C has 75 parts of 50,000 images.
"""

from __future__ import annotations

from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Literal

from roadmap.data.image_folders import HELD_OUT, TRAINING, named_path
from roadmap.data.packed_format import is_packed
from roadmap.files import append_record, read_records
from roadmap.serialization.ranges import Range, check_fields

FILE, FORMAT = "evaluations.jsonl", 1

# In the order of the authors' code. mCE is the mean over these fifteen.
CORRUPTIONS = (
    *("gaussian_noise", "shot_noise", "impulse_noise"),
    *("defocus_blur", "glass_blur", "motion_blur", "zoom_blur"),
    *("snow", "frost", "fog", "brightness"),
    *("contrast", "elastic_transform", "pixelate", "jpeg_compression"),
)
EXTRA = ("speckle_noise", "gaussian_blur", "spatter", "saturate")
ARCHIVES = ("blur", "digital", "extra", "noise", "weather")
SEVERITIES = ("1", "2", "3", "4", "5")


@dataclass(frozen=True)
class Shift:
    """A published set of images with classes of ImageNet."""

    title: str
    source: str
    subset: str | None = None  # name of timm's list of its 200 classes; None: all 1,000
    corrupted: bool = False  # folders by corruption and severity, with images cropped to 224 pixels


SHIFTS = {
    "imagenet-a": Shift("ImageNet-A", "Hendrycks et al., Natural Adversarial Examples, 2021", "imagenet_a"),
    "imagenet-r": Shift("ImageNet-R", "Hendrycks et al., The Many Faces of Robustness, 2021", "imagenet_r"),
    "imagenet-sketch": Shift("ImageNet-Sketch", "Wang et al., Learning Robust Global Representations, 2019"),
    "imagenet-c": Shift(
        "ImageNet-C", "Hendrycks and Dietterich, Common Corruptions and Perturbations, 2019", corrupted=True
    ),
}
FOLDERS = {"sketch": "imagenet-sketch"}  # names of unpacked archives that differ


@dataclass(frozen=True)
class Part:
    """A folder with a subfolder for each class."""

    name: str  # CORRUPTION/SEVERITY; empty if there is only one part
    root: Path


@dataclass(frozen=True)
class Shifted:
    """The images of another distribution that `--data` names."""

    name: str  # in SHIFTS, or any other name
    parts: tuple[Part, ...]

    @property
    def shift(self) -> Shift | None:
        return SHIFTS.get(self.name)

    @property
    def title(self) -> str:
        return self.shift.title if self.shift else self.name


def find_shifted(written: str, known_data: Collection[str] = ()) -> Shifted | None:
    """The images that `--data` names as NAME=PATH or a folder. None for a data set with training images.

    Names in `known_data`, those of the study, are such data sets. Raises ValueError if the layout of the folder does
    not fit the name.
    """
    name, root = named_path(written)
    if (name or written) in known_data:
        return None
    if not root.is_dir():
        if name in SHIFTS:
            raise ValueError(f"--data {written}: no such folder")
        return None
    if name not in SHIFTS and (is_packed(root) or any((root / split).is_dir() for split in (*TRAINING, *HELD_OUT))):
        return None
    corrupted = tuple(_corrupted_parts(root))
    name = name or _name_of(root, bool(corrupted))
    known = SHIFTS.get(name)
    if known and known.corrupted and not corrupted:
        raise ValueError(
            f"--data {written}: the layout must be CORRUPTION/SEVERITY/CLASS/IMAGE, and {root} has none of "
            f"{', '.join((*CORRUPTIONS, *EXTRA))}"
        )
    if corrupted and not (known and known.corrupted):
        raise ValueError(f"--data {written}: {root} has the folders of ImageNet-C; give imagenet-c={root}")
    return Shifted(name, corrupted or (Part("", root),))


def _name_of(root: Path, corrupted: bool) -> str:
    """The name of the images in a folder: ImageNet-C by its content, others by the name of the folder."""
    if corrupted:
        return "imagenet-c"
    name = root.resolve().name.lower().replace("_", "-")
    name = FOLDERS.get(name, name)
    return name if name in SHIFTS and not SHIFTS[name].corrupted else root.resolve().name


def _corrupted_parts(root: Path) -> Iterable[Part]:
    """The parts in the order of corruptions, then of severities."""
    folders = {name: root / name for name in (*CORRUPTIONS, *EXTRA) if (root / name).is_dir()}
    for archive in ARCHIVES:
        for name in (*CORRUPTIONS, *EXTRA):
            if (root / archive / name).is_dir():
                folders.setdefault(name, root / archive / name)
    folder_name, parent_name = root.resolve().name, root.resolve().parent.name
    if folder_name in (*CORRUPTIONS, *EXTRA):  # the folder is one corruption
        folders.setdefault(folder_name, root)
    if folder_name in SEVERITIES and parent_name in (*CORRUPTIONS, *EXTRA):
        yield Part(f"{parent_name}/{folder_name}", root)
    for name in (*CORRUPTIONS, *EXTRA):
        for severity in SEVERITIES:
            if name in folders and (folders[name] / severity).is_dir():
                yield Part(f"{name}/{severity}", folders[name] / severity)


def imagenet_classes() -> tuple[str, ...]:
    """The 1,000 WordNet names in order, from timm."""
    return _timm_list("imagenet")


def chosen_classes(shifted: Shifted, present: Iterable[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes that the network of a run may predict, in the order of its outputs.

    For ImageNet-A and -R they are the authors' 200, for ImageNet-Sketch and -C all classes, for another folder the
    classes that are `present` in it. Raises ValueError for a class that the authors do not have.
    """
    allowed = set(present)
    shift = shifted.shift
    if shift and shift.subset:
        published = set(_timm_list(shift.subset))
        unknown = sorted(allowed - published)
        if unknown:
            raise ValueError(
                f"{shifted.parts[0].root}: class {unknown[0]!r} is not among the 200 of {shift.title}; "
                "give another name with --data NAME=PATH to use the classes that it has"
            )
        allowed = published
    elif shift:
        return classes
    return tuple(name for name in classes if name in allowed)


def _timm_list(name: str) -> tuple[str, ...]:
    from importlib.resources import files

    path = files("timm.data").joinpath("_info", f"{name}_synsets.txt")
    return tuple(path.read_text(encoding="utf-8").split())


@dataclass(frozen=True)
class Evaluation:
    """The accuracy of a network on one part."""

    data: str  # in SHIFTS, or any other name
    part: str
    content: str  # hash of the names and sizes of the files
    whole: str  # hash of all parts that the command was given; only parts of the same whole are combined
    weights: Literal["raw", "ema"]
    trained: Annotated[tuple[int, int], Range(0)]  # epochs and steps that the network was trained for
    classes: Annotated[int, Range(1)]  # that the network could predict
    images: Annotated[int, Range(1)]
    skipped: Annotated[int, Range(0)] = 0  # images that can't be read
    top1: Annotated[float, Range(0, 100)] = 0.0  # percent
    top5: Annotated[float, Range(0, 100)] = 0.0

    def __post_init__(self) -> None:
        check_fields(self)


def append_evaluation(folder: Path, evaluation: Evaluation) -> None:
    """Adds an evaluation to the file. Raises OSError with the path if it can't be written."""
    append_record(folder / FILE, evaluation, FORMAT)


def read_evaluations(folder: Path) -> list[Evaluation]:
    """All evaluations, in order. Lines that are invalid or have another format version are left out."""
    return read_records(folder / FILE, Evaluation, FORMAT)
