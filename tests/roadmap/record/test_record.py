"""A run's identity, and a folder that is believed only as far as it was written."""

from __future__ import annotations

import json
import os
from dataclasses import replace

import pytest

import roadmap
from roadmap.files import InvalidFile, append_json_line, read_json, write_json
from roadmap.record.folder import keep_metrics, read_metrics, read_run, state, write_manifest
from roadmap.record.run import Run, find_run
from roadmap.serialization.plain_data import from_data, to_data
from tests.helpers.records import append_row


def test_two_paths_to_the_same_experiment_are_one_run(make_run):
    run = make_run("recipe")
    composed = roadmap.compose("pico", ["recipe"])
    same = replace(run, rung="another-name", experiment=replace(run.experiment, design=composed.design))
    assert same.identity == run.identity


def test_the_same_network_in_more_words_is_the_same_run(make_run):
    run = make_run()
    wordy = replace(run.experiment.design, width=run.experiment.design.widths, block=run.experiment.design.blocks)
    assert replace(run, experiment=replace(run.experiment, design=wordy)).identity == run.identity


def test_a_number_may_be_written_as_an_int_or_a_float(make_run):
    run = make_run()
    recipe = replace(run.experiment.recipe, mixup=0)
    assert replace(run, experiment=replace(run.experiment, recipe=recipe)).identity == run.identity


@pytest.mark.parametrize(
    "change",
    [
        lambda run: replace(run, seed=1),
        lambda run: replace(run, fidelity="authors"),
        lambda run: replace(run, data="imagenet"),
        lambda run: replace(run, dataset=replace(run.dataset, mean=(0.1, 0.1, 0.1))),
        lambda run: replace(run, experiment=replace(run.experiment, recipe=replace(run.experiment.recipe, epochs=3))),
        lambda run: replace(run, experiment=replace(run.experiment, design=replace(run.experiment.design, width=17))),
    ],
)
def test_one_changed_value_is_another_run(make_run, change):
    run = make_run()
    assert change(run).identity != run.identity


def test_every_field_of_the_experiment_counts(make_run):
    """No value of the recipe can be changed without changing the identity."""
    run = make_run("recipe")
    data = to_data(run.experiment)
    others = {"optimizer": "sgd", "schedule": "step", "crop": "random-resized", "interpolation": "bicubic"}
    others |= {
        "initialization": "truncated-normal",
        "precision": "fp32",
        "randaugment": "rand-m9",
        "ema": 0.5,
        "warmup_epochs": 1,
        "order_seed": 0,
        "decay_at": [2],
        "warmup_steps": 1,
        "layer_decay_by": "stage",
    }
    for key, value in data["recipe"].items():
        if key in others:
            other = others[key]
        elif isinstance(value, bool):
            other = not value
        elif isinstance(value, list):
            other = [item / 2 for item in value]
        else:
            other = value * 2 if isinstance(value, int) else (value or 1) / 2
        changed = from_data(type(run.experiment), {**data, "recipe": {**data["recipe"], key: other}})
        assert replace(run, experiment=changed).identity != run.identity, key


def test_a_manifest_gives_the_run_back(make_run, tmp_path):
    run = make_run("gelu")
    folder = run.folder(tmp_path)
    assert folder == tmp_path / "pico" / f"gelu-s0-{run.identity}"
    assert state(folder, run) == "absent"
    write_manifest(folder, run, note="here")
    assert read_run(read_json(folder / "manifest.json"), folder) == run
    assert state(folder, run) == "begun"
    write_json(folder / "result.json", {"identity": run.identity, "top1": 1, "seconds": 2})
    assert state(folder, run) == "finished"
    for wrong in ({}, {"identity": run.identity, "top1": None, "seconds": 2}, {"identity": "0", "top1": 1}):
        write_json(folder / "result.json", wrong)
        with pytest.raises(InvalidFile, match=r"result\.json"):
            state(folder, run)


def test_a_run_is_found_under_whatever_rung_it_was_made(make_run, tmp_path):
    run = make_run("recipe")
    write_manifest(run.folder(tmp_path), run)
    assert replace(run, rung="first-of-an-order").folder(tmp_path) == run.folder(tmp_path)


