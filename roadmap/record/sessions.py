"""The starts of a run and the steps lost between them: sessions.jsonl, a line per start, and place.json.

Steps that a killed process trained after its last checkpoint are trained again. They do not affect the result, but they
cost time.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Annotated

from roadmap.files import append_json_line, fsync, parse_json, read_json_lines
from roadmap.serialization.plain_data import from_data
from roadmap.serialization.ranges import Range, check_fields

FILE, POSITION_FILE = "sessions.jsonl", "place.json"
POSITION_SECONDS = 1.0  # steps of small networks are shorter, and files on a network take milliseconds
POSITION_BYTES = 80  # size of the file, which each writing overwrites


@dataclass(frozen=True)
class Session:
    """One start of a run's training."""

    started: str  # ISO 8601, UTC
    host: str
    job: str | None  # on a cluster, such as "slurm 12_3"
    epoch: Annotated[int, Range(0)]  # at which it started, from 0
    step: Annotated[int, Range(0)]  # within the epoch, from 0
    lost_steps: Annotated[int, Range(0)]  # trained before, but not saved

    def __post_init__(self) -> None:
        check_fields(self)


@dataclass(frozen=True)
class TrainingPosition:
    """The position of training."""

    epoch: Annotated[int, Range(0)]  # current epoch, from 0
    step: Annotated[int, Range(0)]  # finished steps of the epoch
    steps: Annotated[int, Range(0)]  # per epoch

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def total(self) -> int:
        """Steps since the start of training."""
        return self.epoch * self.steps + self.step


def append_session(folder: Path, session: Session) -> None:
    append_json_line(folder / FILE, asdict(session))
    fsync(folder / FILE)


def read_sessions(folder: Path) -> tuple[Session, ...]:
    """Every start so far, in order. Invalid lines are ignored, because nothing depends on them."""
    sessions: list[Session] = []
    for row in read_json_lines(folder / FILE):
        with contextlib.suppress(ValueError):
            sessions.append(from_data(Session, row))
    return tuple(sessions)


class PositionFile:
    """The position of training, written once in POSITION_SECONDS and at the end. It survives a SIGKILL."""

    def __init__(self, folder: Path) -> None:
        self._file = os.open(folder / POSITION_FILE, os.O_WRONLY | os.O_CREAT, 0o666)
        self._unwritten: TrainingPosition | None = None
        self._written_at = -math.inf

    def write(self, position: TrainingPosition) -> None:
        self._unwritten = position
        if time.monotonic() - self._written_at >= POSITION_SECONDS:
            self._write()

    def _write(self) -> None:
        if self._unwritten:
            os.pwrite(self._file, (json.dumps(vars(self._unwritten)).ljust(POSITION_BYTES - 1) + "\n").encode(), 0)
            self._unwritten, self._written_at = None, time.monotonic()

    def close(self) -> None:
        self._write()
        os.close(self._file)


def read_position(folder: Path) -> TrainingPosition | None:
    """The position of training; None before the first step, and if the file is damaged: only reports depend on it."""
    try:
        content = parse_json((folder / POSITION_FILE).read_text(encoding="utf-8"))
        position: TrainingPosition = from_data(TrainingPosition, content)
    except (OSError, ValueError):
        return None
    return position
