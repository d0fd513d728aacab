"""Training: what is written, and that an interruption anywhere changes nothing."""

from __future__ import annotations

import json
import math
import subprocess
import sys
import warnings
from dataclasses import asdict, replace

import pytest
import torch

import roadmap
from roadmap.files import write_json
from roadmap.network.modules import Residual
from roadmap.record.folder import read_metrics, write_manifest
from roadmap.record.metrics import METRICS, TOP1, evaluated_metrics
from runner.data.splits import InMemoryImages
from runner.machine.lock import folder_lock
from runner.machine.randomness import seed_for
from runner.train import checkpoint
from runner.train.evaluation import evaluate
from runner.train.optimizer import learning_rate
from runner.train.train_state import network_of
from runner.train.training import Stopped
from tests.helpers.training import assert_same, setup_of, start, take_step, train, untimed, weights


def test_a_run_leaves_its_record(tiny_run, tmp_path):
    run, rows = tiny_run("recipe"), []
    result = train(run, tmp_path / "run", rows.append)
    folder = tmp_path / "run"
    manifest = json.loads((folder / "manifest.json").read_text())
    assert manifest["identity"] == run.identity
    chosen = {"device": "cpu", "precision": "fp32", "processes": 1, "accumulation": 1, "threads": 1, "workers": 0}
    chosen |= {"channels_last": True, "compile": None, "augment": "fast", "cudnn_benchmark": False, "prefetch": 2}
    assert manifest["execution"] == chosen
    assert manifest["versions"]["torch"] == torch.__version__.split("+")[0]
    assert rows == read_metrics(folder) and [row.epoch for row in rows] == [1, 2]
    assert json.loads(json.dumps(result.to_row())) == json.loads((folder / "result.json").read_text())
    top1, top5 = (result.value(METRICS[name]) for name in ("top1", "top5"))
    assert top1 == rows[-1].value(TOP1) and result.epochs == 2
    assert 0 <= top1 <= top5 <= 100 and result.best_top1 == max(row.value(TOP1) for row in rows)
    counted = roadmap.cost(run.experiment.design, 32, 10)
    assert (result.parameters, result.macs) == (counted.parameters, counted.macs)


# With BN, and with LN and layer scale; without mixing and erasing, which draw numbers of their own in between.
@pytest.mark.parametrize("mixing", [0.0, 1.0])
@pytest.mark.parametrize("rung", ["recipe", "layer-scale"])
def test_stopping_anywhere_and_resuming_changes_nothing(tiny_run, tmp_path, rung, mixing):
    run = tiny_run(rung, ema=0.9, mix_probability=mixing, random_erasing=mixing / 4, drop_path=0.5)
    train(run, tmp_path / "whole")
    for step in (1, 5, 7, 9):  # in the first epoch, at its end, in the second
        steps = iter(range(1, 100))
        with pytest.raises(Stopped):
            train(run, tmp_path / f"stopped-{step}", should_stop=lambda s=steps, n=step: next(s) == n)
        train(run, tmp_path / f"stopped-{step}")
        assert_same(tmp_path / "whole", tmp_path / f"stopped-{step}")


