"""What is asked of a run in training. The step in flight is finished first."""

from __future__ import annotations

from enum import IntEnum


class Request(IntEnum):
    """The stronger the higher."""

    NONE = 0
    SAVE = 1
    STOP = 2  # with the state saved
