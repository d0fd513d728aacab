"""One run in the process that trains it: its log, its lock, the signals, and how it ended."""

from __future__ import annotations

import contextlib
import os
import traceback
import warnings
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, TextIO

from roadmap.record.run import Run
from roadmap.study.execution import Execution
from runner.machine.distributed import RendezvousError, World
from runner.machine.lock import FolderLocked, folder_lock
from runner.machine.requests import Request
from runner.train.engine import Diverged, Report, Stopped, train

# How a run ends, and what there is to say of it.
Ending = tuple[str, dict[str, Any]]


def train_job(
    run: Run,
    folder: Path,
    execution: Execution,
    threads: int,
    world: World,
    tell: Report,
    request: Callable[[], Request],
    *,
    own_process: bool = False,
) -> Ending:
    """Trains a run, and returns how it ended: finished, diverged, failed, stopped, or busy elsewhere.

    A failure says in "again" whether the same once more may succeed: not where something has to be put right first.

    Rank 0 holds the folder and prints to its log. `tell` hears of steps, epochs and warnings. In a process of its own
    what libraries print below Python goes to the log too.
    """

    def told(kind: str, detail: dict[str, Any]) -> None:
        if kind == "epoch":
            accuracy = f"loss {detail['train_loss']:.4f}, top-1 {detail['top1']:.2f} %"
            print(f"epoch {detail['epoch']}: {accuracy}, {detail['seconds']:.1f} s")
        tell(kind, detail)

    try:
        with _printing_to_log(folder, world, own_process), _warnings_told(tell):
            try:
                print(f"{run.name} ({run.identity}), process {os.getpid()}")
                result = train(run, folder, execution, threads, world, told, request)
                if result:
                    print(f"finished: top-1 {result['top1']:.2f} %")
                return "finished", result
            except Stopped as stop:
                print(stop)
                return "stopped", {}
            except Diverged as error:
                print(f"diverged: {error}")
                raise
    except FolderLocked:
        return "busy", {}
    except Diverged as error:
        return "diverged", {"message": str(error)}
    except ValueError as error:
        return "failed", {"message": str(error), "again": isinstance(error, RendezvousError)}
    except OSError as error:  # of a print to the log it has no name
        message = str(error) if error.filename else f"{error}: '{folder}/log.txt'"
        return "failed", {"message": message, "again": True}
    except Exception as error:
        return "failed", {"message": f"{type(error).__name__}: {error}", "again": True}


@contextlib.contextmanager
def _printing_to_log(folder: Path, world: World, own_process: bool) -> Iterator[None]:
    """What rank 0 prints is added to the run's log, and what ends another rank; the rest of theirs is nobody's.

    Raises FolderLocked, on every rank alike, where the folder is not to be had.
    """
    with contextlib.ExitStack() as stack:
        busy = None
        if world.rank == 0:
            try:
                stack.enter_context(folder_lock(folder))
            except FolderLocked as error:
                busy = str(error)
        if told := world.first_not_none(busy):
            raise FolderLocked(told)
        path = folder / "log.txt" if world.rank == 0 else Path(os.devnull)
        log = stack.enter_context(_open_log(path))
        if own_process:
            os.dup2(log.fileno(), 1)
            os.dup2(log.fileno(), 2)
        stack.enter_context(contextlib.redirect_stdout(log))
        stack.enter_context(contextlib.redirect_stderr(log))
        try:
            yield
        except (Stopped, Diverged):
            raise
        except Exception:
            with contextlib.suppress(OSError), _open_log(folder / "log.txt") as file:
                file.write(f"rank {world.rank}: " * (world.size > 1) + traceback.format_exc())
            raise


def _open_log(path: Path) -> TextIO:
    """Names of files may be in another encoding than ours."""
    return path.open("a", buffering=1, encoding="utf-8", errors="backslashreplace")


@contextlib.contextmanager
def _warnings_told(tell: Report) -> Iterator[None]:
    """A warning is printed, and told."""
    show = warnings.showwarning

    def show_and_tell(message: Warning | str, *place: Any, **more: Any) -> None:
        show(message, *place, **more)
        tell("warning", {"message": str(message)})

    with warnings.catch_warnings():
        warnings.showwarning = show_and_tell
        yield
