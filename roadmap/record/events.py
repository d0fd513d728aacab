"""The events of a run in training: what it reports, and how the run began and ended.

A launcher reports `RunEvent`s. The `str` of an ending describes it in a few words.
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass

from roadmap.record.results import EpochMetrics, RunResult
from roadmap.record.run import Run


@dataclass(frozen=True)
class StepDone:
    epoch: int  # in training, from 1
    step: int  # of the epoch, from 1
    steps: int  # in an epoch
    loss: float  # over the global batch


@dataclass(frozen=True)
class EpochDone:
    metrics: EpochMetrics


@dataclass(frozen=True)
class Warned:
    message: str


# Reported by rank 0.
TrainingEvent = StepDone | EpochDone | Warned
Report = Callable[[TrainingEvent], None]


@dataclass(frozen=True)
class Began:
    pass


@dataclass(frozen=True)
class Finished:
    result: RunResult | None  # None except on rank 0

    def __str__(self) -> str:
        return "finished"


@dataclass(frozen=True)
class Diverged:
    """The loss is not finite."""

    message: str

    def __str__(self) -> str:
        return f"diverged: {self.message}"


@dataclass(frozen=True)
class Failed:
    message: str
    can_retry: bool  # whether another attempt may succeed without a change by the user

    def __str__(self) -> str:
        return f"failed: {self.message}"


@dataclass(frozen=True)
class Stopped:
    """Stopped on request, with its state saved."""

    def __str__(self) -> str:
        return "stopped"


@dataclass(frozen=True)
class Paused:
    """Trained up to `execution.stop_after`, with its state saved."""

    epochs: int

    def __str__(self) -> str:
        return f"paused after epoch {self.epochs}"


@dataclass(frozen=True)
class InUse:
    """Another process trains the run."""

    def __str__(self) -> str:
        return "in training by another process"


Ending = Finished | Diverged | Failed | Stopped | Paused | InUse
Event = Began | TrainingEvent | Ending


@dataclass(frozen=True)
class RunEvent:
    """An event and its run."""

    run: Run
    event: Event


def ignore(event: TrainingEvent) -> None:
    """A report that does nothing."""
