"""The status of every run of a folder, from the run folders, and for submitted runs also from Slurm."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from roadmap.files import InvalidFile, read_json, read_tail
from roadmap.record.folder import is_diverged, last_metrics, read_divergences, read_result
from roadmap.record.metrics import TOP1, Metric, primary
from roadmap.record.results import EpochMetrics, Value, scalar
from roadmap.record.run import written_identity
from roadmap.record.sessions import TrainingPosition, read_position, read_sessions
from roadmap.serialization.plain_data import from_data
from roadmap.tasks.transfer import Transfer
from runner.launch.slurm import slurm_cli
from runner.launch.slurm.submission import Entry, JobFiles, Submission, read_submissions
from runner.launch.status_text import Kind, status_text
from runner.machine.lock import is_held

SLACK_SECONDS = 10  # between clocks


@dataclass(frozen=True)
class RunStatus:
    """A run and its status."""

    entry: Entry
    folder: Path
    kind: Kind
    detail: str = ""  # why it waits, or why it ended
    place: TrainingPosition | None = None
    metrics: EpochMetrics | None = None  # of the last whole epoch
    result: Mapping[str, Value] = field(default_factory=dict)  # the metrics of a finished run, by key
    job: slurm_cli.Queued | None = None
    submission: Submission | None = None  # the last one that contained it
    index: int = 0  # of its job in the submission
    restarts: int = 0
    lost_steps: int = 0

    @property
    def name(self) -> str:
        return f"{self.entry.regime}/{self.entry.rung}-s{self.entry.seed}"

    @property
    def epochs_done(self) -> float:
        if self.place is None:
            return 0.0
        return min(self.place.epoch + self.place.step / max(1, self.place.steps), float(self.entry.epochs))

    @property
    def seconds_left(self) -> float | None:
        """Estimated by the duration of the last epoch; None before the first."""
        pace = self.metrics.seconds if self.metrics else None
        return None if pace is None else pace * (self.entry.epochs - self.epochs_done)

    def value(self, metric: Metric) -> float | None:
        """The metric in the result, or before there is one, in the last epoch."""
        values = self.result or (self.metrics.values if self.metrics else {})
        return scalar(values.get(metric.key))

    @property
    def metric(self) -> Metric:
        """The metric that compares runs like this one."""
        return primary(self.result or (self.metrics.values if self.metrics else {}))

    @property
    def images_per_second(self) -> float | None:
        """In training, during the last epoch."""
        return self.metrics.images_per_second if self.metrics else None

    @property
    def is_going(self) -> bool:
        return self.kind in ("running", "queued", "submitted")

    @property
    def log(self) -> Path | None:
        """The run's log, or else that of its job's first task; None if there is neither."""
        own = self.folder / "log.txt"
        if own.exists() or self.submission is None:
            return own if own.exists() else None
        out = self.folder.parents[len(Path(self.entry.folder).parts) - 1]
        return self.submission.log(self.index, out)

    def record(self) -> dict[str, Any]:
        """The status as plain data."""
        place = self.place
        return {
            "regime": self.entry.regime,
            "rung": self.entry.rung,
            "seed": self.entry.seed,
            "identity": written_identity(self.entry.identity),
            "folder": str(self.folder),
            "state": self.kind,
            "detail": self.detail,
            "job": self.job.job_id if self.job else None,
            "epoch": place.epoch if place else None,
            "step": place.step if place else None,
            "epochs": self.entry.epochs,
            TOP1.key: self.value(TOP1),
            **({self.metric.key: self.value(self.metric)} if self.metric is not TOP1 else {}),
            "images_per_second": self.images_per_second,
            "seconds_left": self.seconds_left if self.kind == "running" else None,
            "restarts": self.restarts,
            "lost_steps": self.lost_steps,
        }


@dataclass(frozen=True)
class StudyStatus:
    """The status of every run of a folder, and of its jobs in Slurm's queue."""

    out: Path
    runs: tuple[RunStatus, ...]
    unanswered: tuple[str, ...] = ()  # what Slurm did not report, and why
    figures: tuple[slurm_cli.Queued, ...] = ()  # the jobs in the queue that draw the figure
    figure_failed: str | None = None  # why the last of them failed
    knows_queue: bool = True  # whether Slurm reported its queue
    unreadable: tuple[Path, ...] = ()  # folders with a manifest that can't be read

    def __str__(self) -> str:
        return status_text(self)

    @property
    def is_going(self) -> bool:
        """Whether anything is running or queued."""
        return bool(self.figures) or any(run.is_going for run in self.runs)

    def require_queue(self) -> None:
        """Raises SlurmError if Slurm did not report its queue."""
        if not self.knows_queue:
            raise slurm_cli.SlurmError(f"Slurm did not report {self.unanswered[0]}")


