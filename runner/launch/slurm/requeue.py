"""Decides, after the tasks of a job have ended, whether the job is requeued. Called by the batch script.

    python -m runner.launch.slurm.requeue FOLDER INDEX STATUS

This is decided only here, whatever ended the tasks, because no task is left and their saved state is final.
"""

from __future__ import annotations

import os
import re
import sys
import time
from dataclasses import replace
from pathlib import Path

from roadmap.files import read_json
from roadmap.record.folder import is_diverged, read_divergences
from roadmap.record.sessions import read_position
from roadmap.serialization.plain_data import from_data
from roadmap.study.execution import MOST_RETRIES
from runner.launch.slurm import slurm_cli
from runner.launch.slurm.submission import Attempts, Entry, Failure, JobFiles, Submission, one_more_stop

SIGNALLED = (140, 143, 12, 15)  # srun's status for tasks that SIGUSR2 or SIGTERM ended before they had handlers
KILLED = (137, 9)
PEER_LOST = r"(?i)closed by peer|reset by peer|socket|NCCL|gloo"  # in the error of a task when another has ended
# States in which Slurm has decided whether a job is requeued; in others, such as SIGNALING, it has not.
DECIDED = set("CANCELLED COMPLETING COMPLETED DEADLINE FAILED NODE_FAIL PENDING PREEMPTED".split())
DECIDED |= {"REQUEUED", "REQUEUE_FED", "REQUEUE_HOLD", "TIMEOUT", ""}  # "": not in the queue
CONTROLLER_SECONDS = 900  # that a controller may not answer


def main(folder: Path, index: int, status: int) -> int:
    """Returns the exit status of the job if it is over; if it is requeued, Slurm ends this process."""
    submission: Submission = from_data(Submission, read_json(folder / "submission.json"))
    out, files = folder.parent.parent, JobFiles(folder, index)
    runs = [out / entry.folder for entry in submission.jobs[index]]
    if all(_is_over(entry, submission, out) for entry in submission.jobs[index]):
        files.forget_failure()
        return 1 if any(is_diverged(read_divergences(run)) for run in runs) else 0
    job_id = _job_id()
    if _is_decided(job_id):
        return status or 1
    failure = files.failure()
    if failure is None and status not in (0, *SIGNALLED):
        failure = Failure(f"the tasks of job {job_id} ended with status {status}; {_hint(status)}", again=True)
    elif failure and status in KILLED and re.search(PEER_LOST, failure.message):
        failure = replace(failure, message=f"{failure.message}; a task was {_hint(status)}")
    outcome = _next(files.attempts(), failure, sum(map(_steps, runs)), submission)
    files.forget_failure()
    if isinstance(outcome, Failure):
        files.fail(outcome)
        _log(submission.jobs[index], out, f"job {job_id} has failed: {outcome.message}")
        return status or 1
    files.write_attempts(outcome)
    reason = f"after a failure ({failure.message})" if failure else "because it was stopped"
    _log(submission.jobs[index], out, f"job {job_id} is requeued {reason}")
    _requeue(job_id)
    return status or 1


def _is_over(entry: Entry, submission: Submission, out: Path) -> bool:
    if submission.has_trained(entry, out):
        return True
    execution, divergences = submission.options.execution, read_divergences(out / entry.folder)
    return is_diverged(divergences) and (execution.on_nan == "stop" or len(divergences) > MOST_RETRIES)


def _steps(run: Path) -> int:
    place = read_position(run)
    return place.total if place else 0


def _next(before: Attempts, failure: Failure | None, steps: int, submission: Submission) -> Attempts | Failure:
    """The job's attempts with this one, if it is requeued, or the failure that ends it."""
    cluster = submission.options.cluster
    if failure is None:
        return one_more_stop(before, steps, cluster)
    crashes = before.crashes + 1
    again = failure.again and crashes <= cluster.most_crashes
    return replace(before, steps=steps, crashes=crashes) if again else failure


def _hint(status: int) -> str:
    return "killed, perhaps for lack of memory" if status in KILLED else "their output is in the submission's folder"


def _job_id() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]


def _is_decided(job_id: str) -> bool:
    """Whether Slurm has decided: the job was cancelled, reached its time limit, or is requeued by Slurm itself."""
    try:
        return slurm_cli.state_of(job_id) in DECIDED
    except slurm_cli.SlurmError:  # the controller is away
        return False


def _requeue(job_id: str) -> None:
    deadline = time.monotonic() + CONTROLLER_SECONDS
    while True:
        try:
            slurm_cli.requeue(job_id)
            break
        except slurm_cli.SlurmError as error:
            print(error, file=sys.stderr, flush=True)
            if time.monotonic() > deadline or _is_decided(job_id):
                return
        time.sleep(10)
    time.sleep(CONTROLLER_SECONDS)  # until Slurm ends this process


def _log(entries: tuple[Entry, ...], out: Path, message: str) -> None:
    for entry in entries:
        run = out / entry.folder
        if run.is_dir() and not (run / "result.json").exists():
            with (run / "log.txt").open("a", encoding="utf-8") as log:
                log.write(message + "\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
