"""Two processes train one transfer, and evaluate each image once between them."""

from __future__ import annotations

import json

import pytest

from roadmap.cli import main
from roadmap.progress import shown
from runner.data.dense.exported import export_scenes
from tests.helpers.command import run_here
from tests.helpers.transfers import few_scenes

METRIC = {"detection": "box_ap", "segmentation": "miou"}


@pytest.mark.slow
@pytest.mark.parametrize(("task", "data"), [("detection", "objects"), ("segmentation", "regions")])
def test_two_processes_give_what_one_finds_in_their_network(task, data, tmp_path, monkeypatch, capsys):
    few_scenes(monkeypatch)
    with shown(False):
        export_scenes(tmp_path / "scenes", lambda done, total: None)
    settings = ["recipe.epochs=2", "recipe.batch_size=4", "recipe.warmup_steps=0", "execution.processes=2"]
    settings += ["transfer.score_threshold=0.0"] if task == "detection" else []
    changes = [part for setting in settings for part in ("--set", setting)]
    chosen = ["transfer", "pico", "--to", task, "--from", "scratch", "--data", f"scenes/{data}", *changes]
    done = run_here(*chosen, cwd=tmp_path)
    assert done.status == 0, done.err
    (folder,) = (tmp_path / "runs" / "pico").glob(f"pico-{task}-scratch-s0-*")
    assert "processes=2" in (folder / "log.txt").read_text()
    recorded = json.loads((folder / "result.json").read_text())
    monkeypatch.chdir(tmp_path)
    assert main(["evaluate", str(folder), "--json"]) == 0
    alone = json.loads(capsys.readouterr().out)
    assert alone["skipped_images"] == 0
    for name in (METRIC[task], "box_ar100" if task == "detection" else "pixel_accuracy"):
        assert alone[name] == pytest.approx(recorded[name], abs=1e-6), name
