"""run: trains what is not finished, then prints the table and draws the figure."""

from __future__ import annotations

import argparse
import contextlib
import functools
import itertools
import re
import sys
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.designs import speed
from roadmap.cli.options import add_study_options, number, study_options
from roadmap.files import read_json
from roadmap.options import Selection
from roadmap.record.folder import State, read_divergences, read_metrics, state
from roadmap.record.run import Run, folders_below
from roadmap.serialization import Range
from roadmap.study.execution import MOST_RETRIES, Execution, began_with
from roadmap.study.rungs import Rung
from roadmap.study.schema import SEEDS
from roadmap.text import many, table

if TYPE_CHECKING:
    from analysis.results import Result


AGAIN = "--on-nan retry goes on from the last checkpoint, with the images in another order"
SLURM_OPTIONS = ("cluster", "pack", "max_running")


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("run", help="train the rungs, then draw the figure")
    add_study_options(parser, ablation=True)
    parser.add_argument("--seeds", type=number(SEEDS, int), metavar="N", help="runs of each rung, with seeds from 0 on")
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument(
        "--processes", metavar="N", help="that train one run together, one a device (execution.processes)"
    )
    parser.add_argument("--workers", metavar="N", help="that read images for each process (execution.workers)")
    parser.add_argument(
        "--augment",
        choices=("fast", "reference"),
        help="how images are augmented: on arrays (default), or by timm's own transforms (execution.augment)",
    )
    parser.add_argument(
        "--on-nan", choices=("stop", "retry"), help="what a diverged run does (execution.on_nan; default: stop)"
    )
    parser.add_argument(
        "--tensorboard",
        action="store_true",
        default=None,
        help="copy each run's record to its folder tensorboard/ (execution.tensorboard)",
    )
    parser.add_argument(
        "--wandb", metavar="PROJECT", help="copy each run's record to a project of Weights & Biases (execution.wandb)"
    )
    parser.add_argument("--on", choices=("local", "slurm"), default="local", help="this machine (default), or Slurm's")
    parser.add_argument(
        "--cluster", metavar="NAME", help="a profile of ablations.yaml for Slurm (default: the regime's)"
    )
    parser.add_argument(
        "--pack", type=number(Range(1), int), metavar="N", help="small runs that share a job of Slurm's"
    )
    parser.add_argument("--max-running", type=number(Range(1), int), metavar="N", help="jobs that Slurm runs at a time")
    parser.add_argument("--dry-run", action="store_true", help="print every run, or job, and start none")
    parser.set_defaults(function=run_rungs)


@dataclass(frozen=True)
class Job:
    run: Run
    folder: Path
    state: State


def plan_jobs(choice: Selection, seeds: int, out: Path) -> list[Job]:
    """Every run of the study with its folder and how far it is. Raises ValueError for what can't be trained."""
    from runner.data.datasets import check_trainable

    jobs: dict[str, Job] = {}
    existing = folders_below(out)
    for seed, rung in itertools.product(range(seeds), choice.rungs()):
        run = choice.run(rung, seed)
        check_trainable(run)
        folder = run.folder(out, existing)
        jobs.setdefault(run.identity, Job(run, folder, state(folder, run)))  # two rungs may be one experiment
    return list(jobs.values())


