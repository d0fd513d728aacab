"""Processes forked from a server that has imported what is slow to import, where the system has such."""

from __future__ import annotations

import contextlib
import multiprocessing
import signal
from collections.abc import Iterator
from multiprocessing import forkserver, resource_tracker
from multiprocessing.context import BaseContext

from runner.launch.signals import FOR_THE_LAUNCHER


def fork_server(*preload: str) -> BaseContext:
    """The context of such processes, its server started with these modules unless it runs already.

    The server ignores the signals that a terminal or Slurm sends to all processes at once, and so does who is born of
    it until it decides otherwise: they are for the launcher, which would take runs whose server is gone for ended.
    """
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runner.launch.ignore_signals", *preload])
    # First, since as it starts it lets through what is held back. It ignores two of the three by itself.
    with _held_back(*FOR_THE_LAUNCHER):
        resource_tracker.ensure_running()
    with _held_back(*FOR_THE_LAUNCHER):
        forkserver.ensure_running()
    return context


@contextlib.contextmanager
def _held_back(*numbers: signal.Signals) -> Iterator[None]:
    """Signals come here once it is over, and to processes that are started here once they let them through."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, numbers)
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)
