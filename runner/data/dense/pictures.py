"""Recorded pictures of predictions, small enough for a run's folder."""

from __future__ import annotations

import math

import numpy as np
from numpy.typing import NDArray

from roadmap.record.predictions import LONGEST, Found, Predicted


def shown(image: NDArray[np.uint8], truth: Found, found: Found) -> Predicted:
    """An image with what is in it and what was found, of at most LONGEST pixels on each side."""
    step = max(1, math.ceil(max(image.shape[:2]) / LONGEST))
    return Predicted(image[::step, ::step].copy(), _smaller(truth, step), _smaller(found, step))


def _smaller(found: Found, step: int) -> Found:
    boxes = None if found.boxes is None else found.boxes / np.float32(step)
    return Found(found.labels, found.masks[:, ::step, ::step].copy(), boxes, found.scores)


def regions(classes: NDArray[np.uint8]) -> Found:
    """A map of classes as one mask for each class that it has."""
    from runner.data.dense.regions import VOID

    labels = np.array([label for label in np.unique(classes) if label != VOID], np.int64)
    masks = [classes == label for label in labels]
    return Found(labels, np.stack(masks) if masks else np.zeros((0, *classes.shape), bool))
