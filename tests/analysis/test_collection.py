"""Run folders as one table: one row each, none dropped, and read again only after a change."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pandas as pd
import pytest

from analysis.collection import CACHE, collect, columns, write_table
from roadmap.files import write_json
from roadmap.record.folder import write_divergences
from roadmap.record.results import Divergence
from roadmap.record.run import Run, find_run
from runner.launch.named import run_named
from runner.launch.status import collect_status
from tests.helpers.command import run_here
from tests.helpers.records import ENVIRONMENT, append_row, begin, epoch_row, finish


def test_a_row_has_a_runs_results(make_run, tmp_path):
    run = make_run("gelu", seed=3)
    folder = finish(run, tmp_path, 91.5, ema_top1=92.0)
    table = collect(tmp_path)
    assert list(table.columns) == columns() and len(table) == 1
    row = table.iloc[0]
    expected = {"regime": "pico", "rung": "gelu", "seed": 3, "state": "finished", "top1": 91.5, "ema_top1": 92.0}
    expected |= {"device": "CPU cores", "devices": 6, "device_hours": 0.1, "torch": "2.14.1", "modified": False}
    expected |= {"identity": run.written_identity, "experiment": replace(run, seed=0).written_identity}
    expected |= {"folder": folder.relative_to(tmp_path).as_posix()}
    assert {key: row[key] for key in expected} == expected
    assert pd.isna(row["top5"]) and pd.isna(row["why"])


def test_seeds_have_rows_and_share_an_experiment(make_run, tmp_path):
    for seed in range(3):
        finish(make_run("gelu", seed=seed), tmp_path)
    finish(make_run("gelu", epochs=5), tmp_path)
    table = collect(tmp_path)
    assert sorted(table["seed"]) == [0, 0, 1, 2]
    assert sorted(table.groupby("experiment").size()) == [1, 3]


def test_unfinished_runs_are_listed_with_their_reasons(make_run, tmp_path):
    begun, diverged, moved = make_run("gelu"), make_run("recipe"), make_run("width")
    begin(begun, tmp_path, epochs=1)
    begin(diverged, tmp_path)
    write_divergences(diverged.folder(tmp_path), [Divergence(2, 3, 0.004, "nan", "stages.1")])
    folder = finish(moved, tmp_path)
    folder.rename(folder.with_name("width-s0-0123456789ab"))
    edited = finish(make_run("layer-norm"), tmp_path)
    manifest = json.loads((edited / "manifest.json").read_text())
    manifest["run"]["experiment"]["recipe"]["epochs"] = 99
    write_json(edited / "manifest.json", manifest)
    broken = finish(make_run("pico"), tmp_path)
    (broken / "result.json").write_text("{")
    (tmp_path / "pico" / "notes").mkdir()
    (tmp_path / "pico" / ".hidden").mkdir()
    table = collect(tmp_path).set_index("folder")
    states = {name.split("/")[1].split("-s0")[0]: (row["state"], row["why"]) for name, row in table.iterrows()}
    assert states["gelu"] == ("begun", "epoch 1 of 2 is done")
    assert states["recipe"][0] == "diverged" and "the loss is nan in epoch 2, step 3" in states["recipe"][1]
    assert states["notes"] == ("foreign", "no manifest.json")
    assert states["width"][0] == "foreign" and "as its name says" in states["width"][1]
    assert states["layer-norm"][0] == "foreign" and "than its manifest.json says" in states["layer-norm"][1]
    assert states["pico"][0] == "foreign" and "not valid JSON" in states["pico"][1]
    assert len(states) == 6


def test_a_result_without_pace_and_memory_has_them_from_its_epochs(make_run, tmp_path):
    run = make_run("gelu")
    folder = finish(run, tmp_path)
    for number in (1, 2):
        append_row(folder, epoch_row(number))
    write_json(folder / "result.json", {"identity": run.identity, "top1": 90.0, "seconds": 60.0})
    row = collect(tmp_path).iloc[0]
    assert (row["images_per_second"], row["peak_memory_bytes"], row["train_loss"]) == (150.0, 2000, 1.0)
    assert row["top1"] == 90.0  # from the result itself


def test_a_second_collection_reads_only_changes(make_run, tmp_path):
    runs = [make_run("gelu", seed=seed) for seed in range(4)]
    folders = [finish(run, tmp_path) for run in runs[:3]]
    first = collect(tmp_path)
    # The cache is used: a change that leaves the time stamps unchanged is not noticed.
    stamps = os.stat(folders[0] / "result.json")
    text = (folders[0] / "result.json").read_text()
    (folders[0] / "result.json").write_text(text.replace("90.0", "10.0"))
    os.utime(folders[0] / "result.json", ns=(stamps.st_atime_ns, stamps.st_mtime_ns))
    pd.testing.assert_frame_equal(collect(tmp_path), first)
    finish(runs[1], tmp_path, 50.25)
    finish(runs[3], tmp_path, 60.5)
    assert list(collect(tmp_path)["top1"]) == [90.0, 50.25, 90.0, 60.5]
    (tmp_path / CACHE).unlink()
    assert list(collect(tmp_path)["top1"]) == [10.0, 50.25, 90.0, 60.5]


@pytest.mark.parametrize("damage", [b"", b"\n", b"not json\n", b'{"format": 0}\n', b"\xff\xfe\n", b"[[1], {}]\n"])
def test_a_damaged_cache_changes_nothing(make_run, tmp_path, damage):
    for seed in range(3):
        finish(make_run("gelu", seed=seed), tmp_path)
    expected = collect(tmp_path)
    whole = (tmp_path / CACHE).read_bytes()
    for content in (damage, whole + damage, whole[:-10], damage + whole):
        (tmp_path / CACHE).write_bytes(content)
        pd.testing.assert_frame_equal(collect(tmp_path), expected)
        finish(make_run("gelu", seed=2), tmp_path)  # a new time stamp, so a line is added
        pd.testing.assert_frame_equal(collect(tmp_path), expected)
        pd.testing.assert_frame_equal(collect(tmp_path), expected)


def test_a_removed_folder_is_not_in_the_table(make_run, tmp_path):
    import shutil

    folders = [finish(make_run("gelu", seed=seed), tmp_path) for seed in range(3)]
    collect(tmp_path)
    shutil.rmtree(folders[1])
    assert list(collect(tmp_path)["seed"]) == [0, 2]


def test_tables_are_written_and_read_back(make_run, tmp_path):
    finish(make_run("gelu"), tmp_path / "runs")
    begin(make_run("recipe"), tmp_path / "runs")
    table = collect(tmp_path / "runs")
    write_table(table, tmp_path / "deep" / "runs.csv")
    write_table(table, tmp_path / "runs.parquet")
    assert list(pd.read_csv(tmp_path / "deep" / "runs.csv")["rung"]) == ["gelu", "recipe"]
    read = pd.read_parquet(tmp_path / "runs.parquet")
    assert read["top1"].to_list()[0] == 90.0 and read["seed"].to_list() == [0, 0]
    with pytest.raises(ValueError, match=r"\.csv or \.parquet"):
        write_table(table, tmp_path / "runs.xlsx")
    with pytest.raises(ValueError, match="no such folder"):
        collect(tmp_path / "nothing")


def test_an_empty_folder_has_an_empty_table(tmp_path):
    assert len(collect(tmp_path)) == 0 and list(collect(tmp_path).columns) == columns()


@pytest.mark.parametrize(
    "damage",
    [
        {"top5": ["1"]},
        {"top5": "high"},
        {"restarts": 0.5},
        {"peak_memory_bytes": 10**30},
        {"epochs": True},
        {"finished": 7},
        {"top1": float("nan")},
        {"test_loss": 1e308},
        {"execution": {"processes": "2"}},
        {"code": {"modified": "yes"}},
        {"machine": {"gpu": 3}},
    ],
)
def test_a_damaged_folder_does_not_spoil_the_others(make_run, tmp_path, damage):
    finish(make_run("gelu"), tmp_path)
    folder = finish(make_run("recipe"), tmp_path)
    in_manifest = damage.keys() & {*ENVIRONMENT, "machine"}
    name, message = ("manifest.json", "is not valid") if in_manifest else ("result.json", ", not ")
    write_json(folder / name, json.loads((folder / name).read_text()) | damage)
    table = collect(tmp_path).set_index("folder")
    assert list(table["state"]) == ["finished", "foreign"]
    assert str(folder) in table["why"].iloc[1] and message in table["why"].iloc[1]


def test_the_cache_drops_repeated_lines(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.collection.SLACK", 0)
    for seed in range(3):
        finish(make_run("gelu", seed=seed), tmp_path)
    expected = collect(tmp_path)
    head, *lines = (tmp_path / CACHE).read_text().splitlines(keepends=True)
    (tmp_path / CACHE).write_text("".join([head, *lines * 5]))
    pd.testing.assert_frame_equal(collect(tmp_path), expected)
    assert len((tmp_path / CACHE).read_text().splitlines()) == 4


def test_broken_links_and_invalid_text_do_not_spoil_the_table(make_run, tmp_path):
    finish(make_run("gelu"), tmp_path)
    (tmp_path / "pico" / "loop").symlink_to(tmp_path / "pico" / "loop")
    begun = make_run("recipe")
    begin(begun, tmp_path)
    (begun.folder(tmp_path) / "metrics.jsonl").write_bytes(bytes(range(128, 256)) + b"\n")
    table = collect(tmp_path)
    assert list(table["state"]) == ["finished", "foreign"] and "metrics.jsonl, line 1" in table["why"].iloc[1]


@pytest.mark.parametrize("identity", ["19070e908203", "000000000001", "123456789012"])
def test_an_identity_is_text_to_whatever_reads_the_table(make_run, tmp_path, monkeypatch, identity):
    """As a number 19070e908203 is infinity."""
    run = make_run("gelu")
    monkeypatch.setattr(Run, "identity", identity)
    folder = finish(run, tmp_path)
    table = collect(tmp_path)
    write_table(table, tmp_path / "runs.csv")
    (row,) = pd.read_csv(tmp_path / "runs.csv").to_dict("records")
    written = row["identity"]
    assert written == row["experiment"] == table["identity"].item() and written.endswith(identity)
    assert find_run(written, tmp_path) == find_run(identity, tmp_path) == folder
    (status,) = collect_status(tmp_path).runs
    assert run_named([status], written) == run_named([status], identity) == status
    assert status.record()["identity"] == written
    assert run_here("logs", written, "--out", tmp_path).err.startswith("roadmap logs: pico/gelu-s0 has no log yet")
