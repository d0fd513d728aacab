"""How fast networks are, and the memory they take: each measurement in a process of its own."""

from __future__ import annotations

import contextlib
import signal
from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from roadmap.options import Selection
from roadmap.plugins import LOADED, load_file
from roadmap.record.benchmarks import Round, append_round, rates_of, workload_of
from roadmap.record.run import Run
from roadmap.serialization import three_digits
from runner.launch.local import process_context
from runner.measure.plan import MODES, Plan

ENDING = 10.0  # seconds that a process may take to end


class Failed(Exception):
    """A network could not be measured here."""


@dataclass(frozen=True)
class Measurement:
    """One network in one round."""

    run: Run
    number: int  # of the round, from 1
    result: Round | None
    failure: str = ""  # why there is no result

    def __str__(self) -> str:
        if self.result is None:
            return f"failed: {self.failure}"
        rates = {mode: rates_of([self.result], mode) for mode in MODES}
        parts = [f"{three_digits(rate.images_per_second)} images/s in {mode}" for mode, rate in rates.items() if rate]
        return ", ".join(parts)


def distinct_networks(selection: Selection) -> list[Run]:
    """A run for each network of the selected rungs: two rungs whose steps take the same work are measured once."""
    runs: dict[str, Run] = {}
    for rung in selection.rungs():
        run = selection.run(rung)
        runs.setdefault(workload_of(run), run)
    return list(runs.values())


def measure_networks(runs: Sequence[Run], plan: Plan, out: Path) -> Iterator[Measurement]:
    """Measures every network once a round, so that a machine's drift affects all alike.

    Gives each measurement as it comes; its result is appended to the bench.jsonl of `out` before. A network that fails
    is left out of the rounds to come. Raises OSError where the disk does not take a result.
    """
    started, failed = datetime.now(UTC).isoformat(timespec="seconds"), set[str]()
    for number in range(1, plan.rounds + 1):
        for run in runs:
            if run.identity in failed:
                continue
            try:
                result = _measured_apart(run, plan, started)
            except Failed as failure:
                failed.add(run.identity)
                yield Measurement(run, number, None, str(failure))
            else:
                append_round(out, result)
                yield Measurement(run, number, result)


def _measured_apart(run: Run, plan: Plan, started: str) -> Round:
    """In a fresh process, whose memory knows nothing of networks before. Raises Failed."""
    context = process_context()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(  # type: ignore[attr-defined]
        target=_measure_for, args=(theirs, run, plan, started, LOADED), daemon=True
    )
    with _undisturbed():  # else the new process may find nobody who tells it what to do
        process.start()
    theirs.close()  # so that the end of the process is the end of the connection
    try:
        found: Round | str = ours.recv()
        process.join(ENDING)  # in order: a compiler has processes of its own
    except EOFError:
        process.join()
        raise Failed(f"its process ended with status {process.exitcode}; out of memory, perhaps") from None
    finally:
        process.kill()  # where this one is interrupted
        process.join()
        ours.close()
    if isinstance(found, str):
        raise Failed(found)
    return found


@contextlib.contextmanager
def _undisturbed() -> Iterator[None]:
    """Signals wait."""
    before = signal.pthread_sigmask(signal.SIG_BLOCK, {signal.SIGINT, signal.SIGTERM})
    try:
        yield
    finally:
        signal.pthread_sigmask(signal.SIG_SETMASK, before)


def _measure_for(connection: Connection, run: Run, plan: Plan, started: str, plugins: Sequence[Path]) -> None:
    """In a process of its own: measures, and sends what it found, or why it did not."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # whoever started it decides
    for plugin in plugins:
        load_file(plugin)
    from runner.measure.throughput import measure

    try:
        found: Round | str = measure(run, plan, started)
    except Exception as error:  # a design's that can't be built, a GPU's whose memory is too small, a plugin's
        found = (str(error).splitlines() or [type(error).__name__])[0]
        if "can't allocate memory" in found or type(error).__name__ == "OutOfMemoryError":  # a CPU's, a GPU's
            found = f"the memory is too small for a batch of {plan.batch}"
    with contextlib.suppress(OSError):  # whoever started it may be gone
        connection.send(found)
