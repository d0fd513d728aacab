"""status, logs, cancel and retry: show runs and their jobs, stop them, submit failed ones again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap import api
from roadmap.cli.options import FAILED, add_out, add_verb
from roadmap.progress import terminal
from roadmap.text import many

if TYPE_CHECKING:
    from runner.launch.slurm.submit import Submitted
    from runner.launch.status import RunStatus

WATCH_SECONDS = 5.0
FOLLOW_SECONDS = 0.5
MOST_NAMES = 20  # of runs, in one line


def add_verbs(verbs: Any) -> None:
    parser = add_verb(verbs, "status", "show which runs are running, waiting or ended", "gelu --watch")
    _add_runs(parser, "*", "runs to show (default: all)")
    parser.add_argument(
        "--watch", action="store_true", help=f"update every {WATCH_SECONDS:g} s, until no run is running or waiting"
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(function=show_status)

    parser = add_verb(verbs, "logs", "print the log of a run", "gelu-s0 --follow")
    _add_runs(parser, None, "the run")
    parser.add_argument("-f", "--follow", action="store_true", help="keep printing until the run has ended")
    parser.set_defaults(function=show_logs)

    parser = add_verb(verbs, "cancel", "cancel jobs of Slurm, which save their state", "4711")
    _add_runs(parser, "*", "runs to cancel (default: all, and the figure's job)")
    parser.set_defaults(function=cancel_jobs)

    parser = add_verb(verbs, "retry", "submit failed runs to Slurm again, with the same options", "gelu-s0")
    _add_runs(parser, "*", "runs to submit again (default: all that failed)")
    parser.set_defaults(function=retry_runs)


def _add_runs(parser: Any, number: str | None, description: str) -> None:
    text = f"{description}: by rung, rung-sSEED, identity, folder or job number"
    parser.add_argument("runs" if number else "run", nargs=number, metavar="RUN", help=text)
    add_out(parser)


def show_status(options: argparse.Namespace) -> int:
    if options.watch:
        if options.json:
            raise ValueError("--json can't be combined with --watch")
        return _watch(options)
    status = api.status(options.runs, out=options.out)
    print(json.dumps([run.record() for run in status.runs], indent=2) if options.json else status)
    return 0


def _watch(options: argparse.Namespace) -> int:
    """Replaces the text in a terminal; appends it elsewhere."""
    from rich.live import Live
    from rich.text import Text

    def text() -> Text:
        return Text(f"{time.strftime('%H:%M:%S')}\n{status}")

    status = api.status(options.runs, out=options.out)
    with Live(text(), console=terminal(sys.stdout), auto_refresh=False, vertical_overflow="visible") as live:
        while status.is_going:
            time.sleep(WATCH_SECONDS)
            status = api.status(options.runs, out=options.out)
            live.update(text(), refresh=True)
    return 0


def show_logs(options: argparse.Namespace) -> int:
    run = api.run_status(options.run, out=options.out)
    if run.log is None and not (options.follow and run.is_going):
        detail = f" ({run.detail})" if run.detail else ""
        raise ValueError(f"{run.name} has no log yet: it is {run.kind}{detail}")
    shown: tuple[Path | None, int] = (run.log, 0)
    asked_at = time.monotonic()
    while True:
        shown = _print_new_text(run, *shown)
        if not (options.follow and run.is_going):
            return 0
        time.sleep(FOLLOW_SECONDS)
        if time.monotonic() - asked_at > WATCH_SECONDS:
            run = api.run_status(run.entry.identity, out=options.out)
            asked_at = time.monotonic()


def _print_new_text(run: RunStatus, before: Path | None, position: int) -> tuple[Path | None, int]:
    """Prints the log from a position on, or from its start if it is another file than `before`.

    Returns the file and its end.
    """
    path = run.log
    if path is None:
        return before, position
    with path.open("rb") as log:
        log.seek(position if path == before else 0)
        print(log.read().decode("utf-8", "replace"), end="", flush=True)
        return path, log.tell()


def cancel_jobs(options: argparse.Namespace) -> int:
    from runner.launch.slurm.slurm_cli import SlurmError

    try:
        cancelled = api.cancel(options.runs, out=options.out)
    except SlurmError as error:
        return _failed("cancel", str(error))
    if not cancelled.jobs and not cancelled.figures:
        print("none of these runs is in Slurm's queue")
        return 0
    numbers = sorted({job.split("_")[0] for job in cancelled.jobs}, key=int)
    of_jobs = f", of {', '.join(numbers)}" if numbers else ""
    figure = ", and the figure's job" if cancelled.figures else ""
    print(f"cancelled: {many(len(cancelled.runs), 'run')}{of_jobs}{figure}")
    return 0


def retry_runs(options: argparse.Namespace) -> int:
    from runner.launch.slurm.slurm_cli import SlurmError

    try:
        retried = api.retry(options.runs, out=options.out, report=_print_retried)
    except SlurmError as error:
        return _failed("retry", str(error))
    if not retried.missing:
        if not retried.submitted:
            print("no run has failed")
        return 0
    names = ", ".join(retried.missing[:MOST_NAMES]) + (", ..." if len(retried.missing) > MOST_NAMES else "")
    message = f"{many(len(retried.missing), 'run')} ({names}) can't be submitted again"
    reason = "the submission is gone, or of another version; `roadmap run` with the same options resumes them"
    return _failed("retry", f"{message}: {reason}")


def _print_retried(submitted: Submitted) -> None:
    numbers = ", ".join(job_id for _, job_id in submitted.arrays)
    print(f"submitted again: {many(submitted.runs, 'run')}, {numbers}; the figure then: {submitted.figure}")


def _failed(verb: str, reason: str) -> int:
    print(f"roadmap {verb}: {reason}", file=sys.stderr)
    return FAILED
