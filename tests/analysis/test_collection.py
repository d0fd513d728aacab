"""Run folders as one table: a row each, none dropped, and read again only where something changed."""

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
from tests.helpers.records import ENVIRONMENT, append_row, begin, epoch_row, finish


def test_a_row_says_what_a_run_came_to(make_run, tmp_path):
    run = make_run("gelu", seed=3)
    folder = finish(run, tmp_path, 91.5, ema_top1=92.0)
    table = collect(tmp_path)
    assert list(table.columns) == columns() and len(table) == 1
    row = table.iloc[0]
    said = {"regime": "pico", "rung": "gelu", "seed": 3, "state": "finished", "top1": 91.5, "ema_top1": 92.0}
    said |= {"device": "CPU cores", "devices": 6, "device_hours": 0.1, "torch": "2.14.1", "modified": False}
    said |= {"identity": run.identity, "experiment": replace(run, seed=0).identity}
    said |= {"folder": folder.relative_to(tmp_path).as_posix()}
    assert {key: row[key] for key in said} == said
    assert pd.isna(row["top5"]) and pd.isna(row["why"])


def test_seeds_are_apart_and_of_one_experiment(make_run, tmp_path):
    for seed in range(3):
        finish(make_run("gelu", seed=seed), tmp_path)
    finish(make_run("gelu", epochs=5), tmp_path)
    table = collect(tmp_path)
    assert sorted(table["seed"]) == [0, 0, 1, 2]
    assert sorted(table.groupby("experiment").size()) == [1, 3]


def test_what_is_not_finished_is_listed_with_its_reason(make_run, tmp_path):
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
    found = {name.split("/")[1].split("-s0")[0]: (row["state"], row["why"]) for name, row in table.iterrows()}
    assert found["gelu"] == ("begun", "epoch 1 of 2 is done")
    assert found["recipe"][0] == "diverged" and "the loss is nan in epoch 2, step 3" in found["recipe"][1]
    assert found["notes"] == ("foreign", "no manifest.json")
    assert found["width"][0] == "foreign" and "as its name says" in found["width"][1]
    assert found["layer-norm"][0] == "foreign" and "as its name says" in found["layer-norm"][1]
    assert found["pico"][0] == "foreign" and "not valid JSON" in found["pico"][1]
    assert len(found) == 6


def test_a_result_without_pace_and_memory_has_them_from_its_epochs(make_run, tmp_path):
    run = make_run("gelu")
    folder = finish(run, tmp_path)
    for number in (1, 2):
        append_row(folder, epoch_row(number))
    write_json(folder / "result.json", {"identity": run.identity, "top1": 90.0, "seconds": 60.0})
    row = collect(tmp_path).iloc[0]
    assert (row["images_per_second"], row["peak_memory_bytes"], row["train_loss"]) == (150.0, 2000, 1.0)
    assert row["top1"] == 90.0  # the result's own word counts


def test_another_collection_reads_only_what_changed(make_run, tmp_path):
    runs = [make_run("gelu", seed=seed) for seed in range(4)]
    folders = [finish(run, tmp_path) for run in runs[:3]]
    first = collect(tmp_path)
    # That the cache is believed: a change which its stamps can't show is not seen.
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


@pytest.mark.parametrize("harm", [b"", b"\n", b"not json\n", b'{"format": 0}\n', b"\xff\xfe\n", b"[[1], {}]\n"])
def test_a_harmed_cache_changes_nothing(make_run, tmp_path, harm):
    for seed in range(3):
        finish(make_run("gelu", seed=seed), tmp_path)
    expected = collect(tmp_path)
    whole = (tmp_path / CACHE).read_bytes()
    for content in (harm, whole + harm, whole[:-10], harm + whole):
        (tmp_path / CACHE).write_bytes(content)
        pd.testing.assert_frame_equal(collect(tmp_path), expected)
        finish(make_run("gelu", seed=2), tmp_path)  # a new stamp, so that a line is added
        pd.testing.assert_frame_equal(collect(tmp_path), expected)
        pd.testing.assert_frame_equal(collect(tmp_path), expected)


def test_a_folder_that_is_gone_is_gone_from_the_table(make_run, tmp_path):
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
    "harm",
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
def test_one_harmed_folder_does_not_spoil_the_others(make_run, tmp_path, harm):
    finish(make_run("gelu"), tmp_path)
    folder = finish(make_run("recipe"), tmp_path)
    in_manifest = harm.keys() & {*ENVIRONMENT, "machine"}
    name, message = ("manifest.json", "is not valid") if in_manifest else ("result.json", ", not a ")
    write_json(folder / name, json.loads((folder / name).read_text()) | harm)
    table = collect(tmp_path).set_index("folder")
    assert list(table["state"]) == ["finished", "foreign"]
    assert str(folder) in table["why"].iloc[1] and message in table["why"].iloc[1]


def test_the_cache_sheds_what_is_read_twice(make_run, tmp_path, monkeypatch):
    monkeypatch.setattr("analysis.collection.SLACK", 0)
    for seed in range(3):
        finish(make_run("gelu", seed=seed), tmp_path)
    expected = collect(tmp_path)
    head, *lines = (tmp_path / CACHE).read_text().splitlines(keepends=True)
    (tmp_path / CACHE).write_text("".join([head, *lines * 5]))
    pd.testing.assert_frame_equal(collect(tmp_path), expected)
    assert len((tmp_path / CACHE).read_text().splitlines()) == 4


def test_links_that_lead_nowhere_and_bytes_that_are_no_text(make_run, tmp_path):
    finish(make_run("gelu"), tmp_path)
    (tmp_path / "pico" / "loop").symlink_to(tmp_path / "pico" / "loop")
    begun = make_run("recipe")
    begin(begun, tmp_path)
    (begun.folder(tmp_path) / "metrics.jsonl").write_bytes(bytes(range(128, 256)) + b"\n")
    table = collect(tmp_path)
    assert list(table["state"]) == ["finished", "foreign"] and "metrics.jsonl, line 1" in table["why"].iloc[1]
