"""The records of submissions: <out>/slurm/<name>/ for each array of jobs, which has the same name in Slurm.

submission.json   written before sbatch is called, so that Slurm can be asked for the jobs by their name
INDEX.attempts.json, INDEX.failure.json, INDEX.cancelled   of a job: earlier attempts, and why it has no result
submitit's files; the code is in <out>/slurm/code/
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
from typing import Annotated

from roadmap.files import InvalidFile, read_json, write_json
from roadmap.options import Selection
from roadmap.record.folder import read_metrics
from roadmap.record.run import Run
from roadmap.serialization.plain_data import from_data, to_data
from roadmap.serialization.ranges import TIME, Range, check, check_fields
from roadmap.study.cluster import Cluster, Layout
from roadmap.study.execution import Execution

FOLDER, RECORD = "slurm", "submission.json"  # in the folder of runs, and in that of a submission
PREFIX = "roadmap-"
MOST_IDLE = 5  # stops in a row without a step between: on a busy cluster a job may be preempted as soon as it starts
LOCK_SECONDS = 300  # to wait for another submission into the same folder


@dataclass(frozen=True)
class Entry:
    """A run of a job."""

    identity: str
    regime: str
    rung: str  # with what a transfer does with it
    seed: Annotated[int, Range(0)]
    epochs: Annotated[int, Range(1)]
    folder: str  # relative to the folder of runs

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    def of(run: Run, folder: Path, out: Path) -> Entry:
        epochs = run.experiment.recipe.epochs
        return Entry(run.identity, run.regime, run.label, run.seed, epochs, str(folder.relative_to(out)))


@dataclass(frozen=True)
class SubmitOptions:
    """How runs are submitted."""

    profile: str  # name in ablations.yaml
    cluster: Cluster
    execution: Execution
    command: tuple[str, ...]  # that submits them
    pack: int = 1  # runs per job
    most_running: int | None = None  # most jobs at a time

    @staticmethod
    def of(selection: Selection, command: tuple[str, ...], pack: int | None, max_running: int | None) -> SubmitOptions:
        """`pack` and `max_running` are None for the defaults. Raises ValueError for options that are not possible."""
        assert selection.profile is not None and selection.cluster is not None
        check(pack, Range(1), "pack")
        check(max_running, Range(1), "max_running")
        execution = selection.execution
        if execution.processes != "auto":
            raise ValueError(
                "execution.processes is unused on Slurm: the number is nodes x tasks per node of the cluster, "
                "such as with --set cluster.nodes=2"
            )
        path = execution.data_path  # made absolute, because a job may be submitted again from another folder
        weights = execution.weights and execution.weights.resolve()
        execution = replace(execution, data_path=path and Path(path).resolve(), weights=weights)
        return SubmitOptions(selection.profile, selection.cluster, execution, command, pack or 1, max_running)

    def layout(self, run: Run) -> Layout:
        """The layout of a run's job. Raises ValueError for one that can't train the run, with those that can."""
        try:
            layout = self.cluster.layout(run.experiment.recipe, self.execution)
        except ValueError as error:
            raise ValueError(f"clusters.{self.profile}: {run.name}: {error}") from None
        if self.pack > 1 and layout.processes > 1:
            raise ValueError(
                f"--pack {self.pack} requires runs of one process, but clusters.{self.profile} gives {run.name} "
                f"{layout} (nodes x tasks per node)"
            )
        return layout


@dataclass(frozen=True)
class Submission:
    """An array of jobs, or a single job; without runs, the job that draws the figure after the others."""

    name: str
    submitted: Annotated[str, TIME]  # UTC
    user: str
    options: SubmitOptions
    layout: Layout
    jobs: tuple[tuple[Entry, ...], ...] = ()  # the runs of each, by index

    def __post_init__(self) -> None:
        check_fields(self)

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
        """Removes the record first: without it the other files are ignored."""
        (self.folder(out) / RECORD).unlink()
        shutil.rmtree(self.folder(out), ignore_errors=True)

    def is_paused(self, entry: Entry, out: Path) -> bool:
        """Whether a run has trained for the epochs after which this submission pauses it."""
        end = self.options.execution.stop_after
        return end is not None and len(read_metrics(out / entry.folder)) >= end

    def has_trained(self, entry: Entry, out: Path) -> bool:
        """Whether a run has come to its end, or to where this submission pauses it."""
        return (out / entry.folder / "result.json").exists() or self.is_paused(entry, out)

    @property
    def seconds(self) -> float:
        """When it was submitted, in seconds of the system's clock."""
        return datetime.fromisoformat(self.submitted).timestamp()

    def log(self, index: int, out: Path) -> Path | None:
        """The output of the first task of a job; None before it has started."""
        return self._newest(f"*_{index}_0_log.out" if len(self.jobs) > 1 else "*_0_log.out", out)

    def pickle(self, index: int, out: Path) -> Path | None:
        """The pickled task of a job, written by submitit."""
        return self._newest(f"*_{index}_submitted.pkl" if len(self.jobs) > 1 else "*_submitted.pkl", out)

    def has_ended(self, out: Path) -> bool:
        """Whether a single job has ended, with or without success."""
        return self._newest("*_0_result.pkl", out) is not None

    def _newest(self, pattern: str, out: Path) -> Path | None:
        return max(self.folder(out).glob(pattern), key=lambda path: path.stat().st_mtime, default=None)


