"""Run folders with anything in them: every reader checks what it reads, and one folder spoils nothing else."""

from __future__ import annotations

import json
import os
import random
import shutil

import pytest

from analysis.collection import CACHE, collect
from roadmap.data.robustness import Evaluation, append_evaluation
from roadmap.estimates import speed_measured
from roadmap.files import InvalidFile
from roadmap.record.folder import state, write_divergences
from roadmap.record.results import Divergence
from roadmap.record.sessions import PositionFile, Session, TrainingPosition, append_session
from runner.launch.status import collect_status
from tests.helpers.command import run_here
from tests.helpers.mutations import damage
from tests.helpers.records import begin, finish
from tests.helpers.training import AUGMENTED

FOLDERS = 250  # that are damaged at a time
BATCHES = int(os.environ.get("ROADMAP_FUZZ", "4"))  # of them
SET = ("--set", "recipe.epochs=2", "--set", "recipe.warmup_epochs=0", "--set", "recipe.batch_size=256")
SET += tuple(word for key, value in AUGMENTED.items() for word in ("--set", f"recipe.{key}={value}"))


def fill(run, out):
    """A folder of the run with all the files that there are."""
    folder = begin(run, out, 2) if run.seed % 3 else finish(run, out, epochs=2)
    if run.seed % 3 == 1:
        divergences = [Divergence(2, 3, 0.004, "nan", "stages.1", (1, 0)), Divergence(2, 3, 0.1, "inf", "x")]
        write_divergences(folder, divergences)
    for lost in (0, 2):
        append_session(folder, Session("2026-01-01T00:00:00+00:00", "n1", None, 0, 3, lost))
    position = PositionFile(folder)
    position.write(TrainingPosition(1, 2, 5))
    position.close()
    append_evaluation(folder, Evaluation("imagenet-a", "", "ab", "ab", "raw", (2, 0), 10, 7, 0, 50.0, 90.0))
    (folder / "log.txt").write_text("epoch 1\nepoch 2\n")
    return folder


@pytest.mark.slow
@pytest.mark.parametrize("number", range(BATCHES))
def test_no_damage_in_a_run_folder_spoils_a_command(make_run, tmp_path, number):
    draw, whole = random.Random(number), fill(make_run("gelu", seed=10_000), tmp_path)
    shutil.copytree(whole, tmp_path / "pico" / "notes")
    runs = [make_run("gelu", seed=seed) for seed in range(FOLDERS)]
    for run in runs:
        folder = fill(run, tmp_path)
        files = sorted(folder.iterdir())
        for path in draw.sample(files, draw.choice((1, 1, 2))):
            damage(path, draw)

    table = collect(tmp_path)
    assert len(table) == FOLDERS + 2 and set(table["state"]) == {"finished", "begun", "diverged", "foreign"}
    assert (collect(tmp_path) if number else table).equals(table)  # with what is cached

    status = collect_status(tmp_path)
    assert len(status.runs) > FOLDERS / 2 and len(status.unreadable) > FOLDERS / 50
    assert f"not listed: {len(status.unreadable)} folders" in str(status)
    json.dumps([run.record() for run in status.runs])

    assert speed_measured(tmp_path, "pico") is not None
    for run in runs:
        try:
            state(run.folder(tmp_path), run)
        except (InvalidFile, OSError) as error:
            assert str(error)

    commands = [("status", "--json"), ("collect", "-o", tmp_path / "runs.csv"), ("table", *SET), ("report", *SET)]
    commands += [("table", "--robustness", *SET)]
    commands += [("run", "--dry-run", "--steps", "gelu", "--seeds", 1, "--set", "recipe.epochs=3")]
    for command in commands:
        done = run_here(*command, "--out", tmp_path)
        assert done.status == 0 and "Traceback" not in done.err, (command, done.err)
    commands = [("logs", run.identity) for run in draw.sample(runs, 2)]
    for command in (*commands, ("run", "--dry-run", "--steps", "gelu", "--seeds", 3, *SET)):
        done = run_here(*command, "--out", tmp_path)
        assert done.status in (0, 2) and len(done.err.splitlines()) <= 1, (command, done.err)


def test_a_damaged_cache_is_read_anew(make_run, tmp_path):
    draw = random.Random(0)
    for seed in range(5):
        finish(make_run("gelu", seed=seed), tmp_path)
    table = collect(tmp_path)
    whole = (tmp_path / CACHE).read_bytes()
    for _ in range(100):
        for path in (tmp_path / "cache.jsonl", tmp_path / CACHE):
            shutil.rmtree(path) if path.is_dir() else path.unlink(missing_ok=True)
        (tmp_path / "cache.jsonl").write_bytes(whole)
        damage(tmp_path / "cache.jsonl", draw)
        if os.path.lexists(tmp_path / "cache.jsonl"):
            (tmp_path / "cache.jsonl").rename(tmp_path / CACHE)
        again = collect(tmp_path)
        assert set(again.columns) >= set(table.columns) and len(again) == 5
