"""How networks are measured: what a user leaves open is chosen for the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from roadmap.record.benchmarks import Mode
from roadmap.record.run import Run
from roadmap.serialization import Range, check, check_fields
from roadmap.study.execution import Execution, accumulation
from runner.machine.resources import available_gpus, check_here

MODES: tuple[Mode, ...] = ("training", "inference")
CPU_PIXELS = 16 * 224**2  # of a batch on a CPU where none is given: beyond it a step takes longer, and no image less
WARM_UP = {"cpu": 2, "cuda": 10}  # steps before the clock starts

# The fields of the execution that each kind of measurement uses.
USED = {
    "networks": ("device", "device_batch", "threads", "channels_last", "compile"),
    "data": ("device", "device_batch", "channels_last", "augment", "bad_images"),
}

ROUNDS, SECONDS = Range(1), Range(above=0)


@dataclass(frozen=True)
class BenchOptions:
    """How networks are to be measured; None: as suits the machine. Raises ValueError for numbers out of range."""

    batch: Annotated[int | None, Range(1)] = None  # images at a time
    rounds: Annotated[int, ROUNDS] = 5  # measurements of each network
    warm_up: Annotated[int | None, Range(0)] = None  # steps before the clock starts
    seconds: Annotated[float, SECONDS] = 1.0  # that are measured at least, in whole steps
    only: Mode | None = None  # None: both
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


def check_clock(rounds: int, seconds: float) -> None:
    """Raises ValueError for numbers out of range."""
    check(rounds, ROUNDS, "rounds")
    check(seconds, SECONDS, "seconds")


def check_settings(settings: Sequence[str], what: Literal["networks", "data"]) -> None:
    """Raises ValueError for a setting of the execution that a measurement does not use."""
    unused = {field.name for field in fields(Execution)} - set(USED[what])
    for setting in settings:
        section, _, key = setting.partition("=")[0].partition(".")
        if section == "execution" and key in unused:
            instead = "--data NAME=PATH does" if key == "data_path" else f"of the execution {', '.join(USED[what])} do"
            raise ValueError(f"--set {setting} does not apply to bench {what}; {instead}")


@dataclass(frozen=True)
class Plan:
    """How every network is measured."""

    execution: Execution
    batch: int  # images at a time
    rounds: int  # measurements of each network
    warm_up: int  # steps before the clock starts
    seconds: float  # that are measured at least, in whole steps
    what: Sequence[Mode]
    cuda_graphs: bool


def make_plan(runs: Sequence[Run], execution: Execution, options: BenchOptions) -> Plan:
    """What is left open is chosen for the machine: one device of it. Raises ValueError for what can't be had here."""
    recipes, batch = [run.experiment.recipe for run in runs], options.batch
    device = "cuda" if available_gpus(execution) else "cpu"
    check_here(execution, recipes, 1)
    if options.cuda_graphs and device == "cpu":
        raise ValueError("--cuda-graphs requires a CUDA device, and there is none here")
    if batch is None:
        # As many as a device takes at a time in training, the same for all.
        batch = min(each.batch_size // accumulation(each, 1, execution.device_batch) for each in recipes)
        if device == "cpu" and execution.device_batch == "auto":
            batch = min(batch, *(max(1, CPU_PIXELS // each.image_size**2) for each in recipes))
    warm_up = WARM_UP[device] if options.warm_up is None else options.warm_up
    what = (options.only,) if options.only else MODES
    return Plan(execution, batch, options.rounds, warm_up, options.seconds, what, options.cuda_graphs)
