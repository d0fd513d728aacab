"""Submitting 5,004 runs and showing 1,008, against Slurm's own commands for the same on the same cluster.

    python -m tests.helpers.cluster python benchmarks/slurm.py [--rounds 3]

The first part of the command starts a Slurm cluster on this machine (it requires root, and Debian's packages as in
scripts/test). The nodes are drained, so that nothing is trained: don't run this on a cluster that others use. The
limits are a minute and two seconds.
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

COMMAND = [sys.executable, "-m", "roadmap"]
SUBMIT = [*COMMAND, "run", "--on", "slurm", "--steps", "all"]


def output(*command: str) -> str:
    return subprocess.run(command, check=True, capture_output=True, text=True).stdout


def timed(*command: str, cwd: Path) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, check=True, capture_output=True)
    return time.perf_counter() - began


def submission(folder: Path) -> tuple[float, float]:
    """Seconds of `roadmap run`, and of sbatch with the same scripts."""
    ours = timed(*SUBMIT, "--seeds", "278", cwd=folder)
    scripts = sorted((folder / "runs" / "slurm").glob("roadmap-*/*_submission.sh"))
    empty()
    bare = sum(timed("sbatch", str(script), cwd=folder) for script in scripts)
    empty()
    return ours, bare


def status(folder: Path) -> tuple[float, float]:
    """Seconds of `roadmap status`, and of its two calls of Slurm. Half of the jobs are cancelled."""
    timed(*SUBMIT, "--seeds", "56", cwd=folder)
    pending = [job for job in queue() if "_" in job]
    output("scancel", *pending[::2])
    while len(queue()) > len(pending) - len(pending[::2]) + 1:  # and the figure's job
        time.sleep(0.1)
    ours = timed(*COMMAND, "status", cwd=folder)
    bare = timed("squeue", "--array", "--noheader", cwd=folder)
    bare += timed("sacct", "--allusers", "--allocations", "--noheader", cwd=folder)
    empty()
    return ours, bare


def queue() -> list[str]:
    return output("squeue", "--array", "--noheader", "--format=%i").split()


def empty() -> None:
    output("scancel", "--me")
    while queue():
        time.sleep(0.1)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    if "SLURM_CONF" not in os.environ:
        parser.error("SLURM_CONF must name a cluster; see the docstring of this file")
    if "ClusterName             = test" not in output("scontrol", "show", "config"):
        parser.error("others may use this cluster; see the docstring of this file")
    output("scontrol", "update", "NodeName=ALL", "State=DRAIN", "Reason=benchmark")
    print(f"medians of {rounds} rounds, seconds           ours   bare commands   ratio   limit")
    for name, case, limit in (("submitting 5,004 runs", submission, 60), ("status of 1,008 jobs", status, 2)):
        seconds = []
        for _ in range(rounds):
            with tempfile.TemporaryDirectory() as folder:
                seconds.append(case(Path(folder)))
        ours, bare = (statistics.median(column) for column in zip(*seconds, strict=True))
        print(f"{name:<34} {ours:>7.2f} {bare:>15.2f} {ours / bare:>7.2f} {limit:>7}")


if __name__ == "__main__":
    main()
