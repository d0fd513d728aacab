"""Trainings that tests drive: in this process, step by step, or in processes that can be killed."""

from __future__ import annotations

import multiprocessing
import os
import signal
import tempfile
from collections.abc import Callable
from dataclasses import dataclass, replace
from multiprocessing import forkserver
from multiprocessing.connection import wait
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

import torch

from roadmap.data.datasets import dataset
from roadmap.files import read_json
from roadmap.record.events import EpochDone, Finished, StepDone, TrainingEvent, ignore
from roadmap.record.folder import read_metrics
from roadmap.record.results import EpochMetrics, RunResult
from roadmap.record.run import Run
from roadmap.study.execution import Execution
from roadmap.study.load import load_study
from runner.data.datasets import BUILT_IN
from runner.data.splits import InMemoryImages
from runner.launch.job import train_job
from runner.machine.distributed import SINGLE_PROCESS, World
from runner.machine.requests import Request
from runner.machine.setup import Setup, choose_setup
from runner.train import checkpoint, engine
from runner.train.training import Training

UNTIMED = ("seconds", "images_per_second", "peak_memory_bytes")
INTERRUPTIONS = ("finished", "restarts", "lost_steps")  # in a result: what an interruption changes

# Imported by the server, for whatever its processes do.
FORKSERVER = multiprocessing.get_context("forkserver")
PRELOADED = ("tests.helpers.training", "runner.launch.job", "torch._dynamo", "runner.data.transforms", "timm")

# A quarter of the digits: a data set in every process that imports this module.
FEW_DIGITS = "few-digits"

# What the paper's modern recipe does to images and blocks, and pico's few epochs leave out.
AUGMENTED = {"mix_probability": 1.0, "random_erasing": 0.25, "drop_path": 0.1}


@dataset(FEW_DIGITS)
def _read_few_digits(path: Path | None) -> Any:
    digits = BUILT_IN["digits"]
    splits = digits.read(digits.find(path))
    assert all(isinstance(split, InMemoryImages) for split in splits)
    return [(split.images[::4], split.labels[::4]) for split in splits]


def warm_fork_server() -> None:
    """Starts the fork server, unless it runs. The command uses it too where a test calls it in this process."""
    # As the command's own server has them.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    FORKSERVER.set_forkserver_preload(list(PRELOADED))
    # A cluster ends with every process that has its SLURM_CONF, and the server is to outlive it.
    of_cluster = os.environ.pop("SLURM_CONF", None)
    try:
        forkserver.ensure_running()
    finally:
        if of_cluster is not None:
            os.environ["SLURM_CONF"] = of_cluster


def execution(**changes: object) -> Execution:
    """The study's way to compute a run, with changes; whatever the disk's pace, each epoch ends with a checkpoint."""
    return replace(load_study().execution, **{"checkpoint_share": 1.0} | changes)


def setup_of(run: Run, rank_count: int = 1, **changes: object) -> Setup:
    return choose_setup(run.experiment.recipe, execution(**changes), rank_count, 1)


def train(
    run: Run,
    folder: Path,
    report: Callable[[EpochMetrics], object] | None = None,
    should_stop: Callable[[], bool] | None = None,
    threads: int = 1,
    **changes: object,
) -> RunResult:
    """Trains by the study's defaults, with changes to how; `report` gets the metrics of each epoch."""

    def hear(event: TrainingEvent) -> None:
        if report and isinstance(event, EpochDone):
            report(event.metrics)

    def request() -> Request:
        return Request.STOP if should_stop and should_stop() else Request.NONE

    result = engine.train(run, folder, execution(**changes), threads, report=hear, request=request)
    assert result is not None  # as on rank 0
    return result


def start(run: Run, folder: Path, **changes: object) -> Training:
    """A training that is driven step by step."""
    how, setup = execution(**changes), setup_of(run, **changes)
    return Training(run, folder, how, setup, SINGLE_PROCESS, (), ignore, lambda: Request.NONE)


def take_step(training: Training) -> None:
    """One step of a training. By a private name: the public ones train to the end, or stop with the state saved."""
    training._train_step()


def untimed(folder: Path) -> list[dict[str, Any]]:
    return [{key: value for key, value in each.to_row().items() if key not in UNTIMED} for each in read_metrics(folder)]


