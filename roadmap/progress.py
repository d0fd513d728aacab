"""Progress of long work, such as training: live bars in a terminal, lines elsewhere."""

from __future__ import annotations

import contextlib
import sys
import time
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextvars import ContextVar
from typing import TYPE_CHECKING, Any, Self, TextIO

from roadmap.record.events import Began, Ending, EpochDone, Event, Finished, InUse, RunEvent, StepDone, Warned
from roadmap.record.metrics import headline
from roadmap.record.run import Run
from roadmap.text import duration

if TYPE_CHECKING:
    from rich.console import Console
    from rich.progress import Progress as Bars


LONG = 120.0  # seconds without output


class Progress:
    """Counts runs and epochs. The base class of the two displays."""

    def __init__(self, runs: Sequence[Run], done: Mapping[str, int], last_epoch: int | None = None) -> None:
        """`last_epoch`: after which all runs pause; None if they are trained to their ends."""
        self.runs = len(runs)
        ends = {run.identity: run.experiment.recipe.epochs for run in runs}
        self.epochs = {identity: min(end, last_epoch or end) for identity, end in ends.items()}
        self.left = {identity: epochs - done[identity] for identity, epochs in self.epochs.items()}
        self.finished = self.ended = 0
        self.trained = self.running = 0
        self.spent = 0.0  # seconds in the epochs trained
        self.output = sys.stdout  # the original one: a run in this process redirects output to its log

    def __enter__(self) -> Self:
        return self

    def __exit__(self, *error: object) -> None:
        pass

    def show(self, run_event: RunEvent) -> None:
        run, event = run_event.run, run_event.event
        if isinstance(event, EpochDone):
            self.trained += 1
            self.spent += event.metrics.seconds or 0.0
            self.left[run.identity] = self.epochs[run.identity] - event.metrics.epoch
        elif isinstance(event, Began):
            self.running += 1
        elif isinstance(event, Ending):
            self.running -= 1
            self.left[run.identity] = 0
            self.finished += isinstance(event, Finished)
            self.ended += 1
        self.print_event(run, event)

    def print_event(self, run: Run, event: Event) -> None:
        raise NotImplementedError

    @property
    def seconds_left(self) -> float | None:
        """An estimate from the epochs so far; None before the first."""
        if not self.trained:
            return None
        return self.spent / self.trained * sum(self.left.values()) / max(1, self.running)

    @property
    def time_left(self) -> str:
        return "time left unknown" if self.seconds_left is None else f"{duration(self.seconds_left)} left"


def ending_text(ending: Ending) -> str:
    """The text about a run that ended."""
    if isinstance(ending, Finished) and ending.result:
        return f"{headline(ending.result)} in {duration(ending.result.seconds)}"
    return f"{ending}, left to it" if isinstance(ending, InUse) else str(ending)


class PlainProgress(Progress):
    """Prints a line at each quarter of a run, at its end, and every few minutes within long epochs."""

    def __init__(self, runs: Sequence[Run], done: Mapping[str, int], last_epoch: int | None = None) -> None:
        super().__init__(runs, done, last_epoch)
        self.printed_at = time.monotonic()

    def print_event(self, run: Run, event: Event) -> None:
        epochs, text = run.experiment.recipe.epochs, ""
        if isinstance(event, Warned):
            text = f"warning: {event.message}"
        elif isinstance(event, StepDone) and time.monotonic() - self.printed_at > LONG:
            position = f"epoch {event.epoch} of {epochs}, step {event.step} of {event.steps}"
            text = f"{position}, loss {event.loss:.4f}"
        elif isinstance(event, EpochDone):
            epoch = event.metrics.epoch
            quarter = epoch * 4 // epochs != (epoch - 1) * 4 // epochs
            if quarter and epoch < epochs:
                accuracy = headline(event.metrics)
                text = f"epoch {epoch} of {epochs}, {accuracy}, {self.time_left} for all"
        elif isinstance(event, Ending):
            text = ending_text(event)
        if text:
            self.printed_at = time.monotonic()
            line = f"[{self.ended}/{self.runs}] {run.label} (seed {run.seed}): {text}"
            print(line, flush=True, file=self.output)


class SilentProgress(Progress):
    """Prints nothing."""

    def print_event(self, run: Run, event: Event) -> None:
        pass


