"""Submitting a study: arrays of jobs with equal layouts, and a job that draws the figure after them."""

from __future__ import annotations

import contextlib
import getpass
import signal
from collections.abc import Callable, Collection, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from roadmap.plugins import load_file, loaded
from roadmap.record.folder import state
from roadmap.record.run import Run
from roadmap.study.cluster import Layout
from runner.launch.slurm import slurm_cli
from runner.launch.slurm.script import sbatch
from runner.launch.slurm.submission import (
    FOLDER,
    Entry,
    Failure,
    JobFiles,
    Submission,
    SubmitOptions,
    read_submissions,
    submitting,
)
from runner.launch.slurm.task import Task
from runner.machine.signals import handled
from runner.machine.snapshot import snapshot

SUBMISSION_ERRORS = (slurm_cli.SlurmError, FailedJobError, FailedSubmissionError)
FORBIDDEN = "%:\n"  # in paths: sbatch and PYTHONPATH misread them
Member = tuple[Run, Path]  # a run and its folder


@dataclass(frozen=True)
class Submitted:
    """The outcome of a submission."""

    arrays: list[tuple[Submission, str]]  # with their numbers in Slurm
    elsewhere: int  # runs that are already in the queue, or have finished meanwhile
    figure: str | None  # the job that draws the figure

    @property
    def runs(self) -> int:
        return sum(len(job) for submission, _ in self.arrays for job in submission.jobs)


def plan_arrays(
    members: Iterable[Member], options: SubmitOptions, limit: int
) -> Iterator[tuple[Layout, list[list[Member]]]]:
    """The arrays to submit: the layout of each, and the runs of each of its jobs. `limit`: most jobs of an array."""
    by_layout: dict[Layout, list[Member]] = {}
    for run, folder in members:
        by_layout.setdefault(options.layout(run), []).append((run, folder))
    for layout, group in by_layout.items():
        jobs = [group[start : start + options.pack] for start in range(0, len(group), options.pack)]
        for start in range(0, len(jobs), limit):
            yield layout, jobs[start : start + limit]


def submit(
    members: Sequence[Member],
    out: Path,
    options: SubmitOptions,
    conclude: Callable[[], object],
    sources: Collection[str] = (),
) -> Submitted:
    """Submits the runs that are not in the queue, all or none, and a job that calls `conclude` after all have ended.

    `sources` are the identities of runs that these begin with: where such a run is in the queue, they start after its
    jobs have succeeded.

    Raises ValueError for a folder name that Slurm misreads, and SlurmError if Slurm refuses a job; then none stays in
    its queue.
    """
    out = out.resolve()
    check_path(out)
    with submitting(out), handled(signal.SIG_IGN, signal.SIGHUP):  # a lost connection does not interrupt it
        limits = slurm_cli.limits()
        queue = Queue.ask(out, limits)
        new = [member for member in members if queue.is_missing(*member)]
        if not new:
            return Submitted([], len(members), None)
        before = sorted({queue.arrays[identity] for identity in sources if identity in queue.arrays})
        code, plugins = snapshot(out / FOLDER / "code", list(loaded()))
        arrays: list[tuple[Submission, str]] = []
        with _all_or_nothing(out) as record:
            for layout, jobs in plan_arrays(new, options, limits.array):
                submission = record(Submission.new(options, layout, entries(jobs, out)))
                tasks = [_task(submission, i, job, out, plugins) for i, job in enumerate(jobs)]
                # One array after another, so that `most_running` holds for all of them.
                after = [arrays[-1][1]] if options.most_running and arrays else []
                arrays.append((submission, sbatch(submission, out, tasks, code, after, before)))
            figure = record(Submission.new(options, Layout(1, 1)))
            task = Figure(plugins, conclude, JobFiles(figure.folder(out), 0))
            drawn = sbatch(figure, out, [task], code, [*(number for _, number in arrays), *queue.numbers])
        return Submitted(arrays, len(members) - len(new), drawn)


def check_path(out: Path) -> None:
    """Raises ValueError for a folder name that Slurm misreads."""
    for character in FORBIDDEN:
        if character in str(out):
            raise ValueError(f"--out must not contain {character!r}, which Slurm misreads (got {str(out)!r})")


