"""How and where a run is computed, as plain data: what decides its time, and of its result the last bits alone."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from typing import Annotated, Any, Literal

from roadmap.recipe import Recipe
from roadmap.serialization import Range, Text, check_fields

DEVICE_PIXELS = 128 * 224**2  # of the images that the paper gives to a device at a time
MOST_RETRIES = 3  # of a run that diverges
Auto = Literal["auto"]  # chosen for the machine; the run's record has what it came to


def _is_project(name: str) -> bool:
    return 0 < len(name) <= 128 and not set(name) & set("/\\#?%:")


PROJECT = Text("a project's name, without any of / \\ # ? % :", _is_project)


def began_with(recorded: Any, *, crops_by_batch: bool) -> dict[str, Any]:
    """The execution that a manifest holds; of one older than `augment`, with what there was: timm's transforms.

    Images that it had cropped a batch at a time still are. Raises ValueError where it is no mapping.
    """
    if not isinstance(recorded, Mapping):
        raise ValueError(f"execution: {recorded!r} is not a mapping")
    return {"augment": "fast" if crops_by_batch else "reference", **recorded}


@dataclass(frozen=True)
class Execution:
    """No part of a run's identity; what it does to a result (retries, skipped images) is in the run's record.

    `ablations.yaml` holds the defaults, `--set execution.KEY=VALUE` changes them.
    """

    device: Literal["auto", "cpu", "cuda"]  # "auto": cuda where there is one, else cpu
    processes: Annotated[int | Auto, Range(1)]  # that train one run together, one a device
    device_batch: Annotated[int | Auto, Range(1)]  # images a device takes at a time; gradients add up over the rest
    threads: Annotated[int | Auto, Range(1)]  # of a process, on a CPU
    workers: Annotated[int | Auto, Range(0)]  # processes that read images, for each training process; 0: itself
    channels_last: bool  # the order in memory
    compile: str | None  # a backend of torch.compile; null is off
    checkpoint_minutes: Annotated[float, Range(0)]  # between two checkpoints within an epoch
    on_nan: Literal["stop", "retry"]  # "retry": from the last checkpoint, the rest of the epoch in another order
    bad_images: Literal["stop", "skip"]  # "skip": another image in its place, counted
    augment: Literal["fast", "reference"] | Auto = "auto"  # on arrays, or by timm's own transforms, one by one
    checkpoint_share: Annotated[float, Range(above=0, maximum=1)] = 0.005  # of the time, for those at ends of epochs
    tensorboard: bool = False  # the record is copied to a folder of the run for TensorBoard
    wandb: Annotated[str | None, PROJECT] = None  # a project of Weights & Biases that the record is copied to
    data_path: str | None = None  # where the data set lies; null: where it usually does; `--data NAME=PATH` sets it

    def __post_init__(self) -> None:
        check_fields(self)


def accumulation(recipe: Recipe, processes: int, device_batch: int | Auto) -> int:
    """The parts that each device takes its share of a batch in, before the weights change: the batch is the recipe's.

    "auto" takes as many images at a time as have the pixels of the paper's batch a device. Raises ValueError for a
    layout that can't make the batch, with those that can.
    """
    unit = 2 if recipe.mixes else 1  # images that no device may part
    what = f"recipe.batch_size {recipe.batch_size}" + (", mixed in pairs," if recipe.mixes else "")
    if not recipe.shared_by(processes):
        fitting = _join(_divisors(recipe.batch_size // unit))
        raise ValueError(f"{what} can't be shared by {processes} processes; by {fitting} it can")
    share = recipe.batch_size // processes
    sizes = [unit * divisor for divisor in _divisors(share // unit)]
    if device_batch == "auto":
        return share // max([size for size in sizes if size * recipe.image_size**2 <= DEVICE_PIXELS] or sizes[:1])
    if device_batch not in sizes:
        raise ValueError(
            f"{what} over {processes} processes is {share} images each, which execution.device_batch {device_batch} "
            f"can't make; {_join(sizes)} can"
        )
    return share // device_batch


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _join(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + (" or " if len(numbers) > 1 else "") + str(numbers[-1])
