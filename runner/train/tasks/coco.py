"""COCO's metrics of detections, by pycocotools."""

from __future__ import annotations

import contextlib
import io
from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

import numpy as np
from numpy.typing import NDArray
from pycocotools.coco import COCO
from pycocotools.cocoeval import COCOeval

from roadmap.record.metrics import COCO_NAMES
from runner.data.dense.objects import ObjectSplit


@dataclass(frozen=True)
class Detection:
    """The objects that are found in an image."""

    index: int  # of the image
    boxes: NDArray[np.float32]  # K x 4: left, top, right, bottom, pixels of the image
    labels: NDArray[np.int64]  # K, from 0
    scores: NDArray[np.float32]  # K
    masks: list[dict[str, Any]]  # K, in COCO's run-length encoding


def coco_metrics(split: ObjectSplit, found: Sequence[Detection]) -> dict[str, float | None]:
    """The twelve figures of boxes and those of masks, in percent; None where no object has the size.

    Without detections they are 0. Only the images in `found` are counted. Raises ValueError if there are none.
    """
    if not found:
        raise ValueError("no held-out image can be read")
    images = [own.index for own in found]
    truth = _index({"images": _images(split, images), **_annotations(split, images)})
    detections = [detection for own in found for detection in _detections(own)]
    values: dict[str, float | None] = {}
    for region, kind in (("box", "bbox"), ("mask", "segm")):
        stats = _stats(truth, detections, kind)
        values |= {f"{region}_{name}": _percent(value) for name, value in zip(COCO_NAMES, stats, strict=True)}
    return values


def _images(split: ObjectSplit, images: Sequence[int]) -> list[dict[str, int]]:
    sizes = {index: split.size(index) for index in images}
    return [{"id": index, "height": size[0], "width": size[1]} for index, size in sizes.items()]


def _annotations(split: ObjectSplit, images: Sequence[int]) -> dict[str, Any]:
    annotations: list[dict[str, Any]] = []
    for index in images:
        objects = split.objects(index)
        for box, label, crowd, area, mask in zip(
            objects.boxes, objects.labels, objects.crowd, objects.areas, objects.masks, strict=True
        ):
            annotations.append(
                {
                    "id": len(annotations) + 1,  # 0 would mean no match
                    "image_id": index,
                    "category_id": int(label),
                    "bbox": _corner_and_size(box),
                    "area": float(area),
                    "iscrowd": int(crowd),
                    "segmentation": mask,
                }
            )
    classes = sorted(set(split.label_of.tolist()))
    return {"annotations": annotations, "categories": [{"id": label} for label in classes]}


def _detections(own: Detection) -> list[dict[str, Any]]:
    return [
        {
            "image_id": own.index,
            "category_id": int(label),
            "bbox": _corner_and_size(box),
            "score": float(score),
            "segmentation": mask,
        }
        for box, label, score, mask in zip(own.boxes, own.labels, own.scores, own.masks, strict=True)
    ]


def _corner_and_size(box: NDArray[np.float32]) -> list[float]:
    left, top, right, bottom = map(float, box)
    return [left, top, right - left, bottom - top]


def _stats(truth: COCO, detections: list[dict[str, Any]], kind: str) -> Sequence[float]:
    with contextlib.redirect_stdout(io.StringIO()):
        evaluation = COCOeval(truth, _with_areas(truth, detections, kind), kind)
        evaluation.evaluate()
        evaluation.accumulate()
        evaluation.summarize()
    stats: Sequence[float] = evaluation.stats
    return stats


def _with_areas(truth: COCO, detections: list[dict[str, Any]], kind: str) -> COCO:
    """The detections as pycocotools wants them. Its own reading fails without any, and takes box areas for masks."""
    from pycocotools import mask as rle

    rows = []
    for number, detection in enumerate(detections, start=1):
        width, height = detection["bbox"][2:]
        area = width * height if kind == "bbox" else float(rle.area(detection["segmentation"]))
        rows.append({**detection, "id": number, "area": area, "iscrowd": 0})
    return _index({**truth.dataset, "annotations": rows})


def _index(dataset: dict[str, Any]) -> COCO:
    with contextlib.redirect_stdout(io.StringIO()):
        coco = COCO()
        coco.dataset = dataset
        coco.createIndex()
    return coco


def _percent(value: float) -> float | None:
    """pycocotools writes -1 where there is nothing to measure."""
    return None if value < 0 else 100 * float(value)
