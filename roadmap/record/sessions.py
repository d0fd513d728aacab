"""How often a run was started, and what was lost between: sessions.jsonl, a line a start, and place.json.

What a killed process had trained beyond its last checkpoint is trained again. It is no part of the result, but who pays
for it wants to know.
"""

from __future__ import annotations

import contextlib
import json
import os
from dataclasses import asdict, dataclass
from pathlib import Path

from roadmap.files import append_json_line, fsync, read_json_lines
from roadmap.serialization import from_data

FILE, POSITION_FILE = "sessions.jsonl", "place.json"
POSITION_BYTES = 80  # of the file: it is written over in place, each step


@dataclass(frozen=True)
class Session:
    """One start of a run's training."""

    started: str  # ISO 8601, UTC
    host: str
    job: str | None  # of a cluster, such as "slurm 12_3"
    epoch: int  # that it went on from, from 0
    step: int  # within the epoch, from 0
    lost_steps: int  # that had been trained before, but not saved


@dataclass(frozen=True)
class TrainingPosition:
    """How far training is."""

    epoch: int  # in training, from 0
    step: int  # steps of it that are done
    steps: int  # of an epoch

    @property
    def total(self) -> int:
        """Steps since the beginning."""
        return self.epoch * self.steps + self.step


def append_session(folder: Path, session: Session) -> None:
    append_json_line(folder / FILE, asdict(session))
    fsync(folder / FILE)


def read_sessions(folder: Path) -> tuple[Session, ...]:
    """Every start so far, in order. Lines that are not valid are passed over: nothing depends on them."""
    sessions: list[Session] = []
    for row in read_json_lines(folder / FILE):
        with contextlib.suppress(ValueError):
            sessions.append(from_data(Session, row))
    return tuple(sessions)


class PositionFile:
    """Where training is, kept on the disk at each step: a few microseconds, and there after a SIGKILL."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / POSITION_FILE, os.O_WRONLY | os.O_CREAT, 0o666)

    def write(self, place: TrainingPosition) -> None:
        os.pwrite(self._file, (json.dumps(vars(place)).ljust(POSITION_BYTES - 1) + "\n").encode(), 0)

    def close(self) -> None:
        os.close(self._file)


def read_position(folder: Path) -> TrainingPosition | None:
    """None before the first step, and where the file is not whole: nothing but a report depends on it."""
    try:
        return TrainingPosition(**json.loads((folder / POSITION_FILE).read_text()))
    except (OSError, ValueError, TypeError):
        return None
