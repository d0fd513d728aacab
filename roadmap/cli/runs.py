"""run: train unfinished runs, here or on a cluster, then print the table and draw the figure."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import (
    FAILED,
    add_number,
    add_out,
    add_seeds,
    add_study_options,
    add_verb,
    study_options,
    warnings_as_lines,
)
from roadmap.estimates import speed_for
from roadmap.options import Selection, StudyOptions
from roadmap.record.folder import read_divergences
from roadmap.serialization.ranges import Range, range_of
from roadmap.study.execution import MOST_RETRIES, PROJECT, Execution
from roadmap.text import many, table

if TYPE_CHECKING:
    from runner.launch.plan import RunPlan
    from runner.launch.train_plan import Trained

RETRY_HINT = "--on-nan retry resumes from the last checkpoint with the images in another order"
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
    parser.add_argument(
        "--on", choices=("local", "slurm"), default="local", help="where to train: this machine (default), or Slurm"
    )
    parser.add_argument(
        "--cluster", metavar="NAME", help="with --on slurm: a cluster profile of ablations.yaml (default: the regime's)"
    )
    add_number(parser, "--pack N", Range(1), "runs in one Slurm job, for small runs (default: 1)")
    add_number(parser, "--max-running N", Range(1), "jobs that Slurm runs at a time (default: no limit)")
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

    study = study_options(options)
    check_local(study, options.pack, options.max_running)
    if options.transfer and study.on == "slurm":
        raise ValueError("--transfer requires --on local: transfers can't be submitted yet")
    plan = RunPlan.of(_selection(options), options.seeds, study.out(options.out))
    try:
        if study.on == "slurm":
            from roadmap.cli.run_slurm import submit_plan

            announce(plan)
            return submit_plan(plan, options)
        if options.dry_run:
            _print_plan(plan)
            return 0
        status = _train(plan)
        if options.transfer and status == 0:
            return _transfer(plan, options)
        return status
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


def announce(plan: RunPlan) -> None:
    """Prints what a plan will train."""
    begun, trackers = plan.count("begun"), sum(planned.state == "finished" for planned in plan.waiting)
    parts = [f"{many(len(plan.runs), 'run')}, {plan.count('finished')} finished already"]
    parts += [f"{begun} to resume"] if begun else []
    parts += [f"{trackers} to copy to trackers"] if trackers else []
    nothing = "; nothing to train" if len(plan.waiting) == trackers else ""
    print(f"{plan.selection.regime} on {plan.selection.context.data}: {', '.join(parts)}{nothing}", flush=True)
    print(plan.describe_data(), flush=True)
    _print_other_files(plan)


def _print_other_files(plan: RunPlan) -> None:
    for message in plan.of_other_files():
        print(message, file=sys.stderr)


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
    _print_other_files(plan)


def _transfer(plan: RunPlan, options: argparse.Namespace) -> int:
    """Trains the runs of a plan, which have finished, on another task."""
    from roadmap.cli.transfer import train_transfers
    from roadmap.record.transfers import TransferOptions

    names = [str(planned.folder) for planned in plan.runs]
    study = StudyOptions(
        regime=plan.selection.regime, fidelity=options.fidelity, plugins=study_options(options).plugins
    )
    return train_transfers(names, TransferOptions(options.transfer), study, plan.out)


def _train(plan: RunPlan) -> int:
    from analysis.report.summary import conclude
    from runner.launch.train_plan import train_plan

    trained = train_plan(plan, lambda: announce(plan))
    if trained is None:  # another process of the same training prints the result
        return 0
    report_failures(trained)
    with warnings_as_lines():
        conclude(plan.selection, plan.out)
    return 0 if trained.plan.count("finished") == len(trained.plan.runs) else FAILED


def report_failures(trained: Trained) -> None:
    """Prints the runs that have no result, and why."""
    for planned in trained.failed:
        print(f"failed: {planned.run.name}, see {planned.log}; the same command tries again", file=sys.stderr)
    for planned in (planned for planned in trained.plan.runs if planned.state == "diverged"):
        divergences = read_divergences(planned.folder)
        hint = RETRY_HINT if len(divergences) <= MOST_RETRIES else f"{MOST_RETRIES} retries did not help"
        print(f"diverged: {planned.run.name}: {divergences[-1]}; {hint}", file=sys.stderr)
