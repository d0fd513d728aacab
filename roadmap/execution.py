"""How and where a run is computed, as plain data: what decides its time, not its result."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

MOST_RETRIES = 3  # of a run that diverges
Auto = Literal["auto"]  # chosen for the machine; the run's record has what it came to


@dataclass(frozen=True)
class Execution:
    """No part of a run's identity. `ablations.yaml` holds the defaults, `--set execution.KEY=VALUE` changes them."""

    device: Literal["auto", "cpu", "cuda"]
    processes: int | Auto  # that train one run together, one a device
    device_batch: int | Auto  # images that a device takes at a time; gradients are accumulated over the rest
    threads: int | Auto  # of a process, on a CPU
    workers: int | Auto  # processes that read and augment images, for each training process; 0: itself
    channels_last: bool  # the order in memory
    compile: str | None  # a backend of torch.compile
    checkpoint_minutes: float  # between two checkpoints within an epoch
    on_nan: Literal["stop", "retry"]  # "retry": from the last checkpoint, the rest of the epoch in another order
    bad_images: Literal["stop", "skip"]  # "skip": another image in its place, counted
    data_path: str | None = None  # where the data set lies; None: where it usually does

    def __post_init__(self) -> None:
        for name, least in (("processes", 1), ("device_batch", 1), ("threads", 1), ("workers", 0)):
            value = getattr(self, name)
            if value != "auto" and value < least:
                raise ValueError(f"{name} is {value}, expected auto or at least {least}")
        if self.checkpoint_minutes < 0:
            raise ValueError(f"checkpoint_minutes is {self.checkpoint_minutes:g}, expected at least 0")


def accumulation(batch_size: int, processes: int, device_batch: int | Auto, *, pairs: bool = False) -> int:
    """How many times each device takes images before the weights change, so that the batch is the recipe's.

    `pairs`: images are mixed in pairs, which no device may part. Raises ValueError for a layout that can't make the
    batch, with those that can.
    """
    unit = 2 if pairs else 1
    what = f"recipe.batch_size {batch_size}" + (", mixed in pairs," if pairs else "")
    if batch_size % (processes * unit):
        fitting = _divisors(batch_size // unit)
        raise ValueError(f"{what} can't be shared by {processes} processes; by {_join(fitting)} it can")
    share = batch_size // processes
    if device_batch == "auto":
        return 1
    if share % device_batch or device_batch % unit:
        fitting = [unit * divisor for divisor in _divisors(share // unit)]
        raise ValueError(
            f"{what} over {processes} processes is {share} images each, which execution.device_batch {device_batch} "
            f"can't make; {_join(fitting)} can"
        )
    return share // device_batch


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _join(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + (" or " if len(numbers) > 1 else "") + str(numbers[-1])
