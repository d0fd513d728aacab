"""Submitting again what came to no result, as it was submitted before."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission

from roadmap.plugins import load_file
from roadmap.serialization import to_data
from runner.launch.named import runs_named
from runner.launch.slurm.submission import Entry, Submission, read_submissions
from runner.launch.slurm.submit import Member, Submitted, submit
from runner.launch.status import StudyStatus

Lost = tuple[Submission, int, Entry]  # a run, with the submission that had it and the index of its job there


@dataclass(frozen=True)
class Retried:
    """What was submitted again."""

    submitted: tuple[Submitted, ...] = ()
    missing: tuple[str, ...] = ()  # runs of which nothing is left to submit: `roadmap run` resumes them


def retry(status: StudyStatus, names: Sequence[str], report: Callable[[Submitted], object] | None = None) -> Retried:
    """Submits the named runs again; without a name all that failed. `report` gets each submission once it is made.

    Raises ValueError for a run that neither failed nor was stopped, and SlurmError where Slurm does not take it.
    """
    status.require_queue()
    wanted = [run for run in runs_named(status.runs, names) if names or run.kind == "failed"]
    for run in wanted:
        if run.kind not in ("failed", "cancelled", "stopped"):
            hint = "; `roadmap run --on-nan retry` resumes it" if run.kind == "diverged" else ""
            raise ValueError(f"{run.name} is {run.kind}: there is nothing to retry{hint}")
    lost = [(run.submission, run.index, run.entry) for run in wanted if run.submission]
    able = still_there(lost, status.out)
    submitted = []
    for made in submit_again(able, status.out):
        submitted.append(made)
        if report:
            report(made)
    again = {entry.identity for _, _, entry in able}
    return Retried(tuple(submitted), tuple(run.name for run in wanted if run.entry.identity not in again))


def still_there(lost: Sequence[Lost], out: Path) -> list[Lost]:
    """Those of which what was submitted is there, and what was to be drawn of them."""
    figures = _figures(out)
    return [each for each in lost if each[0].pickle(each[1], out) and each[0].options.command in figures]


def submit_again(lost: Sequence[Lost], out: Path) -> Iterator[Submitted]:
    """Submits runs again: with the options of before, the code as it is now, and the figure behind them.

    Raises SlurmError where Slurm does not take it.
    """
    figures = _figures(out)
    alike: dict[str, list[Lost]] = {}
    for each in lost:
        alike.setdefault(json.dumps(to_data(each[0].options)), []).append(each)
    for group in alike.values():
        options = group[0][0].options
        members: list[Member] = []
        for submission, index, entry in group:
            task = _load(submission.pickle(index, out))
            members += [(run, folder) for run, folder in task.runs if run.identity == entry.identity]
            for plugin in task.plugins:
                load_file(plugin)
        yield submit(members, out, options, _load(figures[options.command]).conclude)


def _figures(out: Path) -> dict[tuple[str, ...], Path]:
    """What the last figure's job of each command was to do."""
    figures = [each for each in read_submissions(out) if not each.jobs]
    return {each.options.command: path for each in figures if (path := each.pickle(0, out))}


def _load(path: Path | None) -> Any:
    assert path is not None  # it was looked for before
    return DelayedSubmission.load(path).function
