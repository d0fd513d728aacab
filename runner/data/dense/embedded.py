"""The scenes of digits as data sets: with objects for detection, and with regions for segmentation."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
from numpy.typing import NDArray

from runner.data.dense.objects import Annotation, ObjectSplit, box_of, encoded
from runner.data.dense.regions import VOID, RegionSplit
from runner.data.dense.scenes import Scene, Split, make_scene

COUNTS: dict[Split, int] = {"train": 800, "test": 200}


Scans = tuple[NDArray[np.uint8], NDArray[np.int64]]  # N x 8 x 8, and their labels


def scenes(scans: Scans, split: Split) -> list[Scene]:
    """The scenes of a split, of scans of that split."""
    return [make_scene(*scans, split, index) for index in range(COUNTS[split])]


def object_splits(train: Scans, test: Scans) -> tuple[ObjectSplit, ObjectSplit]:
    """The scenes with their digits as objects."""
    return _object_split(scenes(train, "train")), _object_split(scenes(test, "test"))


def _object_split(of: Sequence[Scene]) -> ObjectSplit:
    images = np.stack([scene.image for scene in of])
    annotations = [
        [
            Annotation(thing.label, box_of(thing.mask), float(thing.mask.sum()), encoded(thing.mask), thing.crowd)
            for thing in scene.things
        ]
        for scene in of
    ]
    sizes = [(image.shape[0], image.shape[1]) for image in images]
    return ObjectSplit.of(images.__getitem__, sizes, range(len(of)), annotations)


def region_splits(train: Scans, test: Scans) -> tuple[RegionSplit, RegionSplit]:
    """The scenes with a class for each pixel. The pixels of crowds have none."""
    return _region_split(scenes(train, "train")), _region_split(scenes(test, "test"))


def _region_split(of: Sequence[Scene]) -> RegionSplit:
    images, maps = np.stack([scene.image for scene in of]), np.stack([class_map(scene) for scene in of])
    return RegionSplit(images.__getitem__, maps.__getitem__, np.array([image.shape[:2] for image in images], np.int32))


def class_map(scene: Scene) -> NDArray[np.uint8]:
    """The class of each pixel, 0 for the ground, else the digit and one."""
    classes = np.zeros(scene.image.shape[:2], np.uint8)
    for thing in scene.things:
        classes[thing.mask] = VOID if thing.crowd else 1 + thing.label
    return classes
