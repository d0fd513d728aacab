"""The main job: every rung of the roadmap trained on real scans, and the figure drawn."""

from __future__ import annotations

import pytest

import roadmap
from roadmap.files import read_json
from tests.helpers.command import run_apart

# Three of their four epochs, which are enough to see that all of them learn: chance is at 10 %.
SHORT = ["--set", "recipe.epochs=3", "--set", "recipe.warmup_epochs=1", "--set", "recipe.decay_epochs=2"]


@pytest.mark.slow
def test_every_rung_learns_and_the_second_time_trains_nothing(tmp_path):
    command = ["run", "--seeds", "1", "--steps", "all", *SHORT]
    first = run_apart(*command, cwd=tmp_path)
    assert first.status == 0, first.out + first.err
    results = {path.parent.name.rsplit("-s0-")[0]: read_json(path) for path in tmp_path.rglob("result.json")}
    assert set(results) == {rung.name for rung in roadmap.ladder("pico")}
    weak = {name: result["top1"] for name, result in results.items() if result["top1"] < 40}
    assert not weak, weak
    assert {path.suffix for path in tmp_path.glob("runs/roadmap-pico-*")} == {".png", ".svg"}
    again = run_apart(*command, cwd=tmp_path)
    assert again.status == 0 and "18 finished already; nothing to train" in again.out
