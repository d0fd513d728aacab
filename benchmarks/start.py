"""The start of a run, from the start of its process to the first step: seconds by stage.

    python benchmarks/start.py [--rounds 5]

Compared with `import torch`, and with creating an optimizer too, for which torch imports its compiler: every training
needs both. The stages are those of a single process; `roadmap run` also has a launcher and a fork server. At the end
the time of the imports of such a process, by package.
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
RUNGS = ("pico", "layer-scale")  # the classic recipe; the modern one
# Prints the time of the end of each stage.
STAGES = """
import sys, time
def ended(stage): print(stage, time.time())
def timed(stage, function):
    def call(*arguments, **named):
        result = function(*arguments, **named)
        ended(stage)
        return result
    return call
ended("interpreter")
from roadmap.study.selection import ladder
from roadmap.record.run import Run
from roadmap.study.load import load_study
study = load_study()
(rung,) = ladder("pico", sys.argv[1])
run = Run("pico", rung.name, rung.experiment, "digits", study.dataset("digits"), 0, "paper")
ended("study")
import torch
ended("torch")
import torch._dynamo
ended("compiler")
from pathlib import Path
from runner.train import engine, training
from runner.train.tasks import classification
ended("runner")
engine.write_manifest = timed("record", engine.write_manifest)
training.load_data = timed("data", training.load_data)
classification.EvaluationBatches = timed("augmentation", classification.EvaluationBatches)
training.TrainState = timed("network", training.TrainState)
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
    seconds = {}
    for stage, moment in re.findall(r"^(\w+) ([\d.]+)$", printed, flags=re.MULTILINE):
        seconds[stage] = float(moment) - began
        began = float(moment)
    return seconds


def command(rung: str) -> float:
    """Seconds until `roadmap run` has recorded its first step."""
    with tempfile.TemporaryDirectory() as folder:
        began = time.perf_counter()
        command_line = [sys.executable, "-m", "roadmap", "run", "--steps", rung]
        with subprocess.Popen(
            command_line, cwd=folder, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
        ) as process:
            while process.poll() is None and not any(map(has_stepped, Path(folder).rglob("place.json"))):
                time.sleep(0.005)
            took = time.perf_counter() - began
            process.terminate()
        return took


def has_stepped(place: Path) -> bool:
    content = place.read_text()
    return bool(content) and json.loads(content)["step"] > 0


def imports(modules: str) -> Counter[str]:
    """Milliseconds of imports, by package, each without the packages that it imports."""
    timing = [sys.executable, "-X", "importtime", "-c", f"import {modules}"]
    printed = subprocess.run(timing, capture_output=True, text=True, check=True).stderr
    milliseconds: Counter[str] = Counter()
    for microseconds, package in re.findall(r"^import time: +(\d+) \| +\d+ \| +(\w+)", printed, flags=re.MULTILINE):
        name = package if package not in sys.stdlib_module_names else "standard library"
        milliseconds[name] += int(microseconds) / 1e3
    return milliseconds


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
        medians = median(by_stage[rung])
        print(f"{rung}: " + ", ".join(f"{stage} {seconds:.2f}" for stage, seconds in medians.items()))
        sums = {"one process": [sum(row.values()) for row in by_stage[rung]]}
        sums["roadmap run"] = [row["command"] for row in whole[rung]]
        for name, took in sums.items():
            ratios = [
                f"{statistics.median(our / their[key] for our, their in zip(took, peers, strict=True)):.2f} of {key}"
                for key in PEERS
            ]
            print(f"{statistics.median(took):6.2f}  {name} to its first step; {', '.join(ratios)}")
    for rung, modules in zip(
        RUNGS, ("runner.train.engine, torch._dynamo", "runner.train.engine, runner.data.transforms"), strict=True
    ):
        milliseconds = imports(modules)
        largest = ", ".join(f"{package} {took:.0f}" for package, took in milliseconds.most_common(8))
        print(f"imports of {rung}, ms: {milliseconds.total():.0f}; the largest: {largest}")


if __name__ == "__main__":
    main()