def outcome(folder: Path) -> dict[str, Any]:
    """A run's result, without what its pace and its interruptions change."""
    result = read_json(folder / "result.json")
    assert result is not None, f"{folder} has no result"
    return {key: value for key, value in result.items() if key not in UNTIMED + INTERRUPTIONS}


def weights(folder: Path) -> dict[str, torch.Tensor]:
    found: dict[str, torch.Tensor] = torch.load(folder / checkpoint.NAME, weights_only=True)["model"]
    return found


def assert_same(folder: Path, other: Path) -> None:
    """The same metrics and the same weights, bit for bit."""
    assert untimed(folder) == untimed(other)
    assert_same_weights(folder, other)


def assert_same_weights(folder: Path, other: Path) -> None:
    ours, theirs = weights(folder), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


@dataclass(frozen=True)
class Death:
    """SIGKILL at the n-th time that something happens.

    On rank 0, which alone reports: a "step" ends, an "evaluation" continues with a further batch, a "write" of a file
    begins. On the last rank: a "request" is looked for, as in each step and before each batch of an evaluation.
    """

    where: str
    times: int


def train_in_process(
    run: Run, folder: Path, how: Execution, world: World, death: Death | None = None, late: int = 0
) -> None:
    """The target of a process of its own."""
    torch.set_num_threads(1)
    Setup.late = property(lambda setup: late)  # type: ignore[assignment]
    count = 0

    def happens(what: str) -> None:
        nonlocal count
        count += death is not None and what == death.where
        if death and count == death.times:
            os.kill(os.getpid(), signal.SIGKILL)

    asked_since_step = 0

    def report(event: TrainingEvent) -> None:
        nonlocal asked_since_step
        asked_since_step = 0  # a step or an epoch has ended
        if isinstance(event, StepDone):
            happens("step")

    def request() -> Request:
        # Called in each step before it is reported, and before each batch of an evaluation, which is not reported.
        nonlocal asked_since_step
        asked_since_step += 1
        happens("request")
        if asked_since_step > 1:
            happens("evaluation")
        return Request.NONE

    if death and death.where == "write":  # between opening, writing and renaming
        os.fsync, os.replace = (_after(lambda: happens("write"), function) for function in (os.fsync, os.replace))
    with world.joined("cpu"):
        ending = train_job(run, folder, how, 1, world, report, request)
    assert isinstance(ending, Finished), ending


def _after(first: Callable[[], None], function: Callable[..., Any]) -> Callable[..., Any]:
    def called(*arguments: Any, **named: Any) -> Any:
        first()
        return function(*arguments, **named)

    return called


def start_processes(
    run: Run, folder: Path, how: Execution, processes: int, death: Death | None = None, late: int = 0
) -> list[BaseProcess]:
    """Starts all processes of a run; one of them dies as `death` says. Losses are read so many steps late."""
    warm_fork_server()
    init_method = f"file://{tempfile.mkdtemp()}/rendezvous"
    started = []
    for rank in range(processes):
        world = World(rank, processes, rank, init_method if processes > 1 else "")
        dies = rank == (processes - 1 if death and death.where == "request" else 0)
        arguments = (run, folder, how, world, death if dies else None, late)
        started.append(FORKSERVER.Process(target=train_in_process, args=arguments))
        started[-1].start()
    return started


def end(processes: list[BaseProcess]) -> bool:
    """Waits for all, but kills the rest once one has failed; whether all succeeded."""
    wait([process.sentinel for process in processes])
    for process in processes:
        process.join(None if all(p.exitcode in (None, 0) for p in processes) else 0.5)
    for process in processes:
        process.kill()
        process.join()
    codes = [process.exitcode for process in processes]
    assert set(codes) <= {0, -signal.SIGKILL} or len(codes) > 1  # who loses a partner may end with an error
    return not any(codes)


def kill_after(processes: list[BaseProcess], seconds: float) -> bool:
    """SIGKILL at that moment, unless they have ended; whether it came in time."""
    wait([process.sentinel for process in processes], timeout=seconds)
    if any(process.exitcode is not None for process in processes):  # rank 0 may still have its last words to write
        return not end(processes)
    for process in processes:
        process.kill()
        process.join()
    return True
