"""The Python API: a function for everything that the command does. See `roadmap.__all__` for the whole of it.

Each returns its result as a value: a pandas table, a matplotlib figure, or a dataclass. Options that choose a part of
the study are the keywords of `roadmap.options.StudyKeywords`, the same as on the command line. Bad input raises
ValueError with one clear sentence. `runner` and `analysis` are imported when a function that needs them is called.
"""

from __future__ import annotations

import functools
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Unpack

from roadmap.options import Selection, StudyKeywords, StudyOptions

if TYPE_CHECKING:
    import pandas as pd
    from matplotlib.figure import Figure

    from runner.launch.plan import PlannedRun, RunPlan
    from runner.launch.slurm.cancel import Cancelled
    from runner.launch.slurm.resubmit import Retried
    from runner.launch.slurm.submit import Submitted
    from runner.launch.status import RunStatus, StudyStatus


@dataclass(frozen=True)
class StudyRuns:
    """What `run` returns."""

    runs: tuple[PlannedRun, ...]  # each with its folder and its state: absent, begun, diverged or finished
    failed: tuple[PlannedRun, ...]  # came to no result; the log in each one's folder says why
    table: pd.DataFrame  # a row a rung: accuracies in percent, differences in points
    figure: Figure | None  # the roadmap figure; None where no run has finished
    submitted: Submitted | None = None  # the jobs, where the runs were submitted to Slurm

    @property
    def diverged(self) -> tuple[PlannedRun, ...]:
        """The runs whose loss became no finite number."""
        return tuple(planned for planned in self.runs if planned.state == "diverged")

    @property
    def is_finished(self) -> bool:
        return all(planned.state == "finished" for planned in self.runs)


def plan(*, seeds: int | None = None, out: Path | str | None = None, **study: Unpack[StudyKeywords]) -> RunPlan:
    """The runs that `run` would train, each with its folder and its state. Nothing is started or written.

    `seeds`: runs of each rung, with seeds 0 to seeds - 1 (default: the study's number). `out`: the folder of the runs.
    Raises ValueError for a name that the study does not know, and for runs that can't be trained.
    """
    from runner.launch.plan import RunPlan

    options = StudyOptions.of(study)
    return RunPlan.of(Selection.of(options), seeds, options.out(out))


def run(
    *,
    seeds: int | None = None,
    out: Path | str | None = None,
    pack: int | None = None,
    max_running: int | None = None,
    **study: Unpack[StudyKeywords],
) -> StudyRuns:
    """Trains the selected rungs and returns their results. Runs that have finished are not trained again.

    `seeds` and `out` are as in `plan`. With `on="slurm"` the runs are submitted instead, `pack` of them in a job and at
    most `max_running` jobs at a time, and the results are those that exist already.

    A run that fails or diverges does not raise: it is reported in the result. May be called from any thread, and in a
    notebook; a script calls it below `if __name__ == "__main__":`, since runs are trained in processes of their own.

    Raises ValueError for bad input, and runner.launch.slurm.slurm_cli.SlurmError where Slurm refuses. KeyboardInterrupt
    saves the state of the runs in training; the same call resumes them.
    """
    from analysis.summary import summarize
    from runner.launch.plan import check_local

    check_local(StudyOptions.of(study), pack, max_running)
    planned, submitted = plan(seeds=seeds, out=out, **study), None
    failed: tuple[PlannedRun, ...] = ()
    if planned.selection.cluster:
        submitted = _submit(planned, pack, max_running, study)
    else:
        from runner.launch.train_plan import train_plan

        trained = train_plan(planned)
        failed = trained.failed if trained else ()  # None: the first process of torchrun's reports them
    summary = summarize(planned.selection, planned.out)
    return StudyRuns(planned.refreshed().runs, failed, summary.table, summary.figure, submitted)


def _submit(planned: RunPlan, pack: int | None, max_running: int | None, study: StudyKeywords) -> Submitted | None:
    """None where nothing is left to train."""
    from runner.launch.slurm.plan import check_submission
    from runner.launch.slurm.submission import SubmitOptions
    from runner.launch.slurm.submit import submit

    call = ("roadmap.run", *(f"{name}={value!r}" for name, value in study.items()))  # in the place of a command
    options = SubmitOptions.of(planned.selection, call, pack, max_running)
    runs, out = check_submission(planned, options), planned.out.resolve()
    if not runs:
        return None
    planned.find_data()
    return submit(runs, out, options, functools.partial(conclude, planned.selection, out))


def conclude(selection: Selection, out: Path) -> None:
    """Prints the table of the selected rungs and saves the figure in `out`, when their runs have ended."""
    import sys

    from analysis.summary import summarize

    summary = summarize(selection, out)
    print(f"\n{summary}\n")
    if summary.figure is None:
        print("no run has finished: no figure", file=sys.stderr)
    for path in summary.save_figure(out):
        print(f"figure: {path}")


def status(runs: Sequence[str] = (), *, out: Path | str | None = None) -> StudyStatus:
    """The status of every run below a folder, or of those named; printed, it is the text of `roadmap status`.

    `runs`: rungs, RUNG-sSEED, identities, folders or jobs. Slurm is asked about what was submitted. Raises ValueError
    for a name that no run has, and for a folder that does not exist.
    """
    from runner.launch.named import runs_named
    from runner.launch.status import collect_status

    whole = collect_status(_existing(out))
    return replace(whole, runs=runs_named(whole.runs, runs))


def find_run(run: str, *, out: Path | str | None = None) -> RunStatus:
    """The status of one run, by a name as in `status`. Raises ValueError where the name means none or several."""
    from runner.launch.named import run_named
    from runner.launch.status import collect_status

    return run_named(collect_status(_existing(out)).runs, run)


def logs(run: str, *, out: Path | str | None = None) -> str:
    """The log of a run, by a name as in `status`; before it has one, what its job printed, or nothing.

    Raises ValueError where the name means no run, or several.
    """
    path = find_run(run, out=out).log
    return path.read_text(encoding="utf-8", errors="replace") if path else ""


def cancel(runs: Sequence[str] = (), *, out: Path | str | None = None) -> Cancelled:
    """Takes the jobs of runs out of Slurm's queue; without a name all jobs below the folder, the figure's too.

    Each run saves its state. Raises ValueError for a name that no run has and for a job that has another run too, and
    runner.launch.slurm.slurm_cli.SlurmError where Slurm does not answer.
    """
    from runner.launch.slurm.cancel import cancel as cancel_runs
    from runner.launch.status import collect_status

    return cancel_runs(collect_status(_existing(out)), runs)


def retry(
    runs: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    report: Callable[[Submitted], object] | None = None,
) -> Retried:
    """Submits runs to Slurm again, as they were submitted before; without a name all that failed.

    `report` is called with each submission once it is made. Raises ValueError for a name that no run has and for a run
    that has not failed, and runner.launch.slurm.slurm_cli.SlurmError where Slurm does not answer.
    """
    from runner.launch.slurm.resubmit import retry as retry_runs
    from runner.launch.status import collect_status

    return retry_runs(collect_status(_existing(out)), runs, report)


def _existing(out: Path | str | None) -> Path:
    """The folder of the runs, absolute. Raises ValueError where there is none."""
    folder = StudyOptions().out(out)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of runs; --out names another")
    return folder.resolve()
