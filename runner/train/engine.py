"""Training one run, from its manifest to its result."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any

import torch

from roadmap.record.events import Report, ignore
from roadmap.record.folder import (
    Manifest,
    is_diverged,
    read_divergences,
    read_manifest,
    read_result,
    state,
    write_accumulation,
    write_divergences,
    write_manifest,
)
from roadmap.record.results import Divergence, RunResult
from roadmap.record.run import Run
from roadmap.serialization.plain_data import from_data
from roadmap.study.execution import MOST_RETRIES, Execution, further_accumulation, recorded_execution
from runner.data.datasets import check_trainable, class_names
from runner.data.shared_memory import check_shared_memory
from runner.machine.distributed import SINGLE_PROCESS, World
from runner.machine.requests import Request
from runner.machine.setup import Setup, choose_setup, shared_precision
from runner.train import checkpoint
from runner.train.initial_weights import Initial, initial_weights
from runner.train.provenance import environment, free_memory
from runner.train.tasks.registry import task_of
from runner.train.trackers import copy_finished_run
from runner.train.training import NotFinite, Training


class Diverged(ValueError):
    """The loss is not finite."""


def _stored(folder: Path, manifest: Manifest) -> Setup:
    """The setup that a run began with. Raises ValueError with the file if the manifest has none that is valid."""
    try:
        began = recorded_execution(manifest.execution, crops_by_batch=manifest.run.crops_by_batch)
        setup: Setup = from_data(Setup, began, "execution")
    except ValueError as error:
        raise ValueError(f"{folder}/manifest.json: {error}") from None
    return setup


def _check_classes(manifest: Manifest, classes: tuple[str, ...], folder: Path) -> None:
    """Raises ValueError if the classes of the data are not those that the run began with."""
    for began, name in zip(manifest.classes, classes, strict=False):  # their numbers are those of the same data set
        if began != name:
            raise ValueError(f"{folder} began with class {began!r}, where its data now have {name!r}")


def _check_weights(manifest: Manifest, initial: Initial | None, folder: Path) -> None:
    """Raises ValueError if the weights that the run would begin with are not those that it began with."""
    if initial and manifest.weights and initial.digest != manifest.weights:
        raise ValueError(
            f"{folder} began with the weights {manifest.weights}, but {initial.origin} now has {initial.digest}; "
            "restore them, or move the folder away to train again"
        )


def train(
    run: Run,
    folder: Path,
    execution: Execution,
    threads: int = 1,
    world: World = SINGLE_PROCESS,
    report: Report = ignore,
    request: Callable[[], Request] = lambda: Request.NONE,
) -> RunResult | None:
    """Trains a run in its folder, or resumes it, and returns its result.

    Called by every process of `world`, after `World.joined`; only rank 0 writes. The caller makes sure that no other
    process trains in the folder. `threads` is the default for each process.

    Returns None on ranks other than 0. Raises Stopped once `request` asks for it, and Paused after the epochs of
    `execution.stop_after`, with the state saved; Diverged at a loss that is not finite, which is recorded; ValueError
    if the folder belongs to another run, or if the machine lacks what the execution asks for.
    """
    run_state = state(folder, run)
    if world.all_gather(run_state)[0] == "finished":  # rank 0 decides
        if world.rank == 0:
            copy_finished_run(run, folder, execution, report)
        return read_result(folder, run)
    check_trainable(run)
    manifest, classes = read_manifest(folder), class_names(run, execution.data_path)
    stored = _stored(folder, manifest) if manifest else None
    if manifest:
        _check_classes(manifest, classes, folder)
    initial = initial_weights(run, folder, execution)
    if manifest:
        _check_weights(manifest, initial, folder)
    setup = choose_setup(run.experiment.recipe, execution, world.size, threads, stored)
    setup = replace(setup, precision=shared_precision(world.all_gather(setup.precision)))
    setup.prepare()
    parts = setup.processes * setup.accumulation
    check_shared_memory(run.experiment.recipe, parts, setup.workers, prefetch=setup.prefetch)
    print(f"computed with {setup}" + (f", begun with {stored}" if stored not in (None, setup) else ""))
    if run_state == "absent" and world.rank == 0:
        task_of(run).check()  # a metric of a plug-in fails now, not after the first epoch
        write_manifest(folder, run, **environment(setup), **_origins(execution, classes, initial))
    divergences, retrying = read_divergences(folder), False
    while True:
        if is_diverged(divergences):
            _check_retry(execution, divergences)
            divergences = _retry(run, folder, divergences, world)
            print(f"retry from {divergences[-1].retried_from}: {divergences[-1]}")
        training, full = None, False
        try:
            training = Training(run, folder, execution, setup, world, divergences, report, request, initial)
            training.restore()
            if not retrying and world.rank == 0:
                training.record_session()
            return training.train()
        except NotFinite as error:
            divergences, retrying = (*divergences, error.divergence), True
            if world.rank == 0:
                write_divergences(folder, divergences)
        except RuntimeError as error:
            if not isinstance(error, torch.OutOfMemoryError) and "ALLOC_FAILED" not in str(error):  # of cuDNN, cuBLAS
                raise
            full = True  # handled below, where the exception no longer holds what fills the memory
        if full:
            training = None
            setup, retrying = _of_fewer_images(run, setup, execution), True
            write_accumulation(folder, setup.accumulation)


def _origins(execution: Execution, classes: tuple[str, ...], initial: Initial | None) -> dict[str, Any]:
    """Where the data and the first weights come from, for the manifest."""
    path = execution.data_path and str(Path(execution.data_path).absolute())
    weights = {"weights": initial.digest, "weights_of": initial.origin} if initial else {}
    return {"classes": classes, "data_path": path, **weights}


def _of_fewer_images(run: Run, setup: Setup, execution: Execution) -> Setup:
    """The setup with fewer images at a time. Raises ValueError if that is not possible, or was not left open.

    Only for one process: the others of several would wait for one that has no room.
    """
    images = run.experiment.recipe.batch_size // setup.processes // setup.accumulation
    parts = further_accumulation(run.experiment.recipe, setup.processes, setup.accumulation)
    if parts is None or setup.processes > 1 or execution.device_batch != "auto":
        advice = "set execution.device_batch to fewer" if parts else "it needs a device with more"
        raise ValueError(f"the device has no memory for {images} images of {run.name} at a time; {advice}")
    free_memory(setup.device)
    print(f"out of memory with {images} images at a time: from the last checkpoint on in {parts} parts of a batch")
    return replace(setup, accumulation=parts)


def _check_retry(execution: Execution, divergences: Sequence[Divergence]) -> None:
    if execution.on_nan == "stop":
        raise Diverged(f"{divergences[-1]}")
    if len(divergences) > MOST_RETRIES:
        raise Diverged(f"{divergences[-1]}, after {MOST_RETRIES} retries")


def _retry(run: Run, folder: Path, divergences: Sequence[Divergence], world: World) -> tuple[Divergence, ...]:
    """Records that training resumes from the last checkpoint, with the rest of that epoch in another order."""
    saved = checkpoint.load(folder, run.identity)
    epoch_and_step = (saved["epoch"], saved["step"]) if saved else (0, 0)
    retried = (*divergences[:-1], replace(divergences[-1], retried_from=epoch_and_step))
    if world.rank == 0:
        write_divergences(folder, retried)
    return retried
