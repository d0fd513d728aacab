"""Where every run of a folder stands: by the run folders, and, for those that were submitted, by Slurm's word."""

from __future__ import annotations

import getpass
from collections.abc import Iterator, Mapping
from collections.abc import Set as AbstractSet
from dataclasses import dataclass, field, replace
from pathlib import Path
from typing import Any

from roadmap.files import InvalidFile, read_json, read_tail
from roadmap.record.folder import is_diverged, last_metrics, read_divergences
from roadmap.record.metrics import TOP1, Metric
from roadmap.record.results import EpochMetrics, Value, scalar, values_of
from roadmap.record.sessions import TrainingPosition, read_position, read_sessions
from runner.launch.slurm import slurm_cli
from runner.launch.slurm.submission import Entry, JobFiles, Submission, read_submissions
from runner.launch.status_text import Kind, status_text
from runner.machine.lock import is_held

SLACK_SECONDS = 10  # between clocks


@dataclass(frozen=True)
class RunStatus:
    """A run, and how it is."""

    entry: Entry
    folder: Path
    kind: Kind
    detail: str = ""  # why it waits, or why it ended
    place: TrainingPosition | None = None
    metrics: EpochMetrics | None = None  # of the last whole epoch
    result: Mapping[str, Value] = field(default_factory=dict)  # the metrics of a finished run, by key
    job: slurm_cli.Queued | None = None
    submission: Submission | None = None  # the last that had it
    index: int = 0  # of its job there
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
        """By the pace of the last epoch; none before the first."""
        pace = self.metrics.seconds if self.metrics else None
        return None if pace is None else pace * (self.entry.epochs - self.epochs_done)

    def value(self, metric: Metric) -> float | None:
        """Of the result, or before there is one of the last epoch."""
        values = self.result or (self.metrics.values if self.metrics else {})
        return scalar(values.get(metric.key))

    @property
    def images_per_second(self) -> float | None:
        """In training, in the last epoch."""
        return self.metrics.images_per_second if self.metrics else None

    @property
    def is_going(self) -> bool:
        return self.kind in ("running", "queued", "submitted")

    @property
    def log(self) -> Path | None:
        """The run's own log, else that of its job's first task; None before either."""
        own = self.folder / "log.txt"
        if own.exists() or self.submission is None:
            return own if own.exists() else None
        out = self.folder.parents[len(Path(self.entry.folder).parts) - 1]
        return self.submission.log(self.index, out)

    def record(self) -> dict[str, Any]:
        """As a row of data."""
        place = self.place
        return {
            "regime": self.entry.regime,
            "rung": self.entry.rung,
            "seed": self.entry.seed,
            "identity": self.entry.identity,
            "folder": str(self.folder),
            "state": self.kind,
            "detail": self.detail,
            "job": self.job.job_id if self.job else None,
            "epoch": place.epoch if place else None,
            "step": place.step if place else None,
            "epochs": self.entry.epochs,
            TOP1.key: self.value(TOP1),
            "images_per_second": self.images_per_second,
            "seconds_left": self.seconds_left if self.kind == "running" else None,
            "restarts": self.restarts,
            "lost_steps": self.lost_steps,
        }


@dataclass(frozen=True)
class StudyStatus:
    """Every run of a folder, and what of it is in Slurm's queue."""

    out: Path
    runs: tuple[RunStatus, ...]
    unanswered: tuple[str, ...] = ()  # what Slurm was not asked, and why
    figures: tuple[slurm_cli.Queued, ...] = ()  # the jobs in the queue that draw the figure
    figure_failed: str | None = None  # why the last of them drew none
    knows_queue: bool = True  # whether Slurm reported what is in it

    def __str__(self) -> str:
        return status_text(self)

    @property
    def is_going(self) -> bool:
        """Whether anything runs or waits."""
        return bool(self.figures) or any(run.is_going for run in self.runs)

    def require_queue(self) -> None:
        """Raises SlurmError where it is not known what is in the queue."""
        if not self.knows_queue:
            raise slurm_cli.SlurmError(f"Slurm was not asked {self.unanswered[0]}")


@dataclass(frozen=True)
class _Slurm:
    """What Slurm said."""

    queued: Mapping[tuple[str, int], slurm_cli.Queued]  # by the submission's name, and the index
    ended: Mapping[tuple[str, int], str]
    answered: bool


def collect_status(out: Path) -> StudyStatus:
    """Every run below `out`: of local ones and of jobs. Slurm is asked once for its queue, and once for what ended."""
    submissions = read_submissions(out)
    jobs = dict(_jobs(submissions))  # a later submission's word counts
    entries = {entry.identity: entry for entry in (*_begun(out), *(entry for entry, _, _ in jobs.values()))}
    before = {identity: _of_folder(entry, out / entry.folder) for identity, entry in entries.items()}
    # A run that diverged may be in the queue to be retried.
    open_runs = [jobs[identity] for identity, each in before.items() if each.kind != "finished" and identity in jobs]
    drawing = [submission for submission in submissions if not submission.jobs]
    slurm, unanswered = _ask_slurm(open_runs, {each.name for each in drawing if not each.has_ended(out)})
    runs = [_with_job(standing, jobs.get(identity), slurm, out) for identity, standing in before.items()]
    names = {submission.name for submission in drawing}
    queued = [job for (name, _), job in slurm.queued.items() if name in names]
    failure = JobFiles(drawing[-1].folder(out), 0).failure() if drawing and not queued else None
    figure_failed = failure.message if failure else None
    return StudyStatus(out, tuple(runs), tuple(unanswered), tuple(queued), figure_failed, slurm.answered)


