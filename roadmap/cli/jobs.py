"""status, logs, cancel and retry: what runs, what failed, and only that again."""

from __future__ import annotations

import argparse
import json
import sys
import time
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import FAILED
from roadmap.cli.status import status_text
from roadmap.record.metrics import TOP1
from roadmap.serialization import suggest
from roadmap.study.load import load_study
from roadmap.text import many

if TYPE_CHECKING:
    from runner.launch.status import RunStatus

WATCH_SECONDS = 5.0
FOLLOW_SECONDS = 0.5
MOST_NUMBERS = 20  # of jobs or runs, in one line


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("status", help="what runs, what waits, what has ended, and how")
    _add_runs(parser, "*", "runs to show (default: all)")
    parser.add_argument(
        "--watch", action="store_true", help=f"again every {WATCH_SECONDS:g} s, until nothing runs or waits"
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(function=show_status)

    parser = verbs.add_parser("logs", help="what a run says")
    _add_runs(parser, None, "a run")
    parser.add_argument("-f", "--follow", action="store_true", help="go on as it grows, until the run has ended")
    parser.set_defaults(function=show_logs)

    parser = verbs.add_parser("cancel", help="take jobs out of Slurm, each with its state saved")
    _add_runs(parser, "*", "runs to cancel (default: all, and the figure's job)")
    parser.set_defaults(function=cancel_jobs)

    parser = verbs.add_parser("retry", help="submit again what failed")
    _add_runs(parser, "*", "runs to submit again (default: all that failed)")
    parser.set_defaults(function=retry_runs)


def _add_runs(parser: Any, number: str | None, what: str) -> None:
    text = f"{what}: by rung, rung-sSEED, identity or folder"
    parser.add_argument("runs" if number else "run", nargs=number, metavar="RUN", help=text)
    parser.add_argument("--out", type=Path, help="folder of the runs")


def _out(options: argparse.Namespace) -> Path:
    out: Path = options.out or Path(load_study().defaults.out)
    if not out.is_dir():
        raise ValueError(f"{out}: no such folder of runs; --out names another")
    return out.resolve()


def chosen(standings: Sequence[RunStatus], names: Sequence[str]) -> list[RunStatus]:
    """Those that a name means. Raises ValueError for one that means none."""
    if not names:
        return list(standings)
    found: dict[str, RunStatus] = {}
    for name in names:
        means = [standing for standing in standings if name.rstrip("/") in _names(standing)]
        if not means:
            rungs = sorted({standing.entry.rung for standing in standings})
            raise ValueError(f"no run is called {name!r}; {suggest(rungs, name)}, or one's seed, such as gelu-s0")
        found |= {standing.entry.identity: standing for standing in means}
    return list(found.values())


def _short(standing: RunStatus) -> str:
    return f"{standing.entry.rung}-s{standing.entry.seed}"


def _names(standing: RunStatus) -> tuple[str, ...]:
    entry, folder = standing.entry, standing.folder
    folders = (folder.name, str(folder), entry.folder, f"{folder.parent.parent.name}/{entry.folder}")
    job = (standing.job.job_id, standing.job.job_id.split("_")[0]) if standing.job else ()
    return (entry.identity, entry.rung, _short(standing), standing.name, f"{entry.regime}/{entry.rung}", *folders, *job)


def show_status(options: argparse.Namespace) -> int:
    from runner.launch.status import collect_status

    out = _out(options)
    if not options.watch:
        overview = collect_status(out)
        runs = chosen(overview.runs, options.runs)
        if options.json:
            print(json.dumps([_record(standing) for standing in runs], indent=2))
        else:
            print(status_text(overview, runs))
        return 0
    if options.json:
        raise ValueError("--json has no say with --watch")
    return _watch(out, options.runs)


def _watch(out: Path, names: Sequence[str]) -> int:
    """In a terminal in place; elsewhere below each other."""
    from rich.console import Console
    from rich.live import Live
    from rich.text import Text

    from runner.launch.status import collect_status

    def look() -> tuple[Text, bool]:
        overview = collect_status(out)
        runs = chosen(overview.runs, names)
        going = any(standing.is_going for standing in runs) or bool(overview.figures)
        return Text(time.strftime("%H:%M:%S\n") + status_text(overview, runs)), going

    console = Console()
    text, going = look()
    with Live(text, console=console, auto_refresh=False, vertical_overflow="visible") as live:
        while going:
            time.sleep(WATCH_SECONDS)
            text, going = look()
            live.update(text, refresh=True)
    return 0


def _record(standing: RunStatus) -> dict[str, Any]:
    entry, place = standing.entry, standing.place
    return {
        "regime": entry.regime,
        "rung": entry.rung,
        "seed": entry.seed,
        "identity": entry.identity,
        "folder": str(standing.folder),
        "state": standing.kind,
        "detail": standing.detail,
        "job": standing.job.job_id if standing.job else None,
        "epoch": place.epoch if place else None,
        "step": place.step if place else None,
        "epochs": entry.epochs,
        "top1": standing.value(TOP1),
        "images_per_second": standing.images_per_second,
        "seconds_left": standing.seconds_left if standing.kind == "running" else None,
        "restarts": standing.restarts,
        "lost_steps": standing.lost_steps,
    }


def show_logs(options: argparse.Namespace) -> int:
    """The run's log; before it has one, what its job printed."""
    from runner.launch.status import collect_status

    out = _out(options)
    means = chosen(collect_status(out).runs, [options.run])
    if len(means) > 1:
        names = ", ".join(standing.folder.name for standing in means)
        raise ValueError(f"{options.run!r} means {len(means)} runs: {names}; one is expected")
    (standing,) = means
    path = _log(standing, out)
    if path is None and not (options.follow and standing.is_going):
        why = f" ({standing.detail})" if standing.detail else ""
        raise ValueError(f"{standing.name} has said nothing yet: it is {standing.kind}{why}")
    shown: tuple[Path | None, int] = (path, 0)
    asked = time.monotonic()
    while True:
        shown = _print_news(_log(standing, out), *shown)
        if not (options.follow and standing.is_going):
            return 0
        time.sleep(FOLLOW_SECONDS)
        if time.monotonic() - asked > WATCH_SECONDS:
            standing = chosen(collect_status(out).runs, [standing.entry.identity])[0]
            asked = time.monotonic()


def _print_news(path: Path | None, before: Path | None, position: int) -> tuple[Path | None, int]:
    """Prints what a file has beyond a position, all of it where it is another; returns the file and its end."""
    if path is None:
        return before, position
    with path.open("rb") as log:
        log.seek(position if path == before else 0)
        print(log.read().decode("utf-8", "replace"), end="", flush=True)
        return path, log.tell()


def _log(standing: RunStatus, out: Path) -> Path | None:
    """The run's own, else that of its job's first task."""
    own = standing.folder / "log.txt"
    if own.exists() or standing.submission is None:
        return own if own.exists() else None
    return standing.submission.log(standing.index, out)


def cancel_jobs(options: argparse.Namespace) -> int:
    from runner.launch.slurm import slurm_cli
    from runner.launch.slurm.submission import JobFiles
    from runner.launch.status import collect_status

    out = _out(options)
    overview = collect_status(out)
    if not overview.knows_queue:
        return _failed("cancel", f"Slurm was not asked {overview.unanswered[0]}")
    wanted = [standing for standing in chosen(overview.runs, options.runs) if standing.job]
    jobs = {standing.job.job_id for standing in wanted if standing.job}
    for standing in overview.runs:  # that are packed with one of them
        if standing.job and standing.job.job_id in jobs and standing not in wanted:
            raise ValueError(f"job {standing.job.job_id} has {standing.name} too; name it as well, or leave both")
    figures = set() if options.runs else {job.job_id for job in overview.figures}
    if not jobs | figures:
        print("nothing of it is in Slurm's queue")
        return 0
    try:
        slurm_cli.cancel(sorted(jobs | figures))
    except slurm_cli.SlurmError as error:
        return _failed("cancel", str(error))
    for standing in wanted:
        if standing.submission:
            JobFiles(standing.submission.folder(out), standing.index).cancel()
    numbers = sorted({job.split("_")[0] for job in jobs}, key=int)
    of = f", of {', '.join(numbers)}" if numbers else ""
    figure = ", and the figure's job" if figures else ""
    print(f"cancelled: {many(len(wanted), 'run')}{of}{figure}")
    return 0


def retry_runs(options: argparse.Namespace) -> int:
    from runner.launch.slurm.resubmit import still_there, submit_again
    from runner.launch.slurm.slurm_cli import SlurmError
    from runner.launch.status import collect_status

    out = _out(options)
    overview = collect_status(out)
    if not overview.knows_queue:
        return _failed("retry", f"Slurm was not asked {overview.unanswered[0]}")
    wanted = [standing for standing in chosen(overview.runs, options.runs) if options.runs or standing.kind == "failed"]
    for standing in wanted:
        if standing.kind not in ("failed", "cancelled", "stopped"):
            hint = "; `roadmap run --on-nan retry` goes on with it" if standing.kind == "diverged" else ""
            raise ValueError(f"{standing.name} is {standing.kind}: there is nothing to retry{hint}")
    if not wanted:
        print("no run has failed")
        return 0
    lost = [(each.submission, each.index, each.entry) for each in wanted if each.submission]
    able = still_there(lost, out)
    try:
        for submitted in submit_again(able, out):
            runs = sum(len(job) for submission, _ in submitted.arrays for job in submission.jobs)
            numbers = ", ".join(job_id for _, job_id in submitted.arrays)
            print(f"submitted again: {many(runs, 'run')}, {numbers}; the figure then: {submitted.figure}")
    except SlurmError as error:
        return _failed("retry", str(error))
    if len(able) == len(wanted):
        return 0
    again = {entry.identity for _, _, entry in able}
    names = [standing.name for standing in wanted if standing.entry.identity not in again]
    some = ", ".join(names[:MOST_NUMBERS]) + (", ..." if len(names) > MOST_NUMBERS else "")
    what = f"of {many(len(names), 'run')} ({some}) there is nothing to submit again here"
    return _failed("retry", f"{what}; `roadmap run` with the options of before goes on with them")


def _failed(verb: str, why: str) -> int:
    print(f"roadmap {verb}: {why}", file=sys.stderr)
    return FAILED
