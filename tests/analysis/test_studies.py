"""The published studies of docs/studies: their tables and figures, made again from their results."""

from __future__ import annotations

import re
import shlex
import subprocess
import sys
import tarfile

import matplotlib
import numpy as np
import pandas as pd
import pytest
from matplotlib.testing.compare import compare_images
from packaging.version import Version

import roadmap
from roadmap.record.outcomes import Outcomes, write_outcomes
from roadmap.study.selection import ladder
from tests.helpers import ROOT
from tests.helpers.command import run_here
from tests.helpers.records import finish, study_run

PUBLISH = ROOT / "scripts" / "publish_study.py"

STUDIES = ROOT / "docs" / "studies"
PAGES = {archive.name.removesuffix(".tar.xz"): archive for archive in sorted(STUDIES.glob("*.tar.xz"))}
# Root mean square of 0 to 255. Other versions of matplotlib than the one that drew the figures set text otherwise.
PIXELS = 0.5 if Version(matplotlib.__version__).release[:2] == (3, 11) else 8


def text_of(name: str) -> str:
    return (STUDIES / f"{name}.md").read_text(encoding="utf-8")


def printed(text: str) -> list[tuple[str, str]]:
    """The commands behind a `$` in the page's blocks, each with what it prints."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, flags=re.MULTILINE)
    found = []
    for block in blocks:
        lines = "".join(line.removeprefix("    ") for line in block.splitlines(keepends=True))
        found += re.findall(r"^\$ (roadmap .*)\n([^$]*)", lines, flags=re.MULTILINE)
    return found


@pytest.fixture(scope="module", params=PAGES)
def study(request, tmp_path_factory):
    """The name of a study, and a folder with its runs."""
    folder = tmp_path_factory.mktemp(request.param)
    with tarfile.open(PAGES[request.param]) as packed:
        packed.extractall(folder, filter="data")
    return request.param, folder


def publish(*arguments):
    return subprocess.run([sys.executable, PUBLISH, *arguments], capture_output=True, text=True)


def test_an_archive_has_the_runs_without_what_names_the_machine(tmp_path):
    (rung,) = ladder("pico", "recipe")
    folder = finish(study_run(rung), tmp_path / "runs", 90.0, command=["/home/a/roadmap"], data_path="/home/a/data")
    (folder / "metrics.jsonl").touch()
    done = publish(tmp_path / "runs", tmp_path / "study.tar.xz")
    assert done.returncode == 2 and "has no test_images.npz" in done.stderr
    labels = np.zeros(1, dtype=np.int32)
    write_outcomes(folder, {"": Outcomes(labels, labels, np.ones(1, dtype=np.float16))})
    archives = [tmp_path / "study.tar.xz", tmp_path / "again.tar.xz"]
    assert all(publish(tmp_path / "runs", archive).returncode == 0 for archive in archives)
    assert archives[0].read_bytes() == archives[1].read_bytes()
    with tarfile.open(archives[0]) as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    (copy,) = tmp_path.glob("unpacked/runs/pico/recipe-s0-*")
    assert "/home" not in (copy / "manifest.json").read_text()
    assert roadmap.table(tmp_path / "unpacked" / "runs", steps="recipe")["mean"].tolist() == [90.0]
    assert publish("--without-images", tmp_path / "runs", archives[1]).returncode == 0
    with tarfile.open(archives[1]) as packed:
        assert {name.rpartition("/")[2] for name in packed.getnames()} == {
            "manifest.json",
            "metrics.jsonl",
            "result.json",
        }
    assert "no finished run" in publish(tmp_path / "nowhere", tmp_path / "study.tar.xz").stderr


def test_an_archive_has_the_study_file_of_its_folder(tmp_path):
    (rung,) = ladder("pico", "recipe")
    folder = finish(study_run(rung), tmp_path / "runs", 90.0)
    (folder / "metrics.jsonl").touch()
    text = (ROOT / "ablations.yaml").read_text(encoding="utf-8")
    (tmp_path / "ablations.yaml").write_text(
        text.replace("title: ResNet-pico", "title: ResNet-before"), encoding="utf-8"
    )
    done = publish("--without-images", tmp_path / "runs", tmp_path / "study.tar.xz")
    assert done.returncode == 0 and "with its ablations.yaml" in done.stdout
    with tarfile.open(tmp_path / "study.tar.xz") as packed:
        packed.extractall(tmp_path / "unpacked", filter="data")
    assert run_here("table", "--steps", "recipe", cwd=tmp_path / "unpacked").out.startswith("ResNet-before on digits")


def test_every_archive_has_a_page_with_a_table_and_a_figure():
    assert PAGES
    for name in PAGES:
        text = text_of(name)
        assert any(command.startswith(("roadmap table", "roadmap space")) for command, _ in printed(text)), name
        assert f"({name}.png)" in text.replace("\n", ""), name


def test_the_table_of_the_tuning_has_the_results_of_the_file():
    runs = pd.read_csv(STUDIES / "tuning.csv")
    runs = runs[(runs["data"] == "digits-tuning") & (runs["batch_size"] == 32) & (runs["decay_epochs"] != 2)]
    plain = runs["rung"].map(lambda rung: 0.0 if rung == "pico" else 0.1)
    narrow = runs["rung"].map(lambda rung: 6 if rung in ("pico", "recipe") else 8)
    runs = runs[(runs["label_smoothing"] == plain) & (runs["width"] == narrow)]
    lines = [line for line in text_of("README").splitlines() if line.startswith("| `") and "±" in line]
    assert len(lines) == 15
    for line in lines:
        rungs, *setting, top1 = (cell.strip() for cell in line.strip("|").split("|"))
        keys = ["epochs", "warmup_epochs", "crop_padding", "learning_rate"]
        chosen = runs[(runs[keys] == [float(value) for value in setting]).all(axis=1)]
        found = [chosen.loc[chosen["rung"] == rung.strip(" `"), "top1"] for rung in rungs.split(",")]
        assert {len(values) for values in found} <= {3, 8}
        assert top1 == ", ".join(f"{values.mean():.1f} ±{values.std():.1f}" for values in found)


@pytest.mark.slow
def test_commands_print_what_the_page_shows(study):
    name, folder = study
    for command, output in printed(text_of(name)):
        done = run_here(*shlex.split(command)[1:], cwd=folder)
        assert done.status == 0, done.err
        assert done.out.rstrip() == output.rstrip(), command


@pytest.mark.slow
def test_figures_are_those_of_the_page(study):
    name, folder = study
    commands = re.findall(r"`(roadmap [^`]* -o ([\w-]+\.png))`", text_of(name))
    assert commands
    for command, file in commands:
        done = run_here(*shlex.split(command)[1:], cwd=folder)
        assert done.status == 0, done.err
        assert compare_images(STUDIES / file, folder / file, PIXELS) is None