def _jobs(submissions: list[Submission]) -> Iterator[tuple[str, tuple[Entry, Submission, int]]]:
    for submission in submissions:
        for index, entries in enumerate(submission.jobs):
            for entry in entries:
                yield entry.identity, (entry, submission, index)


def _begun(out: Path) -> Iterator[Entry]:
    """The runs that have a folder. What is no manifest is passed over."""
    for path in sorted(out.glob("*/*/manifest.json")):
        try:
            manifest = read_json(path) or {}
            run = manifest["run"]
            # Not through the types: a thousand runs are to be told of at once.
            place = (run["regime"], run["rung"], int(run["seed"]), int(run["experiment"]["recipe"]["epochs"]))
            yield Entry(manifest["identity"], *place, str(path.parent.relative_to(out)))
        except (InvalidFile, KeyError, TypeError, ValueError):
            continue


def _of_folder(entry: Entry, folder: Path) -> RunStatus:
    """By its folder alone."""
    sessions = read_sessions(folder)
    standing = RunStatus(
        entry,
        folder,
        "stopped",
        place=read_position(folder),
        metrics=last_metrics(folder),
        restarts=max(0, len(sessions) - 1),
        lost_steps=sum(each.lost_steps for each in sessions),
    )
    try:
        result = read_json(folder / "result.json")
        divergences = read_divergences(folder)
    except InvalidFile as error:
        return replace(standing, kind="failed", detail=str(error))
    if result is not None:
        return replace(standing, kind="finished", result=values_of(result))
    if is_diverged(divergences):
        return replace(standing, kind="diverged", detail=str(divergences[-1]))
    held = is_held(folder)
    return replace(standing, kind="running" if held else "stopped", detail="" if held else last_line(folder))


def _ask_slurm(open_runs: list[tuple[Entry, Submission, int]], figures: AbstractSet[str]) -> tuple[_Slurm, list[str]]:
    """What becomes of runs, and of the jobs of those names; and what could not be asked."""
    unanswered: list[str] = []
    names = {submission.name for _, submission, _ in open_runs}
    queued: dict[tuple[str, int], slurm_cli.Queued] = {}
    answered = True
    try:
        queued = {(job.name, job.index): job for job in slurm_cli.queue(sorted(names | figures))}
    except slurm_cli.SlurmError as error:
        answered = False
        unanswered.append(f"what is in the queue: {error}")
    gone = {submission.name: submission for _, submission, index in open_runs if (submission.name, index) not in queued}
    ended: dict[tuple[str, int], str] = {}
    if gone and answered:  # where the controller is away the accounts would be old
        first = min(submission.seconds for submission in gone.values())
        try:
            ended = slurm_cli.ended(sorted(gone), first - SLACK_SECONDS)
        except slurm_cli.SlurmError as error:
            unanswered.append(f"how jobs ended: {error}")
    return _Slurm(queued, ended, answered), unanswered


def _with_job(standing: RunStatus, job: tuple[Entry, Submission, int] | None, slurm: _Slurm, out: Path) -> RunStatus:
    """What its job adds to what its folder says."""
    if job is None:
        return standing
    _, submission, index = job
    standing = replace(standing, submission=submission, index=index)
    if standing.kind == "finished":
        return standing
    queued = slurm.queued.get((submission.name, index))
    if queued:
        waits = queued.state == "PENDING"
        detail = queued.reason if waits else "" if queued.state == "RUNNING" else queued.state.lower()
        return replace(standing, kind="queued" if waits else "running", job=queued, detail=detail)
    now = _of_folder(standing.entry, standing.folder)  # once more: it may have ended while Slurm was asked
    standing = replace(now, submission=submission, index=index)
    if standing.kind in ("finished", "diverged", "running"):  # running, by another's hand
        return standing
    files, gone = JobFiles(submission.folder(out), index), slurm.ended.get((submission.name, index))
    failure = files.failure()
    if files.is_cancelled() or (gone and gone == "CANCELLED" and not failure):
        return replace(standing, kind="cancelled")
    if failure:
        return replace(standing, kind="failed", detail=failure.message)
    if not slurm.answered:
        return replace(standing, kind="submitted")
    if not gone and submission.user != getpass.getuser():  # a cluster may not show others' jobs
        return replace(standing, kind="submitted", detail=f"by {submission.user}, whose job is not seen in the queue")
    known = f"its job ended as {gone}" if gone else "its job is not in the queue any more"
    return replace(standing, kind="failed", detail=f"{known}; last: {standing.detail}" if standing.detail else known)


def last_line(folder: Path) -> str:
    """Of the run's log; empty where there is none."""
    return next(reversed(read_tail(folder / "log.txt")), "")
