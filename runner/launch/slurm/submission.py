"""What was submitted, on record: <out>/slurm/<name>/ for each array of jobs, which has the same name in Slurm.

submission.json   written before sbatch is called: by its name Slurm says what became of it
INDEX.attempts.json, INDEX.failure.json, INDEX.cancelled   of a job: what it has behind it, and why it has no result
code below <out>/slurm/code/, and submitit's own files
"""

from __future__ import annotations

import contextlib
import fcntl
import getpass
import json
import os
import secrets
import shutil
import time
from collections.abc import Iterator
from dataclasses import dataclass, replace
from datetime import UTC, datetime
from pathlib import Path

from roadmap.files import InvalidFile, read_json, write_json
from roadmap.options import Selection
from roadmap.record.run import Run
from roadmap.serialization import Range, check, from_data, to_data
from roadmap.study.cluster import Cluster, Layout
from roadmap.study.execution import Execution

FOLDER, RECORD = "slurm", "submission.json"  # below the folder of runs, and below that of a submission
PREFIX = "roadmap-"
MOST_IDLE = 5  # stops in a row without a step between them: on a busy cluster a job may be preempted as it begins
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
class SubmitOptions:
    """How runs are submitted."""

    profile: str  # of ablations.yaml
    cluster: Cluster
    execution: Execution
    command: tuple[str, ...]  # that submits them
    pack: int = 1  # runs of a job
    most_running: int | None = None  # jobs at a time

    @staticmethod
    def of(selection: Selection, command: tuple[str, ...], pack: int | None, max_running: int | None) -> SubmitOptions:
        """`pack` and `max_running` are None for the defaults. Raises ValueError for what no submission can follow."""
        assert selection.profile is not None and selection.cluster is not None
        check(pack, Range(1), "pack")
        check(max_running, Range(1), "max_running")
        execution = selection.execution
        if execution.processes != "auto":
            raise ValueError(
                "execution.processes is unused on Slurm: there it is nodes x tasks a node of the cluster, "
                "such as --set cluster.nodes=2"
            )
        path = execution.data_path  # absolute, since a job may be submitted again from any folder
        execution = replace(execution, data_path=str(Path(path).resolve()) if path else None)
        return SubmitOptions(selection.profile, selection.cluster, execution, command, pack or 1, max_running)

    def layout(self, run: Run) -> Layout:
        """Raises ValueError for a layout that can't train the run, with those that can."""
        try:
            layout = self.cluster.layout(run.experiment.recipe, self.execution)
        except ValueError as error:
            raise ValueError(f"clusters.{self.profile}: {run.name}: {error}") from None
        if self.pack > 1 and layout.processes > 1:
            raise ValueError(
                f"--pack {self.pack} is for runs of one process, but clusters.{self.profile} gives {run.name} "
                f"{layout} (nodes x tasks a node)"
            )
        return layout


@dataclass(frozen=True)
class Submission:
    """An array of jobs, or one job by itself; without runs, the job that draws the figure after the others."""

    name: str
    submitted: str  # ISO 8601, UTC
    user: str
    options: SubmitOptions
    layout: Layout
    jobs: tuple[tuple[Entry, ...], ...] = ()  # the runs of each, by index

    @staticmethod
    def new(options: SubmitOptions, layout: Layout, jobs: tuple[tuple[Entry, ...], ...] = ()) -> Submission:
        name = PREFIX + ("figure-" if not jobs else "") + secrets.token_hex(4)
        now = datetime.now(UTC).isoformat(timespec="seconds")
        return Submission(name, now, getpass.getuser(), options, layout, jobs)

    def folder(self, out: Path) -> Path:
        return out / FOLDER / self.name

    def write(self, out: Path) -> None:
        self.folder(out).mkdir(parents=True)
        write_json(self.folder(out) / RECORD, to_data(self))

    def remove(self, out: Path) -> None:
        """The record first: without it the rest means nothing."""
        (self.folder(out) / RECORD).unlink()
        shutil.rmtree(self.folder(out), ignore_errors=True)

    @property
    def seconds(self) -> float:
        """When it was submitted, in seconds of the system's clock."""
        return datetime.fromisoformat(self.submitted).timestamp()

    def log(self, index: int, out: Path) -> Path | None:
        """What the first task of a job printed, where it has begun."""
        return self._newest(f"*_{index}_0_log.out" if len(self.jobs) > 1 else "*_0_log.out", out)

    def pickle(self, index: int, out: Path) -> Path | None:
        """What submitit keeps of a job."""
        return self._newest(f"*_{index}_submitted.pkl" if len(self.jobs) > 1 else "*_submitted.pkl", out)

    def has_ended(self, out: Path) -> bool:
        """Of a job by itself: whether it has come to its end, well or not."""
        return self._newest("*_0_result.pkl", out) is not None

    def _newest(self, pattern: str, out: Path) -> Path | None:
        return max(self.folder(out).glob(pattern), key=lambda path: path.stat().st_mtime, default=None)


def read_submissions(out: Path) -> list[Submission]:
    """All of a folder of runs, oldest first. Raises ValueError with the file where one can't be read."""
    found = []
    for path in (out / FOLDER).glob(f"{PREFIX}*/{RECORD}"):
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
        # Another machine may remember the folder as it was: a change of one's own makes it look again.
        (path.parent / f"look-{os.getpid()}").touch()
        (path.parent / f"look-{os.getpid()}").unlink()
        yield


@dataclass(frozen=True)
class Failure:
    """Why a job ended without a result."""

    message: str
    again: bool  # whether the same once more may well succeed


@dataclass(frozen=True)
class Attempts:
    """What a job has behind it."""

    crashes: int = 0
    idle: int = 0  # times in a row that it was stopped without a step more than before
    steps: int = 0  # of its runs, when it was last stopped


def one_more_stop(attempts: Attempts, steps: int, cluster: Cluster) -> Attempts | Failure:
    """What a job has behind it that was stopped and begins again, or why it does not: it gets nowhere."""
    idle = attempts.idle + 1 if steps <= attempts.steps else 0
    if idle < MOST_IDLE:
        return replace(attempts, idle=idle, steps=steps)
    limit = f"the cluster's hours, {cluster.hours:g}, less save_seconds, {cluster.save_seconds}, may be too few"
    return Failure(f"stopped {MOST_IDLE} times in a row before a step was done; {limit}", again=False)


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
        aside = self._failure.with_name(f"{self._failure.name}.{secrets.token_hex(4)}")
        aside.write_text(json.dumps(to_data(failure)), encoding="utf-8")
        try:
            os.link(aside, self._failure)  # whole or not at all, and not over another
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(aside, self._failure)
        aside.unlink(missing_ok=True)

    def failure(self) -> Failure | None:
        try:
            content = read_json(self._failure)
            return from_data(Failure, content) if content else None
        except (InvalidFile, ValueError) as error:
            return Failure(f"it failed, and why can't be read ({error})", again=True)

    def forget_failure(self) -> None:
        self._failure.unlink(missing_ok=True)

    def cancel(self) -> None:
        """On record that someone wanted it out of the queue: Slurm's accounts may not be there, or be late."""
        (self.folder / f"{self.index}.cancelled").touch()

    def is_cancelled(self) -> bool:
        return (self.folder / f"{self.index}.cancelled").exists()

    def attempts(self) -> Attempts:
        content = read_json(self._attempts)
        return from_data(Attempts, content) if content else Attempts()

    def write_attempts(self, attempts: Attempts) -> None:
        write_json(self._attempts, to_data(attempts))
