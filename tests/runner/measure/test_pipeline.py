"""`roadmap bench data`: that its stages are those of the pipeline, and add up; how fast they are, no test asks."""

from __future__ import annotations

import json
import math
import time

import numpy as np
import pytest
from PIL import Image

from roadmap.cli import main
from runner.measure import pipeline as stages_module
from runner.measure.pipeline import Stopwatch

QUICK = ["bench", "data", "--rounds", "2", "--seconds", "0.01"]
RESIZED = ["--set", "recipe.image_size=16", "--set", "recipe.batch_size=8", "--set", "recipe.crop=random-resized"]


@pytest.fixture
def folder(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    draw = np.random.default_rng(0)
    for split, count in (("train", 8), ("val", 1)):
        for name in ("cat", "dog"):
            (tmp_path / "pets" / split / name).mkdir(parents=True)
            for index in range(count):
                pixels = draw.integers(0, 256, (20, 30, 3), dtype=np.uint8)
                Image.fromarray(pixels).save(tmp_path / "pets" / split / name / f"{index}.jpg")
    return tmp_path


def stages(capsys):
    lines = capsys.readouterr().out.splitlines()
    return {line.split()[0] for line in lines if " worker " in line or " trainer " in line}


@pytest.mark.parametrize("augment", ["fast", "reference"])
def test_every_stage_of_photographs_is_named(folder, capsys, augment):
    everything = ["--set", "recipe.randaugment=rand-m9-mstd0.5-inc1", "--set", f"execution.augment={augment}"]
    everything += ["--set", "recipe.random_erasing=0.25", "--set", "recipe.mix_probability=1"]
    assert main([*QUICK, "--data", "pets", *RESIZED, *everything, "--rate", "1e6"]) == 0
    output = capsys.readouterr()
    for stage in ("read", "decode", "crop", "augment", "collate"):
        assert f"\n{stage} " in output.out
    for stage in ("transfer", "normalize", "erase", "mix"):
        assert f"\n{stage} " in output.out
    assert "A device that trains on 1000000 images/s keeps" in output.out
    assert "[2/2] round 2 of 2: " in output.err


def test_small_images_are_done_a_batch_at_a_time(folder, capsys):
    assert main(QUICK) == 0
    output = stages(capsys)
    assert {"crop", "normalize"} <= output and "decode" not in output


def test_bad_images_end_it_or_are_skipped_as_requested(folder, capsys):
    (folder / "pets" / "train" / "cat" / "3.jpg").write_bytes(b"no image")
    command = [*QUICK, "--data", "pets", *RESIZED]
    assert main(command) == 2
    assert "3.jpg can't be read as an image" in capsys.readouterr().err
    assert main([*command, "--set", "execution.bad_images=skip"]) == 0


def test_a_round_has_a_batch_at_least(folder, capsys):
    assert main([*QUICK, "--seconds", "1e-9"]) == 0
    assert "Medians of 2 rounds." in capsys.readouterr().out


def test_what_was_measured_before_it_is_stopped_is_printed(folder, monkeypatch, capsys):
    def stopped(*_):
        yield dict.fromkeys((*stages_module.WORKERS, *stages_module.TRAINERS, stages_module.REST), 0.001)
        raise KeyboardInterrupt

    monkeypatch.setattr(stages_module, "stage_seconds", stopped)
    assert main(QUICK) == 130
    assert "Medians of 1 round." in capsys.readouterr().out


def test_the_stages_and_the_rest_are_all_there_is(folder, capsys):
    assert main([*QUICK, "--data", "pets", *RESIZED, "--json", "--rate", "5000"]) == 0
    record = json.loads(capsys.readouterr().out)
    assert min(record["milliseconds"].values()) >= 0  # the rest of the clock, behind the stages, too
    assert record["images_per_second_of_a_worker"] >= record["images_per_second_of_a_core"]
    assert record["workers_needed"] == math.ceil(5000 / record["images_per_second_of_a_worker"])


@pytest.mark.parametrize("setting", ["recipe.image_size=1000000", "recipe.crop_padding=1000000"])
def test_batches_that_are_too_large_for_the_memory_are_reported(folder, capsys, setting):
    assert main([*QUICK, "--set", setting]) == 2
    error = capsys.readouterr().err
    assert "no batch can be made here: " in error and "Traceback" not in error


def test_packed_images_have_the_stages_of_a_folders(folder, capsys):
    assert main(["data", "pack", "pets", "packed"]) == 0
    capsys.readouterr()
    assert main([*QUICK, "--data", "packed", *RESIZED]) == 0
    assert {"read", "decode", "crop", "augment", "collate"} <= stages(capsys)


@pytest.mark.parametrize("setting", ["workers=4", "threads=2", "wandb=mine", "checkpoint_minutes=1"])
def test_unused_settings_are_refused(folder, capsys, setting):
    assert main([*QUICK, "--set", f"execution.{setting}"]) == 2
    assert (
        f"--set execution.{setting} does not apply to bench data; these fields do: device," in capsys.readouterr().err
    )


def test_workers_are_computed_for_what_bench_measured(folder, capsys):
    quick = ["bench", "--rounds", "1", "--warm-up", "0", "--seconds", "0.001", "--batch", "4", "--only", "training"]
    assert main(QUICK) == 0
    assert "--rate IMAGES computes" in capsys.readouterr().out
    assert main([*quick, "--steps", "layer-scale"]) == 0
    assert main(QUICK) == 0
    assert "(as layer-scale was measured on " in capsys.readouterr().out


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["data", "--batch", "8"], "--batch applies to bench networks only"),
        (["data", "--warm-up", "0"], "--warm-up applies to bench networks only"),
        (["data", "--cuda-graphs"], "--cuda-graphs applies to bench networks only"),
        (["data", "-o", "a.png"], "--output applies to bench networks only"),
        (["data", "--rate", "0"], "--rate must be above 0 (got 0)"),
        (["data", "--rounds", "0"], "--rounds must be at least 1 (got 0)"),
        (["data", "--data", "nowhere/else"], "no such folder"),
        (["--rate", "5"], "--rate applies to bench data only"),
        (["dat"], "invalid choice: 'dat'"),
    ],
)
def test_mistakes_are_reported_in_one_sentence(folder, capsys, options, message):
    assert main(["bench", *options]) == 2
    assert message in capsys.readouterr().err


def test_time_within_another_stage_is_that_ones():
    stopwatch = Stopwatch("cpu")
    inner = stopwatch.timed("decode", lambda: time.sleep(0.05))
    outer = stopwatch.timed("crop", lambda: (time.sleep(0.01), inner(), inner()))
    began = time.perf_counter()
    outer()
    took = time.perf_counter() - began
    assert stopwatch.seconds["decode"] >= 0.1
    assert 0.01 <= stopwatch.seconds["crop"] <= took - 0.1 + 1e-6
