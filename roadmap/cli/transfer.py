"""transfer: train finished runs on another task, then print the table and draw the figure."""

from __future__ import annotations

import argparse
import json
from pathlib import Path
from typing import Any

from roadmap.cli.options import (
    FAILED,
    add_cluster_options,
    add_out,
    add_study_options,
    add_verb,
    study_options,
)
from roadmap.cli.training import announce, report_failures, train_transfers
from roadmap.text import table

BUILT_IN = "classification, detection or segmentation"


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "transfer",
        "train finished runs on another task, then print the table and draw the figure",
        "pico-s0 layer-scale-s0 --to detection",
    )
    parser.add_argument(
        "runs",
        nargs="*",
        metavar="RUN",
        help="runs to transfer (default: all finished runs of the regime); with new weights or a file's also rungs",
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
    add_cluster_options(parser)
    parser.add_argument("--dry-run", action="store_true", help="print every run and its learning rates, and start none")
    parser.set_defaults(function=transfer, steps="all")


def transfer(options: argparse.Namespace) -> int:
    from roadmap.record.transfers import TransferOptions, Transfers
    from runner.launch.plan import check_local
    from runner.launch.transfer_plan import sources

    study = study_options(options)
    check_local(study, options.pack, options.max_running)
    wanted = TransferOptions(options.to, options.begin, options.frozen, options.recipe, options.state_dict, options.of)
    transfers, out = Transfers.of(wanted, study), study.out(options.out)
    chosen = sources(options.runs, transfers, out)
    if not chosen:
        if study.on == "slurm":
            raise ValueError(
                f"{out}: no finished run to transfer; `roadmap run --on slurm --transfer TASK` submits both"
            )
        if options.dry_run:
            print("no finished run: the first and the last rung would be trained first, with seed 0")
            return 0
        if (status := _train_first_and_last(options, out)) != 0:
            return status
        chosen = sources([], transfers, out)
    return train_transfers(chosen, wanted, study, out, options)


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


def list_transfers(options: argparse.Namespace) -> int:
    """Prints parameters and multiply-adds of every rung with the heads of a task."""
    from analysis.published.transfer import end_rows
    from runner.train.tasks.counts import count_transfers

    counted = count_transfers(study_options(options), options.transfer, options.recipe)
    rows, published = [], end_rows(counted.selection.regime, counted.data, counted.recipe)
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
