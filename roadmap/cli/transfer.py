"""transfer: train finished runs on another task, then print the table and draw the figure."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import FAILED, add_out, add_study_options, add_verb, study_options, warnings_as_lines
from roadmap.cli.runs import announce, report_failures
from roadmap.text import many, table

if TYPE_CHECKING:
    from roadmap.options import StudyOptions
    from roadmap.record.transfers import TransferOptions
    from runner.launch.transfer_plan import TransferPlan

BUILT_IN = "classification, detection or segmentation"


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "transfer",
        "train finished runs on another task, then print the table and draw the figure",
        "pico-s0 layer-scale-s0 --to detection",
    )
    parser.add_argument(
        "runs", nargs="*", metavar="RUN", help="runs to transfer (default: all finished runs of the regime)"
    )
    parser.add_argument("--to", required=True, metavar="TASK", help=f"the task: {BUILT_IN}, or a plug-in's")
    parser.add_argument(
        "--from",
        dest="begin",
        choices=("run", "ema", "scratch"),
        default="run",
        help="weights to begin with: the run's (default), its averaged ones, or new ones",
    )
    parser.add_argument(
        "--frozen", choices=("none", "stem", "all"), default="none", help="part of the backbone that is not trained"
    )
    parser.add_argument(
        "--recipe", metavar="NAME", help="transfer recipe of ablations.yaml (default: the first one for task and data)"
    )
    parser.add_argument("--state-dict", type=Path, metavar="FILE", help="begin with the weights of this file")
    parser.add_argument(
        "--of", metavar="LIBRARY/NAME", help="the network that --state-dict is of: torchvision/convnext_tiny"
    )
    add_study_options(parser)
    add_out(parser)
    parser.add_argument("--dry-run", action="store_true", help="print every run and its learning rates, and start none")
    parser.set_defaults(function=transfer, steps="all")


def transfer(options: argparse.Namespace) -> int:
    from roadmap.record.transfers import TransferOptions, Transfers
    from runner.launch.transfer_plan import transfer_plan

    study = study_options(options)
    wanted = TransferOptions(options.to, options.begin, options.frozen, options.recipe, options.state_dict, options.of)
    transfers, out = Transfers.of(wanted, study), study.out(options.out)
    plan = transfer_plan(options.runs, transfers, out)
    if not plan.runs:
        if options.dry_run:
            print("no finished run: the first and the last rung would be trained first, with seed 0")
            return 0
        if (status := _train_first_and_last(options, out)) != 0:
            return status
    elif options.dry_run:
        _print_plan(plan)
        return 0
    return train_transfers(options.runs, wanted, study, out)


def train_transfers(names: Sequence[str], wanted: TransferOptions, study: StudyOptions, out: Path) -> int:
    """Trains the transfers of these runs, or of all finished ones; prints the table and draws the figure."""
    from analysis.report.transfers import conclude_transfers
    from roadmap.record.transfers import Transfers
    from runner.launch.train_plan import train_plan
    from runner.launch.transfer_plan import transfer_plan

    plan = transfer_plan(names, Transfers.of(wanted, study), out)
    trained = train_plan(plan, lambda: _announce(plan))
    if trained is None:  # another process of the same training prints the result
        return 0
    report_failures(trained)
    with warnings_as_lines():
        conclude_transfers(study, out, wanted.to, wanted.recipe)
    return 0 if trained.plan.count("finished") == len(trained.plan.runs) else FAILED


def _train_first_and_last(options: argparse.Namespace, out: Path) -> int:
    """There is nothing to transfer yet."""
    from roadmap.options import Selection
    from runner.launch.plan import RunPlan
    from runner.launch.train_plan import train_plan
    from runner.launch.transfer_plan import first_and_last

    plan = RunPlan.of(Selection.of(first_and_last(study_options(options))), 1, out)
    names = " and ".join(planned.run.rung for planned in plan.runs)
    print(f"no finished run: {names} are trained first, with seed 0", flush=True)
    trained = train_plan(plan, lambda: announce(plan))
    if trained is None:
        return 0
    report_failures(trained)
    return 0 if trained.plan.count("finished") == len(trained.plan.runs) else FAILED


def _announce(plan: TransferPlan) -> None:
    assert plan.transfers is not None
    if plan.transfers.is_borrowed:
        regime = plan.selection.regime
        print(
            f"{plan.transfers.recipe}: nothing is published for {regime}, which borrows the values of a larger network"
        )
    announce(plan)


def _print_plan(plan: TransferPlan) -> None:
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


def list_transfers(options: argparse.Namespace) -> int:
    """Prints parameters and multiply-adds of every rung with the heads of a task."""
    from analysis.published.transfer import end_rows
    from runner.train.tasks.counts import count_transfers

    counted = count_transfers(study_options(options), options.transfer)
    rows, published = [], end_rows(counted.selection.regime, counted.data, options.transfer)
    for rung, cost in counted.costs:
        rows.append([rung.name, f"{cost.parameters / 1e6:.2f}", f"{cost.macs / 1e9:.4g}"])
    if options.json:
        keys = ("name", "parameters", "macs")
        records = [
            dict(zip(keys, (rung.name, cost.parameters, cost.macs), strict=True)) for rung, cost in counted.costs
        ]
        print(json.dumps(records, indent=2))
        return 0
    print(table(["rung", "M parameters", "GMACs"], rows))
    print(f"\n{counted.recipe}: {counted.size[1]} x {counted.size[0]} pixels, with the heads that a test uses")
    for title, row in published:
        stated = f"{row.parameters / 1e6:.0f} M parameters, " if row.parameters else ""
        print(f"published: {title}, {stated}{row.gmacs:g} GMACs")
    return 0
