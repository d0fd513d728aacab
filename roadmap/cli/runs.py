"""run: train unfinished runs, here or on a cluster, then print the table and draw the figure."""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
import threading
from collections.abc import Sequence
from dataclasses import replace
from importlib import import_module
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import (
    FAILED,
    add_cluster_options,
    add_number,
    add_out,
    add_seeds,
    add_study_options,
    add_verb,
    study_options,
    warnings_as_lines,
)
from roadmap.cli.training import announce, announce_round, print_other_files, report_failures, train_transfers
from roadmap.estimates import speed_for
from roadmap.options import Selection, StudyOptions
from roadmap.serialization.ranges import Range, range_of
from roadmap.study.execution import PROJECT, Execution
from roadmap.text import table

if TYPE_CHECKING:
    from runner.launch.plan import RunPlan
    from runner.launch.rounds import Halving
    from runner.launch.train_plan import Trained

SETTINGS, TRACKERS = ("processes", "workers", "augment", "on_nan"), ("tensorboard", "wandb")  # fields of Execution


def add_verbs(verbs: Any) -> None:
    parser = add_verb(verbs, "run", "train the rungs, then print the table and draw the figure", "--steps recipe..gelu")
    add_study_options(parser, ablation=True)
    add_seeds(parser)
    add_out(parser)
    add_number(
        parser,
        "--processes N",
        range_of(Execution, "processes"),
        "processes that train one run together, one per device (execution.processes; default: auto)",
        auto=True,
    )
    add_number(
        parser,
        "--workers N",
        range_of(Execution, "workers"),
        "processes that read images, for each training process (execution.workers; default: auto)",
        auto=True,
    )
    parser.add_argument(
        "--augment",
        choices=("fast", "reference"),
        help="augmentation: fast, on arrays (default), or reference, timm's own transforms (execution.augment)",
    )
    parser.add_argument(
        "--on-nan", choices=("stop", "retry"), help="action after a run diverges (execution.on_nan; default: stop)"
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        default=None,
        help="copy the record of each run to its folder tensorboard/ (execution.tensorboard)",
    )
    parser.add_argument(
        "--wandb",
        type=_project,
        metavar="PROJECT",
        help="copy the record of each run to a project of Weights & Biases (execution.wandb; default: none)",
    )
    add_cluster_options(parser)
    add_number(parser, "--rounds N", Range(2), "with --space: rounds of successive halving (default: all are finished)")
    parser.add_argument("--keep", metavar="SHARE", help="with --rounds: of the designs after each (default: 1/3)")
    parser.add_argument("--recipe", dest="training_recipe", metavar="NAME", help="the same as --training-recipe")
    parser.add_argument(
        "--transfer", metavar="TASK", help="then train the finished runs on this task, as `roadmap transfer --to TASK`"
    )
    parser.add_argument("--dry-run", action="store_true", help="print every run or job, and start none")
    parser.set_defaults(function=run_rungs)


def _project(text: str) -> str:
    if text not in PROJECT:
        raise argparse.ArgumentTypeError(f"must be {PROJECT} (got {text!r})")
    return text


def run_rungs(options: argparse.Namespace) -> int:
    from runner.launch.plan import RunPlan, check_local
    from runner.launch.rounds import Halving, due_round

    study = study_options(options)
    check_local(study, options.pack, options.max_running)
    plan = RunPlan.of(_selection(options), options.seeds, study.out(options.out))
    halving = Halving.of(options.rounds, options.keep)
    if halving:
        if options.transfer:
            raise ValueError("--transfer does not go with --rounds, which finishes only some of the runs")
        due = due_round(plan, halving)  # raises before anything is trained
    if options.transfer:
        _transfer_study(plan, options)  # before anything is trained
    try:
        if halving and (study.on == "slurm" or options.dry_run):
            print(f"{due}. The same command {'submits' if study.on == 'slurm' else 'starts'} the next after it.")
            plan = due.plan
        if study.on == "slurm":
            status = _submit(plan, options)
        elif options.dry_run:
            _print_plan(plan)
            status = 0
        else:
            status = _train(plan, halving)
        return _transfer(plan, options) if options.transfer and status == 0 else status
    except (KeyboardInterrupt, SystemExit) as error:
        for note in getattr(error, "__notes__", []):
            print(f"roadmap run: {note}", file=sys.stderr)
        raise