def test_foreign_folders_are_refused(make_run, tmp_path):
    run, other = make_run(), make_run(seed=1)
    folder = tmp_path / "pico" / f"pico-s0-{run.identity}"
    write_manifest(folder, other)
    with pytest.raises(InvalidFile, match="holds another run"):
        state(folder, run)
    # A manifest whose values were edited no longer has the identity that it states.
    write_manifest(folder, run)
    manifest = json.loads((folder / "manifest.json").read_text())
    manifest["run"]["experiment"]["recipe"]["epochs"] = 7
    write_json(folder / "manifest.json", manifest)
    with pytest.raises(InvalidFile, match="holds another run"):
        state(folder, run)
    write_json(folder / "manifest.json", manifest | {"format": 99})
    with pytest.raises(InvalidFile, match="format 99; this version reads 2"):
        state(folder, run)
    (folder / "manifest.json").write_text("{")
    with pytest.raises(InvalidFile, match="not valid JSON"):
        state(folder, run)
    (folder / "manifest.json").unlink()
    write_json(folder / "result.json", {})
    with pytest.raises(InvalidFile, match=r"result\.json but no manifest\.json"):
        state(folder, run)


def test_half_a_line_is_no_epoch(tmp_path):
    for epoch in (1, 2, 3):
        append_row(tmp_path, {"epoch": epoch})
    path = tmp_path / "metrics.jsonl"
    path.write_text(path.read_text()[:-4])
    assert [each.epoch for each in read_metrics(tmp_path)] == [1, 2]
    keep_metrics(tmp_path, 1)
    assert path.read_text() == '{"epoch": 1}\n'


def test_a_line_after_one_that_was_cut_off_stands_on_its_own(tmp_path):
    path = tmp_path / "rows.jsonl"
    append_json_line(path, {"a": 1})
    path.write_bytes(path.read_bytes() + b'{"a": 2, "b')
    append_json_line(path, {"a": 3})
    append_json_line(path, {"a": 4})
    assert path.read_text().splitlines() == ['{"a": 1}', '{"a": 2, "b', '{"a": 3}', '{"a": 4}']


def test_a_write_that_fails_leaves_what_was_there(tmp_path):
    path = tmp_path / "result.json"
    write_json(path, {"top1": 1})
    with pytest.raises(TypeError):
        write_json(path, {"top1": object()})
    assert json.loads(path.read_text()) == {"top1": 1}


def test_identity_is_stable():
    """The identity of a known run: it moves only with the format, on purpose."""
    from roadmap.study.load import load_study

    rung = roadmap.ladder("resnet-50", "recipe")[0]
    run = Run("resnet-50", "recipe", rung.experiment, "imagenet", load_study().dataset("imagenet"), 0, "paper")
    assert run.identity == "f7c5505bea50"


def test_a_long_name_of_a_rung_or_a_regime_has_a_folder_with_a_name_that_fits(make_run, tmp_path):
    run = make_run()
    assert run.folder(tmp_path).name == f"{run.rung}-s0-{run.identity}"
    long_names = ["long-" * 60 + "a", "long-" * 60 + "b", "长" * 250, "x" * 232]
    runs = [replace(run, rung=name, seed=i, regime="r" * 300) for i, name in enumerate(long_names)]
    for each in runs:
        folder = each.folder(tmp_path)
        folder.mkdir(parents=True)
        assert folder.name.endswith(f"-s{each.seed}-{each.identity}")
        assert max(len(os.fsencode(part)) for part in folder.parts) <= 255
    for each in runs:
        for written in (each.rung, f"{each.rung}-s{each.seed}", each.identity):
            assert find_run(written, tmp_path) == each.folder(tmp_path)
    assert len({each.folder(tmp_path) for each in runs}) == 4
    # A folder of an earlier version, with the whole name, is still its run's.
    earlier = tmp_path / "regime" / ("x" * 236 + f"-s0-{run.identity}")
    earlier.mkdir(parents=True)
    assert replace(run, rung="x" * 236, regime="regime").folder(tmp_path / "..", {run.identity: earlier}) == earlier
