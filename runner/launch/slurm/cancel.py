"""Taking the jobs of runs out of Slurm's queue."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.launch.named import runs_named
from runner.launch.slurm import slurm_cli
from runner.launch.slurm.submission import JobFiles
from runner.launch.status import StudyStatus


@dataclass(frozen=True)
class Cancelled:
    """What was taken out of the queue."""

    runs: tuple[str, ...] = ()  # their names
    jobs: tuple[str, ...] = ()  # their numbers, such as 12_3
    figures: tuple[str, ...] = ()  # the numbers of the jobs that were to draw the figure


def cancel(status: StudyStatus, names: Sequence[str]) -> Cancelled:
    """Cancels the jobs of the named runs; without a name all jobs, those that draw the figure too.

    Raises ValueError where a job has another run too, and SlurmError where Slurm does not answer.
    """
    status.require_queue()
    wanted = [run for run in runs_named(status.runs, names) if run.job]
    jobs = {run.job.job_id for run in wanted if run.job}
    for run in status.runs:  # that are packed with one of them
        if run.job and run.job.job_id in jobs and run not in wanted:
            raise ValueError(f"job {run.job.job_id} has {run.name} too; name it as well, or leave both")
    figures = set() if names else {job.job_id for job in status.figures}
    if jobs | figures:
        slurm_cli.cancel(sorted(jobs | figures))
    for run in wanted:
        if run.submission:
            JobFiles(run.submission.folder(status.out), run.index).cancel()
    return Cancelled(tuple(run.name for run in wanted), tuple(sorted(jobs)), tuple(sorted(figures)))
