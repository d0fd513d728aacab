"""Signals, handled for a while."""

from __future__ import annotations

import contextlib
import signal
import threading
from collections.abc import Callable, Iterator
from typing import Any

from runner.machine.requests import Request

# A terminal and Slurm signal all processes of a study at once: the launcher acts, and passes on what runs need to know.
FOR_THE_LAUNCHER = (signal.SIGINT, signal.SIGTERM, signal.SIGUSR2)

Handler = Callable[[int, Any], Any] | signal.Handlers


@contextlib.contextmanager
def handled(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """The signals go to a handler here, also in processes that are started here."""
    # They are the main thread's; from another nothing can be done about them.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = {number: signal.signal(number, handler) for number in numbers}
    try:
        yield
    finally:
        for number, former in before.items():
            signal.signal(number, former)


class Requests:
    """What signals ask of a run: SIGUSR2 that its state is saved, others that it stops with its state saved."""

    def __init__(self) -> None:
        self.save = self.stop = False

    @contextlib.contextmanager
    def heard(self, *stopping: signal.Signals) -> Iterator[None]:
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
