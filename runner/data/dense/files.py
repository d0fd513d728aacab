"""Reads folders of images with objects or class maps (roadmap/data/annotated_folders.py).

Images are read as they are stored: an orientation in their EXIF data is ignored, because COCO's boxes and masks are in
stored pixels. An image of another size than its annotation says is refused.
"""

from __future__ import annotations

from collections import defaultdict
from functools import partial
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray
from PIL import Image
from pycocotools import mask as rle

from roadmap.data.annotated_folders import (
    ObjectFiles,
    RegionFiles,
    class_names_of_objects,
    object_files,
    read_annotations,
    region_files,
)
from runner.data.dense.objects import Annotation, ObjectSplit
from runner.data.dense.regions import LabelRule, RegionSplit
from runner.data.image import BadImage

STORED = cv2.IMREAD_COLOR | cv2.IMREAD_IGNORE_ORIENTATION


def read_object_folder(root: Path) -> tuple[ObjectSplit, ObjectSplit]:
    """Training and held-out images. The classes are those of the training file, by their names."""
    names = class_names_of_objects(root)
    first, second = (_object_split(files, names) for files in object_files(root))
    return first, second


def _object_split(files: ObjectFiles, names: tuple[str, ...]) -> ObjectSplit:
    content = read_annotations(files.annotations)
    numbers = {name: number for number, name in enumerate(names)}
    labels: dict[int, int] = {}
    for category in content["categories"]:
        if category["name"] not in numbers:
            raise ValueError(f"{files.annotations}: category {category['name']!r} is not among those of training")
        labels[category["id"]] = numbers[category["name"]]
    images = sorted(content["images"], key=lambda image: image["id"])
    of_image: dict[int, list[dict[str, Any]]] = defaultdict(list)
    for annotation in content["annotations"]:
        if annotation["category_id"] not in labels:
            unknown = f"{annotation['category_id']}, of annotation {annotation['id']}"
            raise ValueError(f"{files.annotations}: no category has the id {unknown}")
        of_image[annotation["image_id"]].append(annotation)
    sizes = [(int(image["height"]), int(image["width"])) for image in images]
    paths = np.array([str(files.images / image["file_name"]) for image in images])
    read = partial(_read_checked, paths, np.array(sizes, np.int32).reshape(-1, 2))
    annotations = (
        [_annotation(own, labels, size, files.annotations) for own in of_image[image["id"]]]
        for image, size in zip(images, sizes, strict=True)
    )
    return ObjectSplit.of(read, sizes, [image["id"] for image in images], annotations)


def _annotation(own: dict[str, Any], labels: dict[int, int], size: tuple[int, int], file: Path) -> Annotation:
    left, top, width, height = map(float, own["bbox"])
    box = (max(left, 0.0), max(top, 0.0), min(left + width, float(size[1])), min(top + height, float(size[0])))
    try:
        mask = _mask(own.get("segmentation"), box, size)
    except ValueError as error:
        raise ValueError(f"{file}: annotation {own.get('id', '?')}: {error}") from None
    area = float(own["area"]) if "area" in own else width * height
    return Annotation(labels[own["category_id"]], box, area, mask, bool(own.get("iscrowd", 0)))


def _mask(stored: Any, box: tuple[float, float, float, float], size: tuple[int, int]) -> dict[str, Any]:
    """Polygons, or run lengths written as numbers or as text; without any the box."""
    if isinstance(stored, dict):
        code = rle.frPyObjects(stored, *size) if isinstance(stored["counts"], list) else dict(stored)
        counts = code["counts"]
        code = {"size": list(size), "counts": counts.encode() if isinstance(counts, str) else counts}
        rle.decode(code)  # raises ValueError for a code that is none
        return code
    polygons = [polygon for polygon in stored or () if len(polygon) >= 6]  # three corners
    if not polygons:
        left, top, right, bottom = box
        polygons = [[left, top, right, top, right, bottom, left, bottom]]
    merged: dict[str, Any] = rle.merge(rle.frPyObjects(polygons, *size))
    return merged


def read_region_folder(root: Path, rule: LabelRule) -> tuple[RegionSplit, RegionSplit]:
    """Training and held-out images with their maps, whose numbers mean classes by the rule."""
    first, second = (_region_split(files, rule) for files in region_files(root))
    return first, second


def _region_split(files: RegionFiles, rule: LabelRule) -> RegionSplit:
    images, maps = (np.array([str(path) for path in paths]) for paths in (files.images, files.maps))
    sizes = np.array([_size_of(path) for path in maps], np.int32)
    return RegionSplit(partial(_read_checked, images, sizes), partial(_read_map, maps, rule), sizes)


def _size_of(path: str) -> tuple[int, int]:
    """Height and width, from the header of the file."""
    try:
        with Image.open(path) as image:
            return image.height, image.width
    except OSError as error:
        raise ValueError(f"{path}: can't be read: {error}") from None


def _read_checked(paths: NDArray[np.str_], sizes: NDArray[np.int32], index: int) -> NDArray[np.uint8]:
    """The pixels of an image, RGB. Raises BadImage with the file if it is damaged, or of another size."""
    path, (height, width) = str(paths[index]), map(int, sizes[index])
    pixels = cv2.imread(path, STORED)
    if pixels is None:
        raise BadImage(f"{path}: {'not an image that can be read' if Path(path).is_file() else 'no such file'}")
    if pixels.shape[:2] != (height, width):
        own = f"{pixels.shape[1]} x {pixels.shape[0]}"
        raise BadImage(f"{path}: {own} pixels, and its annotation says {width} x {height}")
    rgb: NDArray[np.uint8] = np.ascontiguousarray(pixels[..., ::-1])
    return rgb


def _read_map(paths: NDArray[np.str_], rule: LabelRule, index: int) -> NDArray[np.uint8]:
    """The classes of a map, of numbers or of a palette's indices.

    Raises BadImage with the file if it is damaged, and ValueError for a number that is no class.
    """
    path = str(paths[index])
    try:
        with Image.open(path) as image:
            stored = np.asarray(image)
    except (OSError, ValueError) as error:
        raise BadImage(f"{path}: can't be read: {error}") from None
    if stored.ndim != 2:
        raise BadImage(f"{path}: not a map of one number a pixel")
    return rule.read(stored.astype(np.int64), path)
