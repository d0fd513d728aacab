"""Training runs on this machine, each in new processes; small runs are trained side by side."""

from __future__ import annotations

import contextlib
import os
import signal
import tempfile
import time
from collections import deque
from collections.abc import Callable, Mapping, Sequence
from multiprocessing.connection import Connection, wait
from multiprocessing.context import BaseContext
from multiprocessing.process import BaseProcess
from pathlib import Path
from typing import Any

from roadmap.design import NamedModel
from roadmap.network.cost import cost
from roadmap.plugins import LOADED, load_files
from roadmap.record.events import Began, Ending, Event, Failed, Finished, InUse, Paused, RunEvent, StepDone
from roadmap.record.run import Run
from roadmap.study.execution import Execution, accumulation
from runner.data.shared_memory import check_shared_memory
from runner.machine.distributed import RendezvousError, World
from runner.machine.fork_server import fork_server, start
from runner.machine.requests import Request
from runner.machine.resources import available_cores, available_gpus, data_workers, default_processes
from runner.machine.signals import Handler, Requests, handled

# Up to this many multiply-adds per training step (batch x image), one core for each run beats all cores on one run
# (benchmarks/side_by_side.py).
SMALL_STEP_MACS = 1e10
REPORT_SECONDS = 0.5  # between two reported steps