@dataclass(frozen=True)
class _Slurm:
    """What Slurm reported."""

    queued: Mapping[tuple[str, int], slurm_cli.Queued]  # by the submission's name, and the index
    ended: Mapping[tuple[str, int], str]
    has_queue: bool


def collect_status(out: Path) -> StudyStatus:
    """The status of every run below `out`, local or submitted. Slurm is called at most twice: queue, and ended jobs."""
    submissions = read_submissions(out)
    jobs = dict(_jobs(submissions))  # the last submission of each run
    begun, unreadable = _begun(out)
    entries = {entry.identity: entry for entry in (*begun, *(entry for entry, _, _ in jobs.values()))}
    by_folder = {identity: _of_folder(entry, out / entry.folder) for identity, entry in entries.items()}
    # A run that diverged may be in the queue to be retried.
    open_runs = [jobs[identity] for identity, run in by_folder.items() if run.kind != "finished" and identity in jobs]
    figures = [submission for submission in submissions if not submission.jobs]
    slurm, unanswered = _ask_slurm(open_runs, {figure.name for figure in figures if not figure.has_ended(out)})
    runs = [_with_job(status, jobs.get(identity), slurm, out) for identity, status in by_folder.items()]
    names = {submission.name for submission in figures}
    queued = [job for (name, _), job in slurm.queued.items() if name in names]
    failure = JobFiles(figures[-1].folder(out), 0).failure() if figures and not queued else None
    figure_failed = failure.message if failure else None
    return StudyStatus(
        out, tuple(runs), tuple(unanswered), tuple(queued), figure_failed, slurm.has_queue, tuple(unreadable)
    )


def _jobs(submissions: list[Submission]) -> Iterator[tuple[str, tuple[Entry, Submission, int]]]:
    for submission in submissions:
        for index, entries in enumerate(submission.jobs):
            for entry in entries:
                yield entry.identity, (entry, submission, index)


def _begun(out: Path) -> tuple[list[Entry], list[Path]]:
    """The runs that have a folder, and the folders whose manifest is damaged, or of another program."""
    entries, unreadable = [], []
    for path in sorted(out.glob("*/*/manifest.json")):
        try:
            entries.append(_entry(path, out))
        except (InvalidFile, OSError, KeyError, TypeError, ValueError):
            unreadable.append(path.parent)
    return entries, unreadable


def _entry(path: Path, out: Path) -> Entry:
    """The run of a manifest."""
    manifest = read_json(path) or {}
    run = manifest["run"]
    # Not the whole run, which is slow for a thousand runs.
    labels = {name: run[name] for name in ("regime", "rung", "seed")}
    if run.get("transfer"):
        transfer: Transfer = from_data(Transfer, run["transfer"])
        labels["rung"] += f"-{transfer.label}"
    labels |= {"identity": manifest["identity"], "epochs": run["experiment"]["recipe"]["epochs"]}
    entry: Entry = from_data(Entry, {**labels, "folder": str(path.parent.relative_to(out))})
    return entry


