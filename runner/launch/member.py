"""Runs in this process, which is one of those that torchrun or Slurm's srun started to train each run together."""

from __future__ import annotations

import signal
from collections.abc import Callable, Sequence
from pathlib import Path

from roadmap.execution import Execution
from roadmap.record import Run
from runner.distributed import World
from runner.launch.events import Event
from runner.machine import available_cores


def run_as_member(
    jobs: Sequence[tuple[Run, Path]], execution: Execution, world: World, report: Callable[[Event], None]
) -> list[tuple[Run, Path]]:
    """Trains every run in turn, with the other processes; returns those that failed or diverged.

    What fails in one process alone ends it, so that the others do not wait for it. Raises ValueError for that, and
    SystemExit where the processes are asked to stop.
    """
    if execution.processes not in ("auto", world.size):
        raise ValueError(f"execution.processes is {execution.processes}, but {world.size} were started; auto is right")
    from runner.device import chosen_device
    from runner.launch.job import Requests, train_job

    requests = Requests(signal.SIGTERM, signal.SIGINT)
    failed = []
    with world.joined(chosen_device(execution)):
        for run, folder in jobs:
            report(Event(run, "began", {}))
            ending, detail = train_job(
                run,
                folder,
                execution,
                world.cores or available_cores(),
                world,
                lambda kind, detail, run=run: report(Event(run, kind, detail)),  # type: ignore[misc]
                requests,
            )
            report(Event(run, ending, detail))
            if ending == "stopped":
                raise SystemExit(128 + signal.SIGTERM)
            if ending in ("failed", "busy"):
                raise ValueError(f"{run.name}: {detail.get('message', 'in training by another process')}")
            failed += [(run, folder)] if ending == "diverged" else []
    return failed
