"""Held-out images of a run's classes from elsewhere: ImageNet-A, -R, -Sketch and -C, or any folder of folders by class.

    FOLDER/CLASS/IMAGE                                  ImageNet-A, ImageNet-R and ImageNet-Sketch
    FOLDER/[ARCHIVE/]CORRUPTION/SEVERITY/CLASS/IMAGE    ImageNet-C; its archives unpack to blur, digital, noise, ...

What was measured is kept in the run's folder, a line for each part: ImageNet-C has 75 of 50,000 images.
"""

from __future__ import annotations

import os
from collections.abc import Collection, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from roadmap.data.image_folders import HELD_OUT, TRAINING, named_path
from roadmap.data.packed_format import is_packed
from roadmap.files import append_record, read_records

FILE, FORMAT = "evaluations.jsonl", 1

# In the order of the authors' code; mCE is over the first fifteen.
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
    """A published set of images of ImageNet's classes."""

    title: str
    source: str
    subset: str | None = None  # its 200 classes, by the name of timm's list of them; none: all 1,000
    corrupted: bool = False  # folders by corruption and severity, of images that were cropped to 224 pixels


SHIFTS = {
    "imagenet-a": Shift("ImageNet-A", "Hendrycks et al., Natural Adversarial Examples, 2021", "imagenet_a"),
    "imagenet-r": Shift("ImageNet-R", "Hendrycks et al., The Many Faces of Robustness, 2021", "imagenet_r"),
    "imagenet-sketch": Shift("ImageNet-Sketch", "Wang et al., Learning Robust Global Representations, 2019"),
    "imagenet-c": Shift(
        "ImageNet-C", "Hendrycks and Dietterich, Common Corruptions and Perturbations, 2019", corrupted=True
    ),
}
FOLDERS = {"sketch": "imagenet-sketch"}  # as archives call them, where it is not by the name


@dataclass(frozen=True)
class Part:
    """A folder of folders by class."""

    name: str  # CORRUPTION/SEVERITY; empty where there is one part
    root: Path


@dataclass(frozen=True)
class Shifted:
    """Images that `--data` means."""

    name: str  # of SHIFTS, or whatever it is called
    parts: tuple[Part, ...]

    @property
    def shift(self) -> Shift | None:
        return SHIFTS.get(self.name)

    @property
    def title(self) -> str:
        return self.shift.title if self.shift else self.name


def find_shifted(written: str, known_data: Collection[str] = ()) -> Shifted | None:
    """What `--data` means: NAME=PATH, or a folder; None where that is a data set of its own, with training images, as
    those of the study are, whose names are given.

    Raises ValueError where the folder is not as images of that name are kept.
    """
    name, path = named_path(written)
    root = Path(os.path.expanduser(path))
    if (name or path) in known_data:
        return None
    if not root.is_dir():
        if name in SHIFTS:
            raise ValueError(f"--data {written}: no such folder")
        return None
    if name not in SHIFTS and (is_packed(root) or any((root / split).is_dir() for split in (*TRAINING, *HELD_OUT))):
        return None
    corrupted = tuple(_corrupted_parts(root))
    name = name or _guessed(root, bool(corrupted))
    known = SHIFTS.get(name)
    if known and known.corrupted and not corrupted:
        raise ValueError(
            f"--data {written}: CORRUPTION/SEVERITY/CLASS/IMAGE was looked for, and {root} has none of "
            f"{', '.join((*CORRUPTIONS, *EXTRA))}"
        )
    if corrupted and not (known and known.corrupted):
        raise ValueError(f"--data {written}: {root} is ImageNet-C's by its folders: imagenet-c={root}")
    return Shifted(name, corrupted or (Part("", root),))


def _guessed(root: Path, corrupted: bool) -> str:
    """Of ImageNet-C by what is in it, of the others by what it is called."""
    if corrupted:
        return "imagenet-c"
    called = root.resolve().name.lower().replace("_", "-")
    called = FOLDERS.get(called, called)
    return called if called in SHIFTS and not SHIFTS[called].corrupted else root.resolve().name


def _corrupted_parts(root: Path) -> Iterable[Part]:
    """In the order of the corruptions, then of the severities."""
    places = {name: root / name for name in (*CORRUPTIONS, *EXTRA) if (root / name).is_dir()}
    for archive in ARCHIVES:
        for name in (*CORRUPTIONS, *EXTRA):
            if (root / archive / name).is_dir():
                places.setdefault(name, root / archive / name)
    called, above = root.resolve().name, root.resolve().parent.name
    if called in (*CORRUPTIONS, *EXTRA):  # a part of the set
        places.setdefault(called, root)
    if called in SEVERITIES and above in (*CORRUPTIONS, *EXTRA):
        yield Part(f"{above}/{called}", root)
    for name in (*CORRUPTIONS, *EXTRA):
        for severity in SEVERITIES:
            if name in places and (places[name] / severity).is_dir():
                yield Part(f"{name}/{severity}", places[name] / severity)


def imagenet_classes() -> tuple[str, ...]:
    """WordNet's names of the 1,000, in order; timm has them."""
    return _timm_list("imagenet")


def chosen_classes(shifted: Shifted, found: Iterable[str], classes: tuple[str, ...]) -> tuple[str, ...]:
    """The classes of a run that its network may choose among, in the order of its outputs.

    Of ImageNet-A and -R the authors' 200, of ImageNet-Sketch and -C all; of another folder those that it has.
    Raises ValueError for a class that the authors do not have.
    """
    among = set(found)
    shift = shifted.shift
    if shift and shift.subset:
        theirs = set(_timm_list(shift.subset))
        strange = sorted(among - theirs)
        if strange:
            raise ValueError(
                f"{shifted.parts[0].root}: class {strange[0]!r} is not among the 200 of {shift.title}; "
                "--data NAME=PATH takes it for another set, of the classes that it has"
            )
        among = theirs
    elif shift:
        return classes
    return tuple(name for name in classes if name in among)


def _timm_list(name: str) -> tuple[str, ...]:
    from importlib.resources import files

    path = files("timm.data").joinpath("_info", f"{name}_synsets.txt")
    return tuple(path.read_text(encoding="utf-8").split())


@dataclass(frozen=True)
class Evaluation:
    """What a network was worth on one part."""

    data: str  # of SHIFTS, or whatever it was called
    part: str
    content: str  # a hash of the files' names and sizes
    whole: str  # that of all parts which the command was given: figures of several parts are of one whole
    weights: Literal["raw", "ema"]
    trained: tuple[int, int]  # epochs and steps that the network had behind it
    classes: int  # that it could choose among
    images: int
    skipped: int = 0  # of them, that can't be read
    top1: float = 0.0  # percent
    top5: float = 0.0


def append_evaluation(folder: Path, found: Evaluation) -> None:
    """Raises OSError with the path where the disk does not take it."""
    append_record(folder / FILE, found, FORMAT)


def read_evaluations(folder: Path) -> list[Evaluation]:
    """All that were made, in order; lines that are no such, or of another version, are left out."""
    return read_records(folder / FILE, Evaluation, FORMAT)
