"""The numbers of a run: the metrics of each epoch, its result, and its divergences.

The lines of metrics.jsonl and result.json are flat: they hold the fields below, and the value of each metric by its
key. Fields that an older version did not write are None, and so are numbers that were not finite.
"""

from __future__ import annotations

import dataclasses
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Annotated, Any

from roadmap.serialization.plain_data import from_data, to_data
from roadmap.serialization.ranges import MAX_NUMBER, Range, check_fields

if TYPE_CHECKING:
    from roadmap.record.metrics import Metric

# Of one metric: a number, or one number per class. None: not finite, or a class without images.
Value = float | tuple[float | None, ...] | None

RESULT_FORMAT = 1


def scalar(value: Value) -> float | None:
    """The number that tables show. For a list it is the mean over the classes that have a number."""
    if not isinstance(value, tuple):
        return value
    known = [number for number in value if number is not None]
    return math.fsum(known) / len(known) if known else None


@dataclass(frozen=True)
class Divergence:
    """A loss or a weight that was not finite."""

    epoch: Annotated[int, Range(1)]  # from 1
    step: Annotated[int, Range(0)]  # within the epoch, from 1
    learning_rate: Annotated[float, Range(0)]
    loss: str  # nan, inf or -inf; a number if only the weights after the step were not finite
    module: str  # the first whose output or weights were not finite
    retried_from: Annotated[tuple[int, int] | None, Range(0)] = None  # epoch and step, from 0, of resuming

    def __post_init__(self) -> None:
        check_fields(self)

    def __str__(self) -> str:
        where = f"epoch {self.epoch}, step {self.step}, at a learning rate of {self.learning_rate:g}"
        return f"the loss is {self.loss} in {where}; the first that was not finite is {self.module}"


class _HasValues:
    values: Mapping[str, Value]

    def value(self, metric: Metric) -> float | None:
        return scalar(self.values.get(metric.key))


@dataclass(frozen=True)
class EpochMetrics(_HasValues):
    """A line of metrics.jsonl."""

    epoch: Annotated[int, Range(1)]  # from 1
    train_loss: float | None  # mean over the steps, with the augmentation and smoothing of the recipe
    values: Mapping[str, Value]  # of metrics on held-out images, by key; before the last epoch the mean of a list
    seconds: Annotated[float | None, Range(0)] = None  # of training and evaluation
    skipped_images: Annotated[int | None, Range(0)] = None  # that could not be read
    learning_rate: Annotated[float | None, Range(0)] = None  # of the last step
    images_per_second: Annotated[float | None, Range(0)] = None  # in training; None: a restart came after its last step
    peak_memory_bytes: Annotated[int | None, Range(0)] = None  # of the device; on a CPU of the process

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    def of_row(row: Mapping[str, Any]) -> EpochMetrics:
        """From a line of metrics.jsonl. Raises ValueError with the key of an invalid value."""
        epoch = _count(row, "epoch")
        if epoch is None:
            raise ValueError("epoch is missing")
        return EpochMetrics(
            epoch,
            _number(row, "train_loss"),
            values_of(row),
            _number(row, "seconds"),
            _count(row, "skipped_images"),
            _number(row, "learning_rate"),
            _number(row, "images_per_second"),
            _count(row, "peak_memory_bytes"),
        )

    def to_row(self) -> dict[str, Any]:
        """As a line of metrics.jsonl."""
        return _to_row(self)

    def number(self, key: str) -> float | None:
        """The value of a metric by its key, or the training loss by the key train_loss."""
        return self.train_loss if key == "train_loss" else scalar(self.values.get(key))

    def numbers(self) -> dict[str, float]:
        """All known numbers except the epoch, by the keys of metrics.jsonl."""
        row = self.to_row() | {key: scalar(value) for key, value in self.values.items()}
        return {key: number for key, number in row.items() if key != "epoch" and number is not None}


