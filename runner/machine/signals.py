"""Signal handlers."""

from __future__ import annotations

import contextlib
import os
import signal
import sys
import threading
from collections.abc import Callable, Iterator
from typing import Any

from runner.machine.requests import Request

# A terminal and Slurm signal all processes of a study at once: the launcher acts, and passes on what concerns the runs.
FOR_THE_LAUNCHER = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP, signal.SIGUSR2)
STOPPING = (signal.SIGINT, signal.SIGTERM, signal.SIGHUP)

Handler = Callable[[int, Any], Any] | signal.Handlers


@contextlib.contextmanager
def handled(handler: Handler, *numbers: signal.Signals) -> Iterator[None]:
    """Handles the signals with `handler` inside the block, also in processes that are forked there.

    SIGHUP stays ignored if it is: so nohup starts a program.
    """
    # Only the main thread can set handlers.
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    previous_handlers = {number: signal.signal(number, handler) for number in numbers if not _is_nohup(number)}
    try:
        yield
    finally:
        for number, previous in previous_handlers.items():
            signal.signal(number, previous)


def _is_nohup(number: signal.Signals) -> bool:
    return number == signal.SIGHUP and signal.getsignal(number) is signal.SIG_IGN


def exit_on_termination() -> None:
    """Makes SIGTERM and SIGHUP, unless it is ignored, raise SystemExit in the main thread, so that cleanup code runs.

    SIGHUP means that the terminal is gone: output to it is discarded from then on, and further ones are ignored, as
    the shell and the system both send one.
    """
    terminals = [descriptor for descriptor in (1, 2) if os.isatty(descriptor)]

    def leave(number: int, frame: object) -> None:
        if number == signal.SIGHUP:
            signal.signal(signal.SIGHUP, signal.SIG_IGN)
            for descriptor in terminals:
                os.dup2(os.open(os.devnull, os.O_WRONLY), descriptor)
        sys.exit(128 + number)

    for number in (signal.SIGTERM, signal.SIGHUP):
        if not _is_nohup(number):
            signal.signal(number, leave)


@contextlib.contextmanager
def ended_by(*numbers: signal.Signals) -> Iterator[None]:
    """Inside the block the signals end this process at once, with status 128 + number, and without cleanup.

    For calls that wait outside of Python, where its handlers have to wait until they return.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    read_end, write_end = os.pipe()
    os.set_blocking(write_end, False)

    def watch() -> None:
        while number := os.read(read_end, 1):
            if number[0] in numbers:
                os._exit(128 + number[0])

    watcher = threading.Thread(target=watch, daemon=True)
    with handled(lambda number, frame: None, *numbers):  # Python writes to the descriptor only what has a handler
        previous = signal.set_wakeup_fd(write_end, warn_on_full_buffer=False)
        watcher.start()
        try:
            yield
        finally:
            signal.set_wakeup_fd(previous)
            os.close(write_end)
            watcher.join()
            os.close(read_end)


@contextlib.contextmanager
def every_second(call: Callable[[float], object]) -> Iterator[None]:
    """Inside the block `call` gets the seconds so far, every second. What it raises ends the block, even if it waits.

    Only in the main thread, whose waiting a signal interrupts.
    """
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    seconds = 0.0

    def tick(number: int, frame: object) -> None:
        nonlocal seconds
        seconds += 1.0
        call(seconds)

    with handled(tick, signal.SIGALRM):
        signal.setitimer(signal.ITIMER_REAL, 1.0, 1.0)
        try:
            yield
        finally:
            signal.setitimer(signal.ITIMER_REAL, 0.0)


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
