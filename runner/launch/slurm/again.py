"""Submitting again what came to no result, as it was submitted before."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission

from roadmap.plugins import load_file
from runner.launch.slurm.submission import Entry, Submission, read_submissions
from runner.launch.slurm.submit import Member, Submitted, Wish, submit

Ended = tuple[Submission, int, Entry]  # a run, with the submission that had it and the index of its job there


def submit_again(ended: Sequence[Ended], out: Path) -> Iterator[Submitted]:
    """Submits runs anew: by the same profile, with the code as it is now, and the figure behind them.

    Raises ValueError where what was submitted is not there any more, SlurmError where Slurm does not take it.
    """
    alike: dict[tuple[str, ...], list[Ended]] = {}
    for each in ended:
        alike.setdefault((each[0].profile, *each[0].command), []).append(each)
    for group in alike.values():
        members: dict[str, Member] = {}
        for submission, index, entry in group:
            task = _submitted(submission, index, out)
            members |= {run.identity: (run, folder) for run, folder in task.runs if run.identity == entry.identity}
        last = max((submission for submission, _, _ in group), key=lambda submission: submission.submitted)
        for plugin in task.plugins:
            load_file(plugin)
        wish = Wish(last.profile, last.cluster, task.execution, last.command, max(map(len, last.jobs)))
        yield submit(list(members.values()), out, wish, _conclusion(last, out), lambda text: None)


def _submitted(submission: Submission, index: int, out: Path) -> Any:
    """What submitit kept of a job."""
    array = len(submission.jobs) > 1
    found = sorted(submission.folder(out).glob(f"*_{index}_submitted.pkl" if array else "*_submitted.pkl"))
    if not found:
        raise ValueError(f"{submission.folder(out)}: what was submitted is not there; `roadmap run` submits it anew")
    return DelayedSubmission.load(found[-1]).function


def _conclusion(submission: Submission, out: Path) -> Any:
    """What the figure's job of the same command does."""
    figures = [each for each in read_submissions(out) if not each.jobs and each.command == submission.command]
    if not figures:
        raise ValueError(f"{out}: the record of the figure's job is gone; `roadmap run` submits what is missing anew")
    return _submitted(figures[-1], 0, out).conclude