def _of_folder(entry: Entry, folder: Path) -> RunStatus:
    """The status of a run by its folder alone."""
    status = RunStatus(entry, folder, "stopped", place=read_position(folder), metrics=last_metrics(folder))
    try:
        sessions = read_sessions(folder)
        lost_steps = sum(session.lost_steps for session in sessions)
        status = replace(status, restarts=max(0, len(sessions) - 1), lost_steps=lost_steps)
        result = read_result(folder, entry)
        divergences = read_divergences(folder)
    except (InvalidFile, OSError) as error:
        return replace(status, kind="failed", detail=str(error))
    if result is not None:
        return replace(status, kind="finished", result=result.values)
    if is_diverged(divergences):
        return replace(status, kind="diverged", detail=str(divergences[-1]))
    held = is_held(folder)
    return replace(status, kind="running" if held else "stopped", detail="" if held else last_line(folder))


def _ask_slurm(open_runs: list[tuple[Entry, Submission, int]], figures: AbstractSet[str]) -> tuple[_Slurm, list[str]]:
    """What Slurm reports of runs and of the figures' jobs, and what it did not report."""
    unanswered: list[str] = []
    names = {submission.name for _, submission, _ in open_runs}
    queued: dict[tuple[str, int], slurm_cli.Queued] = {}
    has_queue = True
    try:
        queued = {(job.name, job.index): job for job in slurm_cli.queue(sorted(names | figures))}
    except slurm_cli.SlurmError as error:
        has_queue = False
        unanswered.append(f"what is in the queue: {error}")
    gone = {submission.name: submission for _, submission, index in open_runs if (submission.name, index) not in queued}
    ended: dict[tuple[str, int], str] = {}
    if gone and has_queue:  # while the controller is away, accounting is out of date
        first = min(submission.seconds for submission in gone.values())
        try:
            ended = slurm_cli.ended(sorted(gone), first - SLACK_SECONDS)
        except slurm_cli.SlurmError as error:
            unanswered.append(f"how jobs ended: {error}")
    return _Slurm(queued, ended, has_queue), unanswered


def _with_job(status: RunStatus, job: tuple[Entry, Submission, int] | None, slurm: _Slurm, out: Path) -> RunStatus:
    """A run's status by its folder and its job."""
    if job is None:
        return status
    _, submission, index = job
    status = replace(status, submission=submission, index=index)
    if status.kind == "finished":
        return status
    queued = slurm.queued.get((submission.name, index))
    if queued:
        waits = queued.state == "PENDING"
        detail = queued.reason if waits else "" if queued.state == "RUNNING" else queued.state.lower()
        return replace(status, kind="queued" if waits else "running", job=queued, detail=detail)
    now = _of_folder(status.entry, status.folder)  # read again: it may have ended during the call of Slurm
    status = replace(now, submission=submission, index=index)
    if status.kind in ("finished", "diverged", "running"):  # running in another process than its job
        return status
    if submission.is_paused(status.entry, out):
        return status
    files, gone = JobFiles(submission.folder(out), index), slurm.ended.get((submission.name, index))
    failure = files.failure()
    if files.is_cancelled() or (gone and gone == "CANCELLED" and not failure):
        return replace(status, kind="cancelled")
    if failure:
        return replace(status, kind="failed", detail=failure.message)
    if not slurm.has_queue:
        return replace(status, kind="submitted")
    if not gone and submission.user != getpass.getuser():  # a cluster may hide the jobs of other users
        return replace(status, kind="submitted", detail=f"by {submission.user}, whose job is not visible in the queue")
    known = f"its job ended as {gone}" if gone else "its job is no longer in the queue"
    return replace(status, kind="failed", detail=f"{known}; last: {status.detail}" if status.detail else known)


def last_line(folder: Path) -> str:
    """The last line of the run's log; empty if there is none."""
    return next(reversed(read_tail(folder / "log.txt")), "")