def read_submissions(out: Path) -> list[Submission]:
    """All submissions of a folder of runs, oldest first. Raises ValueError with the file if one can't be read."""
    submissions = []
    for path in (out / FOLDER).glob(f"{PREFIX}*/{RECORD}"):
        content = read_json(path)
        try:
            submissions.append(from_data(Submission, content))
        except ValueError as error:
            raise InvalidFile(f"{path}: {error}; move the folder away") from None
    return sorted(submissions, key=lambda submission: submission.submitted)


@contextlib.contextmanager
def submitting(out: Path) -> Iterator[None]:
    """Locks a folder of runs against other submissions. Raises ValueError if another one holds the lock too long."""
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
        # A network file system may have cached the folder: a change from this machine invalidates the cache.
        (path.parent / f"look-{os.getpid()}").touch()
        (path.parent / f"look-{os.getpid()}").unlink()
        yield


@dataclass(frozen=True)
class Failure:
    """Why a job ended without a result."""

    message: str
    again: bool  # whether another attempt may succeed


@dataclass(frozen=True)
class Attempts:
    """The earlier attempts of a job."""

    crashes: int = 0
    idle: int = 0  # stops in a row without a new step
    steps: int = 0  # of its runs, at the last stop


def one_more_stop(attempts: Attempts, steps: int, cluster: Cluster) -> Attempts | Failure:
    """The attempts with one more stop, if the job is requeued; a Failure if it was stopped too often without a step."""
    idle = attempts.idle + 1 if steps <= attempts.steps else 0
    if idle < MOST_IDLE:
        return replace(attempts, idle=idle, steps=steps)
    limit = f"the cluster's hours, {cluster.hours:g}, minus save_seconds, {cluster.save_seconds}, may be too few"
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
        """Records the first failure of the job's tasks. Later ones are ignored: they are consequences of the first."""
        temporary = self._failure.with_name(f"{self._failure.name}.{secrets.token_hex(4)}")
        temporary.write_text(json.dumps(to_data(failure)), encoding="utf-8")
        try:
            os.link(temporary, self._failure)  # atomic, and does not replace an existing file
        except FileExistsError:
            pass
        except OSError:  # a file system without links
            os.replace(temporary, self._failure)
        temporary.unlink(missing_ok=True)

    def failure(self) -> Failure | None:
        try:
            content = read_json(self._failure)
            return from_data(Failure, content) if content else None
        except (InvalidFile, ValueError) as error:
            return Failure(f"it failed, and the reason can't be read ({error})", again=True)

    def forget_failure(self) -> None:
        self._failure.unlink(missing_ok=True)

    def cancel(self) -> None:
        """Records that a user cancelled the job: Slurm's accounting may be absent or late."""
        (self.folder / f"{self.index}.cancelled").touch()

    def is_cancelled(self) -> bool:
        return (self.folder / f"{self.index}.cancelled").exists()

    def attempts(self) -> Attempts:
        content = read_json(self._attempts)
        return from_data(Attempts, content) if content else Attempts()

    def write_attempts(self, attempts: Attempts) -> None:
        write_json(self._attempts, to_data(attempts))
