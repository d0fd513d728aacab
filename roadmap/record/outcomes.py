"""Which held-out images a run classifies correctly, and how confidently: test_images.npz in its folder.

With it, tables separate the noise of the test images from that of the seeds, and `roadmap disagree` compares two rungs
image by image. It has 10 bytes an image, before compression.
"""

from __future__ import annotations

import io
import zipfile
import zlib
from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.files import InvalidFile, write_atomic
from roadmap.record.metrics import AVERAGED

if TYPE_CHECKING:
    import numpy as np

    Array = np.ndarray[Any, Any]

OUTCOMES_FILE = "test_images.npz"
NOT_READ = -1  # as the prediction for an image that could not be read


@dataclass(frozen=True, eq=False)
class Outcomes:
    """A network's predictions for the N held-out images, in the order of the data set."""

    labels: Array  # N, int32
    predicted: Array  # N, int32; NOT_READ for an image that could not be read
    confidence: Array  # N, float16: the probability of the predicted class

    @property
    def correct(self) -> Array:
        """N, bool."""
        correct: Array = self.predicted == self.labels
        return correct


def write_outcomes(folder: Path, outcomes: Mapping[str, Outcomes]) -> None:
    """`outcomes` has those of the network under the key "", and those of its averaged weights under AVERAGED."""
    import numpy as np

    arrays: dict[str, Array] = {"labels": outcomes[""].labels.astype(np.int32)}
    for prefix, own in outcomes.items():
        arrays[f"{prefix}predicted"] = own.predicted.astype(np.int32)
        arrays[f"{prefix}confidence"] = own.confidence.astype(np.float16)
    buffer = io.BytesIO()
    np.savez_compressed(buffer, allow_pickle=False, **arrays)
    write_atomic(folder / OUTCOMES_FILE, buffer.getvalue())


def read_outcomes(
    folder: Path, *, averaged: bool = False, images: int | None = None, classes: int | None = None
) -> Outcomes | None:
    """Of the network, or of its averaged weights. None if the run did not record them, as those of older versions.

    Raises InvalidFile for a file that is not valid, and for one of another number of test images or classes.
    """
    path, prefix = folder / OUTCOMES_FILE, AVERAGED if averaged else ""
    try:
        outcomes = _read(path, prefix)
    except FileNotFoundError:
        return None
    except (OSError, ValueError, KeyError, EOFError, TypeError, RuntimeError, zlib.error, zipfile.BadZipFile) as error:
        reason = "it holds no arrays of NumPy" if "pickle" in str(error) else error
        raise InvalidFile(f"{path} is not valid: {reason}; remove it to go on without it") from None
    if outcomes and (problem := _problem(outcomes, images, classes)):
        raise InvalidFile(f"{path} is not valid: {problem}; remove it to go on without it")
    return outcomes


def _read(path: Path, prefix: str) -> Outcomes | None:
    import numpy as np

    with path.open("rb") as file, np.load(file, allow_pickle=False) as stored:
        if f"{prefix}predicted" not in stored:
            return None
        return Outcomes(stored["labels"], stored[f"{prefix}predicted"], stored[f"{prefix}confidence"])


def _problem(outcomes: Outcomes, images: int | None, classes: int | None) -> str | None:
    arrays = outcomes.labels, outcomes.predicted, outcomes.confidence
    if any(array.ndim != 1 or array.shape != outcomes.labels.shape for array in arrays) or not outcomes.labels.size:
        return "its arrays must be lists of one length"
    if images not in (None, outcomes.labels.size):
        return f"it must have {images} images, as the data of the run (got {outcomes.labels.size})"
    if (
        outcomes.labels.dtype.kind != "i"
        or outcomes.predicted.dtype.kind != "i"
        or outcomes.confidence.dtype.kind != "f"
    ):
        return "labels and predictions must be whole numbers, and confidences numbers"
    if outcomes.labels.min() < 0 or outcomes.predicted.min() < NOT_READ:
        return "a label or a prediction is below 0"
    largest = int(max(outcomes.labels.max(), outcomes.predicted.max()))
    if classes is not None and largest >= classes:
        return f"the data of the run has {classes} classes, from 0 (got class {largest})"
    return None
