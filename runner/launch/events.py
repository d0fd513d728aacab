"""What runs in training tell whoever started them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any

from roadmap.record.run import Run

# "busy": another process trains it; "stopped": as it was asked to.
ENDINGS = ("finished", "diverged", "failed", "stopped", "busy")


@dataclass(frozen=True)
class Event:
    run: Run
    kind: str  # began, step, epoch, warning, or one of the endings
    detail: dict[str, Any]  # "epoch": its metrics; "finished": its result; "warning", "diverged", "failed": the message
