"""Held-out images as pictures, to be looked at."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.record.run import Run
from runner.data.datasets import load_data

if TYPE_CHECKING:
    import numpy as np
    import numpy.typing as npt


def held_out_pictures(
    run: Run, data_path: Path | str | None, labels: Sequence[int], indices: Sequence[int]
) -> list[npt.NDArray[np.uint8]]:
    """The held-out images of a run by their indices: RGB, height x width x 3.

    Raises ValueError if the data are not on this machine or not those with these labels, and BadImage for an image that
    can't be read.
    """
    _, held_out = load_data(run, data_path)
    if held_out.labels.tolist() != list(labels):
        raise ValueError(f"the test images of {run.data} are not those that the runs were tested on")
    return [held_out.image(index).pixels() for index in indices]
