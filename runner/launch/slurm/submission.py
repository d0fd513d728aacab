"""What was submitted, on record: <out>/slurm/<name>/ for each array of jobs, which has the same name in Slurm.

submission.json   written before sbatch is called: by its name Slurm says what became of it
INDEX.attempts.json, INDEX.failure.json   of a job: how often it began again, and why it ended without a result
code below <out>/slurm/code/, and submitit's own files
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import secrets
import time
from collections.abc import Iterator
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path

from roadmap.cluster import Cluster, Layout
from roadmap.plain import from_data, to_data
from roadmap.record import Run, read_json, write_json

FOLDER = "slurm"  # below the folder of runs
PREFIX = "roadmap-"
LOCK_SECONDS = 300  # that another submission into the same folder is waited for


@dataclass(frozen=True)
class Entry:
    """A run of a job."""

    identity: str
    regime: str
    rung: str
    seed: int
    epochs: int
    folder: str  # below that of the runs

    @staticmethod
    def of(run: Run, folder: Path, out: Path) -> Entry:
        epochs = run.experiment.recipe.epochs
        return Entry(run.identity, run.regime, run.rung, run.seed, epochs, str(folder.relative_to(out)))


@dataclass(frozen=True)
class Submission:
    """An array of jobs, or one job by itself; without runs, the job that draws the figure after the others."""

    name: str
    submitted: str  # ISO 8601, UTC
    user: str
    command: tuple[str, ...]
    profile: str  # of ablations.yaml
    cluster: Cluster
    layout: Layout
    jobs: tuple[tuple[Entry, ...], ...] = field(default=())  # the runs of each, by index

    def folder(self, out: Path) -> Path:
        return out / FOLDER / self.name

    def write(self, out: Path) -> None:
        self.folder(out).mkdir(parents=True)
        write_json(self.folder(out) / "submission.json", to_data(self))

    @property
    def seconds(self) -> float:
        """When it was submitted, in seconds of the system's clock."""
        return datetime.fromisoformat(self.submitted).timestamp()


def new_submission(
    command: tuple[str, ...],
    profile: str,
    cluster: Cluster,
    layout: Layout,
    jobs: tuple[tuple[Entry, ...], ...] = (),
) -> Submission:
    name = PREFIX + ("figure-" if not jobs else "") + secrets.token_hex(4)
    now = datetime.now(UTC).isoformat(timespec="seconds")
    return Submission(name, now, getpass.getuser(), command, profile, cluster, layout, jobs)


def read_submissions(out: Path) -> list[Submission]:
    """All of a folder of runs, oldest first. Raises ValueError with the file where one can't be read."""
    found = []
    for path in (out / FOLDER).glob(f"{PREFIX}*/submission.json"):
        content = read_json(path)
        try:
            found.append(from_data(Submission, content))
        except ValueError as error:
            raise ValueError(f"{path}: {error}; move the folder away") from None
    return sorted(found, key=lambda submission: submission.submitted)


@contextlib.contextmanager
def submitting(out: Path) -> Iterator[None]:
    """Holds a folder of runs against a second submission into it. Raises ValueError where another takes too long."""
    (out / FOLDER).mkdir(parents=True, exist_ok=True)
    path = out / FOLDER / "lock"
    with path.open("a") as lock:
        deadline = time.monotonic() + LOCK_SECONDS
        while True:
            try:
                fcntl.lockf(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
                break
            except (BlockingIOError, PermissionError):
                if time.monotonic() > deadline:
                    raise ValueError(f"another submission holds {path}; wait for it to end") from None
                time.sleep(0.2)
        yield


@dataclass(frozen=True)
class Failure:
    """Why a job ended without a result."""

    message: str
    again: bool  # whether the same once more may well succeed


@dataclass(frozen=True)
class Attempts:
    """What a job has behind it."""

    requeued: int = 0
    crashes: int = 0
    idle: int = 0  # times in a row that it was stopped without a step more than before
    steps: int = 0  # of its runs, when it was last stopped


@dataclass(frozen=True)
class JobFiles:
    """The files of one job of a submission."""

    folder: Path  # of the submission
    index: int

    @property
    def _failure(self) -> Path:
        return self.folder / f"{self.index}.failure.json"

    @property
    def _attempts(self) -> Path:
        return self.folder / f"{self.index}.attempts.json"

    def fail(self, failure: Failure) -> None:
        """The first failure of the job's tasks is the one that counts: others fail for want of the first."""
        with contextlib.suppress(FileExistsError), self._failure.open("x", encoding="utf-8") as file:
            file.write(json.dumps(to_data(failure)))

    def failure(self) -> Failure | None:
        content = read_json(self._failure)
        return from_data(Failure, content) if content else None

    def failed_at(self) -> float:
        """Seconds of the clock."""
        return self._failure.stat().st_mtime

    def forget_failure(self) -> None:
        self._failure.unlink(missing_ok=True)

    def attempts(self) -> Attempts:
        content = read_json(self._attempts)
        return from_data(Attempts, content) if content else Attempts()

    def write_attempts(self, attempts: Attempts) -> None:
        write_json(self._attempts, to_data(attempts))
