"""Submitting 5,004 runs and showing 1,008, against what Slurm's own commands take for it on the same cluster.

    python benchmarks/slurm.py [--rounds 3]

Starts a Slurm cluster on this machine (root, and Debian's packages as in scripts/test) whose nodes take no job, so that
nothing is trained. The limits are a minute and two seconds.
"""

from __future__ import annotations

import argparse
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parent.parent))
from tests.slurm import NODES, Cluster, cluster, until

COMMAND = [sys.executable, "-m", "roadmap"]
SUBMIT = [*COMMAND, "run", "--on", "slurm", "--steps", "all"]


def timed(*command: str, cwd: Path, slurm: Cluster) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=cwd, env=slurm.environment, check=True, capture_output=True)
    return time.perf_counter() - began


def submission(slurm: Cluster, folder: Path) -> tuple[float, float]:
    """Seconds of ours, and of sbatch with the same scripts."""
    ours = timed(*SUBMIT, "--seeds", "278", cwd=folder, slurm=slurm)
    scripts = sorted((folder / "runs" / "slurm").glob("roadmap-*/*_submission.sh"))
    empty(slurm)
    bare = sum(timed("sbatch", str(script), cwd=folder, slurm=slurm) for script in scripts)
    empty(slurm)
    return ours, bare


def overview(slurm: Cluster, folder: Path) -> tuple[float, float]:
    """Seconds of `roadmap status`, and of the two questions to Slurm that it asks. Half of the jobs are cancelled."""
    timed(*SUBMIT, "--seeds", "56", cwd=folder, slurm=slurm)
    pending = [job for job, _ in slurm.queue() if "_" in job]
    slurm.run("scancel", *pending[::2])
    time.sleep(2)
    ours = timed(*COMMAND, "status", cwd=folder, slurm=slurm)
    bare = timed("squeue", "--array", "--noheader", cwd=folder, slurm=slurm)
    bare += timed("sacct", "--allusers", "--allocations", "--noheader", cwd=folder, slurm=slurm)
    empty(slurm)
    return ours, bare


def empty(slurm: Cluster) -> None:
    slurm.run("scancel", "--user=root")
    until(lambda: not slurm.queue(), "the queue is empty")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = parser.parse_args().rounds
    with tempfile.TemporaryDirectory(ignore_cleanup_errors=True) as where, cluster(Path(where)) as slurm:
        slurm.run("scontrol", "update", f"NodeName={','.join(NODES)}", "State=DRAIN", "Reason=benchmark")
        print(f"medians of {rounds} rounds, seconds           ours   bare commands   ratio   limit")
        cases = (("submitting 5,004 runs", submission, 60), ("status of 1,008 jobs", overview, 2))
        for name, case, limit in cases:
            seconds = []
            for _ in range(rounds):
                with tempfile.TemporaryDirectory() as folder:
                    seconds.append(case(slurm, Path(folder)))
            ours, bare = (statistics.median(column) for column in zip(*seconds, strict=True))
            print(f"{name:<34} {ours:>7.2f} {bare:>15.2f} {ours / bare:>7.2f} {limit:>7}")


if __name__ == "__main__":
    main()
