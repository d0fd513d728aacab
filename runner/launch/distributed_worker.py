"""Trains runs in this process, one of several that torchrun or Slurm's srun started to train each run together."""

from __future__ import annotations

import contextlib
import os
import re
import signal
import sys
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path

from roadmap.record.events import Began, Diverged, Failed, RunEvent, Stopped
from roadmap.record.run import Run
from roadmap.study.execution import Execution
from runner.machine.distributed import World
from runner.machine.resources import available_cores
from runner.machine.signals import STOPPING, Requests, ended_by

# The numbers of the Slurm job and step choose one. Linux uses higher ports for outgoing connections.
PORTS = range(20_000, 32_768)


def world_of_environment(environment: Mapping[str, str] = os.environ) -> World | None:
    """This process's World under torchrun, or in a Slurm job step of several tasks; None for a single process.

    Raises ValueError if variables of several processes are incomplete or invalid, as in a shell that kept some of them.
    """
    is_complete = {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= environment.keys()
    if is_complete or ({"RANK", "WORLD_SIZE"} & environment.keys() and environment.get("WORLD_SIZE") != "1"):
        return _of_torchrun(_Variables(environment, "torchrun"))
    variables = _Variables(environment, "srun")
    # A batch script has SLURM_PROCID too, but not several tasks. Only the first task of a step has its terminal: in
    # an interactive shell the others do not run what is typed. The tasks that `srun` starts from there have its
    # variable too, but no terminal.
    is_interactive = "SLURM_PTY_PORT" in environment and has_terminal()
    if not is_interactive and variables.number("SLURM_STEP_NUM_TASKS", 1) > 1:
        return _of_srun(variables)
    return None


def has_terminal() -> bool:
    """Whether this process has a controlling terminal, also when its input and output are redirected."""
    try:
        os.close(os.open("/dev/tty", os.O_RDWR | os.O_NOCTTY))
    except OSError:
        return False
    return True


@dataclass(frozen=True)
class _Variables:
    """The environment variables by which a launcher tells each of its processes its place."""

    environment: Mapping[str, str]
    launcher: str

    def text(self, name: str) -> str:
        """Raises ValueError if it is missing."""
        if not (value := self.environment.get(name)):
            raise self._error(f"{name} is missing")
        return value

    def number(self, name: str, default: int | None = None, below: int | None = None) -> int:
        """Raises ValueError if it is no whole number from 0, or not below a limit; or missing, without a default."""
        if default is not None and name not in self.environment:
            return default
        text = self.text(name)
        if not text.isdecimal():
            raise self._error(f"{name} must be a whole number (got {text!r})")
        if below is not None and int(text) >= below:
            raise self._error(f"{name} must be below {below}, the number of processes (got {text})")
        return int(text)

    def _error(self, message: str) -> ValueError:
        group = "RANK and WORLD_SIZE" if self.launcher == "torchrun" else "SLURM_STEP_NUM_TASKS"
        hint = f"start all processes with {self.launcher}, or unset {group} to train with one"
        return ValueError(f"the variables of several processes are incomplete or invalid: {message}; {hint}")


def _of_torchrun(variables: _Variables) -> World:
    size = variables.number("WORLD_SIZE")
    rank, local = variables.number("RANK", below=size), variables.number("LOCAL_RANK", below=size)
    cores = available_cores() // max(1, variables.number("LOCAL_WORLD_SIZE", size))
    variables.text("MASTER_ADDR")
    variables.number("MASTER_PORT")
    return World(rank, size, local, "env://", max(1, cores))


def _of_srun(variables: _Variables) -> World:
    size = variables.number("SLURM_STEP_NUM_TASKS")
    rank, local = variables.number("SLURM_PROCID", below=size), variables.number("SLURM_LOCALID", below=size)
    job, step = variables.number("SLURM_JOB_ID"), variables.number("SLURM_STEP_ID")
    port = PORTS[(job * 101 + step) % len(PORTS)]  # jobs on the same machine often have consecutive numbers
    init_method = f"tcp://{_first_host(variables.text('SLURM_STEP_NODELIST'))}:{port}"
    return World(rank, size, local, init_method, max(1, variables.number("SLURM_CPUS_PER_TASK", 1)))


def _address(world: World) -> str:
    """Where the processes of a World from the environment meet: HOST:PORT."""
    if world.init_method == "env://":
        return f"{os.environ['MASTER_ADDR']}:{os.environ.get('MASTER_PORT', '')}"
    return world.init_method.removeprefix("tcp://")


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
    with contextlib.ExitStack() as stack:
        if world.size > 1:
            place = f"process {world.rank + 1} of {world.size}"
            print(f"{place}, waiting for the others at {_address(world)}", file=sys.stderr, flush=True)
        with ended_by(*STOPPING):
            stack.enter_context(world.joined(chosen_device(execution)))
        stack.enter_context(requests.received(*STOPPING))
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
