"""Waiting for a condition, in place of sleeping for a time that a busy machine makes too short."""

from __future__ import annotations

import time
from collections.abc import Callable
from typing import TypeVar

T = TypeVar("T")
PATIENCE = 300.0  # seconds: far more than anything takes that is worth waiting for


def until(holds: Callable[[], T], what: str, seconds: float = PATIENCE, every: float = 0.1) -> T:
    """What `holds` returns, once that is true. Raises TimeoutError, which names what was waited for."""
    deadline = time.monotonic() + seconds
    while not (found := holds()):
        if time.monotonic() > deadline:
            raise TimeoutError(f"after {seconds:g} s still not: {what}")
        time.sleep(every)
    return found