def parallelism(runs: Sequence[Run], cores: int, processes: int = 1, gpus: int = 0) -> tuple[int, int]:
    """The number of runs side by side, and the threads of each process. Runs on GPUs are trained one by one."""
    small = processes == 1 and not gpus and all(_step_macs(run) <= SMALL_STEP_MACS for run in runs)
    return (min(cores, len(runs)), 1) if small else (1, max(1, cores // processes))


def _step_macs(run: Run) -> float:
    recipe = run.experiment.recipe
    counted = cost(run.experiment.design, recipe.image_size, run.dataset.classes)
    return float(counted.macs) * recipe.batch_size


def check_memory_of_workers(
    runs: Sequence[Run], execution: Execution, processes: int, side_by_side: tuple[int, int]
) -> None:
    """Raises ValueError if the data workers of runs, so many at the same time, lack shared memory."""
    at_once, threads = side_by_side
    for run in runs:
        recipe = run.experiment.recipe
        parts = processes * accumulation(recipe, processes, execution.device_batch)
        of_process = data_workers(execution, threads, available_gpus(execution) > 0)
        check_shared_memory(recipe, parts, of_process, processes, min(at_once, len(runs)), execution.prefetch)


def run_all(
    jobs: Sequence[tuple[Run, Path]],
    execution: Execution,
    report: Callable[[RunEvent], None],
    *,
    side_by_side: tuple[int, int] | None = None,
    on_sigusr2: Handler | None = None,
    wait_for_save: bool = False,
) -> list[tuple[Run, Path]]:
    """Trains every run in its folder; returns those that have no result.

    A run that fails, or that another process is training, does not affect the others. `side_by_side`: the number of
    runs at the same time, and the threads of each; by default those of `parallelism`. SIGUSR2 makes every run save its
    state, unless `on_sigusr2` handles it. After KeyboardInterrupt or SystemExit every run saves its state and stops,
    and the exception is raised again. A second signal meanwhile kills the runs, unless `wait_for_save`. Raises
    ValueError if the data workers lack shared memory.
    """
    processes = default_processes(execution, [run.experiment.recipe for run, _ in jobs])
    workers, threads = side_by_side or parallelism(
        [run for run, _ in jobs], available_cores(), processes, available_gpus(execution)
    )
    check_memory_of_workers([run for run, _ in jobs], execution, processes, (workers, threads))
    context = process_context([run for run, _ in jobs])
    waiting, failed = deque(jobs), []
    running: dict[Any, _Worker] = {}  # by connection

    def pass_on(number: int, frame: Any) -> None:
        for worker in set(running.values()):
            worker.signal(signal.SIGUSR2)

    try:
        with handled(on_sigusr2 or pass_on, signal.SIGUSR2):
            while waiting or running:
                while waiting and len(set(running.values())) < workers:
                    worker = _Worker(context, *waiting.popleft(), execution, processes, threads)
                    running |= dict.fromkeys(worker.connections, worker)
                    report(RunEvent(worker.run, Began()))
                for connection in wait(list(running)):
                    if connection in running:  # its run may have ended by an event of another connection
                        worker = running[connection]
                        event = worker.receive(connection)  # type: ignore[arg-type]
                        if event is None:
                            del running[connection]
                            continue
                        if isinstance(event, Ending):
                            failed += _end(running, worker, event)
                        report(RunEvent(worker.run, event))
    finally:
        _stop(list(set(running.values())), wait_for_save)
    return failed


def _end(running: dict[Any, _Worker], worker: _Worker, ending: Ending) -> list[tuple[Run, Path]]:
    """Closes a worker; returns its run if that failed."""
    for connection in worker.connections:
        running.pop(connection, None)
    worker.end(kill=not isinstance(ending, Finished | Paused))
    return [] if isinstance(ending, Finished | Paused | InUse) else [(worker.run, worker.folder)]


def process_context(runs: Sequence[Run] = ()) -> BaseContext:
    """The context of processes that start with the imports of these runs; timm and torchvision only if needed."""
    # Thread pools do not survive a fork.
    os.environ.setdefault("OPENBLAS_NUM_THREADS", "1")
    os.environ.setdefault("OMP_NUM_THREADS", "1")
    preload = ["runner.launch.job", "torch._dynamo"]  # the latter is imported by the first optimizer
    preload += ["runner.data.transforms"] if any(_is_augmented(run) for run in runs) else []
    built_in = ("detection", "segmentation")
    preload += sorted({f"runner.train.tasks.{run.task}" for run in runs if run.task in built_in})
    designs = [run.experiment.design for run in runs]
    preload += sorted({design.library for design in designs if isinstance(design, NamedModel)} - {"own"})
    return fork_server(*preload)


def _is_augmented(run: Run) -> bool:
    """Whether a run's augmentation needs timm."""
    recipe = run.experiment.recipe
    return not run.crops_by_batch or recipe.mixes or recipe.random_erasing > 0


class _Worker:
    """The processes that train one run, in the launcher."""

    def __init__(
        self, context: BaseContext, run: Run, folder: Path, execution: Execution, processes: int, threads: int
    ) -> None:
        self.run, self.folder = run, folder
        self.rendezvous = tempfile.TemporaryDirectory(prefix="roadmap-") if processes > 1 else None
        init_method = f"file://{self.rendezvous.name}/rendezvous" if self.rendezvous else ""
        self.connections: list[Connection] = []
        self.processes: list[BaseProcess] = []
        for rank in range(processes):
            ours, theirs = context.Pipe()
            arguments = (theirs, run, folder, execution, threads, World(rank, processes, rank, init_method), LOADED)
            process: BaseProcess = context.Process(  # type: ignore[attr-defined]
                target=_train, args=arguments, name=f"{run.name}, rank {rank}"
            )
            start(process)
            theirs.close()  # so that the connection ends with the process
            self.connections.append(ours)
            self.processes.append(process)

    def receive(self, connection: Connection) -> Event | None:
        """The next event. A process that ends without one has failed; None if it is another rank that succeeded."""
        rank = self.connections.index(connection)
        try:
            event: Event = connection.recv()
        except (EOFError, OSError):
            self.processes[rank].join()
            if rank > 0 and self.processes[rank].exitcode == 0:
                return None
            return Failed(f"its process ended with status {self.processes[rank].exitcode}", can_retry=True)
        return event

    def signal(self, number: signal.Signals) -> None:
        for process in self.processes:
            if process.pid and process.is_alive():
                with contextlib.suppress(ProcessLookupError):  # it has just ended
                    os.kill(process.pid, number)

    def end(self, kill: bool = False) -> None:
        """Waits for the processes; with `kill` several are killed first, as they may wait for one that has ended."""
        for process, connection in zip(self.processes, self.connections, strict=True):
            if kill and len(self.processes) > 1:
                process.kill()
            process.join()
            connection.close()
        if self.rendezvous:
            self.rendezvous.cleanup()


def _stop(workers: list[_Worker], wait_for_save: bool) -> None:
    """Makes the workers save their state and end, and waits. A second signal kills them, unless `wait_for_save`."""
    signals: list[int] = []
    with (
        handled(lambda number, frame: signals.append(number), signal.SIGINT, signal.SIGTERM),
        handled(signal.SIG_IGN, signal.SIGHUP),
    ):
        processes = [process for worker in workers for process in worker.processes]
        while (alive := [process for process in processes if process.is_alive()]) and (wait_for_save or not signals):
            for worker in workers:
                worker.signal(signal.SIGTERM)  # repeated: a process that has just started ignores it
            wait([process.sentinel for process in alive], timeout=0.5)
        for process in processes:
            process.kill()
        for worker in workers:
            worker.end()


def _train(
    connection: Connection,
    run: Run,
    folder: Path,
    execution: Execution,
    threads: int,
    world: World,
    plugins: Mapping[Path, str],
) -> None:
    """A process of a run: trains it and reports its events."""
    signal.signal(signal.SIGINT, signal.SIG_IGN)  # the launcher handles it
    from runner.launch.job import train_job
    from runner.machine.setup import chosen_device

    requests = Requests()
    reported_at = 0.0

    def report(event: Event) -> None:
        nonlocal reported_at
        if isinstance(event, StepDone) and time.monotonic() - reported_at < REPORT_SECONDS:
            return
        reported_at = time.monotonic()
        with contextlib.suppress(OSError):  # the launcher may have ended
            connection.send(event)

    def request() -> Request:
        # Nothing is sent to a worker: if its connection can be read, the launcher was killed.
        return Request.STOP if connection.poll() else requests()

    try:
        load_files(plugins)
        with requests.received(signal.SIGTERM), world.joined(chosen_device(execution)):
            ending = train_job(run, folder, execution, threads, world, report, request, own_process=True)
            if world.rank == 0 or isinstance(ending, Failed):
                report(ending)
    except ValueError as error:  # a plugin changed, the device is absent, or the processes did not connect
        report(Failed(str(error), can_retry=isinstance(error, RendezvousError)))
