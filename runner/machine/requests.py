"""Requests to a run in training. The current step is finished first."""

from __future__ import annotations

from enum import IntEnum


class Request(IntEnum):
    """A higher value includes the lower ones."""

    NONE = 0
    SAVE = 1
    STOP = 2  # and save
