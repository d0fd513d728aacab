"""What a transferred network finds in a few test images, for people to look at: `predictions.npz` of a run's folder."""

from __future__ import annotations

import io
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.files import write_atomic

if TYPE_CHECKING:
    import numpy as np
    from numpy.typing import NDArray

FILE = "predictions.npz"
LONGEST = 400  # pixels of a recorded picture


@dataclass(frozen=True)
class Found:
    """Objects of an image, or a class for each of its pixels."""

    labels: NDArray[np.int64]  # K, classes from 0
    masks: NDArray[np.bool_]  # K x H x W
    boxes: NDArray[np.float32] | None = None  # K x 4; None: regions
    scores: NDArray[np.float32] | None = None  # K; None: as annotated


@dataclass(frozen=True)
class Predicted:
    """An image, what is in it, and what was found."""

    image: NDArray[np.uint8]  # H x W x 3
    truth: Found
    found: Found


def write_predictions(folder: Path, predictions: list[Predicted]) -> None:
    import numpy as np

    arrays: dict[str, Any] = {"count": np.array(len(predictions))}
    for number, predicted in enumerate(predictions):
        arrays[f"{number}.image"] = predicted.image
        for side in ("truth", "found"):
            found: Found = getattr(predicted, side)
            for name, values in vars(found).items():
                if values is not None:
                    arrays[f"{number}.{side}.{name}"] = values
    buffer = io.BytesIO()
    np.savez_compressed(buffer, **arrays)
    write_atomic(folder / FILE, buffer.getvalue())


def read_predictions(folder: Path) -> list[Predicted]:
    """Those of a run; none if it did not record them, or the file is damaged."""
    import zipfile

    import numpy as np

    try:
        with np.load(folder / FILE, allow_pickle=False) as stored:
            arrays = dict(stored)
        return [
            Predicted(arrays[f"{number}.image"], _found(arrays, f"{number}.truth"), _found(arrays, f"{number}.found"))
            for number in range(int(arrays["count"]))
        ]
    except (OSError, KeyError, ValueError, zipfile.BadZipFile):
        return []


def _found(arrays: dict[str, Any], side: str) -> Found:
    return Found(
        arrays[f"{side}.labels"], arrays[f"{side}.masks"], arrays.get(f"{side}.boxes"), arrays.get(f"{side}.scores")
    )
