"""`roadmap bench data`: the time of each stage of the input pipeline, measured in this process."""

from __future__ import annotations

import itertools
import math
import statistics
import time
from collections import defaultdict
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import cv2
import torch

from roadmap.options import Selection, StudyOptions
from roadmap.progress import show_count
from roadmap.record.benchmarks import measured, read_rounds, workload_of
from roadmap.record.run import Run
from roadmap.serialization.ranges import Range, check
from roadmap.study.execution import Execution
from roadmap.study.rungs import Rung
from roadmap.text import three_digits
from runner.data.batches import PerImage, TrainingBatches
from runner.data.datasets import check_trainable, load_data
from runner.data.image import EncodedImage
from runner.data.splits import Split
from runner.data.transforms import ArrayTransform, PillowTransform
from runner.machine.setup import choose_setup
from runner.measure.plan import check_clock, check_settings

# The stages in order: in a worker process, then in the trainer's process.
WORKERS = ("read", "decode", "crop", "augment", "collate")
TRAINERS = ("transfer", "normalize", "erase", "mix")
REST = "the rest"  # of the measured time: the loader itself


@dataclass(frozen=True)
class DeviceRate:
    """The images/s of a device in training."""

    images_per_second: float
    source: str = ""  # what was measured, and on which device; empty if the rate was given


@dataclass(frozen=True)
class PipelineTimes:
    """The time of each stage: medians over the rounds, in seconds per image of one core."""

    rung: str
    title: str
    image_size: int  # in pixels
    rounds: int
    stages: Mapping[str, float]
    worker: float  # the stages in a worker process
    total: float
    device: DeviceRate | None = None

    @property
    def workers_needed(self) -> int | None:
        """The number of workers that keep the device busy; None if its rate is unknown."""
        return math.ceil(self.device.images_per_second * self.worker) if self.device else None

    @property
    def record(self) -> dict[str, Any]:
        """As plain data."""
        return {
            "rung": self.rung,
            "milliseconds": {stage: seconds * 1e3 for stage, seconds in self.stages.items()},
            "images_per_second_of_a_core": 1 / self.total,
            "images_per_second_of_a_worker": 1 / self.worker,
            "device_images_per_second": self.device.images_per_second if self.device else None,
            "workers_needed": self.workers_needed,
        }


def measure_pipeline(
    study: StudyOptions, rounds: int, seconds: float, rate: float | None, out: Path | None
) -> Iterator[PipelineTimes]:
    """Measures the last of the selected rungs, which by default has the modern recipe, and shows progress.

    Yields, after each round, the medians of all rounds so far. `rate` is as in `device_rate`. Raises ValueError for
    numbers out of range, a setting that is not used, and data that is absent.
    """
    check_clock(rounds, seconds)
    check_settings(study.settings, "data")
    selection = Selection.of(study)
    rung = selection.rungs()[-1]
    device = device_rate(selection, study.out(out), rate)
    done: list[dict[str, float]] = []
    with show_count(rounds, f"{selection.title}, {rung.name}") as report:
        for by_stage in stage_seconds(selection.run(rung), selection.execution, rounds, seconds):
            done.append(by_stage)
            report(f"round {len(done)} of {rounds}: {three_digits(1 / sum(by_stage.values()))} images/s")
            yield _medians(f"{selection.title}, {rung.name}", rung, done, device)


def _medians(title: str, rung: Rung, rounds: Sequence[Mapping[str, float]], device: DeviceRate | None) -> PipelineTimes:
    names = (*WORKERS, *TRAINERS, REST)
    stages = {stage: statistics.median(seconds[stage] for seconds in rounds) for stage in names}
    worker, total = (
        statistics.median(sum(seconds[stage] for stage in part) for seconds in rounds) for part in (WORKERS, names)
    )
    return PipelineTimes(
        rung.name, title, rung.experiment.recipe.image_size, len(rounds), stages, worker, total, device
    )


def device_rate(selection: Selection, out: Path, rate: float | None = None) -> DeviceRate | None:
    """The given rate, or the fastest that `roadmap bench` measured of the selected rungs; None if it measured none.

    Raises ValueError for a rate that is not positive.
    """
    if rate is not None:
        check(rate, Range(above=0), "rate")
        return DeviceRate(rate)
    names = {workload_of(selection.run(rung)): rung.name for rung in selection.rungs()}
    rates = measured(read_rounds(out), "training_images_per_second", names)
    if rates is None:
        return None
    workload, fastest = max(rates.values.items(), key=lambda item: item[1])
    return DeviceRate(fastest, f"{names[workload]} was measured on {rates.conditions}")


