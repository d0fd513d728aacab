"""Training the runs of a plan on this machine."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from roadmap.progress import show_progress
from roadmap.record.folder import read_metrics
from roadmap.record.run import Run
from runner.launch.distributed_worker import run_as_worker, world_of_environment
from runner.launch.local import run_all
from runner.launch.plan import PlannedRun, RunPlan
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
        [run for run, _ in jobs], {run.identity: len(read_metrics(folder)) for run, folder in jobs}
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
