"""run --on slurm: submit runs, and print what is submitted and how long it is expected to take."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.cli.options import FAILED
from roadmap.estimates import speed_for
from roadmap.study.cluster import Layout
from roadmap.text import duration, many, table

if TYPE_CHECKING:
    from roadmap.record.run import Run
    from runner.launch.plan import RunPlan
    from runner.launch.slurm.plan import JobPlan
    from runner.launch.slurm.submit import Submitted

NEXT = """next:  roadmap status{out} --watch     runs that are running, waiting or ended
       roadmap logs{out} RUN -f       the log of a run
       roadmap cancel{out} | retry{out}   cancel all jobs | submit failed runs again"""


def submit_plan(
    plan: RunPlan, options: argparse.Namespace, conclude: Callable[[], object], sources: Sequence[Run] = ()
) -> int:
    """Submits the waiting runs, then a job that calls `conclude`, which draws. With --dry-run only prints them.

    They start after the jobs of the runs that they begin with, `sources`, have succeeded.
    """
    from runner.launch.slurm.plan import check_submission, plan_jobs
    from runner.launch.slurm.slurm_cli import SlurmError
    from runner.launch.slurm.submission import SubmitOptions
    from runner.launch.slurm.submit import submit

    submit_options = SubmitOptions.of(plan.selection, tuple(sys.argv), options.pack, options.max_running)
    runs = check_submission(plan, submit_options)
    if options.dry_run:
        expected = speed_for(plan.selection, plan.out)
        _print_plan(plan_jobs(plan, runs, submit_options, expected), expected.source)
        return 0
    if not runs:
        conclude()
        return 0
    plan.find_data()
    try:
        submitted = submit(runs, plan.out.resolve(), submit_options, conclude, [source.identity for source in sources])
    except SlurmError as error:
        print(f"roadmap {options.verb}: {error}", file=sys.stderr)
        return FAILED
    except (KeyboardInterrupt, SystemExit) as error:
        if not hasattr(error, "__notes__"):  # stopped before anything was submitted
            error.add_note("stopped: nothing was submitted")
        raise
    _print_submitted(submitted, plan.out, plan.selection.study.defaults.out)
    return 0


def _print_submitted(submitted: Submitted, out: Path, default: Path) -> None:
    if submitted.elsewhere:
        elsewhere = many(submitted.elsewhere, "run")
        print(f"in the queue already or ended, and not submitted twice: {elsewhere}")
    for submission, job_id in submitted.arrays:
        cluster = submission.options.cluster
        jobs = f"{many(len(submission.jobs), 'job')} of {_layout_text(submission.layout, cluster.gpus_per_node)}"
        print(f"submitted: {job_id}, {jobs}, {cluster.hours:g} h at most")
    if submitted.figure:
        job = f"the table and the figure of {out}, when all have ended ({many(submitted.runs, 'run')})"
        print(f"submitted: {submitted.figure}, {job}")
    else:
        print("nothing else to submit")
    print(NEXT.format(out="" if out == default else f" --out {shlex.quote(str(out))}"))


def _layout_text(layout: Layout, gpus: int) -> str:
    return f"{many(layout.nodes, 'node')} with {many(layout.tasks_per_node, 'GPU' if gpus else 'task')}"


def _print_plan(plan: JobPlan, source: str) -> None:
    """Prints every job, the batch script of each array, and the total device-hours."""
    rows = [
        [job.name, run.rung, str(run.seed), run.written_identity, str(job.layout), duration(3600 * job.hours)]
        for job in plan.jobs
        for run, _ in job.runs
    ]
    if rows:
        print(table(["array_job", "rung", "seed", "identity", "nodes x tasks", "expected time"], rows))
    for number, script in enumerate(plan.scripts, start=1):
        print(f"\n# batch script of array {number}; the job of the figure has a similar one, with one task and no GPU")
        print(script)
    print(f"\n{plan.warning}" if plan.warning else "")
    if plan.queued:
        print(f"in the queue already: {many(plan.queued, 'run')}")
    if plan.slow:
        limit = f"{plan.options.cluster.hours:g} h"
        print(f"{plan.slow} jobs are expected to take longer than the cluster's {limit}; they are then requeued")
    print(f"{plan.device_hours:.4g} device-hours in {many(len(plan.jobs), 'job')}. {source}. Nothing was submitted.")
