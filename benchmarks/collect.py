"""Collecting runs into one table, against bare reading of their JSON: 1,000, 3,000 and 10,000 runs of 300 epochs.

    python benchmarks/collect.py [FOLDER]       about 1.2 GB in FOLDER (default: the system's for temporary files)

Each measurement is in a new process; imports are timed separately. The files were just written: the disk is warm.
"""

from __future__ import annotations

import json
import statistics
import subprocess
import sys
import tempfile
from dataclasses import replace
from pathlib import Path

from roadmap.record.folder import write_manifest
from roadmap.record.run import Run
from roadmap.study.load import load_study
from roadmap.study.selection import ladder

COUNTS = (1_000, 3_000, 10_000)
NEW = 10
ROUNDS = 3
SEEDS, EPOCHS = 3, 300
LIMITS = "limits: 5 s and 1 GiB for 10,000 runs, 0.5 s for another collection with 10 new ones"

OURS = """
import resource, sys, time
began = time.perf_counter()
from pathlib import Path
from analysis.collection import collect
imported = time.perf_counter()
table = collect(Path(sys.argv[1]))
ended = time.perf_counter()
print(len(table), imported - began, ended - imported, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss / 1024)
"""
BARE = """
import json, sys, time
from pathlib import Path
began = time.perf_counter()
count = 0
for path in sorted(Path(sys.argv[1]).glob("*/*/manifest.json")):
    json.loads(path.read_text()), json.loads((path.parent / "result.json").read_text())
    count += 1
print(count, 0.0, time.perf_counter() - began, 0.0)
"""


def main() -> None:
    parent = sys.argv[1] if len(sys.argv) > 1 else None
    with tempfile.TemporaryDirectory(prefix="roadmap-collect-", dir=parent) as folder:
        out, made = Path(folder), 0
        print(f"medians of {ROUNDS} rounds, seconds; imports (pandas) are separate; {LIMITS}")
        print("  runs   first  a 1,000  bare JSON  ratio   again  imports  peak MiB")
        for count in COUNTS:
            make_runs(out, made, count)
            made = count + NEW * ROUNDS
            first, again, bare = [], [], []
            for i in range(ROUNDS):
                (out / ".collected.jsonl").unlink(missing_ok=True)
                first.append(measure(OURS, out))
                bare.append(measure(BARE, out))
                make_runs(out, count + NEW * i, count + NEW * (i + 1))
                again.append(measure(OURS, out))
            seconds, peer, second, imports = (
                statistics.median(measured[2 if i < 3 else 1] for measured in rounds)
                for i, rounds in enumerate((first, bare, again, first))
            )
            peak = max(measured[3] for measured in (*first, *again))
            print(
                f"{count:>6}  {seconds:6.2f}  {seconds / count * 1000:7.3f}  {peer:9.2f}  {seconds / peer:5.2f}  "
                f"{second:6.2f}  {imports:7.2f}  {peak:8.0f}",
                flush=True,
            )


def make_runs(out: Path, start: int, stop: int) -> None:
    """Finished runs number `start` to `stop`, three seeds of each experiment."""
    study = load_study()
    rungs = ladder("pico")
    epochs = "".join(json.dumps(_epoch(number)) + "\n" for number in range(1, EPOCHS + 1))
    for number in range(start, stop):
        experiment, seed = divmod(number, SEEDS)
        rung = rungs[experiment % len(rungs)]
        recipe = replace(rung.experiment.recipe, weight_decay=0.01 + 1e-6 * experiment)
        chosen = replace(rung.experiment, recipe=recipe)
        run = Run("pico", rung.name, chosen, "digits", study.dataset("digits"), seed, "paper")
        folder = out / f"{run.name}-{run.identity}"
        folder.mkdir(parents=True)
        manifest = {"execution": {"processes": 1, "threads": 1}, "machine": {"host": "n1", "gpu": None}}
        manifest |= {"versions": {"torch": "2.14.1"}, "code": {"commit": "0" * 40, "modified": False}}
        write_manifest(folder, run, **manifest)
        result = _epoch(EPOCHS) | {"format": 1, "identity": run.identity, "epochs": EPOCHS, "parameters": 1, "macs": 1}
        (folder / "metrics.jsonl").write_text(epochs)
        (folder / "result.json").write_text(json.dumps(result | {"restarts": 0, "lost_steps": 0}, indent=2))


def _epoch(number: int) -> dict[str, float]:
    row = {"epoch": number, "train_loss": 2.0 / number, "test_loss": 2.1 / number, "top1": 90.0, "top5": 99.0}
    rates = {"learning_rate": 0.004, "images_per_second": 1234.5678901, "peak_memory_bytes": 534585344}
    return row | rates | {"skipped_images": 0, "seconds": 0.71474396}


def measure(code: str, out: Path) -> list[float]:
    """The number of runs, seconds of imports, seconds of the rest, peak MiB."""
    done = subprocess.run([sys.executable, "-c", code, str(out)], capture_output=True, text=True, check=True)
    return [float(word) for word in done.stdout.split()]


if __name__ == "__main__":
    main()
