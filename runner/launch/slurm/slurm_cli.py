"""What is asked of Slurm, each by one call of its commands."""

from __future__ import annotations

import os
import re
import subprocess
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from datetime import datetime

ANSWER_SECONDS = 20  # that a command may take; Slurm's own patience with a controller that is away is longer
UNDECIDED = ("PENDING", "RUNNING", "REQUEUED", "RESIZING", "SUSPENDED")  # that are no end, whatever sacct calls it
DEFAULT_ARRAY_LIMIT = 1001  # Slurm's, where a cluster sets none
IDS_A_CALL = 1000


class SlurmError(Exception):
    """Slurm does not answer, or refuses; the message is one sentence."""


@dataclass(frozen=True)
class Queued:
    """A job in Slurm's queue: one of an array, or one by itself."""

    name: str
    index: int  # within its array; 0 of a job by itself
    job_id: str  # as Slurm's commands take it, such as 12_3
    state: str  # PENDING, RUNNING, COMPLETING, ...
    reason: str  # why it waits
    nodes: str


def queue(names: Iterable[str]) -> list[Queued]:
    """The jobs of those names that are not over. Raises SlurmError."""
    wanted = list(names)
    if not wanted:
        return []
    # Name, index, job, state, reason, nodes.
    written = call("squeue", "--noheader", "--array", f"--name={','.join(wanted)}", "--format=%j|%K|%F|%T|%r|%N")
    jobs = []
    for line in written.splitlines():
        name, task, job, state, reason, nodes = line.split("|")
        alone = not task.isdigit()
        jobs.append(Queued(name, 0 if alone else int(task), job if alone else f"{job}_{task}", state, reason, nodes))
    return jobs


def ended(names: Iterable[str], since: float) -> dict[tuple[str, int], str]:
    """How jobs of those names ended, by name and index, such as TIMEOUT, as far as accounting knows. Raises SlurmError.

    `since`: seconds of the clock.
    """
    wanted = list(names)
    if not wanted:
        return {}
    command = ("sacct", "--allusers", "--allocations", "--noheader", "--parsable2", "--format=JobName,JobID,State,End")
    start = datetime.fromtimestamp(since).strftime("%Y-%m-%dT%H:%M:%S")  # local, as sacct takes it
    found: dict[tuple[str, int], str] = {}
    for line in call(*command, f"--name={','.join(wanted)}", f"--starttime={start}").splitlines():
        name, job_id, state, end = line.split("|")
        if end != "Unknown" and state not in UNDECIDED:
            word = state.split()[0]  # of "CANCELLED by 1000"
            found |= dict.fromkeys(((name, index) for index in _indices(job_id)), word)
    return found


def _indices(job_id: str) -> list[int]:
    """Of 12_3, 12_[4,6-8%2] (jobs of an array that never began), or 12, which is by itself."""
    _, _, within = job_id.partition("_")
    stretches = within.strip("[]").partition("%")[0].split(",") if within else ["0"]
    bounds = [match for stretch in stretches if (match := re.fullmatch(r"(\d+)(?:-(\d+))?", stretch))]
    return [index for match in bounds for index in range(int(match[1]), int(match[2] or match[1]) + 1)]


def state_of(job_id: str) -> str:
    """Of a job in the queue; empty where it is not there. Raises SlurmError."""
    try:
        return call("squeue", "--noheader", f"--job={job_id}", "--format=%T").strip()
    except SlurmError as error:
        if "Invalid job id" in str(error):  # it is over, and forgotten
            return ""
        raise


def requeue(job_id: str) -> None:
    """Has a running job begin again. Raises SlurmError."""
    call("scontrol", "requeue", job_id)


def cancel(job_ids: Sequence[str]) -> None:
    """Raises SlurmError."""
    for start in range(0, len(job_ids), IDS_A_CALL):
        call("scancel", *job_ids[start : start + IDS_A_CALL])


def cancel_named(names: Sequence[str]) -> None:
    """Whatever has one of the names. Raises SlurmError, also where some of it stays in the queue."""
    for name in names:  # of several at once scancel takes none, without a word
        call("scancel", f"--name={name}")
    left = [job for job in queue(names) if job.state != "COMPLETING"]
    if left:
        raise SlurmError(f"{left[0].job_id} does not leave Slurm's queue")


@dataclass(frozen=True)
class Limits:
    """What a cluster allows."""

    array: int  # jobs of an array
    hides_jobs: bool  # of others


def limits() -> Limits:
    """Raises SlurmError."""
    written = call("scontrol", "show", "config")
    found = re.search(r"^MaxArraySize\s*=\s*(\d+)", written, flags=re.MULTILINE)
    private = re.search(r"^PrivateData\s*=.*\bjobs\b", written, flags=re.MULTILINE)
    return Limits(max(1, int(found[1])) if found else DEFAULT_ARRAY_LIMIT, private is not None)


def call(*command: str) -> str:
    """What a command prints. Raises SlurmError."""
    try:
        # The jobs of an array whole, however many stretches they are.
        environment = os.environ | {"SLURM_BITSTR_LEN": "0"}
        done = subprocess.run(command, env=environment, capture_output=True, text=True, timeout=ANSWER_SECONDS)
    except FileNotFoundError:
        raise SlurmError(f"Slurm's command {command[0]} is not on this machine; submit from a login node") from None
    except subprocess.TimeoutExpired:
        raise SlurmError(f"Slurm does not answer: {command[0]} said nothing for {ANSWER_SECONDS} s") from None
    if done.returncode:
        said = " ".join(done.stderr.split()) or f"exit status {done.returncode}"
        raise SlurmError(f"Slurm does not do it: {command[0]}: {said.removeprefix(command[0] + ': ')}")
    return done.stdout
