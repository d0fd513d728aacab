"""The verbs that only read the study, against `python -c "import yaml"`, which reading the study needs at least.

    python benchmarks/commands.py [--rounds 7]

Each time is that of a new process, from its start to its end; the peer is measured in every round too. Two more columns
are colder: a first start without compiled bytecode, and one whose files are not in the page cache, as after a boot
(Linux: by posix_fadvise, which drops no other files).
"""

from __future__ import annotations

import argparse
import os
import statistics
import subprocess
import sys
import sysconfig
import tempfile
import time
from pathlib import Path

import yaml

import analysis
import roadmap

VERBS = (
    "--help",
    "list",
    "list --regime resnet-50",
    "show layer-norm --regime resnet-50",
    "diff fewer-norms layer-norm",
    "cost",
    "cost --regime resnet-200 --gpus 8",
    "run --dry-run",
    "run --dry-run --regime resnet-50 --seeds 3",
)
PEER = [sys.executable, "-c", "import yaml"]
COMMAND = [sys.executable, "-m", "roadmap"]
LIMIT = 0.3  # seconds
HEAVY = {"torch", "torchvision", "timm", "numpy", "pandas", "scipy", "matplotlib", "PIL", "submitit", "rich", "jinja2"}
ROOTS = [Path(module.__file__).parent for module in (roadmap, analysis, yaml)]


def timed(command: list[str], folder: str, environment: dict[str, str] | None = None) -> float:
    began = time.perf_counter()
    subprocess.run(command, cwd=folder, env=environment, stdout=subprocess.DEVNULL, check=True)
    return time.perf_counter() - began


def without_bytecode(command: list[str], folder: str) -> float:
    with tempfile.TemporaryDirectory() as empty:
        return timed(command, folder, {**os.environ, "PYTHONPYCACHEPREFIX": empty})


def from_the_disk(command: list[str], folder: str) -> float:
    standard = Path(sysconfig.get_path("stdlib"))
    files = [path for root in ROOTS for path in root.rglob("*") if path.is_file()]
    files += [path for path in standard.rglob("*") if path.is_file() and "site-packages" not in path.parts]
    for path in (*files, Path(sys.executable).resolve()):
        opened = os.open(path, os.O_RDONLY)
        os.posix_fadvise(opened, 0, 0, os.POSIX_FADV_DONTNEED)
        os.close(opened)
    return timed(command, folder)


def imported(command: list[str], folder: str) -> set[str]:
    """Every module that a command imports, by its full name."""
    timing = [command[0], "-X", "importtime", *command[1:]]
    done = subprocess.run(timing, cwd=folder, capture_output=True, text=True, check=True)
    lines = [line for line in done.stderr.splitlines() if line.startswith("import time:")]
    return {line.rpartition("|")[2].strip() for line in lines[1:]}


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=7)
    rounds = parser.parse_args().rounds
    print(f"seconds, medians of {rounds} alternating rounds; limit {LIMIT} s, of list also 1.5 x peer + 0.1 s")
    print(" peer  roadmap  ratio  limit  no bytecode  from the disk  modules  command")
    with tempfile.TemporaryDirectory() as folder:
        for verb in VERBS:
            command = [*COMMAND, *verb.split()]
            pairs = [(timed(PEER, folder), timed(command, folder)) for _ in range(rounds)]
            peer, ours = (statistics.median(column) for column in zip(*pairs, strict=True))
            ratio = statistics.median(our / their for their, our in pairs)
            limit = min(LIMIT, 1.5 * peer + 0.1) if verb.startswith("list") else LIMIT
            colder = [
                statistics.median(run(command, folder) for _ in range(3)) for run in (without_bytecode, from_the_disk)
            ]
            modules = imported(command, folder)
            heavy = HEAVY & {name.split(".")[0] for name in modules}
            remark = ("  above the limit" if ours > limit else "") + (f"  imports {sorted(heavy)}" if heavy else "")
            print(
                f"{peer:5.3f}  {ours:7.3f}  {ratio:5.2f}  {limit:5.3f}  {colder[0]:11.3f}  {colder[1]:13.3f}  "
                f"{len(modules):7}  {verb}{remark}",
                flush=True,
            )


if __name__ == "__main__":
    main()
