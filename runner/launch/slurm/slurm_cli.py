"""Calls of Slurm's commands. Each function makes one call."""

from __future__ import annotations

import contextlib
import os
import re
import subprocess
from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from datetime import datetime

ANSWER_SECONDS = 20  # timeout of a command; Slurm's own timeout for an absent controller is longer
UNDECIDED = ("PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED")  # not ended, although sacct may give an end
DEFAULT_ARRAY_LIMIT = 1001  # Slurm's default
IDS_PER_CALL = 1000
# In a shell inside an allocation: what Slurm sets for its steps. Slurm reads these variables as options, too.
OF_ALLOCATIONS = ("SLURM_", "SBATCH_", "SRUN_", "SALLOC_")
# Not the allocation's: where Slurm is, and the key to it.
OF_CLUSTERS = ("SLURM_CONF", "SLURM_CONF_SERVER", "SLURM_CLUSTERS", "SLURM_JWT")


class SlurmError(Exception):
    """Slurm does not answer, or refuses; the message is one sentence."""


@dataclass(frozen=True)
class Queued:
    """A job in Slurm's queue: one of an array, or a single one."""

    name: str
    index: int  # within its array; 0 for a single job
    job_id: str  # as Slurm's commands take it, such as 12_3
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str  # why it waits
    nodes: str


def queue(names: Iterable[str]) -> list[Queued]:
    """The jobs with those names that have not ended. Raises SlurmError."""
    wanted = list(names)
    if not wanted:
        return []
    # Name, index, job, state, reason, nodes.
    output = call("squeue", "--noheader", "--array", f"--name={','.join(wanted)}", "--format=%j|%K|%F|%T|%r|%N")
    jobs = []
    for line in output.splitlines():
        name, task, job, state, reason, nodes = line.split("|")
        index, job_id = (int(task), f"{job}_{task}") if task.isdigit() else (0, job)
        jobs.append(Queued(name, index, job_id, state, reason, nodes))
    return jobs


def ended(names: Iterable[str], since: float) -> dict[tuple[str, int], str]:
    """How jobs with those names ended, such as TIMEOUT, by name and index, as far as accounting knows.

    `since`: seconds of the system's clock. Raises SlurmError.
    """
    wanted = list(names)
    if not wanted:
        return {}
    command = ("sacct", "--allusers", "--allocations", "--noheader", "--parsable2", "--format=JobName,JobID,State,End")
    start = datetime.fromtimestamp(since).strftime("%Y-%m-%dT%H:%M:%S")  # local time, as sacct expects
    states: dict[tuple[str, int], str] = {}
    for line in call(*command, f"--name={','.join(wanted)}", f"--starttime={start}").splitlines():
        name, job_id, state, end = line.split("|")
        if end != "Unknown" and state not in UNDECIDED:
            first_word = state.split()[0]  # of "CANCELLED by 1000"
            states |= dict.fromkeys(((name, index) for index in _indices(job_id)), first_word)
    return states


def _indices(job_id: str) -> list[int]:
    """The indices of 12_3, of 12_[4,6-8%2] (jobs of an array that never started), or of 12 (a single job)."""
    _, _, suffix = job_id.partition("_")
    ranges = suffix.strip("[]").partition("%")[0].split(",") if suffix else ["0"]
    bounds = [match for text in ranges if (match := re.fullmatch(r"(\d+)(?:-(\d+))?", text))]
    return [index for match in bounds for index in range(int(match[1]), int(match[2] or match[1]) + 1)]


def state_of(job_id: str) -> str:
    """The state of a job in the queue; empty if it is not there. Raises SlurmError."""
    try:
        return call("squeue", "--noheader", f"--job={job_id}", "--format=%T").strip()
    except SlurmError as error:
        if "Invalid job id" in str(error):  # it has ended, and Slurm has removed it
            return ""
        raise


def requeue(job_id: str) -> None:
    """Requeues a running job. Raises SlurmError."""
    call("scontrol", "requeue", job_id)


def cancel(job_ids: Sequence[str]) -> None:
    """Raises SlurmError."""
    for start in range(0, len(job_ids), IDS_PER_CALL):
        call("scancel", *job_ids[start : start + IDS_PER_CALL])


def cancel_named(names: Sequence[str]) -> None:
    """Cancels all jobs with one of the names. Raises SlurmError, also if one stays in the queue."""
    for name in names:  # scancel silently ignores several names
        call("scancel", f"--name={name}")
    remaining = [job for job in queue(names) if job.state != "COMPLETING"]
    if remaining:
        raise SlurmError(f"job {remaining[0].job_id} does not leave Slurm's queue")


@dataclass(frozen=True)
class Limits:
    """The limits of a cluster."""

    array: int  # most jobs of an array
    hides_jobs: bool  # whether users can't see the jobs of other users


def limits() -> Limits:
    """Raises SlurmError."""
    output = call("scontrol", "show", "config")
    array_size = re.search(r"^MaxArraySize\s*=\s*(\d+)", output, flags=re.MULTILINE)
    private_jobs = re.search(r"^PrivateData\s*=.*\bjobs\b", output, flags=re.MULTILINE)
    return Limits(max(1, int(array_size[1])) if array_size else DEFAULT_ARRAY_LIMIT, private_jobs is not None)


@contextlib.contextmanager
def without_allocation() -> Iterator[None]:
    """Inside the block the environment has no variables of the allocation in which this process is.

    sbatch would take them for options that override the script's, and pass them on to the job, where srun does the
    same: `SLURM_MEM_PER_CPU` beside the script's memory is refused. Outside of allocations nothing is removed.
    """
    found = [name for name in os.environ if name.startswith(OF_ALLOCATIONS) and name not in OF_CLUSTERS]
    inside = {"SLURM_JOB_ID", "SLURM_JOBID"} & os.environ.keys()
    removed = {name: os.environ.pop(name) for name in found} if inside else {}
    try:
        yield
    finally:
        os.environ.update(removed)


def call(*command: str) -> str:
    """The output of a command. Raises SlurmError."""
    try:
        # Slurm prints the indices of an array in full, however long.
        environment = os.environ | {"SLURM_BITSTR_LEN": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except FileNotFoundError:
        raise SlurmError(f"Slurm's command {command[0]} is not on this machine; submit from a login node") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"Slurm does not answer: {command[0]} took more than {ANSWER_SECONDS} s") from None
    if done.returncode:
        message = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise SlurmError(f"Slurm failed: {command[0]}: {message.removeprefix(command[0] + ': ')}")
    return done.stdout
