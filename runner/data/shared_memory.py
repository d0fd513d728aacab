"""The shared memory through which data workers pass batches. Needs no torch."""

from __future__ import annotations

import os
from pathlib import Path

from roadmap.recipe import Recipe
from roadmap.text import many

FOLDER = Path("/dev/shm")  # Linux; Docker gives it 64 MB by default
LARGER = f"make {FOLDER} larger (docker run --shm-size)"
EVALUATION_BATCH = 256  # most images of a device at a time; without gradients it has room for more than in training
CHANNELS = 3  # of images, a byte each


def evaluation_batch(part: int) -> int:
    """The images of a device at a time in evaluation, where it trains on `part` images at a time."""
    return min(EVALUATION_BATCH, 4 * part)


def check_shared_memory(
    recipe: Recipe, parts: int, workers: int, processes: int = 1, at_once: int = 1, prefetch: int = 2
) -> None:
    """Raises ValueError if the shared memory has no room for the batches that the data workers `prefetch`.

    `parts`: of the global batch, over all processes and accumulation steps; `processes`: those that train a run, each
    with so many workers; `at_once`: runs side by side.
    """
    free = free_bytes()
    if not workers or free is None:
        return
    part = recipe.batch_size // parts
    # The workers of training keep their batches during an evaluation.
    images = prefetch * (part + evaluation_batch(part))
    of_worker = images * CHANNELS * recipe.image_size**2
    all_workers, possible = workers * processes * at_once, free // (of_worker * processes * at_once)
    if workers > possible:
        needed = f"{many(all_workers, 'data worker')} need {_megabytes(all_workers * of_worker)} of shared memory"
        advice = f"use execution.workers={possible}{' at most' * (possible > 0)}"
        raise ValueError(f"{needed}, and {FOLDER} has {_megabytes(free)} free; {advice}, or {LARGER}")


def full_shared_memory(of: str) -> str:
    """What to report if there is no room for something."""
    return f"{FOLDER} has no room for {of}; use fewer execution.workers (0 needs none), or {LARGER}"


def batch_of(size: int) -> str:
    """A batch of so many bytes, in words."""
    return f"a batch of {_megabytes(size)}"


def free_bytes() -> int | None:
    """None if the system has no such folder."""
    try:
        status = os.statvfs(FOLDER)
    except OSError:
        return None
    return status.f_bavail * status.f_frsize


def _megabytes(size: int) -> str:
    return f"{size / 1e6:.3g} MB"
