"""Folders of images with objects in COCO's format, or with a map of classes for each image as ADE20K has them."""

from __future__ import annotations

import hashlib
import json
import math
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any

from roadmap.data.dataset import Dataset
from roadmap.data.image_folders import MEAN, STD, SUFFIXES, describe_folder, look_again

CLASSES_FILE = "classes.txt"  # of a folder of class maps: a name a line, in the order of the numbers
SPLITS = (("train", "training"), ("val", "validation", "test"))


@dataclass(frozen=True)
class ObjectFiles:
    """The file of annotations of a split, and the folder of its images."""

    annotations: Path
    images: Path


@dataclass(frozen=True)
class RegionFiles:
    """The images of a split and their maps, in order."""

    images: tuple[Path, ...]
    maps: tuple[Path, ...]


def is_object_folder(root: Path) -> bool:
    return any((root / "annotations").glob("*.json"))


def is_region_folder(root: Path) -> bool:
    return (root / "images").is_dir() and (root / "annotations").is_dir()


def object_files(root: Path) -> tuple[ObjectFiles, ObjectFiles]:
    """Training and held out: `annotations/*train*.json` with the folder of that name, as COCO has them.

    Raises ValueError with what is missing.
    """
    first, second = (_object_files(root, names) for names in SPLITS)
    return first, second


def _object_files(root: Path, names: tuple[str, ...]) -> ObjectFiles:
    files = sorted((root / "annotations").glob("*.json"))
    found = [file for name in names for file in files if name in file.stem]
    found = [file for file in found if file.stem.startswith("instances")] or found
    if not found:
        raise ValueError(f"{root}/annotations has no file *{names[0]}*.json, in COCO's format")
    name = found[0].stem.removeprefix("instances_")
    places = [root / name, root / "images" / name, *(root / split for split in names), root / "images", root]
    return ObjectFiles(found[0], next(place for place in places if place.is_dir()))


@cache
def read_annotations(path: Path) -> dict[str, Any]:
    """The content of a file in COCO's format. Raises ValueError with the file if it is not one."""
    try:
        content: dict[str, Any] = json.loads(path.read_bytes())
    except (OSError, ValueError) as error:
        raise ValueError(f"{path}: can't be read: {error}") from None
    for key in ("images", "annotations", "categories"):
        if not isinstance(content, dict) or not isinstance(content.get(key), list):
            raise ValueError(f"{path}: not in COCO's format: it has no list {key!r}")
    try:
        _check_images(content["images"])
        _check_categories(content["categories"])
        sizes = {image["id"]: (image["height"], image["width"]) for image in content["images"]}
        for annotation in content["annotations"]:
            _check_annotation(annotation, sizes)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None
    return content


def _check_images(images: list[Any]) -> None:
    seen = set()
    for i, image in enumerate(images):
        where = f"images[{i}]"
        _check_keys(image, {"id": int, "file_name": str, "height": int, "width": int}, where)
        if image["id"] in seen:
            raise ValueError(f"{where}: image {image['id']} is listed twice")
        if min(image["height"], image["width"]) < 1:
            raise ValueError(f"{where}: height and width must be at least 1")
        seen.add(image["id"])


def _check_categories(categories: list[Any]) -> None:
    for i, category in enumerate(categories):
        _check_keys(category, {"id": int, "name": str}, f"categories[{i}]")
    for key in ("id", "name"):
        values = [category[key] for category in categories]
        if repeated := [value for value in values if values.count(value) > 1]:
            raise ValueError(f"two categories have the {key} {repeated[0]!r}")


