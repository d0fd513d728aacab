"""Training one run in this process: its log, its lock, its signals, and how it ended."""

from __future__ import annotations

import contextlib
import math
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from roadmap.record import events
from roadmap.record.events import Report
from roadmap.record.metrics import headline
from roadmap.record.results import EpochMetrics
from roadmap.record.run import Run
from roadmap.study.execution import Execution
from runner.machine.distributed import RendezvousError, World
from runner.machine.lock import FolderLocked, folder_lock
from runner.machine.requests import Request
from runner.train.engine import Diverged, train
from runner.train.training import Paused, Stopped


def train_job(
    run: Run,
    folder: Path,
    execution: Execution,
    threads: int,
    world: World,
    report: Report,
    request: Callable[[], Request],
    *,
    own_process: bool = False,
) -> events.Ending:
    """Trains a run, and returns how it ended.

    Rank 0 locks the folder and prints to its log. `report` gets steps, epochs and warnings. `own_process`: the process
    is only for this run, so that what libraries write to the file descriptors goes to the log too.
    """

    def print_and_report(event: events.TrainingEvent) -> None:
        if isinstance(event, events.EpochDone):
            print(_epoch_text(event.metrics))
        report(event)

    try:
        with _printing_to_log(folder, world, own_process), _reporting_warnings(report):
            try:
                print(f"{run.name} ({run.identity}), process {os.getpid()}")
                result = train(run, folder, execution, threads, world, print_and_report, request)
                if result:
                    print(f"finished: {headline(result)}")
                return events.Finished(result)
            except Stopped as stop:
                print(stop)
                return events.Stopped()
            except Paused as pause:
                print(f"paused after epoch {pause.epochs}")
                return events.Paused(pause.epochs)
            except Diverged as error:
                print(f"diverged: {error}")
                raise
    except FolderLocked:
        return events.InUse()
    except Diverged as error:
        return events.Diverged(str(error))
    except ValueError as error:
        return events.Failed(str(error), can_retry=isinstance(error, RendezvousError))
    except OSError as error:  # for a print to the log it has no file name
        message = str(error) if error.filename else f"{error}: '{folder}/log.txt'"
        return events.Failed(message, can_retry=True)
    except Exception as error:
        return events.Failed(f"{type(error).__name__}: {error}", can_retry=True)


def _epoch_text(metrics: EpochMetrics) -> str:
    loss, seconds = metrics.train_loss or math.nan, metrics.seconds or 0.0
    return f"epoch {metrics.epoch}: loss {loss:.4f}, {headline(metrics)}, {seconds:.1f} s"


@contextlib.contextmanager
def _printing_to_log(folder: Path, world: World, own_process: bool) -> Iterator[None]:
    """Appends to the run's log what rank 0 prints, and the exceptions of all ranks. Other output is discarded.

    Raises FolderLocked on all ranks if another process has locked the folder.
    """
    with contextlib.ExitStack() as stack:
        own_error = None
        if world.rank == 0:
            try:
                stack.enter_context(folder_lock(folder))
            except FolderLocked as error:
                own_error = str(error)
        if message := world.first_not_none(own_error):
            raise FolderLocked(message)
        path = folder / "log.txt" if world.rank == 0 else Path(os.devnull)
        log = stack.enter_context(_open_log(path))
        if own_process:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        try:
            yield
        except (Stopped, Paused, Diverged):
            raise
        except Exception:
            with contextlib.suppress(OSError), _open_log(folder / "log.txt") as file:
                file.write(f"rank {world.rank}: " * (world.size > 1) + traceback.format_exc())
            raise


def _open_log(path: Path) -> TextIO:
    """Opens the log. File names in messages may not be valid UTF-8."""
    return path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def _reporting_warnings(report: Report) -> Iterator[None]:
    """Warnings are printed and reported."""
    show = warnings.showwarning

    def show_and_report(message: Warning | str, *place: Any, **more: Any) -> None:
        show(message, *place, **more)
        report(events.Warned(str(message)))

    with warnings.catch_warnings():
        warnings.showwarning = show_and_report
        yield
