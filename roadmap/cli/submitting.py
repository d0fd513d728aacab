"""run --on slurm: what is submitted, and what it is expected to take."""

from __future__ import annotations

import argparse
import shlex
import sys
from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.cli.designs import speed
from roadmap.cli.options import FAILED
from roadmap.options import Selection
from roadmap.record.run import Run
from roadmap.study.cluster import Layout
from roadmap.text import duration, many, table

if TYPE_CHECKING:
    from runner.launch.slurm.submission import SubmitOptions
    from runner.launch.slurm.submit import Submitted

NEXT = """next:  roadmap status{out} --watch     what runs, waits and has ended
       roadmap logs{out} RUN -f       what a run says
       roadmap cancel{out} | retry{out}   all jobs | those that failed"""


def submit_runs(
    choice: Selection,
    options: argparse.Namespace,
    members: Sequence[tuple[Run, Path]],
    out: Path,
    prepare: Callable[[], object],
    conclude: Callable[[], object],
) -> int:
    """Submits runs, each with its folder, and `conclude` behind them; or prints what that would be."""
    from runner.launch.slurm.slurm_cli import SlurmError
    from runner.launch.slurm.submit import check_path, submit

    check_path(out.resolve())
    how = _how(choice, options)
    for run, _ in members:
        how.layout(run)
    if options.dry_run:
        _print_plan(choice, how, members, out)
        return 0
    if not members:
        conclude()
        return 0
    prepare()
    try:
        submitted = submit(members, out, how, conclude)
    except SlurmError as error:
        print(f"roadmap run: {error}", file=sys.stderr)
        return FAILED
    except (KeyboardInterrupt, SystemExit) as error:
        left = "; ".join(getattr(error, "__notes__", ["nothing was submitted"]))
        print(f"\nroadmap run: stopped; {left}", file=sys.stderr)
        raise
    _print_submitted(submitted, out, choice)
    return 0


def _how(choice: Selection, options: argparse.Namespace) -> SubmitOptions:
    """Raises ValueError for options that no submission can follow."""
    from runner.launch.slurm.submission import SubmitOptions

    assert choice.profile is not None and choice.cluster is not None
    if choice.execution.processes != "auto":
        raise ValueError(
            "execution.processes has no say on Slurm: there it is nodes x tasks a node of the cluster, "
            "such as --set cluster.nodes=2"
        )
    execution, path = choice.execution, choice.execution.data_path
    execution = replace(execution, data_path=str(Path(path).resolve()) if path else None)  # wherever it is retried from
    pack, command = options.pack or 1, tuple(sys.argv)
    return SubmitOptions(choice.profile, choice.cluster, execution, command, pack, options.max_running)


def _print_submitted(submitted: Submitted, out: Path, choice: Selection) -> None:
    if submitted.elsewhere:
        elsewhere = many(submitted.elsewhere, "run")
        print(f"in the queue already, or ended by now, and not submitted twice: {elsewhere}")
    runs = sum(len(job) for submission, _ in submitted.arrays for job in submission.jobs)
    for submission, job_id in submitted.arrays:
        layout, cluster = submission.layout, submission.options.cluster
        what = many(len(submission.jobs), "job")
        print(f"submitted: {job_id}, {what} of {_what(layout, cluster.gpus_per_node)}, {cluster.hours:g} h at most")
    if submitted.figure:
        what = f"the table and the figure of {out}, when all have ended ({many(runs, 'run')})"
        print(f"submitted: {submitted.figure}, {what}")
    else:
        print("nothing else to submit")
    shown = "" if str(out) == choice.study.defaults.out else f" --out {shlex.quote(str(out))}"
    print(NEXT.format(out=shown))


def _what(layout: Layout, gpus: int) -> str:
    nodes = "1 node" if layout.nodes == 1 else f"{layout.nodes} nodes"
    unit = "GPU" if gpus else "task"
    return f"{nodes} with {layout.tasks_per_node} {unit}{'s' if layout.tasks_per_node > 1 else ''}"


def _print_plan(choice: Selection, how: SubmitOptions, members: Sequence[tuple[Run, Path]], out: Path) -> None:
    """Every job, the batch script of each array, and what all take together."""
    from runner.launch.slurm.submit import plan

    limit, queued, note = _ask(out)
    found = speed(choice, out)
    arrays = list(plan([(run, folder) for run, folder in members if run.identity not in queued], how, limit))
    rows, device_hours, slow = [], 0.0, 0
    for number, (layout, jobs) in enumerate(arrays, start=1):
        for index, job in enumerate(jobs):
            spent = sum(found.device_hours(run.experiment, choice.dataset) for run, _ in job)
            hours = spent / (layout.processes * (1 if how.cluster.gpus_per_node else how.cluster.cpus_per_task))
            device_hours, slow = device_hours + spent, slow + (hours > how.cluster.hours)
            place = f"{number}_{index}" if len(jobs) > 1 else str(number)
            expected = duration(3600 * hours)
            rows += [[place, run.rung, str(run.seed), run.identity, str(layout), expected] for run, _ in job]
    if rows:
        print(table(["array_job", "rung", "seed", "identity", "nodes x tasks", "expected time"], rows))
    for number, (layout, jobs) in enumerate(arrays, start=1):
        print(f"\n# the batch script of {number}; that of the figure's job, which follows, has one task and no GPU")
        print(_script(how, layout, jobs, out.resolve()))
    print(f"\n{note}" if note else "")
    if queued:
        print(f"in the queue already: {many(len(queued), 'run')}")
    if slow:
        print(
            f"{slow} jobs are expected to take more than the cluster's {how.cluster.hours:g} h, and then to go on anew"
        )
    count = sum(len(jobs) for _, jobs in arrays)
    print(f"{device_hours:.4g} device-hours in {many(count, 'job')}. {found.source}. Nothing was submitted.")


def _script(how: SubmitOptions, layout: Layout, jobs: Sequence[Sequence[tuple[Run, Path]]], out: Path) -> str:
    """An array's batch script, with words for what a submission chooses."""
    from runner.launch.slurm.script import script
    from runner.launch.slurm.submission import FOLDER, Submission
    from runner.launch.slurm.submit import entries

    submission = Submission.new(how, layout, entries(jobs, out))
    return script(submission, out, out / FOLDER / "code" / "HASH").replace(submission.name, "roadmap-NAME")


def _ask(out: Path) -> tuple[int, set[str], str]:
    """Slurm's limit of an array, the runs in its queue, and what is to be said where it does not answer."""
    from runner.launch.slurm.slurm_cli import DEFAULT_ARRAY_LIMIT, SlurmError, limits
    from runner.launch.slurm.submit import Queue

    try:
        found = limits()
        return found.array, set(Queue.ask(out, found).runs), ""
    except SlurmError as error:
        return DEFAULT_ARRAY_LIMIT, set(), f"{error}; what is in its queue is not known here"
