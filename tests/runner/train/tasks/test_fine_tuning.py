"""Pre-training on many classes and fine-tuning on some of them, by the two commands of docs/transfer.md."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from PIL import Image

from roadmap.cli import main
from roadmap.record.folder import read_manifest
from roadmap.record.run import find_run
from tests.helpers.training import weights

MANY, SOME = [f"n{number:08}" for number in range(12)], ["n00000003", "n00000005", "n00000011"]
SHORT = ["--set", "recipe.epochs=1", "--set", "recipe.batch_size=8", "--set", "recipe.image_size=32"]


def write_images(root, split, classes, count):
    draw = np.random.default_rng(0)
    for name in classes:
        (root / split / name).mkdir(parents=True)
        for number in range(count):
            Image.fromarray(draw.integers(0, 255, (40, 40, 3), np.uint8)).save(root / split / name / f"{number}.png")


@pytest.fixture
def folders(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    write_images(tmp_path / "in22k", "train", MANY, 2)
    write_images(tmp_path / "in22k", "val", SOME, 2)
    write_images(tmp_path / "in1k", "train", SOME, 6)
    write_images(tmp_path / "in1k", "val", SOME, 2)
    return tmp_path


@pytest.mark.slow
def test_the_two_commands_train_and_the_new_head_has_the_classes_of_the_new_data(folders, capsys):
    first = ["run", "--steps", "layer-scale", "--seeds", "1", "--recipe", "pretrain-22k", "--data", "in22k=in22k"]
    assert main([*first, *SHORT, "--set", "recipe.warmup_epochs=0"]) == 0
    source = find_run("layer-scale-s0", folders / "runs")
    manifest = read_manifest(source)
    assert manifest is not None and manifest.classes == tuple(MANY)
    # Held-out images have three of the classes; by name, not by position.
    assert main(["evaluate", "layer-scale-s0", "--data", "in1k=in1k/val"]) == 0
    assert "among 3 of 12 classes" in capsys.readouterr().out
    second = ["transfer", "--to", "classification", "--recipe", "finetune-22k-384", "--data", "in1k=in1k"]
    assert main([*second, *SHORT]) == 0
    printed = capsys.readouterr()
    assert "nothing is published for pico, which borrows the values" in printed.out
    assert "ResNet-pico, classification on in1k" in printed.out and "no table" not in printed.err
    folder = find_run("layer-scale-classification-s0", folders / "runs")
    tuned, before = weights(folder), weights(source)
    recipe = read_manifest(folder).run.experiment.recipe
    assert (recipe.learning_rate, recipe.layer_decay, recipe.head_init_scale) == (5e-5, 0.8, 0.001)
    assert tuned["head.weight"].shape[0] == 3 and before["head.weight"].shape[0] == 12
    assert tuned["head.weight"].abs().max() < 0.01  # begun at a thousandth of the usual
    stem = next(name for name in before if name.startswith("stem") and name.endswith("weight"))
    assert torch.allclose(tuned[stem], before[stem], atol=1e-3)