def run_rungs(options: argparse.Namespace) -> int:
    from runner.train.trackers import missing_trackers

    if options.on == "local" and (unused := [name for name in SLURM_OPTIONS if getattr(options, name) is not None]):
        raise ValueError(f"--{unused[0].replace('_', '-')} has no say without --on slurm")
    flags = ("processes", "workers", "augment", "on_nan")
    given = {name: getattr(options, name) for name in flags if getattr(options, name) is not None}
    asked = study_options(options)
    settings = (*asked.settings, *(f"execution.{name}={value}" for name, value in given.items()))
    choice = _with_mirrors(Selection.of(replace(asked, settings=settings)), options)
    defaults = choice.study.defaults
    seeds = defaults.seeds if options.seeds is None else options.seeds
    out = study_options(options).out(options.out)
    jobs = plan_jobs(choice, seeds, out)
    _check_augmentation(choice, jobs)
    retry = choice.execution.on_nan == "retry"
    waiting = [
        job
        for job in jobs
        if job.state in ("absent", "begun")
        or (job.state == "diverged" and retry)
        or (job.state == "finished" and options.on == "local" and missing_trackers(job.folder, choice.execution))
    ]
    if choice.cluster:
        from roadmap.cli.submitting import submit_runs

        _announce(choice, jobs, waiting)
        prepare = functools.partial(_find_data, waiting, choice.execution)
        conclude = functools.partial(_conclude, choice, out.resolve())
        return submit_runs(choice, options, [(job.run, job.folder) for job in waiting], out, prepare, conclude)
    if options.dry_run:
        _print_plan(choice, jobs, out)
        return 0
    failed = _train(choice, jobs, waiting, out)
    if failed is None:  # another process of the same training tells
        return 0
    left = {job.folder: state(job.folder, job.run) for job in jobs}
    diverged = [job for job in jobs if left[job.folder] == "diverged"]
    for run, folder in failed:
        if folder not in [job.folder for job in diverged]:
            print(f"failed: {run.name}, see {folder / 'log.txt'}; the same command tries again", file=sys.stderr)
    for job in diverged:
        told = read_divergences(job.folder)
        hint = AGAIN if len(told) <= MOST_RETRIES else f"{MOST_RETRIES} retries did not help"
        print(f"diverged: {job.run.name}: {told[-1]}; {hint}", file=sys.stderr)
    _conclude(choice, out)
    return 0 if set(left.values()) == {"finished"} else 1


def _check_augmentation(choice: Selection, jobs: Sequence[Job]) -> None:
    """Raises ValueError where a run that began by one augmentation is asked for by the other: it would be neither."""
    asked = choice.execution.augment
    for job in jobs:
        if asked == "auto" or job.state == "absent":
            continue
        path = job.folder / "manifest.json"
        try:
            began = began_with((read_json(path) or {}).get("execution"), crops_by_batch=job.run.crops_by_batch)[
                "augment"
            ]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if asked != began:
            raise ValueError(
                f"{job.folder} began with {began} augmentation, --augment {asked} is another; "
                "--out FOLDER trains it anew, beside this one"
            )


def _with_mirrors(choice: Selection, options: argparse.Namespace) -> Selection:
    """With those of the options. Raises ValueError for one whose package is not installed."""
    from runner.train.trackers import check_installed

    given = {name: value for name in ("tensorboard", "wandb") if (value := getattr(options, name)) is not None}
    chosen = replace(choice, execution=replace(choice.execution, **given))
    check_installed(chosen.execution)
    return chosen


def _print_plan(choice: Selection, jobs: list[Job], out: Path) -> None:
    found = speed(choice, out)
    hours = {rung.name: found.device_hours(rung.experiment, choice.dataset) for rung in choice.rungs()}
    states = {"absent": "to train", "begun": "to go on", "diverged": "diverged", "finished": "finished"}
    rows = [
        [run.rung, str(run.seed), run.identity, states[job.state], f"{hours[run.rung]:.4g}", str(job.folder)]
        for job in jobs
        for run in [job.run]
    ]
    print(table(["rung", "seed", "identity", "state", "device-hours", "folder"], rows))
    left = sum(hours[job.run.rung] for job in jobs if job.state != "finished")
    idle = [rung.name for rung in choice.rungs() if rung.no_effect]
    print(f"\nno effect, so no run of their own: {', '.join(idle)}" if idle else "")
    print(f"{left:.4g} device-hours to train. {found.source}. Nothing was started.")


