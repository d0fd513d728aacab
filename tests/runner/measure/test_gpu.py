"""scripts/gpu, which is for machines with little installed, does on a CPU whatever can be done there."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

# What comes with torch, timm, torchvision and OpenCV on a machine where nothing can be installed.
ABSENT = ("submitit", "sklearn", "scipy", "pandas", "matplotlib", "jinja2", "rich", "pycocotools", "argcomplete")
BLOCKED = """
import sys, runpy
sys.modules.update(dict.fromkeys({absent!r}))  # as if they were not installed
sys.path.insert(0, "benchmarks")
sys.argv = ["gpu.py", *{options!r}]
runpy.run_path("benchmarks/gpu.py", run_name="__main__")
"""


def run(absent, *options):
    code = BLOCKED.format(absent=absent, options=[*map(str, options)])
    return subprocess.run([sys.executable, "-c", code], capture_output=True, text=True)


@pytest.mark.slow
def test_it_needs_little_and_reports_every_check(tmp_path):
    done = run(
        ABSENT,
        "--device",
        "cpu",
        "--only",
        "machine,exact,nccl,waiting,jpegs",
        "-o",
        tmp_path / "gpu.json",
    )
    assert done.returncode == 0, done.stdout + done.stderr
    rows = json.loads((tmp_path / "gpu.json").read_text())
    found = {(row["check"], row["what"]): row for row in rows}
    assert found["exact", "stopped, resumed, cudnn.benchmark false"]["result"] == "the same bits"
    assert found["exact", "killed, resumed, cudnn.benchmark false"]["result"] == "the same bits"
    speeds = [row for row in rows if row["check"] == "JPEGs"]
    assert all(row["ratio"] > 0 for row in speeds)
    assert [row["peer"].split(",")[0] for row in speeds] == ["torchvision", "timm"] * 2
    assert "not on a CPU" in found["processes", "NCCL with one rank"]["result"]


def test_a_check_that_fails_is_a_row_and_the_others_go_on(tmp_path):
    done = run(("cv2",), "--device", "cpu", "--only", "jpegs,machine", "-o", tmp_path / "gpu.json")
    assert done.returncode == 1 and "failed: jpegs" in done.stdout
    rows = json.loads((tmp_path / "gpu.json").read_text())
    assert rows[0]["failed"] and "cv2" in rows[0]["result"] and rows[-1]["check"] == "machine"


def test_wrong_options_are_one_sentence(tmp_path):
    done = run((), "--only", "speed")
    assert done.returncode == 2 and "--only: unknown speed; one of machine, precision" in done.stderr
    assert run((), "--device", "cuda").returncode == 2
