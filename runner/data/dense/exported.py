"""The scenes of digits as files: objects in COCO's format, and maps of classes in folders as ADE20K has them."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
from numpy.typing import NDArray

from roadmap.data.annotated_folders import CLASSES_FILE
from roadmap.data.datasets import DATASETS, DIGITS
from roadmap.files import make_parent, write_atomic, write_json
from runner.data.datasets import BUILT_IN
from runner.data.dense.objects import ObjectSplit
from runner.data.dense.regions import LabelRule, RegionSplit

OBJECTS, REGIONS = "objects", "regions"  # folders
SPLITS = (("train", "training"), ("val", "validation"))  # names in COCO and in ADE20K


@dataclass(frozen=True)
class Written:
    """An exported data set."""

    folder: Path
    images: tuple[int, int]  # for training, and held out


def export_scenes(folder: Path, report: Callable[[int, int], None]) -> tuple[Written, Written]:
    """Writes the scenes below a folder that is new or empty: `objects` and `regions`, with the same images.

    `report` gets the number of images done, and of all. Raises ValueError if the folder has files already.
    """
    if folder.exists() and (not folder.is_dir() or any(folder.iterdir())):
        raise ValueError(f"{folder} must be a new or an empty folder")
    objects, regions = (_splits(name) for name in ("scenes", "scene-regions"))
    total, done = sum(map(len, (*objects, *regions))), 0
    for (name, _), split in zip(SPLITS, objects, strict=True):
        _write_objects(folder / OBJECTS, name, split)
        report(done := done + len(split), total)
    classes = DATASETS["scene-regions"].class_names
    assert classes is not None
    for (_, name), split in zip(SPLITS, regions, strict=True):
        _write_regions(folder / REGIONS, name, split, LabelRule(0, len(classes())))
        report(done := done + len(split), total)
    write_atomic(folder / REGIONS / CLASSES_FILE, "".join(f"{name}\n" for name in classes()).encode())
    return Written(folder / OBJECTS, _counts(objects)), Written(folder / REGIONS, _counts(regions))


def _splits(name: str) -> tuple[Any, Any]:
    source = BUILT_IN[name]
    first, second = source.read(source.find(None))
    return first, second


def _counts(splits: Sequence[ObjectSplit | RegionSplit]) -> tuple[int, int]:
    return len(splits[0]), len(splits[1])


def category_id(label: int, split: str) -> int:
    """The id of a digit's category: with gaps, and numbered from the other end in the file of held-out images.

    COCO's own ids have gaps, and other data sets number their files apart, so that a reader must not count on either.
    """
    return 1 + 3 * label if split == "train" else 2 + 3 * (len(DIGITS) - 1 - label)


def _write_objects(root: Path, name: str, split: ObjectSplit) -> None:
    images: list[dict[str, Any]] = []
    annotations: list[dict[str, Any]] = []
    for index in range(len(split)):
        number, (height, width) = 1 + 2 * index, split.size(index)  # with gaps
        file = f"{number:012}.png"
        _write_image(root / name / file, split.read(index))
        images.append({"id": number, "file_name": file, "height": height, "width": width})
        objects = split.objects(index)
        for i, label in enumerate(objects.labels.tolist()):
            left, top, right, bottom = objects.boxes[i].tolist()
            annotations.append(
                {
                    "id": len(annotations) + 1,
                    "image_id": number,
                    "category_id": category_id(label, name),
                    "bbox": [left, top, right - left, bottom - top],
                    "area": float(objects.areas[i]),
                    "iscrowd": int(objects.crowd[i]),
                    "segmentation": objects.masks[i] | {"counts": objects.masks[i]["counts"].decode()},
                }
            )
    categories = sorted((category_id(label, name), digit) for label, digit in enumerate(DIGITS))
    content = {
        "images": images,
        "annotations": annotations,
        "categories": [{"id": number, "name": digit} for number, digit in categories],
    }
    path = root / "annotations" / f"instances_{name}.json"
    make_parent(path)
    write_json(path, content)


def _write_regions(root: Path, name: str, split: RegionSplit, rule: LabelRule) -> None:
    for index in range(len(split)):
        file = f"{name}-{index:05}.png"
        _write_image(root / "images" / name / file, split.read(index))
        _write_image(root / "annotations" / name / file, rule.write(split.read_classes(index)))


def _write_image(path: Path, pixels: NDArray[np.uint8]) -> None:
    make_parent(path)
    stored = pixels[..., ::-1] if pixels.ndim == 3 else pixels
    path.write_bytes(cv2.imencode(".png", stored)[1].tobytes())
