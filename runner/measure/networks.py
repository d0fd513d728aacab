"""`roadmap bench`: the speed and memory of networks, each measurement in a new process."""

from __future__ import annotations

import contextlib
import itertools
import signal
from collections.abc import Generator, Mapping
from dataclasses import dataclass
from datetime import UTC, datetime
from multiprocessing.connection import Connection
from pathlib import Path

from roadmap.options import Selection, StudyOptions
from roadmap.plugins import LOADED, load_files
from roadmap.progress import show_count
from roadmap.record.benchmarks import Round, append_round, rates_of, workload_of
from roadmap.record.run import Run
from roadmap.text import three_digits
from runner.launch.local import process_context
from runner.machine.fork_server import start
from runner.measure.plan import MODES, BenchOptions, Plan, check_settings, make_plan

EXIT_SECONDS = 10.0  # that a process may take to end


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


@dataclass(frozen=True)
class NetworkBench:
    """The networks of the selected rungs, to be measured on this machine."""

    selection: Selection
    runs: tuple[Run, ...]  # one for each network: rungs with the same workload are measured once
    plan: Plan
    out: Path  # its bench.jsonl keeps every measurement

    @staticmethod
    def of(study: StudyOptions, options: BenchOptions, out: Path | None) -> NetworkBench:
        """Raises ValueError for a setting that is not used, and if the machine lacks what the options need."""
        check_settings(study.settings, "networks")
        selection, folder = Selection.of(study), study.out(out)
        runs: dict[str, Run] = {}
        for rung in selection.rungs():
            run = selection.run(rung)
            runs.setdefault(workload_of(run), run)
        plan = make_plan(list(runs.values()), selection.execution, options)
        return NetworkBench(selection, tuple(runs.values()), plan, folder)

    def measure(self) -> Generator[Measurement]:
        """Measures every network once per round, so that changes of the machine's speed affect all alike.

        Shows progress. Yields each measurement after its result was appended to bench.jsonl. A network that fails is
        left out of the following rounds. Raises OSError if a result can't be written.
        """
        started, failed = datetime.now(UTC).isoformat(timespec="seconds"), set[str]()
        rounds = range(1, self.plan.rounds + 1)
        with show_count(len(self.runs) * len(rounds), self.selection.title) as report:
            for number, run in itertools.product(rounds, self.runs):
                if run.identity in failed:
                    continue
                measurement = self._measure(run, number, started)
                if measurement.result is None:
                    failed.add(run.identity)
                report(f"{run.rung}, round {number} of {len(rounds)}: {measurement}")
                yield measurement

    def _measure(self, run: Run, number: int, started: str) -> Measurement:
        try:
            result = _measure_in_process(run, self.plan, started)
        except Failed as failure:
            return Measurement(run, number, None, str(failure))
        append_round(self.out, result)
        return Measurement(run, number, result)


def _measure_in_process(run: Run, plan: Plan, started: str) -> Round:
    """Measures in a new process, whose memory contains no earlier network. Raises Failed."""
    context = process_context()
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(  # type: ignore[attr-defined]
        target=_measure_for, args=(theirs, run, plan, started, LOADED), daemon=True
    )
    start(process)
    theirs.close()  # so that the connection ends with the process
    try:
        result: Round | str = ours.recv()
        process.join(EXIT_SECONDS)  # lets it end by itself: a compiler has processes that it ends
    except EOFError:
        process.join()
        raise Failed(f"its process ended with status {process.exitcode}; perhaps out of memory") from None
    finally:
        process.kill()  # in case this process was interrupted
        process.join()
        ours.close()
    if isinstance(result, str):
        raise Failed(result)
    return result


def _measure_for(connection: Connection, run: Run, plan: Plan, started: str, plugins: Mapping[Path, str]) -> None:
    """The new process: measures, and sends the result, or the reason why there is none."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the parent process handles it
    from runner.measure.throughput import measure

    try:
        load_files(plugins)
        result: Round | str = measure(run, plan, started)
    except Exception as error:  # a design can't be built, a GPU's memory is too small, a plugin fails
        result = (str(error).splitlines() or [type(error).__name__])[0]
        if "can't allocate memory" in result or type(error).__name__ == "OutOfMemoryError":  # on a CPU, on a GPU
            result = f"the memory is too small for a batch of {plan.batch}"
    with contextlib.suppress(OSError):  # the parent process may have ended
        connection.send(result)
