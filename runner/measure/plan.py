"""How networks are measured: options that a user leaves out are chosen for the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, fields
from typing import Annotated, Literal

from roadmap.record.benchmarks import Mode
from roadmap.record.run import Run
from roadmap.serialization.ranges import Range, check, check_fields
from roadmap.study.execution import Execution, accumulation
from runner.machine.resources import available_gpus, check_here

MODES: tuple[Mode, ...] = ("training", "inference")
CPU_PIXELS = 16 * 224**2  # of a batch on a CPU by default: a larger batch takes no less time per image
WARM_UP = {"cpu": 2, "cuda": 10}  # steps before the clock starts

# The fields of the execution that each kind of measurement uses.
USED = {
    "networks": ("device", "device_batch", "threads", "channels_last", "compile"),
    "data": ("device", "device_batch", "channels_last", "augment", "bad_images"),
}

ROUNDS, SECONDS = Range(1), Range(above=0)


@dataclass(frozen=True)
class BenchOptions:
    """How networks are to be measured; None: chosen for the machine. Raises ValueError for numbers out of range."""

    batch: Annotated[int | None, Range(1)] = None  # images at a time
    rounds: Annotated[int, ROUNDS] = 5  # measurements of each network
    warm_up: Annotated[int | None, Range(0)] = None  # steps before the clock starts
    seconds: Annotated[float, SECONDS] = 1.0  # least time of a measurement, in whole steps
    only: Mode | None = None  # None: both
    cuda_graphs: bool = False

    def __post_init__(self) -> None:
        check_fields(self)


def check_clock(rounds: int, seconds: float) -> None:
    """Raises ValueError for numbers out of range."""
    check(rounds, ROUNDS, "rounds")
    check(seconds, SECONDS, "seconds")


def check_settings(settings: Sequence[str], what: Literal["networks", "data"]) -> None:
    """Raises ValueError for an execution setting that the measurement does not use."""
    unused = {field.name for field in fields(Execution)} - set(USED[what])
    for setting in settings:
        section, _, key = setting.partition("=")[0].partition(".")
        if section == "execution" and key in unused:
            hint = "--data NAME=PATH does" if key == "data_path" else f"these fields do: {', '.join(USED[what])}"
            raise ValueError(f"--set {setting} does not apply to bench {what}; {hint}")


@dataclass(frozen=True)
class Plan:
    """How every network is measured."""

    execution: Execution
    batch: int  # images at a time
    rounds: int  # measurements of each network
    warm_up: int  # steps before the clock starts
    seconds: float  # least time of a measurement, in whole steps
    modes: Sequence[Mode]
    cuda_graphs: bool


def make_plan(runs: Sequence[Run], execution: Execution, options: BenchOptions) -> Plan:
    """The options, completed for one device of this machine. Raises ValueError if the machine lacks what they need."""
    recipes, batch = [run.experiment.recipe for run in runs], options.batch
    device = "cuda" if available_gpus(execution) else "cpu"
    check_here(execution, recipes, 1)
    if options.cuda_graphs and device == "cpu":
        raise ValueError("--cuda-graphs requires a CUDA device, and there is none here")
    if batch is None:
        # As many images as a device takes at a time in training, the same for all networks.
        batch = min(recipe.batch_size // accumulation(recipe, 1, execution.device_batch) for recipe in recipes)
        if device == "cpu" and execution.device_batch == "auto":
            batch = min(batch, *(max(1, CPU_PIXELS // recipe.image_size**2) for recipe in recipes))
    warm_up = WARM_UP[device] if options.warm_up is None else options.warm_up
    modes = (options.only,) if options.only else MODES
    return Plan(execution, batch, options.rounds, warm_up, options.seconds, modes, options.cuda_graphs)
