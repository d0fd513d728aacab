"""How and where a run is computed, as plain data: it decides the time, and only the last bits of the result."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Annotated, Any, Literal

from roadmap.recipe import Recipe
from roadmap.serialization.ranges import Range, Text, check_fields

DEVICE_PIXELS = 128 * 224**2  # of the paper's batch per device
MOST_RETRIES = 3  # after divergences of a run
Auto = Literal["auto"]  # chosen for the machine; the record of the run has the chosen value


def _is_project(name: str) -> bool:
    return 0 < len(name) <= 128 and not set(name) & set("/\\#?%:")


PROJECT = Text("a project's name, without any of / \\ # ? % :", _is_project)


def recorded_execution(recorded: Any, *, crops_by_batch: bool) -> dict[str, Any]:
    """The execution of a manifest.

    If the manifest is older than the field `augment`, the field gets what was done then: "fast" for a run that
    `crops_by_batch`, else timm's transforms. Raises ValueError if the execution is not a mapping.
    """
    if not isinstance(recorded, Mapping):
        raise ValueError(f"execution: {recorded!r} is not a mapping")
    return {"augment": "fast" if crops_by_batch else "reference", **recorded}


@dataclass(frozen=True)
class Execution:
    """The settings of the section `execution`. They are not part of the identity of a run.

    Their effects on a result (retries, skipped images) are in the record of the run. `ablations.yaml` holds the
    defaults, `--set execution.KEY=VALUE` changes them.
    """

    device: Literal["auto", "cpu", "cuda"]  # "auto": cuda if there is one, else cpu
    processes: Annotated[int | Auto, Range(1)]  # training processes of one run, one per device
    device_batch: Annotated[int | Auto, Range(1)]  # images per device and forward pass; gradients add up to the batch
    threads: Annotated[int | Auto, Range(1)]  # of each process, on a CPU
    workers: Annotated[int | Auto, Range(0)]  # processes that read images, per training process; 0: no extra process
    channels_last: bool  # memory format of images and weights
    compile: str | None  # backend of torch.compile; null: not compiled
    checkpoint_minutes: Annotated[float, Range(0)]  # between two checkpoints within an epoch
    on_nan: Literal["stop", "retry"]  # "retry": from the last checkpoint, with the rest of the epoch in another order
    bad_images: Literal["stop", "skip"]  # "skip": replace it by another image and count it
    tf32: bool = False  # on GPUs, in place of fp32 for convolutions and products of matrices
    cudnn_benchmark: bool = True  # on GPUs: the fastest kernels, by trial; last bits may differ from run to run
    prefetch: Annotated[int, Range(1)] = 2  # batches that each worker makes ahead
    augment: Literal["fast", "reference"] | Auto = "auto"  # on arrays, or by timm's own transforms, image by image
    checkpoint_share: Annotated[float, Range(above=0, maximum=1)] = 0.005  # of the time, for those at ends of epochs
    stop_after: Annotated[int | None, Range(1)] = None  # epochs after which runs pause, and can be resumed; null: none
    tensorboard: bool = False  # copy the record to a folder of the run for TensorBoard
    wandb: Annotated[str | None, PROJECT] = None  # project of Weights & Biases to copy the record to
    data_path: Path | None = None  # path of the data set; null: the usual one; set by `--data NAME=PATH`
    weights: Path | None = None  # file that a transfer begins with; set by `roadmap transfer --state-dict`
    weights_of: str | None = None  # the network that the file is of, LIBRARY/NAME; set by --of

    def __post_init__(self) -> None:
        check_fields(self)


def accumulation(recipe: Recipe, processes: int, device_batch: int | Auto) -> int:
    """The number of forward passes per step of each device, so that all together make the batch of the recipe.

    "auto" takes as many images at a time as have the pixels of the paper's batch per device. Raises ValueError for a
    layout that can't make the batch, with those that can.
    """
    unit = 2 if recipe.mixes else 1  # images that must be on the same device
    batch = f"recipe.batch_size {recipe.batch_size}" + (", mixed in pairs," if recipe.mixes else "")
    if not recipe.shared_by(processes):
        valid = _join(_divisors(recipe.batch_size // unit))
        raise ValueError(f"{batch} can't be shared by {processes} processes; by {valid} it can")
    share = recipe.batch_size // processes
    sizes = [unit * divisor for divisor in _divisors(share // unit)]
    if device_batch == "auto":
        return share // max([size for size in sizes if size * recipe.image_size**2 <= DEVICE_PIXELS] or sizes[:1])
    if device_batch not in sizes:
        raise ValueError(
            f"{batch} over {processes} processes is {share} images each, which execution.device_batch {device_batch} "
            f"can't make; {_join(sizes)} can"
        )
    return share // device_batch


def further_accumulation(recipe: Recipe, processes: int, parts: int) -> int | None:
    """The next larger number of parts of each device's share of the batch; None if each has as few images as it can."""
    unit = 2 if recipe.mixes else 1
    larger = [divisor for divisor in _divisors(recipe.batch_size // processes // unit) if divisor > parts]
    return min(larger, default=None)


def _divisors(number: int) -> list[int]:
    return [divisor for divisor in range(1, number + 1) if number % divisor == 0]


def _join(numbers: list[int]) -> str:
    return ", ".join(map(str, numbers[:-1])) + (" or " if len(numbers) > 1 else "") + str(numbers[-1])
