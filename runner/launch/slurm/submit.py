"""Submitting a study: arrays of jobs with equal resources, and a job that draws the figure after them."""

from __future__ import annotations

import contextlib
import io
import math
import shlex
import shutil
import sys
from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import submitit
from submitit.core.utils import FailedJobError, FailedSubmissionError
from submitit.slurm.slurm import _make_sbatch_string

from roadmap.cluster import Cluster, Layout
from roadmap.execution import Execution
from roadmap.plugins import LOADED, load_file
from roadmap.record import Run, state
from runner.code import snapshot
from runner.launch.slurm import commands
from runner.launch.slurm.submission import (
    FOLDER,
    Entry,
    JobFiles,
    Submission,
    new_submission,
    read_submissions,
    submitting,
)
from runner.launch.slurm.task import Task

REFUSALS = (commands.SlurmError, FailedJobError, FailedSubmissionError)
FIGURE_MINUTES = 30  # submitit takes a job of ten minutes or less for timed out whenever it is signalled
Member = tuple[Run, Path]  # a run and its folder


@dataclass(frozen=True)
class Wish:
    """How runs are to be submitted."""

    profile: str  # its name in ablations.yaml
    cluster: Cluster
    execution: Execution
    command: tuple[str, ...]
    pack: int = 1  # runs of a job
    most_running: int | None = None  # jobs at a time

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


def plan(members: Iterable[Member], wish: Wish, limit: int) -> Iterator[tuple[Layout, list[list[Member]]]]:
    """The arrays to submit: of each the layout, and of each of its jobs the runs. `limit` is the jobs of an array."""
    alike: dict[Layout, list[Member]] = {}
    for run, folder in members:
        alike.setdefault(wish.layout(run), []).append((run, folder))
    for layout, group in alike.items():
        jobs = [group[start : start + wish.pack] for start in range(0, len(group), wish.pack)]
        for start in range(0, len(jobs), limit):
            yield layout, jobs[start : start + limit]


@dataclass(frozen=True)
class Submitted:
    """What came of it."""

    arrays: list[tuple[Submission, str]]  # with their numbers in Slurm
    elsewhere: int  # runs that are in the queue already, or have ended meanwhile
    figure: str | None  # the job that draws the figure


def submit(
    members: Sequence[Member], out: Path, wish: Wish, conclude: Callable[[], object], told: Callable[[str], None]
) -> Submitted:
    """Submits what is not in the queue already, all of it or nothing, and `conclude` for when all have ended.

    `told` hears what is being done. Raises SlurmError where Slurm does not take it, with nothing left in its queue.
    """
    out = out.resolve()
    with submitting(out):
        before = read_submissions(out)
        limit = commands.array_limit()
        queued = commands.queue(each.name for each in before)
        waiting = _identities(before, queued)
        new = [member for member in members if _is_to_do(*member, waiting)]
        if not new:
            return Submitted([], len(members), None)
        code, plugins = snapshot(out / FOLDER / "code", LOADED)
        arrays: list[tuple[Submission, str]] = []
        written: list[Submission] = []
        try:
            for layout, jobs in plan(new, wish, limit):
                entries = tuple(tuple(Entry.of(run, folder.resolve(), out) for run, folder in job) for job in jobs)
                submission = new_submission(wish.command, wish.profile, wish.cluster, layout, entries)
                submission.write(out)
                written.append(submission)
                tasks = [_task(submission, i, job, out, wish, plugins) for i, job in enumerate(jobs)]
                after = [arrays[-1][1]] if wish.most_running and arrays else []  # so that no more run in all
                job_id = _sbatch(submission, out, tasks, code, wish, after)
                arrays.append((submission, job_id))
                told(f"job {job_id}: {len(jobs)} jobs")
            others = _numbers(before, queued)
            figure = new_submission(wish.command, wish.profile, wish.cluster, Layout(1, 1))
            figure.write(out)
            written.append(figure)
            drawn = _sbatch_figure(figure, out, Figure(plugins, conclude), code, [*(i for _, i in arrays), *others])
        except BaseException as error:
            left = _take_back(written, out)
            if isinstance(error, REFUSALS):
                raise commands.SlurmError(f"{_in_one_sentence(error)}; {left}") from None
            raise
        return Submitted(arrays, len(members) - len(new), drawn)


def runs_in_queue(out: Path) -> set[str]:
    """The identities of the runs that wait or are in training. Raises SlurmError."""
    submissions = read_submissions(out)
    return _identities(submissions, commands.queue(each.name for each in submissions))


def _identities(submissions: Sequence[Submission], queued: Sequence[commands.Queued]) -> set[str]:
    """The runs of the jobs in the queue."""
    by_name = {submission.name: submission for submission in submissions}
    return {
        entry.identity
        for job in queued
        for entry in (by_name[job.name].jobs[job.index] if by_name[job.name].jobs else ())
    }


def _numbers(submissions: Sequence[Submission], queued: Sequence[commands.Queued]) -> set[str]:
    """Of the arrays of runs in the queue."""
    figures = {submission.name for submission in submissions if not submission.jobs}
    return {job.job_id.split("_")[0] for job in queued if job.name not in figures}


def _is_to_do(run: Run, folder: Path, waiting: set[str]) -> bool:
    # Once more under the lock: it may have ended since it was looked for in the queue.
    return run.identity not in waiting and state(folder, run) != "finished"


