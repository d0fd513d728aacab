"""What `roadmap bench` measured, as data: `bench.jsonl` in the folder of runs, a line for each round of each rung."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from roadmap.files import append_record, digest, read_records
from roadmap.record.estimates import PASSES
from roadmap.record.run import Run, canonical

FILE, FORMAT = "bench.jsonl", 1

Mode = Literal["training", "inference"]
Quantity = Literal[
    "training_images_per_second", "inference_images_per_second", "training_peak_bytes", "inference_peak_bytes"
]


@dataclass(frozen=True)
class Conditions:
    """What figures were measured on, and how: those of the same conditions compare."""

    device: Literal["cpu", "cuda"]
    name: str  # the processor's or the GPU's
    precision: Literal["fp32", "bf16", "fp16"]
    threads: int
    batch: int  # images at a time
    channels_last: bool
    compile: str | None
    cuda_graphs: bool
    torch: str  # its version

    def __str__(self) -> str:
        parts = [self.name, self.precision, f"batch {self.batch}"]
        parts += [f"{self.threads} thread{'s' if self.threads > 1 else ''}"] if self.device == "cpu" else []
        parts += [f"compiled by {self.compile}"] if self.compile else []
        return ", ".join(parts + (["CUDA graphs"] if self.cuda_graphs else []))


@dataclass(frozen=True)
class Round:
    """One measurement of one network, in a process of its own."""

    started: str  # when the command was that measured it, UTC: its rounds belong together
    regime: str
    rung: str
    workload: str
    image_size: int  # pixels
    parameters: int
    macs: int  # multiply-adds of one image, forward
    conditions: Conditions
    training_images_per_second: float | None  # whole steps: forward, loss, backward, optimizer; none if not asked for
    inference_images_per_second: float | None
    training_peak_bytes: int | None  # on a CPU of the process, less what it had before there was a network
    inference_peak_bytes: int | None
    matrix_gmacs_per_second: float  # 1e9 multiply-adds, of the best product of two square matrices


def workload_of(run: Run) -> str:
    """A hash of what decides the work of a step: experiments that share it share their measurements."""
    recipe = run.experiment.recipe
    return digest(
        {
            "design": canonical(run.experiment)["design"],
            "mixers": run.mixers,
            "classes": run.dataset.classes,
            "image_size": recipe.image_size,
            "optimizer": recipe.optimizer,
            "drops_paths": recipe.drop_path > 0,
            "mixes": recipe.mixes,
            "clips_gradients": recipe.clip_gradients is not None,
            "averages_weights": recipe.ema is not None,
        }
    )


def append_round(out: Path, found: Round) -> None:
    """Raises OSError with the path where the disk does not take it."""
    out.mkdir(parents=True, exist_ok=True)
    append_record(out / FILE, found, FORMAT)


def read_rounds(out: Path) -> list[Round]:
    """All that were ever measured, in order; lines that are no such, or of another version, are left out."""
    return read_records(out / FILE, Round, FORMAT)


@dataclass(frozen=True)
class Rates:
    """What the rounds of a network came to: medians."""

    images_per_second: float
    spread: float  # half of what lies between the slowest round and the fastest
    peak_bytes: float
    macs_per_second: float  # in training three times the forward pass's
    share: float  # of the multiply-adds of the best matrix product of the same round


def rates_of(rounds: Sequence[Round], what: Mode) -> Rates | None:
    """None where that was not measured."""
    speeds = [speed for each in rounds if (speed := getattr(each, f"{what}_images_per_second"))]
    if not speeds:
        return None
    macs = rounds[0].macs * (PASSES if what == "training" else 1)
    return Rates(
        statistics.median(speeds),
        (max(speeds) - min(speeds)) / 2,
        statistics.median(getattr(each, f"{what}_peak_bytes") for each in rounds),
        statistics.median(speeds) * macs,
        statistics.median(
            speed * macs / 1e9 / each.matrix_gmacs_per_second for speed, each in zip(speeds, rounds, strict=True)
        ),
    )


@dataclass(frozen=True)
class Measured:
    """A quantity of several networks, measured under the same conditions."""

    conditions: Conditions
    values: dict[str, float]  # by workload: the median of the rounds of the newest command


def measured(rounds: Iterable[Round], quantity: Quantity, workloads: Collection[str]) -> Measured | None:
    """Under the conditions that most of these networks were measured under, the newest of such; None where none was."""
    found: dict[Conditions, dict[str, list[tuple[str, float]]]] = {}
    for each in rounds:
        value = getattr(each, quantity)
        if value and each.workload in workloads:
            of_these = found.pop(each.conditions, {})
            found[each.conditions] = of_these  # last what was measured last
            of_these.setdefault(each.workload, []).append((each.started, value))
    if not found:
        return None
    conditions, of_these = max(reversed(found.items()), key=lambda item: len(item[1]))
    return Measured(conditions, {workload: _newest(values) for workload, values in of_these.items()})


def _newest(values: Sequence[tuple[str, float]]) -> float:
    started = max(when for when, _ in values)
    return statistics.median(value for when, value in values if when == started)
