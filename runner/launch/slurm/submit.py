"""Submitting a study: arrays of jobs with equal layouts, and a job that draws the figure after them."""

from __future__ import annotations

import contextlib
import getpass
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError

from roadmap.plugins import LOADED, load_file
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

REFUSALS = (slurm_cli.SlurmError, FailedJobError, FailedSubmissionError)
MISREAD = "%:\n"  # in paths, by sbatch and by PYTHONPATH
Member = tuple[Run, Path]  # a run and its folder


@dataclass(frozen=True)
class Submitted:
    """What came of it."""

    arrays: list[tuple[Submission, str]]  # with their numbers in Slurm
    elsewhere: int  # runs that are in the queue already, or have ended meanwhile
    figure: str | None  # the job that draws the figure

    @property
    def runs(self) -> int:
        return sum(len(job) for submission, _ in self.arrays for job in submission.jobs)


def plan_arrays(
    members: Iterable[Member], options: SubmitOptions, limit: int
) -> Iterator[tuple[Layout, list[list[Member]]]]:
    """The arrays to submit: of each the layout, and of each of its jobs the runs. `limit` is the jobs of an array."""
    alike: dict[Layout, list[Member]] = {}
    for run, folder in members:
        alike.setdefault(options.layout(run), []).append((run, folder))
    for layout, group in alike.items():
        jobs = [group[start : start + options.pack] for start in range(0, len(group), options.pack)]
        for start in range(0, len(jobs), limit):
            yield layout, jobs[start : start + limit]


def submit(
    members: Sequence[Member],
    out: Path,
    options: SubmitOptions,
    conclude: Callable[[], object],
) -> Submitted:
    """Submits what is not in the queue already, all of it or nothing, and `conclude` for when all have ended.

    Raises ValueError for a folder that Slurm can't be told of, and SlurmError where Slurm does not take it, with
    nothing left in its queue.
    """
    out = out.resolve()
    check_path(out)
    with submitting(out), handled(signal.SIG_IGN, signal.SIGHUP):  # no half of it where a connection breaks
        limits = slurm_cli.limits()
        queue = Queue.ask(out, limits)
        new = [member for member in members if queue.lacks(*member)]
        if not new:
            return Submitted([], len(members), None)
        code, plugins = snapshot(out / FOLDER / "code", LOADED)
        arrays: list[tuple[Submission, str]] = []
        with _all_or_nothing(out) as record:
            for layout, jobs in plan_arrays(new, options, limits.array):
                submission = record(Submission.new(options, layout, entries(jobs, out)))
                tasks = [_task(submission, i, job, out, plugins) for i, job in enumerate(jobs)]
                after = [arrays[-1][1]] if options.most_running and arrays else []  # so that no more run in all
                arrays.append((submission, sbatch(submission, out, tasks, code, after)))
            figure = record(Submission.new(options, Layout(1, 1)))
            task = Figure(plugins, conclude, JobFiles(figure.folder(out), 0))
            drawn = sbatch(figure, out, [task], code, [*(number for _, number in arrays), *queue.numbers])
        return Submitted(arrays, len(members) - len(new), drawn)


def check_path(out: Path) -> None:
    """Raises ValueError for a folder that Slurm can't be told of."""
    for character in MISREAD:
        if character in str(out):
            raise ValueError(f"{str(out)!r} has a {character!r}, which Slurm would misread; choose another --out")


def entries(jobs: Sequence[Sequence[Member]], out: Path) -> tuple[tuple[Entry, ...], ...]:
    """What is put on record of the runs of jobs."""
    return tuple(tuple(Entry.of(run, folder.resolve(), out) for run, folder in job) for job in jobs)


def _task(submission: Submission, index: int, job: Sequence[Member], out: Path, plugins: tuple[Path, ...]) -> Task:
    members = tuple((run, folder.resolve()) for run, folder in job)
    return Task(members, submission.options, plugins, JobFiles(submission.folder(out), index))


@dataclass(frozen=True)
class Queue:
    """What of a folder of runs is in Slurm's queue."""

    runs: frozenset[str]  # identities
    numbers: frozenset[str]  # of arrays

    @staticmethod
    def ask(out: Path, limits: slurm_cli.Limits) -> Queue:
        """Raises SlurmError, and ValueError where Slurm hides jobs that someone else submitted."""
        submissions = {submission.name: submission for submission in read_submissions(out)}
        jobs = [job for job in slurm_cli.queue(submissions) if submissions[job.name].jobs]
        seen = {job.name for job in jobs}
        if limits.hides_jobs:
            _check_hidden([each for each in submissions.values() if each.jobs and each.name not in seen], out)
        runs = (entry.identity for job in jobs for entry in submissions[job.name].jobs[job.index])
        return Queue(frozenset(runs), frozenset(job.job_id.split("_")[0] for job in jobs))

    def lacks(self, run: Run, folder: Path) -> bool:
        """Whether it is to be submitted: it may have ended since it was looked for in the queue."""
        return run.identity not in self.runs and state(folder, run) != "finished"


def _check_hidden(unseen: Sequence[Submission], out: Path) -> None:
    """Slurm shows one's own jobs alone: others' may be in the queue. Raises ValueError for such."""
    own = getpass.getuser()
    for submission in unseen:
        if submission.user != own and not _is_over(submission, out):
            raise ValueError(
                f"{out}: {submission.user} submitted runs into it that have not ended, and this cluster does not show "
                f"whether they are in its queue; leave them to {submission.user}, or choose another --out"
            )


def _is_over(submission: Submission, out: Path) -> bool:
    """Each of its jobs has its results, has failed, or was cancelled."""
    for index, job in enumerate(submission.jobs):
        files = JobFiles(submission.folder(out), index)
        finished = all((out / entry.folder / "result.json").exists() for entry in job)
        if not (finished or files.failure() or files.is_cancelled()):
            return False
    return True


@contextlib.contextmanager
def _all_or_nothing(out: Path) -> Iterator[Callable[[Submission], Submission]]:
    """Puts submissions on record, and takes all of them back where something fails. Raises SlurmError."""
    written: list[Submission] = []

    def record(submission: Submission) -> Submission:
        submission.write(out)
        written.append(submission)
        return submission

    try:
        yield record
    except BaseException as error:
        left = _take_back(written, out)
        error.add_note(f"stopped: {left}")  # for who was interrupted
        if isinstance(error, REFUSALS):
            raise slurm_cli.SlurmError(f"{_last_line(error)}; {left}") from None
        raise


def _take_back(written: Sequence[Submission], out: Path) -> str:
    """Nothing of a failed submission stays in the queue, nor a record of it; returns what is to be said of that.

    Where Slurm does not even answer to that, the records stay: they tell the next submission what may be in the queue.
    """
    try:
        slurm_cli.cancel_named([submission.name for submission in written])
    except slurm_cli.SlurmError:
        return f"what Slurm may have taken has a name in {out / FOLDER}, and is not submitted twice"
    for submission in written:
        submission.remove(out)
    return "nothing was submitted"


def _last_line(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    errors = [line for line in lines if "error" in line]
    return (errors or lines or [type(error).__name__])[-1]


@dataclass(frozen=True)
class Figure:
    """What a follow-up job does."""

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
