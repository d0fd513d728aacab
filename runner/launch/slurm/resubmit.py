"""Submitting again what came to no result, as it was submitted before."""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

from submitit.core.utils import DelayedSubmission

from roadmap.plugins import load_file
from roadmap.serialization import to_data
from runner.launch.slurm.submission import Entry, Submission, read_submissions
from runner.launch.slurm.submit import Member, Submitted, submit

Lost = tuple[Submission, int, Entry]  # a run, with the submission that had it and the index of its job there


def still_there(lost: Sequence[Lost], out: Path) -> list[Lost]:
    """Those of which what was submitted is there, and what was to be drawn of them."""
    figures = _figures(out)
    return [each for each in lost if each[0].pickle(each[1], out) and each[0].options.command in figures]


def submit_again(lost: Sequence[Lost], out: Path) -> Iterator[Submitted]:
    """Submits runs anew: with the options of before, the code as it is now, and the figure behind them.

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
