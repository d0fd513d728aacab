"""The work of a job. submitit calls it in each task of the job, at every start of the job."""

from __future__ import annotations

import os
import signal
import sys
import time
from dataclasses import dataclass, replace
from pathlib import Path

import submitit

from roadmap.plugins import load_file
from roadmap.record.events import Ending, Failed, InUse, RunEvent, Stopped, ignore
from roadmap.record.folder import state
from roadmap.record.run import Run
from runner.launch.slurm.submission import Failure, JobFiles, SubmitOptions, one_more_stop
from runner.machine.distributed import ADDRESS, RendezvousError, World
from runner.machine.signals import Requests, handled

LOCK_SECONDS = 300  # to wait for another process that trains the run, on a node that Slurm took for dead
# Both mean: save the state and stop training. The first comes before preemption and before the time limit, the second
# when a job is cancelled, or preempted without the first. The batch script decides what follows. Before and after
# training, submitit's handlers get the signals, and on the first they requeue the job.
STOPPING = (signal.SIGUSR2, signal.SIGTERM)


class JobFailed(Exception):
    """A run has no result; the message is the reason."""


@dataclass(frozen=True)
class Task:
    """The runs of a job: one that all its tasks train together, or several that its only task trains side by side."""

    runs: tuple[tuple[Run, Path], ...]
    options: SubmitOptions
    plugins: tuple[Path, ...]
    files: JobFiles

    def __call__(self) -> str:
        """Returns "concluded" or "stopped". Raises JobFailed, after recording the failure in the job's files."""
        sys.argv = list(self.options.command)  # recorded in the runs' manifests
        environment = submitit.JobEnvironment()
        os.environ["ROADMAP_JOB"] = f"{environment.cluster} {environment.job_id}"
        print(f"{environment}: {', '.join(run.name for run, _ in self.runs)}", flush=True)
        try:
            for plugin in self.plugins:
                load_file(plugin)
            return self._train_packed() if len(self.runs) > 1 else self._train_one(environment)
        except JobFailed:
            raise
        except ValueError as error:  # needs a correction by the user, unless the tasks only failed to connect
            self.files.fail(Failure(str(error), again=isinstance(error, RendezvousError)))
            raise JobFailed(str(error)) from error
        except Exception as error:
            self.files.fail(Failure(f"{type(error).__name__}: {error}", again=True))
            raise

    def checkpoint(self) -> submitit.helpers.DelayedSubmission | None:
        """Called on a signal before training: submitit requeues the job with the returned task, or ends it for None."""
        before = self.files.attempts()
        after = one_more_stop(before, before.steps, self.options.cluster)
        if isinstance(after, Failure):
            self.files.fail(after)
            return None
        self.files.write_attempts(after)
        return submitit.helpers.DelayedSubmission(self)

    def _train_one(self, environment: submitit.JobEnvironment) -> str:
        from runner.launch.job import train_job
        from runner.machine.setup import chosen_device

        ((run, folder),) = self.runs
        world, requests, cores = self._world(environment), Requests(), self.options.cluster.cpus_per_task
        execution = self.options.execution
        deadline = time.monotonic() + LOCK_SECONDS
        with requests.received(*STOPPING), world.joined(chosen_device(execution)):
            waiting = False
            while True:
                ending = train_job(run, folder, execution, cores, world, ignore, requests)
                if not isinstance(ending, InUse):  # the same on all ranks
                    return self._concluded([(run, ending)])
                if any(world.all_gather(requests.stop)):
                    return "stopped"
                if any(world.all_gather(time.monotonic() > deadline)):
                    return self._concluded([(run, ending)])
                if not waiting:
                    print(f"{run.name} is being trained by another process; waiting for it to end", flush=True)
                waiting = True
                time.sleep(2)

    def _world(self, environment: submitit.JobEnvironment) -> World:
        rank, size = environment.global_rank, environment.num_tasks
        # A different file for each start of the job.
        start = f"{environment.job_id}-{os.environ.get('SLURM_RESTART_COUNT', '0')}"
        init_method = f"{ADDRESS}{self.files.folder}/{start}.address" if size > 1 else ""
        return World(rank, size, environment.local_rank, init_method, None, environment.hostnames[0])

    def _train_packed(self) -> str:
        from runner.launch.local import run_all
        from runner.machine.resources import available_gpus

        endings: list[tuple[Run, Ending]] = []

        def note(event: RunEvent) -> None:
            if isinstance(event.event, Ending):
                endings.append((event.run, event.event))
                print(f"{event.run.name}: {event.event}", flush=True)

        stopping: list[int] = []

        def stop(number: int, frame: object) -> None:
            stopping.append(number)
            if len(stopping) == 1:  # later signals have no effect: Slurm kills what takes too long
                raise SystemExit(0)

        single_process, cores = replace(self.options.execution, processes=1), self.options.cluster.cpus_per_task
        unfinished = [(run, folder) for run, folder in self.runs if state(folder, run) != "finished"]
        # A GPU trains all at once; a core trains one.
        at_once = max(1, len(unfinished) if available_gpus(single_process) else min(len(unfinished), cores))
        side_by_side = (at_once, max(1, cores // at_once))
        try:
            with handled(stop, *STOPPING):
                run_all(
                    unfinished, single_process, note, side_by_side=side_by_side, on_sigusr2=stop, wait_for_save=True
                )
        except SystemExit:
            return "stopped"
        return self._concluded(endings)

    def _concluded(self, endings: list[tuple[Run, Ending]]) -> str:
        """How the job ended, from the endings of its runs. Raises JobFailed if one failed."""
        for run, ending in endings:
            if isinstance(ending, Failed | InUse):
                message = ending.message if isinstance(ending, Failed) else f"it is {ending}"
                full_message = f"{run.name}: {message}" if len(self.runs) > 1 else message
                self.files.fail(Failure(full_message, again=isinstance(ending, InUse) or ending.can_retry))
                raise JobFailed(message)
        return "stopped" if any(isinstance(ending, Stopped) for _, ending in endings) else "concluded"