def _selection(options: argparse.Namespace) -> Selection:
    """The selection, with the options that are short for --set execution.NAME."""
    study = study_options(options)
    settings = tuple(f"execution.{name}={value}" for name, value in _given(options, SETTINGS).items())
    selection = Selection.of(replace(study, settings=(*study.settings, *settings)))
    # Not as settings, because those are YAML: the name of a project may be 2024.
    return replace(selection, execution=replace(selection.execution, **_given(options, TRACKERS)))


def _given(options: argparse.Namespace, names: Sequence[str]) -> dict[str, Any]:
    return {name: value for name in names if (value := getattr(options, name)) is not None}


def _print_plan(plan: RunPlan) -> None:
    from runner.launch.plan import STATES

    expected = speed_for(plan.selection, plan.out)
    hours = plan.device_hours(expected)
    rows = []
    for planned in plan.runs:
        run, state = planned.run, STATES[planned.state]
        rows.append(
            [run.rung, str(run.seed), run.written_identity, state, f"{hours[run.rung]:.4g}", str(planned.folder)]
        )
    print(table(["rung", "seed", "identity", "state", "device-hours", "folder"], rows))
    left = sum(hours[planned.run.rung] for planned in plan.runs if planned.state != "finished")
    without_effect = [rung.name for rung in plan.rungs if rung.no_effect]
    print(f"\nno effect, so no separate run: {', '.join(without_effect)}" if without_effect else "")
    print(f"{left:.4g} device-hours to train. {expected.source}. Nothing was started.")
    print_other_files(plan)


def _submit(plan: RunPlan, options: argparse.Namespace) -> int:
    from analysis.report.summary import conclude
    from roadmap.cli.run_slurm import submit_plan

    announce(plan)
    return submit_plan(plan, options, functools.partial(conclude, plan.selection, plan.out.resolve()))


def _transfer_study(plan: RunPlan, options: argparse.Namespace) -> StudyOptions:
    """The options of the study for --transfer. Raises ValueError for a task that these runs can't be trained on."""
    from roadmap.record.transfers import TransferOptions, Transfers
    from runner.launch.transfer_plan import plan_of

    own = study_options(options)
    kept = tuple(setting for setting in own.settings if setting.startswith(("cluster.", "execution.")))
    study = replace(
        StudyOptions(fidelity=own.fidelity, plugins=own.plugins, on=own.on, cluster=own.cluster),
        regime=plan.selection.regime,
        settings=kept,
    )
    plan_of([planned.run for planned in plan.runs], Transfers.of(TransferOptions(options.transfer), study), plan.out)
    return study


def _transfer(plan: RunPlan, options: argparse.Namespace) -> int:
    """Trains the runs of a plan on another task, or submits that, to start after each run."""
    from roadmap.record.transfers import TransferOptions

    sources = [planned.run for planned in plan.runs]
    return train_transfers(
        sources, TransferOptions(options.transfer), _transfer_study(plan, options), plan.out, options
    )


def _import_analysis() -> None:
    """SciPy and matplotlib take seconds to import; meanwhile the fork server imports PyTorch on another core."""
    with contextlib.suppress(ImportError):  # raised again where the analysis is used
        import_module("analysis.report.summary")


def _train(plan: RunPlan, halving: Halving | None) -> int:
    from runner.launch.distributed_worker import world_of_environment
    from runner.launch.train_plan import train_plan, train_rounds

    if not world_of_environment():  # else this process trains, and forks data workers, which no thread may disturb
        threading.Thread(target=_import_analysis, daemon=True).start()
    if halving:
        trained: Trained | None = train_rounds(plan, halving, announce_round, report_failures)
    elif trained := train_plan(plan, lambda: announce(plan)):
        report_failures(trained)
    if trained is None:  # another process of the same training prints the result
        return 0
    from analysis.report.summary import conclude

    with warnings_as_lines():
        conclude(plan.selection, plan.out)
    return 0 if trained.plan.is_complete else FAILED
