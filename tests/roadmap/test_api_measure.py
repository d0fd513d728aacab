"""`roadmap`'s functions that count, estimate, measure, evaluate, export and pack."""

from __future__ import annotations

import json

import pytest

import roadmap
from roadmap.cli import main
from roadmap.record.benchmarks import read_rounds
from roadmap.study.selection import ladder
from tests.helpers.command import run_here
from tests.helpers.images import make_folder
from tests.helpers.once import once

SHORT = ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0"]
QUICK = {"rounds": 1, "warm_up": 0, "seconds": 0.001}


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.fixture(scope="module")
def runs():
    def fill(folder):
        done = run_here("run", "--seeds", "1", "--steps", "pico", "--out", folder, *SHORT)
        assert done, done.err

    return once("runs-of-the-api", fill)


def test_rungs_are_those_of_the_list_as_a_table(capsys):
    table = roadmap.rungs(regime="resnet-50")
    assert main(["list", "--regime", "resnet-50", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    for name in ("name", "title", "group", "adopted", "parameters", "macs"):
        assert list(table[name]) == [record[name] for record in records]
    by_name = table.set_index("name")
    assert by_name.loc["recipe", "published_top1"] == 78.82 and by_name.loc["layer-norm", "published_gmacs"] == 4.46
    assert list(roadmap.rungs(regime="pico", steps="gelu", references="swin-t").name) == ["gelu", "swin-t"]


def test_an_estimate_is_that_of_the_cost_verb(capsys):
    estimate = roadmap.estimate(regime="resnet-50", steps="recipe..gelu", throughput=1e13, seeds=2, gpus=4)
    chosen = ["--regime", "resnet-50", "--steps", "recipe..gelu", "--throughput", "1e13", "--seeds", "2"]
    assert main(["cost", *chosen, "--json"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert estimate.device_hours == record["total_device_hours"] and estimate.source == record["device"]
    assert {row.rung.name: row.device_hours for row in estimate.rungs} == record["device_hours"]
    assert estimate.seconds(8.0) == 2 * 3600
    with pytest.raises(ValueError, match=r"gpus must be at least 1 \(got 0\)"):
        roadmap.estimate(gpus=0)


def test_a_rung_that_is_the_same_experiment_costs_nothing():
    same = roadmap.estimate(steps="kernel-size-7,kernel-size=7", throughput=1e13)
    other = roadmap.estimate(steps="kernel-size-7", throughput=1e13)
    assert same.device_hours == other.device_hours > 0


def test_show_and_diff_give_values_and_drawings(tmp_path):
    (gelu,) = ladder("pico", "gelu")
    assert roadmap.show("gelu").experiment == gelu.experiment
    assert roadmap.show("gelu", settings={"recipe.epochs": 7}).experiment.recipe.epochs == 7
    roadmap.show("gelu", output=tmp_path / "gelu.svg")
    assert "GELU" in (tmp_path / "gelu.svg").read_text()
    differences = roadmap.diff("kernel-size-7", "gelu", output=[tmp_path / "both.svg"])
    assert "kernel-size-7" in (tmp_path / "both.svg").read_text()
    assert {(str(each.before), str(each.after)) for each in differences} == {("relu", "gelu")}
    with pytest.raises(ValueError, match="steps applies only to functions for several rungs"):
        roadmap.show("gelu", steps="all")


def test_bench_returns_a_row_for_each_rung_and_keeps_the_rounds(tmp_path):
    table = roadmap.bench(steps="recipe,layer-scale", batch=4, only="inference", output=tmp_path / "b.svg", **QUICK)
    assert "images/s in inference" in (tmp_path / "b.svg").read_text()
    assert list(table.rung) == ["recipe", "layer-scale"] and (table.inference_images_per_second > 0).all()
    assert table.training_images_per_second.isna().all()
    assert [each.rung for each in read_rounds(tmp_path / "runs")] == ["recipe", "layer-scale"]
    with pytest.raises(ValueError, match="does not apply to bench networks"):
        roadmap.bench(settings=["execution.workers=4"])
    with pytest.raises(ValueError, match=r"rounds must be at least 1 \(got 0\)"):
        roadmap.bench(rounds=0)


def test_bench_warns_of_a_network_that_fails():
    """Batch norm in training takes more than one value of a channel."""
    with pytest.warns(UserWarning, match="pico failed: Expected more than 1 value per channel"):
        table = roadmap.bench(steps="pico", batch=1, only="training", settings="recipe.image_size=16", **QUICK)
    assert table.empty


def test_bench_data_counts_the_workers_that_a_device_needs():
    times = roadmap.bench_data(rounds=1, seconds=0.001, rate=1e6)
    assert times.total == pytest.approx(sum(times.stages.values())) and times.workers_needed >= 1e6 * times.worker
    assert roadmap.bench_data(rounds=1, seconds=0.001).workers_needed is None


def test_a_run_is_evaluated_and_exported(runs, tmp_path):
    (folder,) = runs.glob("pico/pico-s0-*")
    result = json.loads((folder / "result.json").read_text())
    table = roadmap.evaluate("pico-s0", folder, out=runs)
    assert list(table.run) == ["pico/pico-s0"] * 2 and list(table.top1) == pytest.approx([result["top1"]] * 2)
    path = roadmap.export("pico-s0", out=runs, output=tmp_path / "new" / "network.safetensors")
    assert path == tmp_path / "new" / "network.safetensors" and path.stat().st_size > 1e5
    with pytest.raises(ValueError, match="--regime requires --state-dict"):
        roadmap.evaluate("pico-s0", out=runs, regime="pico")
    with pytest.raises(ValueError, match="no run is called 'gelu-s0'"):
        roadmap.export("gelu-s0", out=runs)


def test_a_folder_is_packed_and_its_damage_found(tmp_path):
    pytest.importorskip("pyarrow")
    source = make_folder(tmp_path / "images")
    index = roadmap.pack(source, tmp_path / "packed", jobs=1)
    assert index.images == sum(path.is_file() for path in source.rglob("*"))
    assert roadmap.check_packed(tmp_path / "packed") == []
    (shard, *_) = sorted((tmp_path / "packed").glob("*.arrow"))
    with shard.open("r+b") as file:
        file.truncate(shard.stat().st_size - 1)
    (damage, *_) = roadmap.check_packed(tmp_path / "packed")
    assert shard.name in damage
    with pytest.raises(ValueError, match="quality requires resize"):
        roadmap.pack(source, tmp_path / "other", quality=80)
    with pytest.raises(ValueError, match="is not a packed data set"):
        roadmap.check_packed(source)
