"""Loading batches: in this process, or ahead by data workers, which pass them in shared memory."""

from __future__ import annotations

import contextlib
import errno
import multiprocessing
import signal
from collections.abc import Callable, Iterable, Iterator, Sequence
from multiprocessing.process import BaseProcess
from typing import Any, NamedTuple

import torch
from torch import Tensor
from torch.utils.data import DataLoader, Dataset, get_worker_info

from roadmap.text import many
from runner.data.shared_memory import batch_of, full_shared_memory
from runner.machine.fork_server import make_socket_folder
from runner.machine.setup import Setup
from runner.machine.signals import FOR_THE_LAUNCHER, every_second, handled

NO_IMAGES = torch.empty(0, 3, 1, 1, dtype=torch.uint8)
MOST_SECONDS = 900  # to wait for a batch: a network's file system may be slow

SampleKey = tuple[int, int]  # epoch, and index into the data set


class Batch(NamedTuple):
    """A batch as the workers return it."""

    images: Tensor  # uint8, B x C x S x S
    labels: Any  # int64, B; of other tasks the targets of each image, a list of dicts of tensors
    indices: list[int]  # into the data set
    bad: Sequence[str] = ()  # error messages of images that could not be read
    skipped: int = 0  # images that were replaced by others, or left out
    failure: str | None = None  # an error that skipping images does not avoid


def load(
    samples: Dataset[Batch],
    keys: Iterable[list[SampleKey]],
    setup: Setup,
    waiting: Callable[[float], object] = lambda seconds: None,
) -> Iterator[Batch]:
    """The batch of each list of keys, in order.

    `waiting` is called every second while a batch of a worker is awaited, with the seconds so far, and may raise.
    Raises TimeoutError if a batch does not come, RuntimeError if a worker has ended or failed, and ValueError if there
    is no shared memory for workers.
    """
    forks = setup.workers > 0 and "fork" in multiprocessing.get_all_start_methods()
    if setup.workers:
        make_socket_folder()
    loader = DataLoader(
        samples,
        batch_sampler=keys,
        num_workers=setup.workers,
        prefetch_factor=setup.prefetch if setup.workers else None,
        collate_fn=_shared,  # type: ignore[arg-type]  # the samples are one batch already
        pin_memory=setup.device == "cuda",
        multiprocessing_context="fork" if forks else None,  # forked processes share images in memory
        worker_init_fn=_ignore_signals,
    )
    others = multiprocessing.active_children()
    try:
        batches = iter(loader)
    except OSError as error:
        if error.errno == errno.ENOSPC:  # semaphores are shared memory, too
            raise ValueError(full_shared_memory("data workers")) from None
        raise
    workers = [process for process in multiprocessing.active_children() if process not in others]

    def watch(seconds: float) -> None:
        waiting(seconds)
        if seconds >= MOST_SECONDS:
            waited = f"no batch came from {many(setup.workers, 'data worker')} in {seconds:g} s"
            raise TimeoutError(f"{waited}; execution.workers=0 reads images without them")

    while True:
        try:
            with every_second(watch) if workers else contextlib.nullcontext():
                batch = next(batches, None)
        except BaseException:
            _kill(workers)
            raise
        if batch is None:
            return
        yield batch


def _tensors(targets: Any) -> Iterator[Tensor]:
    if isinstance(targets, Tensor):
        yield targets
    elif isinstance(targets, list):
        for target in targets:
            yield from (value for value in target.values() if isinstance(value, Tensor))


def _kill(workers: Sequence[BaseProcess]) -> None:
    """Ends workers that may hang: they ignore other signals, and this process could not end before them."""
    with handled(signal.SIG_DFL, signal.SIGCHLD):  # torch's handler reports each that ends
        for worker in workers:
            worker.kill()
            worker.join()


def _ignore_signals(worker: int) -> None:
    """Slurm and terminals signal all processes of a job, and the trainer still needs its workers to finish a step."""
    for number in FOR_THE_LAUNCHER:
        signal.signal(number, signal.SIG_IGN)


def _shared(batch: Batch) -> Batch:
    """The batch, moved to shared memory in a worker.

    Sending it would do so too, but in a thread whose errors nobody gets: the trainer would wait for ever.
    """
    if get_worker_info() is None:
        return batch
    try:
        for tensor in (batch.images, *_tensors(batch.labels)):
            tensor.share_memory_()
    except (RuntimeError, OSError):
        return Batch(NO_IMAGES, NO_IMAGES, [], failure=full_shared_memory(batch_of(batch.images.nbytes)))
    return batch
