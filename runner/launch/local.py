"""Runs on this machine: each in a process of its own, several side by side where they are small."""

from __future__ import annotations

import contextlib
import multiprocessing
import os
import signal
import sys
import threading
import time
import traceback
from collections import deque
from collections.abc import Callable, Iterator, Sequence
from dataclasses import dataclass
from multiprocessing import forkserver
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any, Literal, TextIO

from roadmap.costs import cost
from roadmap.plugins import LOADED, load_file
from roadmap.record import Run

# Up to this many multiply-adds a training step (batch x image), one core a run beats all cores on one run
# (benchmarks/side_by_side.py).
SMALL_STEP_MACS = 1e10
ENDINGS = ("finished", "failed", "stopped", "busy")
PATIENCE = 30.0  # seconds that a stopping run has to save its state


@dataclass(frozen=True)
class Event:
    """What a run in training tells."""

    run: Run
    kind: Literal["began", "epoch", "finished", "failed", "stopped", "busy"]  # "busy": another process trains it
    detail: dict[str, Any]  # "epoch": its metrics; "finished": its result; "failed": the message


def parallelism(runs: Sequence[Run], cores: int) -> tuple[int, int]:
    """How many runs go side by side, and the threads of each."""
    small = all(_step_macs(run) <= SMALL_STEP_MACS for run in runs)
    return (min(cores, len(runs)), 1) if small else (1, cores)


def _step_macs(run: Run) -> float:
    recipe = run.experiment.recipe
    counted = cost(run.experiment.design, recipe.image_size, run.dataset.classes)
    return float(counted.macs) * recipe.batch_size


def available_cores() -> int:
    return len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1


def run_all(jobs: Sequence[tuple[Run, Path]], report: Callable[[Event], None]) -> list[tuple[Run, Path]]:
    """Trains every run in its folder; returns those that failed.

    A run that fails, or that another process trains already, leaves the others alone. KeyboardInterrupt and SystemExit
    stop every run with its state saved, then go on to the caller.
    """
    workers, threads = parallelism([run for run, _ in jobs], available_cores())
    context = _context()
    waiting, failed = deque(jobs), []
    running: dict[Any, _Worker] = {}
    try:
        while waiting or running:
            while waiting and len(running) < workers:
                worker = _Worker(context, *waiting.popleft(), threads)
                running[worker.connection] = worker
                report(Event(worker.run, "began", {}))
            for connection in wait(list(running)):
                worker = running[connection]
                event = worker.receive()
                if event.kind in ENDINGS:
                    running.pop(connection).end()
                    failed += [(worker.run, worker.folder)] if event.kind in ("failed", "stopped") else []
                report(event)
    finally:
        with _ignored(signal.SIGINT, signal.SIGTERM):
            _stop(list(running.values()))
    return failed


@contextlib.contextmanager
def _ignored(*signals: signal.Signals) -> Iterator[None]:
    """The signals do nothing here, nor in processes that are started here."""
    if threading.current_thread() is not threading.main_thread():  # signals are the main thread's
        yield
        return
    before = {number: signal.signal(number, signal.SIG_IGN) for number in signals}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler)


def _context() -> BaseContext:
    """Processes forked from a server that has imported what is slow to import, where the system has such."""
    if "forkserver" not in multiprocessing.get_all_start_methods():
        return multiprocessing.get_context("spawn")
    # Thread pools that were there before a fork are no use behind it.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    context = multiprocessing.get_context("forkserver")
    context.set_forkserver_preload(["runner.engine"])
    with _ignored(signal.SIGINT):  # it is for the launcher: in its imports the server would print a traceback
        forkserver.ensure_running()
    return context


class _Worker:
    """A process that trains one run, as its launcher sees it."""

    def __init__(self, context: BaseContext, run: Run, folder: Path, threads: int) -> None:
        self.run, self.folder = run, folder
        self.connection, theirs = context.Pipe()
        self.process: BaseProcess = context.Process(  # type: ignore[attr-defined]
            target=_train, args=(theirs, run, folder, threads, LOADED), name=run.name
        )
        self.process.start()
        theirs.close()  # so that the end of the process is the end of the connection

    def receive(self) -> Event:
        """The next event; a process that ends without a word has failed."""
        try:
            kind, detail = self.connection.recv()
        except (EOFError, OSError):
            self.process.join()
            return Event(self.run, "failed", {"message": f"its process ended with status {self.process.exitcode}"})
        return Event(self.run, kind, detail)

    def end(self) -> None:
        self.process.join()
        self.connection.close()


def _stop(workers: list[_Worker]) -> None:
    """Asks the workers to save their state and end; kills those that do not."""
    for worker in workers:
        worker.process.terminate()
    deadline = time.monotonic() + PATIENCE
    for worker in workers:
        worker.process.join(max(0.0, deadline - time.monotonic()))
        if worker.process.is_alive():
            worker.process.kill()
        worker.end()


def _train(connection: Connection, run: Run, folder: Path, threads: int, plugins: list[Path]) -> None:
    """In the process of a run: trains it and tells how it goes."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher decides
    stopping: list[int] = []
    signal.signal(signal.SIGTERM, lambda number, frame: stopping.append(number))
    from runner.engine import Busy, Stopped, exclusive, train

    def tell(kind: str, detail: dict[str, Any]) -> None:
        with contextlib.suppress(OSError):  # the launcher may be gone
            connection.send((kind, detail))

    def epoch_done(row: dict[str, Any]) -> None:
        accuracy = f"loss {row['train_loss']:.4f}, top-1 {row['top1']:.2f} %"
        print(f"epoch {row['epoch']}: {accuracy}, {row['seconds']:.1f} s")
        tell("epoch", row)

    def should_stop() -> bool:
        # Nothing is ever sent to a worker: what can be read is the end of a launcher that was killed.
        return bool(stopping) or connection.poll()

    try:
        with exclusive(folder), (folder / "log.txt").open("a", buffering=1, encoding="utf-8") as log:
            _print_to(log)
            print(f"{run.name} ({run.identity}), process {os.getpid()}")
            for plugin in plugins:
                load_file(plugin)
            try:
                result = train(run, folder, threads, epoch_done, should_stop)
            except Stopped as stop:
                print(stop)
                tell("stopped", {})
            except Exception:
                traceback.print_exc()
                raise
            else:
                print(f"finished: top-1 {result['top1']:.2f} %")
                tell("finished", result)
    except Busy:
        tell("busy", {})
    except (ValueError, OSError) as error:
        tell("failed", {"message": str(error)})
    except Exception as error:
        tell("failed", {"message": f"{type(error).__name__}: {error}"})


def _print_to(log: TextIO) -> None:
    """All that this process prints, and what libraries print below Python, goes to the log."""
    os.dup2(log.fileno(), 1)
    os.dup2(log.fileno(), 2)
    sys.stdout = sys.stderr = log