def entries(jobs: Sequence[Sequence[Member]], out: Path) -> tuple[tuple[Entry, ...], ...]:
    """The recorded entries of the runs of jobs."""
    return tuple(tuple(Entry.of(run, folder.resolve(), out) for run, folder in job) for job in jobs)


def _task(submission: Submission, index: int, job: Sequence[Member], out: Path, plugins: tuple[Path, ...]) -> Task:
    members = tuple((run, folder.resolve()) for run, folder in job)
    return Task(members, submission.options, plugins, JobFiles(submission.folder(out), index))


@dataclass(frozen=True)
class Queue:
    """The runs of a folder that are in Slurm's queue."""

    runs: frozenset[str]  # their identities
    numbers: frozenset[str]  # the job numbers of their arrays
    arrays: Mapping[str, str] = field(default_factory=dict)  # the number of the array of each run, by identity

    @staticmethod
    def ask(out: Path, limits: slurm_cli.Limits) -> Queue:
        """Asks Slurm. Raises SlurmError, and ValueError if Slurm hides jobs that another user submitted."""
        submissions = {submission.name: submission for submission in read_submissions(out)}
        jobs = [job for job in slurm_cli.queue(submissions) if submissions[job.name].jobs]
        seen = {job.name for job in jobs}
        if limits.hides_jobs:
            _check_hidden([other for other in submissions.values() if other.jobs and other.name not in seen], out)
        arrays = {
            entry.identity: job.job_id.split("_")[0] for job in jobs for entry in submissions[job.name].jobs[job.index]
        }
        return Queue(frozenset(arrays), frozenset(arrays.values()), arrays)

    def is_missing(self, run: Run, folder: Path) -> bool:
        """Whether a run is to be submitted. It may have finished since the queue was read."""
        return run.identity not in self.runs and state(folder, run) != "finished"


def _check_hidden(unseen: Sequence[Submission], out: Path) -> None:
    """Raises ValueError for unfinished jobs of other users, which may be in the queue although Slurm hides them."""
    user = getpass.getuser()
    for submission in unseen:
        if submission.user != user and not _is_over(submission, out):
            raise ValueError(
                f"{out}: {submission.user} submitted runs into it that have not ended, and this cluster does not show "
                f"whether they are in its queue; leave them to {submission.user}, or choose another --out"
            )


def _is_over(submission: Submission, out: Path) -> bool:
    """Whether each job of a submission has its results, has failed, or was cancelled."""
    for index, job in enumerate(submission.jobs):
        files = JobFiles(submission.folder(out), index)
        finished = all(submission.has_trained(entry, out) for entry in job)
        if not (finished or files.failure() or files.is_cancelled()):
            return False
    return True


@contextlib.contextmanager
def _all_or_nothing(out: Path) -> Iterator[Callable[[Submission], Submission]]:
    """Records submissions, and cancels and removes all of them if something fails. Raises SlurmError."""
    written: list[Submission] = []

    def record(submission: Submission) -> Submission:
        submission.write(out)
        written.append(submission)
        return submission

    try:
        yield record
    except BaseException as error:
        outcome = _roll_back(written, out)
        error.add_note(f"stopped: {outcome}")  # shown after an interrupt
        if isinstance(error, SUBMISSION_ERRORS):
            raise slurm_cli.SlurmError(f"{_last_line(error)}; {outcome}") from None
        raise


def _roll_back(written: Sequence[Submission], out: Path) -> str:
    """Removes a failed submission from the queue, and its records; returns the outcome as text.

    If Slurm does not answer, the records stay, so that the next submission knows what may be in the queue.
    """
    try:
        slurm_cli.cancel_named([submission.name for submission in written])
    except slurm_cli.SlurmError:
        return f"jobs that Slurm may have accepted are recorded in {out / FOLDER}, and are not submitted twice"
    for submission in written:
        submission.remove(out)
    return "nothing was submitted"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines or [type(error).__name__])[-1]


@dataclass(frozen=True)
class Figure:
    """The task of the job that follows all others."""

    plugins: tuple[Path, ...]
    conclude: Callable[[], object]
    files: JobFiles

    def __call__(self) -> None:
        try:
            for plugin in self.plugins:
                load_file(plugin)
            self.conclude()
        except Exception as error:
            self.files.fail(Failure(f"{type(error).__name__}: {error}", again=False))
            raise

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(self)