def _task(
    submission: Submission, index: int, job: Sequence[Member], out: Path, wish: Wish, plugins: tuple[Path, ...]
) -> Task:
    members = tuple((run, folder.resolve()) for run, folder in job)
    files = JobFiles(submission.folder(out), index)
    return Task(members, wish.execution, plugins, files, wish.command, wish.cluster.cpus_per_task)


def parameters(submission: Submission, folder: Path, code: Path, wish: Wish, after: Sequence[str]) -> dict[str, Any]:
    """What submitit is told of an array."""
    cluster, layout = submission.cluster, submission.layout
    python = f"{shlex.quote(sys.executable)} -m runner.launch.slurm.after"
    return {
        **_whole_cluster(submission, code),
        "time": max(1, math.ceil(cluster.hours * 60)),
        "nodes": layout.nodes,
        "ntasks_per_node": layout.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "gpus_per_node": layout.tasks_per_node if cluster.gpus_per_node else None,
        "mem": f"{math.ceil(cluster.memory_gb * 1024)}MB" if cluster.memory_gb else None,
        "signal_delay_s": cluster.save_seconds,
        "array_parallelism": wish.most_running or len(submission.jobs),
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        # Slurm does not hand a job's CPUs a task down to its steps; one failed task is the end of all.
        "srun_args": [f"--cpus-per-task={cluster.cpus_per_task}", "--kill-on-bad-exit=1"],
        "teardown": ["status=$?", f'{python} {shlex.quote(str(folder))} "${{SLURM_ARRAY_TASK_ID:-0}}" "$status"'],
    }


def _whole_cluster(submission: Submission, code: Path) -> dict[str, Any]:
    """What every job of a profile is told."""
    cluster = submission.cluster
    path = shlex.quote(str(code))
    return {
        "job_name": submission.name,
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "stderr_to_stdout": True,
        "additional_parameters": {"requeue": True, **cluster.sbatch},
        "setup": [
            *cluster.setup,
            f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1",
            "trap : TERM  # the tasks hear it; what follows them is to find out what it meant",
        ],
    }


def script(submission: Submission, out: Path, code: Path, wish: Wish) -> str:
    """The batch script of an array, as `submit` gives it to sbatch."""
    folder = submission.folder(out)
    count = len(submission.jobs)
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(folder))}"
    told = {key: value for key, value in parameters(submission, folder, code, wish, []).items() if value is not None}
    text: str = _make_sbatch_string(command, folder, map_count=count if count > 1 else None, **told)
    return text


def _sbatch(
    submission: Submission, out: Path, tasks: Sequence[Task], code: Path, wish: Wish, after: Sequence[str]
) -> str:
    """Submits an array; returns its number."""
    folder = submission.folder(out)
    executor = _executor(folder, parameters(submission, folder, code, wish, after))
    with _quiet():
        return executor.submit_array(tasks)[0].job_id.split("_")[0]


def _sbatch_figure(submission: Submission, out: Path, figure: Figure, code: Path, after: Sequence[str]) -> str:
    """Submits what follows when all have ended, whatever became of them; returns its number."""
    dependency = f"afterany:{':'.join(after)}"
    told = {"time": FIGURE_MINUTES, "nodes": 1, "ntasks_per_node": 1, "cpus_per_task": 1, "dependency": dependency}
    executor = _executor(submission.folder(out), {**_whole_cluster(submission, code), **told})
    with _quiet():
        return executor.submit(figure).job_id


def _quiet() -> contextlib.AbstractContextManager[object]:
    """Submitit prints what sbatch says to errors, and raises it too."""
    return contextlib.redirect_stderr(io.StringIO())


def _executor(folder: Path, told: dict[str, Any]) -> submitit.SlurmExecutor:
    try:
        # Whether a job begins again is not submitit's to decide: its own rule takes every short job for timed out.
        executor = submitit.SlurmExecutor(folder, max_num_timeout=sys.maxsize)
    except RuntimeError:
        raise commands.SlurmError("Slurm's command srun is not on this machine; submit from a login node") from None
    executor.update_parameters(**{key: value for key, value in told.items() if value is not None})
    return executor


@dataclass(frozen=True)
class Figure:
    """What a follow-up job does."""

    plugins: tuple[Path, ...]
    conclude: Callable[[], object]

    def __call__(self) -> None:
        for plugin in self.plugins:
            load_file(plugin)
        self.conclude()

    def checkpoint(self) -> submitit.helpers.DelayedSubmission:
        return submitit.helpers.DelayedSubmission(self)


def _take_back(written: Sequence[Submission], out: Path) -> str:
    """Nothing of a failed submission stays in the queue, nor a record of it; returns what is to be said of that.

    Where Slurm does not even answer to that, the records stay: they tell the next submission what may be in the queue.
    """
    try:
        if written:
            commands.cancel_named(submission.name for submission in written)
    except commands.SlurmError:
        return f"what Slurm may have taken has a name in {out / FOLDER}, and is not submitted twice"
    for submission in written:
        shutil.rmtree(submission.folder(out))
    return "nothing was submitted"


def _in_one_sentence(error: BaseException) -> str:
    lines = [line.strip() for line in str(error).splitlines() if line.strip()]
    return lines[-1] if lines else type(error).__name__
