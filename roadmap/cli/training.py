"""What the verbs that train share: what they announce and report, and the training of transfers."""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.cli.options import FAILED, warnings_as_lines
from roadmap.record.folder import read_divergences
from roadmap.study.execution import MOST_RETRIES
from roadmap.text import many, table

if TYPE_CHECKING:
    from roadmap.options import StudyOptions
    from roadmap.record.run import Run
    from roadmap.record.transfers import TransferOptions
    from runner.launch.plan import RunPlan
    from runner.launch.rounds import Round
    from runner.launch.train_plan import Trained
    from runner.launch.transfer_plan import TransferPlan

RETRY_HINT = "--on-nan retry resumes from the last checkpoint with the images in another order"


def announce(plan: RunPlan) -> None:
    """Prints what a plan will train."""
    begun, trackers = plan.count("begun"), sum(planned.state == "finished" for planned in plan.waiting)
    parts = [f"{many(len(plan.runs), 'run')}, {plan.count('finished')} finished already"]
    parts += [f"{begun} to resume"] if begun else []
    parts += [f"{trackers} to copy to trackers"] if trackers else []
    nothing = "; nothing to train" if len(plan.waiting) == trackers else ""
    print(f"{plan.selection.regime} on {plan.selection.context.data}: {', '.join(parts)}{nothing}", flush=True)
    print(plan.describe_data(), flush=True)
    print_other_files(plan)


def announce_round(current: Round) -> None:
    print(current)
    announce(current.plan)


def print_other_files(plan: RunPlan) -> None:
    """Prints the new runs of which an earlier one used other files."""
    for message in plan.of_other_files():
        print(message, file=sys.stderr)


def report_failures(trained: Trained) -> None:
    """Prints the runs that have no result, and why."""
    for planned in trained.failed:
        print(f"failed: {planned.run.name}, see {planned.log}; the same command tries again", file=sys.stderr)
    for planned in (planned for planned in trained.plan.runs if planned.state == "diverged"):
        divergences = read_divergences(planned.folder)
        hint = RETRY_HINT if len(divergences) <= MOST_RETRIES else f"{MOST_RETRIES} retries did not help"
        print(f"diverged: {planned.run.name}: {divergences[-1]}; {hint}", file=sys.stderr)


def train_transfers(
    sources: Sequence[Run], wanted: TransferOptions, study: StudyOptions, out: Path, options: argparse.Namespace
) -> int:
    """Trains the transfers of these runs, then prints the table and draws the figure; or submits all that."""
    from analysis.report.transfers import conclude_transfers
    from roadmap.cli.run_slurm import submit_plan
    from roadmap.record.transfers import Transfers
    from runner.launch.train_plan import train_plan
    from runner.launch.transfer_plan import plan_of

    plan = plan_of(sources, Transfers.of(wanted, study), out)
    conclude = functools.partial(conclude_transfers, study, out, wanted.to, wanted.recipe)
    if study.on == "slurm":
        _announce_transfers(plan)
        return submit_plan(plan, options, conclude, plan.sources)
    if options.dry_run:
        _print_transfers(plan)
        return 0
    trained = train_plan(plan, lambda: _announce_transfers(plan))
    if trained is None:  # another process of the same training prints the result
        return 0
    report_failures(trained)
    with warnings_as_lines():
        conclude()
    return 0 if trained.plan.count("finished") == len(trained.plan.runs) else FAILED


def _announce_transfers(plan: TransferPlan) -> None:
    assert plan.transfers is not None
    if plan.transfers.is_borrowed:
        regime = plan.selection.regime
        print(
            f"{plan.transfers.recipe}: nothing is published for {regime}, which borrows the values of a larger network"
        )
    announce(plan)


def _print_transfers(plan: TransferPlan) -> None:
    """Every run, and the groups of learning rates of each network."""
    from runner.launch.plan import STATES
    from runner.train.tasks.groups import describe_groups

    rows = [
        [
            planned.run.label,
            str(planned.run.seed),
            planned.run.written_identity,
            STATES[planned.state],
            str(planned.folder),
        ]
        for planned in plan.runs
    ]
    print(table(["run", "seed", "identity", "state", "folder"], rows))
    shown = set()
    for planned in plan.runs:
        if planned.run.label not in shown:
            shown.add(planned.run.label)
            print(f"\n{planned.run.label}: {describe_groups(planned.run)}")
    print(f"\n{many(len(plan.runs), 'run')}. Nothing was started.", file=sys.stdout)