def _announce(choice: Selection, jobs: list[Job], waiting: list[Job]) -> None:
    finished, begun = (sum(job.state == kind for job in jobs) for kind in ("finished", "begun"))
    print(f"{choice.regime} on {choice.context.data}: {many(len(jobs), 'run')}, {finished} finished already", end="")
    print(f", {begun} to go on where they were" if begun else "", end="")
    mirrors = sum(job.state == "finished" for job in waiting)
    print(f", {mirrors} to mirror" if mirrors else "", end="")
    print("; nothing to train" if len(waiting) == mirrors else "", flush=True)


def _train(choice: Selection, jobs: list[Job], waiting: list[Job], out: Path) -> list[tuple[Run, Path]] | None:
    """Trains what is waiting; returns what failed, or None in a process that only helps another to train."""
    from roadmap.progress import show_progress
    from runner.launch.distributed_worker import run_as_member, world_of_environment
    from runner.launch.local import run_all
    from runner.machine.resources import check_here, default_processes

    tasks, execution, world = [(job.run, job.folder) for job in waiting], choice.execution, world_of_environment()
    recipes = [job.run.experiment.recipe for job in waiting]
    check_here(execution, recipes, world.size if world else default_processes(execution, recipes))
    prepare = functools.partial(_find_data, waiting, execution)
    if world and world.rank > 0:
        run_as_member(tasks, execution, world, prepare, lambda event: None)
        return None
    _announce(choice, jobs, waiting)
    if not waiting and not world:  # others would wait for this one's word
        return []
    out.mkdir(parents=True, exist_ok=True)
    if not world:
        prepare()
    done = {job.run.identity: len(read_metrics(job.folder)) for job in waiting}
    progress = show_progress([job.run for job in waiting], done)
    try:
        with progress:
            if world:
                return run_as_member(tasks, execution, world, prepare, progress.show)
            return run_all(tasks, execution, progress.show)
    except (KeyboardInterrupt, SystemExit):
        print(
            f"stopped: {progress.finished} of {len(waiting)} runs finished, the others keep what they have; "
            "the same command goes on from here",
            file=sys.stderr,
        )
        raise


def _find_data(waiting: list[Job], execution: Execution) -> None:
    """Found, or downloaded, once, before every run looks for it."""
    from runner.data.datasets import source

    for job in waiting[:1]:
        source(job.run).find(Path(execution.data_path) if execution.data_path else None)


def _conclude(choice: Selection, out: Path) -> None:
    """The table of the chosen rungs, and the figure of all rungs that have finished runs of these settings."""
    from analysis.collection import collect
    from analysis.figures import draw_roadmap, save_figure
    from analysis.results import results_of, series_of_runs
    from analysis.tables.ladder import remarks, rendered, study_table

    runs, chosen = collect(out), choice.rungs()

    def results(rungs: Sequence[Rung]) -> list[Result]:
        unique = {rung.name: rung for rung in rungs}.values()
        return results_of([(rung, choice.run(rung)) for rung in unique], runs)

    drawn = results(chosen)
    found = study_table(choice.study, drawn)
    shown = rendered(found)
    print("\n" + table(list(shown.columns), shown.to_numpy().tolist()) + "\n")
    if choice.steps != "all":
        with contextlib.suppress(ValueError):  # settings may fit the chosen rungs alone
            names = {rung.name for rung in chosen}
            drawn = [
                each
                for each in results((*replace(choice, steps="all").rungs(), *chosen))
                if each.seeds or each.rung.name in names
            ]
    for remark in remarks(found):
        print(remark + "\n")
    if not any(result.seeds or result.diverged_seeds for result in drawn):
        print("no run has finished: no figure", file=sys.stderr)
        return
    figure = draw_roadmap([series_of_runs(choice.study, drawn, ", ".join(choice.differences))])
    name = "-".join(["roadmap", choice.regime, *re.findall(r"[\w.]+", choice.label)])
    for path in save_figure(figure, [out / f"{name}{suffix}" for suffix in (".png", ".svg")]):
        print(f"figure: {path}")
