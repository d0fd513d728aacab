"""A run's start, from that of its process to its first step: seconds, and what they are spent on.

    python benchmarks/start.py [--rounds 5]

Against `import torch`, and against making an optimizer too, for which torch imports its compiler: no training starts
with less than that. Stages are those of one process that does all; `roadmap run` is as it is started, with a launcher
and a server of processes of its own. Then what the imports of such a process take, by package.
"""

from __future__ import annotations

import argparse
import json
import re
import statistics
import subprocess
import sys
import tempfile
import time
from collections import Counter
from pathlib import Path

PEERS = {
    "import torch": "import torch",
    "and an optimizer": "import torch; torch.optim.AdamW([torch.nn.Parameter(torch.zeros(1))])",
}
RUNGS = ("pico", "layer-scale")  # the classic recipe; the modern one, which mixes and erases by timm
# Prints each stage with the moment of its end.
STAGES = """
import sys, time
def ended(stage): print(stage, time.time())
def told(stage, function):
    def call(*arguments, **named):
        result = function(*arguments, **named)
        ended(stage)
        return result
    return call
ended("interpreter")
from roadmap.study.selection import ladder
from roadmap.record.folder import Run
from roadmap.study.schema import load_study
study = load_study()
(rung,) = ladder("pico", sys.argv[1])
run = Run("pico", rung.name, rung.experiment, "digits", study.dataset("digits"), 0, "paper")
ended("study")
import torch
ended("torch")
import torch._dynamo
ended("compiler")
from pathlib import Path
from runner import engine
ended("runner")
engine.write_manifest = told("record", engine.write_manifest)
engine.load_data = told("data", engine.load_data)
engine.EvaluationBatches = told("augmentation", engine.EvaluationBatches)
engine.TrainState = told("network", engine.TrainState)
def hear(event):
    ended("step")
    sys.stdout.flush()
    import os
    os._exit(0)
engine.train(run, Path(sys.argv[2]), study.execution, 1, report=hear)
"""


def peer(code: str) -> float:
    began = time.perf_counter()
    subprocess.run([sys.executable, "-c", code], check=True)
    return time.perf_counter() - began


def stages(rung: str) -> dict[str, float]:
    """Seconds by stage, in order."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.time()
        command = [sys.executable, "-c", STAGES, rung, folder]
        printed = subprocess.run(command, capture_output=True, text=True, check=True).stdout
    found = {}
    for stage, moment in re.findall(r"^(\w+) ([\d.]+)$", printed, flags=re.MULTILINE):
        found[stage] = float(moment) - began
        began = float(moment)
    return found


def command(rung: str) -> float:
    """Until `roadmap run` has its first step on record."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        asked = [sys.executable, "-m", "roadmap", "run", "--steps", rung]
        with subprocess.Popen(asked, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL) as process:
            while process.poll() is None and not any(map(has_stepped, Path(folder).rglob("place.json"))):
                time.sleep(0.005)
            took = time.perf_counter() - began
            process.terminate()
        return took


def has_stepped(place: Path) -> bool:
    content = place.read_text()
    return bool(content) and json.loads(content)["step"] > 0


def imports(modules: str) -> Counter[str]:
    """Milliseconds of importing, by package, what a package imports of others apart."""
    timing = [sys.executable, "-X", "importtime", "-c", f"import {modules}"]
    printed = subprocess.run(timing, capture_output=True, text=True, check=True).stderr
    found: Counter[str] = Counter()
    for microseconds, package in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\w+)", printed, flags=re.MULTILINE):
        found[package if package not in sys.stdlib_module_names else "standard library"] += int(microseconds) / 1e3
    return found


def median(rows: list[dict[str, float]]) -> dict[str, float]:
    return {key: statistics.median(row[key] for row in rows) for key in rows[0]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    peers, by_stage, whole = [], {rung: [] for rung in RUNGS}, {rung: [] for rung in RUNGS}
    for _ in range(rounds):
        peers.append({name: peer(code) for name, code in PEERS.items()})
        for rung in RUNGS:
            by_stage[rung].append(stages(rung))
            whole[rung].append({"command": command(rung)})
    print(f"seconds, medians of {rounds} alternating rounds")
    for name, seconds in median(peers).items():
        print(f"{seconds:6.2f}  {name}")
    for rung in RUNGS:
        found = median(by_stage[rung])
        print(f"{rung}: " + ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in found.items()))
        sums = {"one process": [sum(row.values()) for row in by_stage[rung]]}
        sums["roadmap run"] = [row["command"] for row in whole[rung]]
        for name, took in sums.items():
            ratios = [
                f"{statistics.median(our / its[key] for our, its in zip(took, peers, strict=True)):.2f} of {key}"
                for key in PEERS
            ]
            print(f"{statistics.median(took):6.2f}  {name} to its first step; {', '.join(ratios)}")
    for rung, modules in zip(
        RUNGS, ("runner.train.engine, torch._dynamo", "runner.train.engine, runner.data.transforms"), strict=True
    ):
        found = imports(modules)
        largest = ", ".join(f"{package} {took:.0f}" for package, took in found.most_common(8))
        print(f"imports of {rung}, ms: {found.total():.0f}, of which {largest}")


if __name__ == "__main__":
    main()