def test_a_finished_epoch_whose_checkpoint_was_not_written_is_trained_again(tiny_run, tmp_path, monkeypatch):
    run = tiny_run("recipe", epochs=3)
    train(run, tmp_path / "whole")

    def killed(folder, state):
        if state["epoch"] == 2:
            raise KeyboardInterrupt  # behind the metrics, before the checkpoint
        save(folder, state)

    save = checkpoint.save
    monkeypatch.setattr(checkpoint, "save", killed)
    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "killed")
    assert len(read_metrics(tmp_path / "killed")) == 2
    with (tmp_path / "killed" / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3, "tr')  # and a line that was cut off
    monkeypatch.setattr(checkpoint, "save", save)
    train(run, tmp_path / "killed")
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_truncated_checkpoint_is_passed_over_for_the_one_before(tiny_run, tmp_path):
    run = tiny_run("recipe", epochs=3)
    train(run, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(run, tmp_path / "cut", should_stop=lambda: len(read_metrics(tmp_path / "cut")) == 2)
    path = tmp_path / "cut" / checkpoint.NAME
    path.write_bytes(path.read_bytes()[:1000])
    with pytest.warns(UserWarning, match="damaged or incomplete.; resuming from the previous one"):
        train(run, tmp_path / "cut")
    assert_same(tmp_path / "whole", tmp_path / "cut")


def test_a_checkpoint_of_another_run_is_refused(tiny_run, tmp_path):
    train(tiny_run(seed=1), tmp_path / "other")
    run = tiny_run()
    write_manifest(tmp_path / "run", run, execution=asdict(setup_of(run)))
    (tmp_path / "other" / checkpoint.NAME).rename(tmp_path / "run" / checkpoint.NAME)
    with pytest.raises(ValueError, match="is of run"):
        train(run, tmp_path / "run")
    with pytest.raises(ValueError, match="holds another run"):
        train(run, tmp_path / "other")


def test_a_folder_is_held_by_one_process(tmp_path):
    code = "import sys; from pathlib import Path; from runner.machine.lock import folder_lock\n"
    code += "with folder_lock(Path(sys.argv[1])): print('held')"

    def other():
        return subprocess.run([sys.executable, "-c", code, str(tmp_path)], capture_output=True, text=True)

    with folder_lock(tmp_path):
        refused = other()
        assert "FolderLocked: " in refused.stderr and "is in training by another process; wait" in refused.stderr
        assert "held" not in refused.stdout
    assert other().stdout == "held\n"


@pytest.mark.parametrize("rung", ["pico", "layer-scale"])
def test_the_engine_takes_the_steps_of_a_plain_loop(make_run, tmp_path, rung):
    """The recipe against torch's own parts, in a few lines: rates, groups, smoothing, drop path, initialization."""
    run = make_run(
        rung, batch_size=64, epochs=3, warmup_epochs=1, mix_probability=0.0, label_smoothing=0.2, drop_path=0.4
    )
    recipe = run.experiment.recipe
    training = start(run, tmp_path)
    training.stream = training.batches.stream(0, 0)
    again = start(run, tmp_path).batches.stream(0, 0)
    torch.set_num_threads(1)

    torch.default_generator.manual_seed(seed_for(run.seed, "initialization"))
    arguments = {"drop_path": 0.4, "initialization": recipe.initialization}
    model = roadmap.build(run.experiment.design, 10, **arguments).to(memory_format=torch.channels_last)
    decayed = [p for p in model.parameters() if p.ndim > 1 or recipe.optimizer == "sgd"]
    not_decayed = [p for p in model.parameters() if p.ndim <= 1 and recipe.optimizer != "sgd"]
    groups = [{"params": decayed, "weight_decay": recipe.weight_decay}, {"params": not_decayed, "weight_decay": 0.0}]
    groups = [group for group in groups if group["params"]]
    if recipe.optimizer == "sgd":
        optimizer = torch.optim.SGD(groups, momentum=0.9, fused=True)  # as the engine: rounding apart grows
    else:
        optimizer = torch.optim.AdamW(groups, betas=(0.9, 0.999), eps=1e-8, fused=True)

    model.train()
    training.model.train()
    for step in range(45):  # beyond the warm-up of 20, into the second decay
        epoch, within = divmod(step, 20)
        training.epoch, training.step = epoch, within
        take_step(training)
        if step < 20:
            rate = recipe.learning_rate * step / 20
        elif recipe.schedule == "step":
            rate = recipe.learning_rate * recipe.decay_factor ** (epoch // recipe.decay_epochs)
        else:
            rate = 1e-6 + (recipe.learning_rate - 1e-6) * (1 + math.cos(math.pi * (step - 20) / 40)) / 2
        for group in optimizer.param_groups:
            group["lr"] = rate
        images, labels = next(again)
        torch.default_generator.manual_seed(seed_for(run.seed, "step", epoch, within, 0, 0))
        loss = torch.nn.functional.cross_entropy(model(images), labels, label_smoothing=0.2)
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        assert [group["lr"] for group in training.optimizer.param_groups] == pytest.approx([rate] * len(groups))
    for (name, parameter), expected in zip(training.model.named_parameters(), model.parameters(), strict=True):
        assert torch.allclose(parameter, expected, rtol=1e-4, atol=1e-6), name


def test_every_epochs_learning_rate_is_the_schedules(tiny_run, tmp_path):
    run, rows = tiny_run("recipe", epochs=4, warmup_epochs=1), []
    train(run, tmp_path, rows.append)
    steps = 5
    for row in rows:
        progress = (row.epoch * steps - 1) / (4 * steps)
        assert row.learning_rate == pytest.approx(learning_rate(run.experiment.recipe, progress))


@pytest.mark.parametrize("damage", ["gone", "first line", "middle line"])
def test_metrics_that_do_not_fit_the_checkpoint_are_named(tiny_run, tmp_path, damage):
    run = tiny_run("recipe", epochs=3)
    with pytest.raises(Stopped):
        train(run, tmp_path, should_stop=lambda: len(read_metrics(tmp_path)) == 2)
    path = tmp_path / "metrics.jsonl"
    _, second = path.read_text().splitlines(keepends=True)
    path.write_text({"gone": "", "first line": second, "middle line": "{nothing\n" + second}[damage])
    with pytest.raises(ValueError, match=r"metrics\.jsonl.*(0 of the checkpoint's 2|line 1: not the metrics)"):
        train(run, tmp_path)


def test_the_time_of_a_resumed_epoch_is_all_of_it(tiny_run, tmp_path):
    run = tiny_run("recipe", epochs=1)
    with pytest.raises(Stopped):
        train(run, tmp_path, should_stop=lambda: True)
    before = torch.load(tmp_path / checkpoint.NAME, weights_only=True)["seconds"]
    assert before > 0
    assert train(run, tmp_path).seconds > before


def test_data_that_is_not_what_the_study_says_is_refused(tiny_run, tmp_path):
    run = tiny_run()
    run = replace(run, dataset=replace(run.dataset, train_images=5000))
    with pytest.raises(ValueError, match=r"must have \(5000, 128\) training and test images \(got \(322, 128\)\)"):
        train(run, tmp_path)


def test_averaged_weights_are_evaluated_separately(tiny_run, tmp_path):
    result = train(tiny_run("recipe", ema=0.999), tmp_path)
    assert result.values.keys() == {f"{kind}{metric.key}" for metric in evaluated_metrics() for kind in ("", "ema_")}
    assert result.values["test_loss"] != result.values["ema_test_loss"]


def test_bf16_trains_and_is_recorded(tiny_run, tmp_path):
    train(tiny_run("layer-scale", precision="bf16"), tmp_path)
    assert json.loads((tmp_path / "manifest.json").read_text())["execution"]["precision"] == "bf16"
    assert all(tensor.dtype == torch.float32 for tensor in weights(tmp_path).values() if tensor.is_floating_point())


def test_resuming_keeps_the_recorded_execution(tiny_run, tmp_path):
    """Other numbers of threads give other last bits."""
    run = tiny_run("recipe")
    train(run, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(run, tmp_path / "moved", should_stop=lambda: True)
    train(run, tmp_path / "moved", threads=2)
    assert_same(tmp_path / "whole", tmp_path / "moved")


def test_every_held_out_image_is_counted_once(tiny_run, tmp_path, monkeypatch):
    count = 301  # no multiple of the evaluation batch
    labels = torch.arange(count) % 10
    split = InMemoryImages(torch.zeros(count, 1, 32, 32, dtype=torch.uint8), labels)
    monkeypatch.setattr("runner.train.training.load_data", lambda run, path: (split, split))
    training = start(tiny_run(batch_size=32), tmp_path)

    class Right(torch.nn.Module):
        """Says 3 of everything."""

        def forward(self, images):
            return torch.nn.functional.one_hot(torch.full((len(images),), 3), 10).float()

    scores = evaluate(Right(), training.test_batches, training.setup, training.world, lambda: None)
    assert scores.value(TOP1) == pytest.approx(100 * (labels == 3).sum().item() / count)


def test_seeds_differ_and_repeat(tiny_run, tmp_path):
    for name, seed in (("a", 0), ("b", 0), ("c", 1)):
        train(replace(tiny_run("recipe", epochs=1), seed=seed), tmp_path / name)
    assert_same(tmp_path / "a", tmp_path / "b")
    assert untimed(tmp_path / "a") != untimed(tmp_path / "c")


def test_no_warning_is_given_on_the_way(tiny_run, tmp_path):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        train(tiny_run("recipe", epochs=1), tmp_path)


def test_a_run_is_not_resumed_on_other_classes(tiny_run, tmp_path):
    """Of a data set that is known by its name: its folders may have been renamed since."""
    run = tiny_run()
    with pytest.raises(Stopped):
        train(run, tmp_path, should_stop=lambda: True)
    manifest = json.loads((tmp_path / "manifest.json").read_text())
    manifest["classes"][3] = "three"
    write_json(tmp_path / "manifest.json", manifest)
    with pytest.raises(ValueError, match="began with class 'three', where its data now have '3'"):
        train(run, tmp_path)


@pytest.mark.parametrize(
    ("device", "compiler", "expected"), [("cpu", None, True), ("cpu", "inductor", False), ("cuda", None, False)]
)
def test_training_on_a_cpu_keeps_no_outputs_of_gelu(tiny_run, monkeypatch, device, compiler, expected):
    monkeypatch.setattr("runner.train.train_state._prepared", lambda model, *_: model)  # not moved to the device
    run = tiny_run("layer-scale")
    model = network_of(run, replace(setup_of(run), device=device, compile=compiler))
    assert {module.recomputes for module in model.modules() if isinstance(module, Residual)} == {expected}
