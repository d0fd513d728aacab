"""Training: what is written, and that an interruption anywhere changes nothing."""

from __future__ import annotations

import json
import warnings
from dataclasses import replace

import pytest
import torch

from roadmap.record import read_metrics, write_manifest
from runner import checkpoint
from runner.engine import Diverged, Stopped, train

UNTIMED = ("seconds", "images_per_second", "peak_memory_bytes")


def untimed(folder):
    return [{key: value for key, value in row.items() if key not in UNTIMED} for row in read_metrics(folder)]


def weights(folder):
    return torch.load(folder / checkpoint.NAME, weights_only=True)["model"]


def assert_same(folder, other):
    assert untimed(folder) == untimed(other)
    ours, theirs = weights(folder), weights(other)
    assert ours.keys() == theirs.keys()
    assert all(torch.equal(ours[name], theirs[name]) for name in ours)


def test_a_run_leaves_its_record(make_run, tmp_path):
    run, rows = make_run("recipe"), []
    result = train(run, tmp_path / "run", 1, rows.append)
    folder = tmp_path / "run"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["identity"] == run.identity
    assert manifest["execution"] == {"device": "cpu", "precision": "fp32", "threads": 1}
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert rows == read_metrics(folder) and [row["epoch"] for row in rows] == [1, 2]
    assert result == json.loads((folder / "result.json").read_text())
    assert result["top1"] == rows[-1]["top1"] and result["epochs"] == 2
    assert 0 <= result["top1"] <= result["top5"] <= 100
    assert (result["parameters"], result["macs"]) == (599706, 2884608)


@pytest.mark.parametrize("rung", ["recipe", "layer-scale"])  # with BN, and with LN and layer scale
def test_stopping_anywhere_and_going_on_changes_nothing(make_run, tmp_path, rung):
    run = make_run(rung, ema=0.9)
    train(run, tmp_path / "whole", 1)
    for step in (1, 5, 7, 9):  # in the first epoch, at its end, in the second
        steps = iter(range(1, 100))
        with pytest.raises(Stopped):
            train(run, tmp_path / f"stopped-{step}", 1, should_stop=lambda s=steps, n=step: next(s) == n)
        train(run, tmp_path / f"stopped-{step}", 1)
        assert_same(tmp_path / "whole", tmp_path / f"stopped-{step}")


def test_a_finished_epoch_whose_checkpoint_was_not_written_is_trained_again(make_run, tmp_path, monkeypatch):
    run = make_run("recipe", epochs=3)
    train(run, tmp_path / "whole", 1)

    def killed(folder, state):
        if state["epoch"] == 2:
            raise KeyboardInterrupt  # behind the metrics, before the checkpoint
        save(folder, state)

    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "killed", 1)
    assert len(read_metrics(tmp_path / "killed")) == 2
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "tr')  # and a line that was cut off
    monkeypatch.setattr(checkpoint, "save", save)
    train(run, tmp_path / "killed", 1)
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(make_run, tmp_path):
    run = make_run("recipe", epochs=3)
    train(run, tmp_path / "whole", 1)
    with pytest.raises(Stopped):
        train(run, tmp_path / "cut", 1, should_stop=lambda: len(read_metrics(tmp_path / "cut")) == 2)
    path = tmp_path / "cut" / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="taking the one before it"):
        train(run, tmp_path / "cut", 1)
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_a_checkpoint_of_another_run_is_refused(make_run, tmp_path):
    train(make_run(seed=1), tmp_path / "other", 1)
    run = make_run()
    write_manifest(tmp_path / "run", run, execution={"device": "cpu", "precision": "fp32", "threads": 1})
    (tmp_path / "other" / checkpoint.NAME).rename(tmp_path / "run" / checkpoint.NAME)
    with pytest.raises(ValueError, match="is of run"):
        train(run, tmp_path / "run", 1)
    with pytest.raises(ValueError, match="holds another run"):
        train(run, tmp_path / "other", 1)


def test_a_second_process_on_the_same_run_is_refused(make_run, tmp_path):
    from runner.engine import _exclusive

    with _exclusive(tmp_path), pytest.raises(ValueError, match="in training by another process"):
        train(make_run(), tmp_path, 1)


def test_a_loss_that_is_no_number_ends_the_run_and_keeps_the_last_good_epoch(make_run, tmp_path):
    run = make_run("pico", learning_rate=1e30)
    with pytest.raises(Diverged, match=r"the loss is (nan|inf) in epoch \d, at a learning rate of 1e\+30"):
        train(run, tmp_path, 1)
    assert not (tmp_path / "result.json").exists()


def test_averaged_weights_are_evaluated_apart(make_run, tmp_path):
    result = train(make_run("recipe", ema=0.999), tmp_path, 1)
    assert {"top1", "ema_top1", "ema_test_loss"} <= result.keys()
    assert result["test_loss"] != result["ema_test_loss"]


def test_bf16_trains_and_is_recorded(make_run, tmp_path):
    train(make_run("layer-scale", precision="bf16"), tmp_path, 1)
    assert json.loads((tmp_path / "manifest.json").read_text())["execution"]["precision"] == "bf16"
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path).values() if tensor.is_floating_point())


def test_going_on_keeps_the_execution_of_the_record(make_run, tmp_path):
    """Other numbers of threads give other last bits."""
    run = make_run("recipe")
    train(run, tmp_path / "whole", 1)
    with pytest.raises(Stopped):
        train(run, tmp_path / "moved", 1, should_stop=lambda: True)
    train(run, tmp_path / "moved", 2)
    assert_same(tmp_path / "whole", tmp_path / "moved")


def test_every_held_out_image_is_counted_once(make_run, tmp_path, monkeypatch):
    from runner import engine
    from runner.sources import Split

    count = 301  # no multiple of the evaluation batch
    labels = torch.arange(count) % 10
    split = Split(torch.zeros(count, 1, 32, 32, dtype=torch.uint8), labels)
    monkeypatch.setattr(engine, "source", lambda name: lambda size: (split, split))
    training = engine._Training(make_run(batch_size=32), tmp_path, engine.Execution("cpu", "fp32", 1))

    class Right(torch.nn.Module):
        """Says 3 of everything."""

        def forward(self, images):
            return torch.nn.functional.one_hot(torch.full((len(images),), 3), 10).float()

    assert training.evaluate(Right())["top1"] == pytest.approx(100 * (labels == 3).sum().item() / count)


def test_seeds_differ_and_repeat(make_run, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(replace(make_run("recipe", epochs=1), seed=seed), tmp_path / name, 1)
    assert_same(tmp_path / "a", tmp_path / "b")
    assert untimed(tmp_path / "a") != untimed(tmp_path / "c")


def test_no_warning_is_given_on_the_way(make_run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(make_run("recipe", epochs=1), tmp_path, 1)
