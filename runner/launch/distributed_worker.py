"""Trains runs in this process, one of several that torchrun or Slurm's srun started to train each run together."""

from __future__ import annotations

import os
import re
import signal
from collections.abc import Callable, Mapping, Sequence
from pathlib import Path

from roadmap.record.events import Began, Diverged, Failed, RunEvent, Stopped
from roadmap.record.run import Run
from roadmap.study.execution import Execution
from runner.machine.distributed import World
from runner.machine.resources import available_cores
from runner.machine.signals import Requests

# The numbers of the Slurm job and step choose one. Linux uses higher ports for outgoing connections.
PORTS = range(20_000, 32_768)


def world_of_environment(environment: Mapping[str, str] = os.environ) -> World | None:
    """This process's World under torchrun, or in a Slurm job step of several tasks; None for a single process."""
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= environment.keys():
        rank, size, local = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        cores = available_cores() // int(environment.get("LOCAL_WORLD_SIZE", size))
        return World(rank, size, local, "env://", max(1, cores))
    # A batch script has SLURM_PROCID too, but not several tasks.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        rank, size, local = (int(environment[name]) for name in names)
        job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
        port = PORTS[(job * 101 + step) % len(PORTS)]  # jobs on the same machine often have consecutive numbers
        init_method = f"tcp://{_first_host(environment['SLURM_STEP_NODELIST'])}:{port}"
        return World(rank, size, local, init_method, int(environment.get("SLURM_CPUS_PER_TASK", "1")))
    return None


def _first_host(nodes: str) -> str:
    """The first host in Slurm's notation, such as node[03-04,07],other."""
    parts = re.match(r"([^,\[]*)(?:\[([^],-]+)[^]]*\])?([^,\[]*)", nodes)
    assert parts is not None  # the pattern matches every string
    return "".join(part or "" for part in parts.groups())


def run_as_worker(
    tasks: Sequence[tuple[Run, Path]],
    execution: Execution,
    world: World,
    prepare: Callable[[], object],
    report: Callable[[RunEvent], None],
) -> list[tuple[Run, Path]]:
    """Trains rank 0's runs one after another, with the other processes; returns those that diverged.

    Rank 0 calls `prepare` first. Raises ValueError if a run fails, so that the process ends: the others may wait for
    it, and torchrun or srun ends them. Raises SystemExit if the processes are asked to stop.
    """
    if execution.processes not in ("auto", world.size):
        raise ValueError(f"execution.processes must be auto, or the {world.size} started (got {execution.processes})")
    from runner.launch.job import train_job
    from runner.machine.setup import chosen_device

    diverged = []
    requests = Requests()
    with world.joined(chosen_device(execution)), requests.received(signal.SIGTERM, signal.SIGINT):
        if world.rank == 0:
            prepare()
        # From rank 0: the state of the run folders may change, and may look different on another machine.
        for run, folder in world.all_gather(tasks)[0]:
            report(RunEvent(run, Began()))
            threads = world.cores or available_cores()
            ending = train_job(
                run,
                folder,
                execution,
                threads,
                world,
                lambda event, run=run: report(RunEvent(run, event)),  # type: ignore[misc]
                requests,
            )
            report(RunEvent(run, ending))
            if isinstance(ending, Stopped):
                raise SystemExit(128 + signal.SIGTERM)
            if isinstance(ending, Failed):
                raise ValueError(f"{run.name}: {ending.message}")
            diverged += [(run, folder)] if isinstance(ending, Diverged) else []
    return diverged
