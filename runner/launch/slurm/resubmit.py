"""Submitting runs without a result again, with the options of their last submission."""

from __future__ import annotations

import json
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from pathlib import Path
from pickle import UnpicklingError
from typing import Any

from submitit.core.utils import DelayedSubmission

from roadmap.plugins import load_file
from roadmap.serialization.plain_data import to_data
from runner.launch.named import runs_named
from runner.launch.slurm.submission import Entry, Submission, read_submissions
from runner.launch.slurm.submit import Member, Submitted, submit
from runner.launch.status import StudyStatus

SubmittedRun = tuple[Submission, int, Entry]  # a run's last submission, the index of its job there, the run


@dataclass(frozen=True)
class Retried:
    """What was submitted again."""

    submitted: tuple[Submitted, ...] = ()
    missing: tuple[str, ...] = ()  # runs whose submission can't be read: `roadmap run` resumes them


def retry(status: StudyStatus, names: Sequence[str], report: Callable[[Submitted], object] | None = None) -> Retried:
    """Submits the named runs again; without a name all that failed. `report` gets each submission after it is made.

    Raises ValueError for a run that neither failed nor was stopped, and SlurmError if Slurm refuses it.
    """
    status.require_queue()
    wanted = [run for run in runs_named(status.runs, names) if names or run.kind == "failed"]
    for run in wanted:
        if run.kind not in ("failed", "cancelled", "stopped"):
            hint = "; `roadmap run --on-nan retry` resumes it" if run.kind == "diverged" else ""
            raise ValueError(f"{run.name} is {run.kind}: there is nothing to retry{hint}")
    submitted_runs = [(run.submission, run.index, run.entry) for run in wanted if run.submission]
    resubmittable = with_files(submitted_runs, status.out)
    made = []
    for submitted in resubmit(resubmittable, status.out):
        made.append(submitted)
        if report:
            report(submitted)
    identities = {entry.identity for _, _, entry in resubmittable}
    return Retried(tuple(made), tuple(run.name for run in wanted if run.entry.identity not in identities))


def with_files(runs: Sequence[SubmittedRun], out: Path) -> list[SubmittedRun]:
    """The runs whose submitted task can be read, and the task of their figure too."""
    figures = _figures(out)
    return [
        (submission, index, entry)
        for submission, index, entry in runs
        if _is_readable(submission.pickle(index, out)) and _is_readable(figures.get(submission.options.command))
    ]


def resubmit(runs: Sequence[SubmittedRun], out: Path) -> Iterator[Submitted]:
    """Submits runs again: with their previous options, the current code, and a job for the figure after them.

    Raises SlurmError if Slurm refuses it.
    """
    figures = _figures(out)
    by_options: dict[str, list[SubmittedRun]] = {}
    for run in runs:
        by_options.setdefault(json.dumps(to_data(run[0].options)), []).append(run)
    for group in by_options.values():
        options = group[0][0].options
        members: list[Member] = []
        for submission, index, entry in group:
            task = _load(submission.pickle(index, out))
            members += [(member, folder) for member, folder in task.runs if member.identity == entry.identity]
            for plugin in task.plugins:
                load_file(plugin)
        yield submit(members, out, options, _load(figures[options.command]).conclude)


def _figures(out: Path) -> dict[tuple[str, ...], Path]:
    """The file with the task of the last figure's job, for each command."""
    figures = [submission for submission in read_submissions(out) if not submission.jobs]
    return {figure.options.command: path for figure in figures if (path := figure.pickle(0, out))}


def _is_readable(path: Path | None) -> bool:
    """Whether the task exists and this version has its modules: others wrote it before they were moved or renamed."""
    try:
        return path is not None and _load(path) is not None
    except (ImportError, AttributeError, EOFError, OSError, UnpicklingError):
        return False


def _load(path: Path | None) -> Any:
    assert path is not None  # checked by `with_files`
    return DelayedSubmission.load(path).function
