"""Temporary signal handlers."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from runner.machine.requests import Request

# A terminal and Slurm signal all processes of a study at once: the launcher acts, and passes on what concerns the runs.
FOR_THE_LAUNCHER = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

Handler = Callable[[int, Any], Any] | signal.Handlers


@contextlib.contextmanager
def handled(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """Handles the signals with `handler` inside the block, also in processes that are forked there."""
    # Only the main thread can set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handlers = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, previous in previous_handlers.items():
            signal.signal(number, previous)


class Requests:
    """The requests that signals make: SIGUSR2 to save the state, others to save it and stop."""

    def __init__(self) -> None:
        self.save = self.stop = False

    @contextlib.contextmanager
    def received(self, *stopping: signal.Signals) -> Iterator[None]:
        with handled(self._save, signal.SIGUSR2), handled(self._stop, *stopping):
            yield

    def _save(self, number: int, frame: Any) -> None:
        self.save = True

    def _stop(self, number: int, frame: Any) -> None:
        self.stop = True

    def __call__(self) -> Request:
        if self.stop:
            return Request.STOP
        save, self.save = self.save, False
        return Request.SAVE if save else Request.NONE