def _check_annotation(annotation: Any, sizes: dict[int, tuple[int, int]]) -> None:
    where = f"annotation {annotation.get('id', '?')}" if isinstance(annotation, dict) else "an annotation"
    _check_keys(annotation, {"image_id": int, "category_id": int, "bbox": list}, where)
    if annotation["image_id"] not in sizes:
        raise ValueError(f"{where}: no image has the id {annotation['image_id']}")
    if len(annotation["bbox"]) != 4 or not all(map(_is_finite, annotation["bbox"])):
        raise ValueError(f"{where}: bbox must be left, top, width and height (got {annotation['bbox']})")
    stored, size = annotation.get("segmentation") or [], sizes[annotation["image_id"]]
    if isinstance(stored, dict):
        if stored.get("size") != list(size) or not isinstance(stored.get("counts"), list | str):
            raise ValueError(f"{where}: segmentation must be a run-length code of {size[0]} x {size[1]} pixels")
    elif not isinstance(stored, list) or not all(isinstance(polygon, list) for polygon in stored):
        raise ValueError(f"{where}: segmentation must be polygons or a run-length code")
    elif not all(_is_finite(number) for polygon in stored for number in polygon):
        raise ValueError(f"{where}: the corners of its polygons must be numbers")


def _check_keys(entry: Any, types: dict[str, type], where: str) -> None:
    for key, kind in types.items():
        if not isinstance(entry, dict) or type(entry.get(key)) is not kind:
            expected = {int: "a whole number", str: "a text", list: "a list"}[kind]
            raise ValueError(f"{where}: {key!r} must be {expected}")


def _is_finite(number: Any) -> bool:
    return isinstance(number, int | float) and math.isfinite(number)


def class_names_of_objects(root: Path) -> tuple[str, ...]:
    """The categories of the training file in the order of their ids, which may have gaps."""
    categories = read_annotations(object_files(root)[0].annotations)["categories"]
    return tuple(str(category["name"]) for category in sorted(categories, key=lambda category: category["id"]))


def region_files(root: Path) -> tuple[RegionFiles, RegionFiles]:
    """Training and held out: `images/training` and `annotations/training`, as ADE20K has them.

    Raises ValueError with what is missing, and for an image without a map.
    """
    first, second = (_region_files(root, names) for names in SPLITS)
    return first, second


def _region_files(root: Path, names: tuple[str, ...]) -> RegionFiles:
    folder = next((root / "images" / name for name in names if (root / "images" / name).is_dir()), None)
    if folder is None:
        raise ValueError(f"{root}/images has no folder {' or '.join(names)}")
    images = tuple(sorted(path for path in folder.iterdir() if path.suffix.lower() in SUFFIXES))
    maps = tuple(root / "annotations" / folder.name / f"{path.stem}.png" for path in images)
    if missing := next((path for path in maps if not path.is_file()), None):
        raise ValueError(f"{missing}: missing: each image needs a map of classes")
    if not images:
        raise ValueError(f"{folder} has no images")
    return RegionFiles(images, maps)


def class_names_of_regions(root: Path) -> tuple[str, ...]:
    """Raises ValueError without the file of names."""
    path = root / CLASSES_FILE
    if not path.is_file():
        raise ValueError(f"{path}: missing: the name of each class, a line each, in the order of the maps' numbers")
    return tuple(line.strip() for line in path.read_text(encoding="utf-8").splitlines() if line.strip())


def describe_annotated(root: Path) -> Dataset | None:
    """The description of a folder with objects or class maps; None for another folder. Raises ValueError."""
    if is_object_folder(root):
        files = object_files(root)
        counts = [len(read_annotations(own.annotations)["images"]) for own in files]
        content = hashlib.sha256(b"".join(own.annotations.read_bytes() for own in files)).hexdigest()[:16]
        classes = len(class_names_of_objects(root))
        return Dataset(classes, counts[0], counts[1], MEAN, STD, content=content, annotations="objects")
    if is_region_folder(root):
        regions, names = region_files(root), class_names_of_regions(root)
        lines = [f"{path.name} {path.stat().st_size}" for own in regions for path in (*own.images, *own.maps)]
        content = hashlib.sha256("\n".join([*names, *lines]).encode()).hexdigest()[:16]
        train, held_out = (len(own.images) for own in regions)
        return Dataset(len(names), train, held_out, MEAN, STD, content=content, annotations="regions")
    return None


def describe_now(root: Path) -> Dataset:
    """The description of a folder of images, whatever they are annotated with, as it is now. Raises ValueError."""
    look_again()
    read_annotations.cache_clear()
    return describe_annotated(root) or describe_folder(root)