class Stopwatch:
    """Seconds by stage. The time of a nested stage counts only for that one."""

    def __init__(self, device: str) -> None:
        self.seconds: defaultdict[str, float] = defaultdict(float)
        self.running: list[str] = []
        self.since, self.device = 0.0, device

    def timed(self, stage: str, function: Callable[..., Any]) -> Callable[..., Any]:
        def call(*arguments: Any, **named: Any) -> Any:
            self._switch()
            self.running.append(stage)
            try:
                return function(*arguments, **named)
            finally:
                if stage in TRAINERS and self.device == "cuda":
                    torch.cuda.synchronize()
                self._switch()
                self.running.pop()

        return call

    def _switch(self) -> None:
        now = time.perf_counter()
        if self.running:
            self.seconds[self.running[-1]] += now - self.since
        self.since = now


class TimedSplit:
    """A split whose reading and decoding is timed by the stopwatch."""

    def __init__(self, split: Split, stopwatch: Stopwatch) -> None:
        self.split, self.labels, self.stopwatch = split, split.labels, stopwatch
        self.highest_label = split.highest_label
        self.read = stopwatch.timed("read", split.image)

    def __len__(self) -> int:
        return len(self.split)

    def image(self, index: int) -> EncodedImage:
        image: EncodedImage = self.read(index)
        for name in ("rgb", "pixels", "part"):
            setattr(image, name, self.stopwatch.timed("decode", getattr(image, name)))
        return image


def stage_seconds(run: Run, execution: Execution, rounds: int, seconds: float) -> Iterator[dict[str, float]]:
    """For each round, the seconds per image by stage, on one core. A round has whole batches and at least `seconds`.

    The first batch is not counted. Raises ValueError if the data is absent, or a batch can't be made.
    """
    try:
        yield from _rounds(run, execution, rounds, seconds)
    except (RuntimeError, MemoryError, cv2.error) as error:
        raise ValueError(f"no batch can be made here: {str(error).splitlines()[0]}") from None


def _rounds(run: Run, execution: Execution, rounds: int, seconds: float) -> Iterator[dict[str, float]]:
    check_trainable(run)
    setup = choose_setup(run.experiment.recipe, replace(execution, processes=1, threads=1, workers=0), 1, 1)
    setup.prepare()
    training, _ = load_data(run, execution.data_path)
    batches = TrainingBatches(run, training, setup, rank=0, skip_bad=execution.bad_images == "skip")
    stopwatch = Stopwatch(setup.device)
    _watch(batches, stopwatch)
    stream = itertools.chain.from_iterable(batches.stream(0, 0) for _ in itertools.count())  # endless
    next(stream)
    for _ in range(rounds):
        stopwatch.seconds.clear()
        images, began = 0, time.perf_counter()
        while not images or time.perf_counter() - began < seconds:
            images += len(next(stream)[0])
        total = (time.perf_counter() - began) / images
        by_stage = {stage: stopwatch.seconds[stage] / images for stage in (*WORKERS, *TRAINERS)}
        yield by_stage | {REST: total - sum(by_stage.values())}


def _watch(batches: TrainingBatches, stopwatch: Stopwatch) -> None:
    """Wraps the stages of a pipeline in the stopwatch; stages may be nested."""
    timed, prepare = stopwatch.timed, batches.samples.augmentation
    if isinstance(prepare, PerImage):
        prepare.split = TimedSplit(prepare.split, stopwatch)
        transform = prepare.transform
        if isinstance(transform, ArrayTransform):
            transform.crop = timed("crop", transform.crop)
        elif isinstance(transform, PillowTransform):
            crop, augment, to_tensor = transform.transform.transforms  # type: ignore[attr-defined]
            stages = (timed("crop", crop), timed("augment", augment), timed("collate", to_tensor))
            transform.transform.transforms = list(stages)  # type: ignore[attr-defined]
        prepare.transform = timed("augment", transform)
        batches.samples.augmentation = timed("collate", prepare)
    else:
        batches.samples.augmentation = timed("crop", prepare)  # of whole batches of images in memory
    batches.finish = timed("transfer", batches.finish)  # type: ignore[method-assign]
    for stage in ("normalize", "erase", "mix"):
        part = getattr(batches, stage)
        setattr(batches, stage, timed(stage, part) if part else part)