@dataclass(frozen=True)
class RunResult(_HasValues):
    """The result of a run and its cost: result.json."""

    identity: str
    values: Mapping[str, Value]  # of the last epoch, by key
    seconds: Annotated[float, Range(0)]  # of training and evaluation
    # Top-1 accuracy of the best epoch, and that of the averaged weights. Chosen on the test images: biased upwards.
    best_top1: float | None = None
    best_ema_top1: float | None = None
    train_loss: float | None = None  # of the last epoch
    images_per_second: Annotated[float | None, Range(0)] = None  # in training, median of the epochs
    peak_memory_bytes: Annotated[int | None, Range(0)] = None
    parameters: Annotated[int | None, Range(0)] = None
    macs: Annotated[int | None, Range(0)] = None  # multiply-adds of one image
    epochs: Annotated[int | None, Range(0)] = None
    skipped_images: Annotated[int | None, Range(0)] = None  # over all epochs
    divergences: tuple[Divergence, ...] = ()  # after which training was retried
    restarts: Annotated[int | None, Range(0)] = None
    lost_steps: Annotated[int | None, Range(0)] = None  # trained again, because their results were not saved
    finished: str | None = None  # ISO 8601, UTC

    def __post_init__(self) -> None:
        check_fields(self)

    @staticmethod
    def of_epochs(identity: str, epochs: Sequence[EpochMetrics]) -> RunResult:
        """The result of a finished run, as far as its epochs have it."""
        import statistics  # imported late to keep `roadmap list` fast

        rates = [epoch.images_per_second for epoch in epochs if epoch.images_per_second]
        return RunResult(
            identity,
            epochs[-1].values,
            sum(epoch.seconds or 0.0 for epoch in epochs),
            best_top1=_best(epochs, "top1"),
            best_ema_top1=_best(epochs, "ema_top1"),
            train_loss=epochs[-1].train_loss,
            images_per_second=statistics.median(rates) if rates else None,
            peak_memory_bytes=max((epoch.peak_memory_bytes or 0 for epoch in epochs), default=0) or None,
        )

    @staticmethod
    def of_row(row: Mapping[str, Any]) -> RunResult:
        """From the content of result.json. Raises ValueError with the key of a missing or invalid value."""
        identity, seconds, finished = row.get("identity"), _number(row, "seconds"), row.get("finished")
        if not isinstance(identity, str):
            raise ValueError(f"identity is {identity!r}, not text")
        if seconds is None:
            raise ValueError(f"seconds is {row.get('seconds')!r}, not a number")
        if not isinstance(finished, str | None):
            raise ValueError(f"finished is {finished!r}, not text")
        return RunResult(
            identity,
            values_of(row),
            seconds,
            best_top1=_number(row, "best_top1"),
            best_ema_top1=_number(row, "best_ema_top1"),
            train_loss=_number(row, "train_loss"),
            images_per_second=_number(row, "images_per_second"),
            divergences=from_data(tuple[Divergence, ...], row.get("divergences") or (), "divergences"),
            finished=finished,
            **{key: _count(row, key) for key in _COUNTS},
        )

    def to_row(self) -> dict[str, Any]:
        """As the content of result.json."""
        return {"format": RESULT_FORMAT} | _to_row(self)

    def completed(self, epochs: Sequence[EpochMetrics]) -> RunResult:
        """The result with values that an older version did not write, taken from the epochs."""
        if not epochs:
            return self
        computed = RunResult.of_epochs(self.identity, epochs)
        return replace(
            self,
            values={**computed.values, **self.values},
            best_top1=computed.best_top1 if self.best_top1 is None else self.best_top1,
            best_ema_top1=computed.best_ema_top1 if self.best_ema_top1 is None else self.best_ema_top1,
            train_loss=computed.train_loss if self.train_loss is None else self.train_loss,
            images_per_second=computed.images_per_second if self.images_per_second is None else self.images_per_second,
            peak_memory_bytes=computed.peak_memory_bytes if self.peak_memory_bytes is None else self.peak_memory_bytes,
        )


def _best(epochs: Sequence[EpochMetrics], key: str) -> float | None:
    return max((value for epoch in epochs if (value := scalar(epoch.values.get(key))) is not None), default=None)


_COUNTS = ("peak_memory_bytes", "parameters", "macs", "epochs", "skipped_images", "restarts", "lost_steps")
# The keys of both files that are not metrics.
FIELDS = frozenset(
    {"format", *(field.name for kind in (EpochMetrics, RunResult) for field in dataclasses.fields(kind))}
)
# The other columns of a collection of runs (`analysis.collection.COLUMNS`).
COLUMNS_OF_RUNS = frozenset(
    "regime rung seed state why device_hours task weights frozen data fidelity device devices host precision torch "
    "libraries commit modified started experiment recipe folder".split()
)
RESERVED = FIELDS | COLUMNS_OF_RUNS  # what can't be the key of a metric


def values_of(row: Mapping[str, Any]) -> dict[str, Value]:
    """The values of metrics by key, also of plug-ins that are not loaded. Invalid values are left out."""
    values = {}
    for key, item in row.items():
        if key not in RESERVED:
            numbers = item if isinstance(item, list) else [item]
            if all(_is_number(number) for number in numbers):
                known = tuple(number if number is not None and math.isfinite(number) else None for number in numbers)
                values[key] = known if isinstance(item, list) else known[0]
    return values


def _is_number(item: Any) -> bool:
    """Whether it is a number or None. Numbers that are not finite are valid, too."""
    if type(item) is float and not math.isfinite(item):
        return True
    return item is None or (type(item) in (int, float) and abs(item) < MAX_NUMBER)


def _number(row: Mapping[str, Any], key: str) -> float | None:
    item = row.get(key)
    if not _is_number(item):
        raise ValueError(f"{key} is {item!r}, not a number")
    return item if item is not None and math.isfinite(item) else None


def _count(row: Mapping[str, Any], key: str) -> int | None:
    item = _number(row, key)
    if item is not None and not isinstance(item, int):
        raise ValueError(f"{key} is {item!r}, not a whole number")
    return item


def _to_row(value: EpochMetrics | RunResult) -> dict[str, Any]:
    row: dict[str, Any] = {}
    for name in (field.name for field in dataclasses.fields(value)):
        row |= to_data(value.values) if name == "values" else {name: to_data(getattr(value, name))}
    return row
