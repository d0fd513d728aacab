"""How networks are measured: what a user leaves open is chosen for the machine."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from roadmap.record.benchmarks import Mode
from roadmap.record.run import Run
from roadmap.study.execution import Execution, accumulation
from runner.machine.resources import available_gpus, check_here

CPU_PIXELS = 16 * 224**2  # of a batch on a CPU where nothing is said: beyond it a step takes longer, and no image less


WARM_UP = {"cpu": 2, "cuda": 10}  # steps before the clock starts


@dataclass(frozen=True)
class Plan:
    """How every network is measured."""

    execution: Execution
    batch: int  # images at a time
    warm_up: int  # steps before the clock starts
    seconds: float  # that are measured at least, in whole steps
    what: Sequence[Mode]
    cuda_graphs: bool


def make_plan(
    runs: Sequence[Run],
    execution: Execution,
    *,
    batch: int | None = None,
    warm_up: int | None = None,
    seconds: float = 1.0,
    what: Sequence[Mode] = ("inference", "training"),
    cuda_graphs: bool = False,
) -> Plan:
    """What is left open is chosen for the machine: one device of it. Raises ValueError for what can't be had here."""
    recipes = [run.experiment.recipe for run in runs]
    device = "cuda" if available_gpus(execution) else "cpu"
    check_here(execution, recipes, 1)
    if cuda_graphs and device == "cpu":
        raise ValueError("--cuda-graphs needs a CUDA device, and there is none here")
    if batch is None:
        # As many as a device takes at a time in training, the same for all.
        batch = min(each.batch_size // accumulation(each, 1, execution.device_batch) for each in recipes)
        if device == "cpu" and execution.device_batch == "auto":
            batch = min(batch, *(max(1, CPU_PIXELS // each.image_size**2) for each in recipes))
    return Plan(execution, batch, WARM_UP[device] if warm_up is None else warm_up, seconds, what, cuda_graphs)
