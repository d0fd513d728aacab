"""Training the runs of a plan on this machine."""

from __future__ import annotations

import functools
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from roadmap.progress import show_progress
from roadmap.record.folder import read_metrics
from roadmap.record.run import Run
from runner.launch.distributed_worker import run_as_worker, world_of_environment
from runner.launch.local import run_all
from runner.launch.plan import PlannedRun, RunPlan
from runner.launch.rounds import Halving, Round, rounds_of
from runner.machine.distributed import World
from runner.machine.resources import check_here, default_processes


@dataclass(frozen=True)
class Trained:
    """The outcome of a plan."""

    plan: RunPlan  # with the states after training
    failed: tuple[PlannedRun, ...] = ()  # no result, for another reason than divergence


def train_plan(plan: RunPlan, announce: Callable[[], object] | None = None) -> Trained | None:
    """Trains the waiting runs, and shows progress. A run that fails does not affect the others.

    `announce` is called before training, after the check that this machine has what the plan needs. Under torchrun or
    srun the processes train each run together; rank 0 reports, and the other ranks return None.

    Raises ValueError if this machine lacks what the plan needs. KeyboardInterrupt and SystemExit get a note with the
    number of finished runs.
    """
    execution, world = plan.execution, world_of_environment()
    recipes = [planned.run.experiment.recipe for planned in plan.waiting]
    check_here(execution, recipes, world.size if world else default_processes(execution, recipes))
    if world and world.rank > 0:
        run_as_worker(_jobs(plan), execution, world, plan.find_data, lambda event: None)
        return None
    if announce:
        announce()
    failed = {folder for _, folder in _train(plan, world)}
    after = plan.refreshed()
    return Trained(after, tuple(run for run in after.runs if run.folder in failed and run.state != "diverged"))


def train_rounds(
    plan: RunPlan,
    halving: Halving,
    announce: Callable[[Round], object] | None = None,
    report: Callable[[Trained], object] | None = None,
) -> Trained:
    """Trains a plan of drawn designs in rounds; returns the outcome of the last, or of the first one with a failure.

    `announce` is called before each round, `report` after it.

    Raises ValueError as `train_plan` and `rounds_of` do, and under torchrun or srun.
    """
    if world_of_environment():
        raise ValueError("--rounds requires that roadmap starts the processes itself, not torchrun or srun")
    trained = Trained(plan)
    for current in rounds_of(plan, halving):
        outcome = train_plan(current.plan, functools.partial(announce, current) if announce else None)
        assert outcome is not None  # no other process trains with this one
        trained = outcome
        if report:
            report(trained)
        if any(run.state in ("absent", "begun") and not trained.plan.is_paused(run) for run in trained.plan.runs):
            break
    return trained


def _jobs(plan: RunPlan) -> list[tuple[Run, Path]]:
    return [(planned.run, planned.folder) for planned in plan.waiting]


def _train(plan: RunPlan, world: World | None) -> list[tuple[Run, Path]]:
    """Returns the runs that have no result."""
    jobs, execution = _jobs(plan), plan.execution
    if not jobs and not world:  # with a world, other processes wait for this one
        return []
    plan.out.mkdir(parents=True, exist_ok=True)
    if not world:
        plan.find_data()
    progress = show_progress(
        [run for run, _ in jobs],
        {run.identity: len(read_metrics(folder)) for run, folder in jobs},
        execution.stop_after,
    )
    try:
        with progress:
            if world:
                return run_as_worker(jobs, execution, world, plan.find_data, progress.show)
            return run_all(jobs, execution, progress.show)
    except (KeyboardInterrupt, SystemExit) as error:
        finished = f"{progress.finished} of {len(jobs)} runs finished"
        error.add_note(f"stopped: {finished}; the same command resumes the others")
        raise
