"""The main job as a user starts it: seconds and peak memory of the whole process tree, against their limits.

    python benchmarks/main_job.py [--rounds 5] [--steps all] [--in-turn] [--before CHECKOUT]

Takes some three minutes per round and way on two cores. Only on Linux: memory is read from /proc. The proportional set
size counts a shared page once. Optional, in the same rounds: the same runs in turn on all cores, and the main job of
another checkout. The shares of the time are computed from the modification times of the runs' files.
"""

from __future__ import annotations

import argparse
import contextlib
import json
import os
import statistics
import subprocess
import sys
import tempfile
import time
from pathlib import Path

import roadmap
from roadmap.record.metrics import TOP1
from roadmap.study.load import load_study

LIMIT_SECONDS, LIMIT_MIB = 240, 2048
CORES = len(os.sched_getaffinity(0))
SIDE_BY_SIDE = [sys.executable, "-m", "roadmap"]
IN_TURN = """
import sys
from roadmap.cli import main
from runner.launch import local
local.parallelism = lambda runs, cores, *_: (1, cores)
sys.exit(main())
"""


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


def run_once(command: list[str], steps: str, folder: str, source: str) -> tuple[float, float, float, float]:
    """Seconds, peak resident and proportional MiB, and the lowest top-1 of the rungs."""
    began, peaks = time.perf_counter(), [(0.0, 0.0)]
    seeds = load_study().defaults.seeds
    command_line = [*command, "run", "--steps", steps, "--seeds", str(seeds)]
    environment = {**os.environ, "PYTHONPATH": source}
    with subprocess.Popen(command_line, cwd=folder, env=environment, stdout=subprocess.DEVNULL) as process:
        while process.poll() is None:
            peaks.append(memory(process.pid))
            with contextlib.suppress(subprocess.TimeoutExpired):
                process.wait(1)  # reading the sizes five times a second took an eighth of a core
    seconds = time.perf_counter() - began
    results = [json.loads(path.read_text()) for path in Path(folder).rglob("result.json")]
    runs = seeds * len(roadmap.ladder("pico", steps))
    assert process.returncode == 0 and len(results) == runs, f"status {process.returncode}, {len(results)} results"
    return seconds, max(r for r, _ in peaks), max(p for _, p in peaks), min(result[TOP1.key] for result in results)


def spent(folder: str, seconds: float) -> dict[str, float]:
    """The seconds by activity, averaged over the cores; an idle core counts with its share."""
    ended = time.time()
    done = [path.parent for path in Path(folder).rglob("result.json")]
    begins = sorted((run / "manifest.json").stat().st_mtime for run in done)
    ends = sorted((run / "result.json").stat().st_mtime for run in done)
    rows = [[json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()] for run in done]
    steps = [json.loads((run / "place.json").read_text())["steps"] for run in done]
    batches = [
        json.loads((run / "manifest.json").read_text())["run"]["experiment"]["recipe"]["batch_size"] for run in done
    ]
    training = sum(
        count * batch / row["images_per_second"]
        for count, batch, epochs in zip(steps, batches, rows, strict=True)
        for row in epochs
    )
    in_epochs = sum(row["seconds"] for epochs in rows for row in epochs)
    in_runs = sum(ends) - sum(begins)
    idle = sum(ends[-1] - end for end in ends[-CORES:])
    return {
        "before the first run": begins[0] - (ended - seconds),
        "training": training / CORES,
        "evaluation": (in_epochs - training) / CORES,
        "the rest of runs": (in_runs - in_epochs) / CORES,
        "between runs": (CORES * (ends[-1] - begins[0]) - in_runs - idle) / CORES,
        "waiting for the last run": idle / CORES,
        "the figure": ended - ends[-1],
    }


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--steps", default="all")
    parser.add_argument("--in-turn", action="store_true")
    parser.add_argument("--before", metavar="CHECKOUT")
    options = parser.parse_args()
    checkout = str(Path(roadmap.__file__).parent.parent)
    ways = {"main job": (SIDE_BY_SIDE, checkout)}
    if options.in_turn:
        ways["in turn"] = ([sys.executable, "-c", IN_TURN], checkout)
    if options.before:
        ways["before"] = (SIDE_BY_SIDE, str(Path(options.before).resolve()))
    rounds: dict[str, list[tuple[float, float, float, float]]] = {name: [] for name in ways}
    parts = []
    for i in range(options.rounds):
        for name, (command, source) in ways.items():
            with tempfile.TemporaryDirectory() as folder:
                rounds[name].append(run_once(command, options.steps, folder, source))
                if name == "main job":
                    parts.append(spent(folder, rounds[name][-1][0]))
            seconds, resident, proportional, top1 = rounds[name][-1]
            sizes = f"{proportional:.0f} MiB proportional, {resident:.0f} MiB resident"
            print(f"round {i + 1}, {name}: {seconds:.1f} s, {sizes}, lowest top-1 {top1:.2f} %", flush=True)
    seconds, resident, proportional, _ = (statistics.median(column) for column in zip(*rounds["main job"], strict=True))
    print(f"median time     {seconds:6.0f} s    limit {LIMIT_SECONDS} s    ratio {seconds / LIMIT_SECONDS:.2f}")
    for name, size in (("proportional", proportional), ("resident", resident)):
        print(f"median {name:12} {size:6.0f} MiB  limit {LIMIT_MIB} MiB  ratio {size / LIMIT_MIB:.2f}")
    for name in list(ways)[1:]:
        pairs = zip(rounds[name], rounds["main job"], strict=True)
        ratio = statistics.median(their[0] / our[0] for their, our in pairs)
        their_median = statistics.median(their[0] for their in rounds[name])
        print(f"{name}: median {their_median:.1f} s, {ratio:.2f} times the main job's")
    print("seconds of it: " + ", ".join(f"{key} {statistics.median(p[key] for p in parts):.1f}" for key in parts[0]))


if __name__ == "__main__":
    main()
