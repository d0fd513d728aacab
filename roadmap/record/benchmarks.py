"""Measurements of `roadmap bench`: `bench.jsonl` in the folder of the runs, a line for each round of each rung."""

from __future__ import annotations

import statistics
from collections.abc import Collection, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

from roadmap.files import append_record, digest, read_records
from roadmap.network.cost import PASSES
from roadmap.record.run import Run, canonical

FILE, FORMAT = "bench.jsonl", 1

Mode = Literal["training", "inference"]
Quantity = Literal[
    "training_images_per_second", "inference_images_per_second", "training_peak_bytes", "inference_peak_bytes"
]


@dataclass(frozen=True)
class Conditions:
    """What was measured on, and how. Only measurements with the same conditions can be compared."""

    device: Literal["cpu", "cuda"]
    name: str  # of the processor or the GPU
    precision: Literal["fp32", "tf32", "bf16", "fp16"]
    threads: int
    batch: int  # images per batch
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
    """One measurement of one network, in a separate process."""

    started: str  # start of the command, UTC; the same for all its rounds
    regime: str
    rung: str
    workload: str
    image_size: int  # pixels
    parameters: int
    macs: int  # multiply-adds of one image, forward
    conditions: Conditions
    training_images_per_second: float | None  # whole steps: forward, loss, backward, optimizer; None: not asked for
    inference_images_per_second: float | None
    training_peak_bytes: int | None  # on a CPU that of the process, minus its memory before the network was built
    inference_peak_bytes: int | None
    matrix_gmacs_per_second: float  # 1e9 multiply-adds, of the fastest product of two square matrices


def workload_of(run: Run) -> str:
    """A hash of what decides the work of a step: experiments with the same hash share measurements."""
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


def append_round(out: Path, measurement: Round) -> None:
    """Adds a round to the file. Raises OSError with the path if it can't be written."""
    out.mkdir(parents=True, exist_ok=True)
    append_record(out / FILE, measurement, FORMAT)


def read_rounds(out: Path) -> list[Round]:
    """All rounds, in order. Lines that are invalid or have another format version are left out."""
    return read_records(out / FILE, Round, FORMAT)


@dataclass(frozen=True)
class Rates:
    """The medians of the rounds of a network."""

    images_per_second: float
    spread: float  # half of the range of the rounds
    peak_bytes: float
    macs_per_second: float  # in training three times those of the forward pass
    share: float  # of the multiply-adds per second of the matrix product of the same round


def rates_of(rounds: Sequence[Round], mode: Mode) -> Rates | None:
    """The rates in one mode; None if it was not measured."""
    speeds = [speed for row in rounds if (speed := getattr(row, f"{mode}_images_per_second"))]
    if not speeds:
        return None
    macs = rounds[0].macs * (PASSES if mode == "training" else 1)
    return Rates(
        statistics.median(speeds),
        (max(speeds) - min(speeds)) / 2,
        statistics.median(getattr(row, f"{mode}_peak_bytes") for row in rounds),
        statistics.median(speeds) * macs,
        statistics.median(
            speed * macs / 1e9 / row.matrix_gmacs_per_second for speed, row in zip(speeds, rounds, strict=True)
        ),
    )


@dataclass(frozen=True)
class Measured:
    """A quantity of several networks, measured under the same conditions."""

    conditions: Conditions
    values: dict[str, float]  # by workload: the median of the rounds of the newest command


def measured(rounds: Iterable[Round], quantity: Quantity, workloads: Collection[str]) -> Measured | None:
    """The quantity under the conditions that the most of these networks share; if several do, under the newest.

    None if no network was measured.
    """
    by_conditions: dict[Conditions, dict[str, list[tuple[str, float]]]] = {}
    for row in rounds:
        value = getattr(row, quantity)
        if value and row.workload in workloads:
            by_workload = by_conditions.pop(row.conditions, {})
            by_conditions[row.conditions] = by_workload  # the newest conditions are last
            by_workload.setdefault(row.workload, []).append((row.started, value))
    if not by_conditions:
        return None
    conditions, by_workload = max(reversed(by_conditions.items()), key=lambda item: len(item[1]))
    return Measured(conditions, {workload: _newest(values) for workload, values in by_workload.items()})


def _newest(values: Sequence[tuple[str, float]]) -> float:
    newest = max(started for started, _ in values)
    return statistics.median(value for started, value in values if started == newest)
