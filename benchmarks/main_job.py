"""The main job as a user starts it: seconds and peak memory of the whole process tree, against their limits.

    python benchmarks/main_job.py [--rounds 3]

Takes about two minutes a round on two cores. Linux alone: memory is read from /proc. The proportional set size
counts a page that processes share once.
"""

from __future__ import annotations

import argparse
import json
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

LIMIT_SECONDS, LIMIT_MIB = 240, 2048


def process_tree(root: int) -> list[int]:
    parents = {}
    for stat in Path("/proc").glob("[0-9]*/stat"):
        try:
            parents[int(stat.parent.name)] = int(stat.read_text().rsplit(")", 1)[1].split()[1])
        except (OSError, IndexError):
            continue
    tree = [root]
    for process in tree:
        tree += [child for child, parent in parents.items() if parent == process]
    return tree


def memory(root: int) -> tuple[float, float]:
    """Resident and proportional set sizes of a process and all below it, MiB."""
    resident = proportional = 0.0
    for process in process_tree(root):
        try:
            lines = Path(f"/proc/{process}/smaps_rollup").read_text().splitlines()
        except OSError:
            continue
        sizes = {line.split(":")[0]: float(line.split()[1]) / 1024 for line in lines[1:]}
        resident += sizes.get("Rss", 0)
        proportional += sizes.get("Pss", 0)
    return resident, proportional


def run_once(folder: str) -> tuple[float, float, float, float]:
    """Seconds, peak resident and proportional MiB, and the lowest top-1 of the rungs."""
    began, peaks = time.perf_counter(), [(0.0, 0.0)]
    command = [sys.executable, "-m", "roadmap", "run", "--steps", "all"]
    with subprocess.Popen(command, cwd=folder, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peaks.append(memory(process.pid))
            time.sleep(0.2)
    seconds = time.perf_counter() - began
    results = [json.loads(path.read_text()) for path in Path(folder).rglob("result.json")]
    assert process.returncode == 0 and len(results) == 18, f"status {process.returncode}, {len(results)} results"
    return seconds, max(r for r, _ in peaks), max(p for _, p in peaks), min(result["top1"] for result in results)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=3)
    rounds = []
    for i in range(parser.parse_args().rounds):
        with tempfile.TemporaryDirectory() as folder:
            rounds.append(run_once(folder))
        seconds, resident, proportional, top1 = rounds[-1]
        sizes = f"{proportional:.0f} MiB proportional, {resident:.0f} MiB resident"
        print(f"round {i + 1}: {seconds:.0f} s, {sizes}, lowest top-1 {top1:.2f} %", flush=True)
    seconds, resident, proportional, _ = (statistics.median(column) for column in zip(*rounds, strict=True))
    print(f"median time     {seconds:6.0f} s    limit {LIMIT_SECONDS} s    ratio {seconds / LIMIT_SECONDS:.2f}")
    for name, size in (("proportional", proportional), ("resident", resident)):
        print(f"median {name:12} {size:6.0f} MiB  limit {LIMIT_MIB} MiB  ratio {size / LIMIT_MIB:.2f}")


if __name__ == "__main__":
    main()
