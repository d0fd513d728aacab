"""Cancelling the jobs of runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from runner.launch.named import runs_named
from runner.launch.slurm import slurm_cli
from runner.launch.slurm.submission import JobFiles
from runner.launch.status import StudyStatus


@dataclass(frozen=True)
class Cancelled:
    """What was cancelled."""

    runs: tuple[str, ...] = ()  # their names
    jobs: tuple[str, ...] = ()  # their numbers, such as 12_3
    figures: tuple[str, ...] = ()  # the numbers of the jobs that draw the figure


def cancel(status: StudyStatus, names: Sequence[str]) -> Cancelled:
    """Cancels the jobs of the named runs; without a name all jobs, also those that draw the figure.

    Raises ValueError if one of the jobs trains another run too, and SlurmError if Slurm does not answer.
    """
    status.require_queue()
    wanted = [run for run in runs_named(status.runs, names) if run.job]
    jobs = {run.job.job_id for run in wanted if run.job}
    for run in status.runs:  # one of them may be packed with another run
        if run.job and run.job.job_id in jobs and run not in wanted:
            raise ValueError(f"job {run.job.job_id} trains {run.name} too; name all runs of the job, or none of them")
    figures = set() if names else {job.job_id for job in status.figures}
    if jobs | figures:
        slurm_cli.cancel(sorted(jobs | figures))
    for run in wanted:
        if run.submission:
            JobFiles(run.submission.folder(status.out), run.index).cancel()
    return Cancelled(tuple(run.name for run in wanted), tuple(sorted(jobs)), tuple(sorted(figures)))
