"""The main job, whole: every rung of the roadmap trained on real scans, and the figure drawn."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest

import roadmap


@pytest.mark.slow
def test_every_rung_learns_and_the_second_time_trains_nothing(tmp_path):
    command = [sys.executable, "-m", "roadmap", "run", "--steps", "all"]
    first = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert first.returncode == 0, first.stdout + first.stderr
    results = {
        path.parent.name.rsplit("-s0-")[0]: json.loads(path.read_text()) for path in tmp_path.rglob("result.json")
    }
    assert set(results) == {rung.name for rung in roadmap.ladder("pico")}
    weak = {name: result["top1"] for name, result in results.items() if result["top1"] < 90}
    assert not weak, weak
    assert (tmp_path / "runs/roadmap-pico.png").exists() and (tmp_path / "runs/roadmap-pico.svg").exists()
    again = subprocess.run(command, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert again.returncode == 0 and "18 finished already; nothing to train" in again.stdout
