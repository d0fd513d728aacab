"""The jobs that a submission would make, for a dry run."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path

from roadmap.estimates import Speed
from roadmap.record.run import Run
from roadmap.study.cluster import Layout
from roadmap.tasks.registry import CLASSIFICATION
from runner.launch.plan import RunPlan
from runner.launch.slurm.script import script
from runner.launch.slurm.slurm_cli import DEFAULT_ARRAY_LIMIT, SlurmError, limits
from runner.launch.slurm.submission import FOLDER, Submission, SubmitOptions
from runner.launch.slurm.submit import Member, Queue, check_path, entries, plan_arrays
from runner.train.tasks.registry import task_of


@dataclass(frozen=True)
class PlannedJob:
    """The runs of one job."""

    name: str  # ARRAY_INDEX, or ARRAY for a single job; arrays are numbered from 1
    layout: Layout
    runs: tuple[Member, ...]
    device_hours: float
    hours: float  # expected on its devices


@dataclass(frozen=True)
class JobPlan:
    """The arrays of jobs that a submission would make."""

    options: SubmitOptions
    jobs: tuple[PlannedJob, ...]
    scripts: tuple[str, ...]  # the batch script of each array
    queued: int  # runs already in Slurm's queue
    warning: str  # why Slurm's queue and limits are unknown; empty if they are known

    @property
    def device_hours(self) -> float:
        return sum(job.device_hours for job in self.jobs)

    @property
    def slow(self) -> int:
        """The number of jobs that are expected to take more than the cluster's hours."""
        return sum(job.hours > self.options.cluster.hours for job in self.jobs)


def check_submission(plan: RunPlan, options: SubmitOptions) -> list[Member]:
    """The runs to submit. Raises ValueError for a folder or a layout that is not possible."""
    check_path(plan.out.resolve())
    members = [(planned.run, planned.folder) for planned in plan.waiting]
    for run, _ in members:
        options.layout(run)
    return members


def plan_jobs(plan: RunPlan, members: Sequence[Member], options: SubmitOptions, speed: Speed) -> JobPlan:
    """The jobs of the runs of `check_submission`. If Slurm does not answer, its queue is taken to be empty."""
    limit, queued, warning = _ask_slurm(plan.out)
    arrays = list(plan_arrays([member for member in members if member[0].identity not in queued], options, limit))
    cluster, jobs = options.cluster, []
    for number, (layout, array) in enumerate(arrays, start=1):
        devices = layout.processes * (1 if cluster.gpus_per_node else cluster.cpus_per_task)
        for index, runs in enumerate(array):
            hours = sum(_device_hours(run, speed) for run, _ in runs)
            name = f"{number}_{index}" if len(array) > 1 else str(number)
            jobs.append(PlannedJob(name, layout, tuple(runs), hours, hours / devices))
    scripts = tuple(_script(options, layout, array, plan.out.resolve()) for layout, array in arrays)
    return JobPlan(options, tuple(jobs), scripts, len(queued), warning)


def _device_hours(run: Run, speed: Speed) -> float:
    macs = None if run.task == CLASSIFICATION else task_of(run).cost().macs  # with heads
    return speed.device_hours(run.experiment, run.dataset, macs)


def _script(options: SubmitOptions, layout: Layout, jobs: Sequence[Sequence[Member]], out: Path) -> str:
    """An array's batch script, with placeholders for what a submission chooses."""
    submission = Submission.new(options, layout, entries(jobs, out))
    return script(submission, out, out / FOLDER / "code" / "HASH").replace(submission.name, "roadmap-NAME")


def _ask_slurm(out: Path) -> tuple[int, frozenset[str], str]:
    """Slurm's limit of an array, the runs in its queue, and a warning if it does not answer."""
    try:
        cluster_limits = limits()
        return cluster_limits.array, Queue.ask(out, cluster_limits).runs, ""
    except SlurmError as error:
        return DEFAULT_ARRAY_LIMIT, frozenset(), f"{error}; its queue is unknown"