class LiveProgress(Progress):
    """A bar for each run in training and one for the study."""

    def __init__(self, runs: Sequence[Run], done: Mapping[str, int], last_epoch: int | None = None) -> None:
        from rich.progress import BarColumn, TextColumn
        from rich.progress import Progress as Bars

        super().__init__(runs, done, last_epoch)
        self.bars = Bars(
            TextColumn("{task.description}"),
            BarColumn(bar_width=30),
            TextColumn("{task.completed:.1f}/{task.total:.0f} epochs"),
            TextColumn("{task.fields[note]}"),
            console=terminal(self.output),
        )
        self.study = self.bars.add_task("all runs", total=sum(self.epochs.values()), note="")
        self.tasks: dict[str, Any] = {}

    def __enter__(self) -> Self:
        self.bars.start()
        return self

    def __exit__(self, *error: object) -> None:
        self.bars.stop()

    def print_event(self, run: Run, event: Event) -> None:
        identity, total, name = run.identity, run.experiment.recipe.epochs, f"{run.label} s{run.seed}"
        if isinstance(event, Began):
            self.tasks[identity] = self.bars.add_task(
                name, total=total, completed=total - self.left[identity], note="starting"
            )
        elif isinstance(event, Warned):
            self.bars.console.print(f"{name}: warning: {event.message}", highlight=False, markup=False)
        elif isinstance(event, StepDone):
            self.bars.update(self.tasks[identity], completed=event.epoch - 1 + event.step / event.steps)
        elif isinstance(event, EpochDone):
            left = (event.metrics.seconds or 0.0) * self.left[identity]
            note = f"{headline(event.metrics)}, {duration(left)} left"
            self.bars.update(self.tasks[identity], completed=event.metrics.epoch, note=note)
        else:
            self.bars.remove_task(self.tasks.pop(identity))
            self.bars.console.print(f"{name}: {ending_text(event)}", highlight=False, markup=False)
        done = sum(self.epochs.values()) - sum(self.left.values())
        self.bars.update(self.study, completed=done, note=f"{self.ended}/{self.runs} runs, {self.time_left}")


def terminal(output: TextIO) -> Console:
    """A console on a terminal. Where that, or COLUMNS, claims no width, it has 80 columns: rich would print nothing."""
    from rich.console import Console

    console = Console(file=output)
    width, height = console.size
    return console if width and height else Console(file=output, width=width or 80, height=height or 25)


_SHOWN: ContextVar[bool] = ContextVar("shown", default=True)


@contextlib.contextmanager
def shown(progress: bool) -> Iterator[None]:
    """Within it, progress is shown or not."""
    token = _SHOWN.set(progress)
    try:
        yield
    finally:
        _SHOWN.reset(token)


def show_progress(runs: Sequence[Run], done: Mapping[str, int], last_epoch: int | None = None) -> Progress:
    """The display for this output. `done` has the number of finished epochs of each run, by its identity.

    `last_epoch`: after which all runs pause.
    """
    if not _SHOWN.get():
        return SilentProgress(runs, done, last_epoch)
    display = LiveProgress if sys.stdout.isatty() else PlainProgress
    return display(runs, done, last_epoch)


@contextlib.contextmanager
def show_count(total: int, title: str) -> Iterator[Callable[[str], None]]:
    """Gives a function to call with a text after each of `total` items: it shows a bar in a terminal, lines elsewhere.

    Prints to the error output, so that the standard output has only the result.
    """
    if not _SHOWN.get():
        yield lambda text: None
        return
    if not sys.stderr.isatty():
        done = 0

        def print_line(text: str) -> None:
            nonlocal done
            done += 1
            print(f"[{done}/{total}] {text}", flush=True, file=sys.stderr)

        yield print_line
        return
    with _bars() as bars:
        task = bars.add_task(title, total=total)

        def show(text: str) -> None:
            bars.console.print(text, highlight=False, markup=False)
            bars.advance(task)

        yield show


@contextlib.contextmanager
def counting(doing: str, noun: str) -> Iterator[Callable[[int, int], None]]:
    """Gives a function to call with the numbers of finished and of all items, for work with many items."""
    if not _SHOWN.get():
        yield lambda done, total: None
        return
    if not sys.stderr.isatty():
        yield _plain_counting(doing, noun)
        return
    with _bars(noun) as bars:
        task = bars.add_task(doing, total=None)
        yield lambda done, total: bars.update(task, completed=done, total=total)


def _bars(noun: str = "") -> Bars:
    from rich.progress import BarColumn, MofNCompleteColumn, TextColumn, TimeRemainingColumn
    from rich.progress import Progress as Bars

    columns = (TextColumn("{task.description}"), BarColumn(bar_width=30), MofNCompleteColumn(), TextColumn(noun))
    return Bars(*columns, TimeRemainingColumn(), console=terminal(sys.stderr))


def _plain_counting(doing: str, noun: str) -> Callable[[int, int], None]:
    """Prints a line at each tenth, and every few minutes."""
    printed_tenth, printed_at = 0, time.monotonic()

    def print_count(done: int, total: int) -> None:
        nonlocal printed_tenth, printed_at
        tenth = 10 * done // max(total, 1)
        if tenth > printed_tenth or time.monotonic() - printed_at > LONG:
            printed_tenth, printed_at = tenth, time.monotonic()
            print(f"{doing}: {done} of {total} {noun}", flush=True, file=sys.stderr)

    return print_count
