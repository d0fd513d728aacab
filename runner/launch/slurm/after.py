"""After the tasks of a job, in its batch script: is it over, or does it begin again?

    python -m runner.launch.slurm.after FOLDER INDEX STATUS

Only here is that decided, whatever ended the tasks: it is known what they saved, and none of them is left.
"""

from __future__ import annotations

import os
import sys
import time
from dataclasses import replace
from pathlib import Path

from roadmap.plain import from_data
from roadmap.record import is_diverged, read_divergences, read_json
from roadmap.sessions import read_place
from runner.launch.slurm import commands
from runner.launch.slurm.submission import Attempts, Entry, Failure, JobFiles, Submission

ASKED = (140, 143, 12, 15)  # as which srun reports tasks that SIGUSR2 or SIGTERM ended before they could hear it
MOST_IDLE = 5  # stops in a row without a step between them: on a busy cluster a job may be preempted as it begins
PATIENCE_SECONDS = 900  # with a controller that is away


def main(folder: Path, index: int, status: int) -> int:
    """The exit status of the job, where it is over; where it begins again, Slurm ends this process."""
    submission: Submission = from_data(Submission, read_json(folder / "submission.json"))
    out, files = folder.parent.parent, JobFiles(folder, index)
    runs = [out / entry.folder for entry in submission.jobs[index]]
    if all(_is_over(run) for run in runs):
        files.forget_failure()
        return 1 if any(is_diverged(read_divergences(run)) for run in runs) else 0
    job_id = _job_id()
    if not _is_running(job_id):  # cancelled, or Slurm has it begin again
        return status or 1
    failure = files.failure()
    if failure is None and status not in (0, *ASKED):
        failure = Failure(f"the tasks of job {job_id} ended with status {status}; {_hint(status)}", again=True)
    verdict = _next(files.attempts(), failure, sum(map(_steps, runs)), submission)
    if isinstance(verdict, Failure):
        files.fail(verdict)
        _log(submission.jobs[index], out, f"job {job_id} has failed: {verdict.message}")
        return status or 1
    files.write_attempts(verdict)
    files.forget_failure()
    why = f"after a failure ({failure.message})" if failure else "where it was stopped"
    _log(submission.jobs[index], out, f"job {job_id} is begun again {why}")
    _requeue(job_id)
    return status or 1


def _is_over(run: Path) -> bool:
    return (run / "result.json").exists() or is_diverged(read_divergences(run))


def _steps(run: Path) -> int:
    place = read_place(run)
    return place.total if place else 0


def _next(before: Attempts, failure: Failure | None, steps: int, submission: Submission) -> Attempts | Failure:
    """What the job has behind it when it begins again, or why it does not."""
    after = replace(before, requeued=before.requeued + 1, steps=steps)
    if failure is not None:
        after = replace(after, crashes=before.crashes + 1)
        again = failure.again and after.crashes <= submission.cluster.most_crashes
        return after if again else failure
    after = replace(after, idle=before.idle + 1 if steps <= before.steps else 0)
    if after.idle < MOST_IDLE:
        return after
    hours, seconds = submission.cluster.hours, submission.cluster.save_seconds
    limit = f"the cluster's hours, {hours:g}, less save_seconds, {seconds}, may be too few"
    return Failure(f"stopped {MOST_IDLE} times in a row before a step was done; {limit}", again=False)


def _hint(status: int) -> str:
    return "killed, perhaps for want of memory" if status in (9, 137) else "what they printed is beside its submission"


def _job_id() -> str:
    array, task = os.environ.get("SLURM_ARRAY_JOB_ID"), os.environ.get("SLURM_ARRAY_TASK_ID")
    return f"{array}_{task}" if array else os.environ["SLURM_JOB_ID"]


def _is_running(job_id: str) -> bool:
    try:
        return commands.state_of(job_id) == "RUNNING"
    except commands.SlurmError:  # a controller that is away cancels nothing
        return True


def _requeue(job_id: str) -> None:
    deadline = time.monotonic() + PATIENCE_SECONDS
    while True:
        try:
            commands.requeue(job_id)
            break
        except commands.SlurmError as error:
            print(error, file=sys.stderr, flush=True)
            if time.monotonic() > deadline or not _is_running(job_id):
                return
        time.sleep(10)
    time.sleep(PATIENCE_SECONDS)  # until Slurm ends this process


def _log(entries: tuple[Entry, ...], out: Path, message: str) -> None:
    for entry in entries:
        run = out / entry.folder
        if run.is_dir() and not _is_over(run):
            with (run / "log.txt").open("a", encoding="utf-8") as log:
                log.write(message + "\n")


if __name__ == "__main__":
    sys.exit(main(Path(sys.argv[1]), int(sys.argv[2]), int(sys.argv[3])))
