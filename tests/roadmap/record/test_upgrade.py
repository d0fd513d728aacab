"""Run folders that an earlier version made: they stay usable, and what changes in the schema leaves them so."""

from __future__ import annotations

import ast
import csv
import json
import os
import shutil
import subprocess
import sys

import pytest

from roadmap.files import InvalidFile, read_json
from roadmap.record.folder import read_metrics, read_result, read_run
from roadmap.record.run import Run, written_identity
from roadmap.record.sessions import read_sessions
from roadmap.record.upgrade import upgraded
from roadmap.serialization.plain_data import to_data
from roadmap.study.load import load_study
from roadmap.study.references import reference
from roadmap.study.rungs import StudyContext
from tests.helpers import ROOT
from tests.helpers.command import run_here

# Three runs of format 2: pico and gelu are finished, the latter with its checkpoint; layer-norm was stopped in the
# second of two epochs. Beside them is the ablations.yaml that they were made from.
KEPT = ROOT / "tests" / "goldens" / "format-2"
RUNS = {"pico": "42a99cebd647", "gelu": "c8857acbf8d7", "layer-norm": "a30864996e5e"}
SETTINGS = ("recipe.epochs=2", "recipe.warmup_epochs=0", "recipe.batch_size=256", "design.width=8")
SET = [word for setting in (*SETTINGS, "design.depths=[1,1,1,1]") for word in ("--set", setting)]
TOP1 = {"pico": 38.1057268722467, "gelu": 9.911894273127754}


def folder_of(rung):
    return f"runs/pico/{rung}-s0-{RUNS[rung]}"


@pytest.fixture
def study(tmp_path):
    """A copy of the folder."""
    return shutil.copytree(KEPT, tmp_path / "study")


def test_the_runs_of_format_2_are_shown(study):
    status = run_here("status", "--json", cwd=study)
    states = {row["rung"]: (row["state"], row["identity"]) for row in json.loads(status.out)}
    assert states == {
        rung: ("stopped" if rung == "layer-norm" else "finished", written_identity(RUNS[rung])) for rung in RUNS
    }
    table = run_here("table", "--format", "csv", *SET, cwd=study)
    rows = {row["rung"]: row for row in csv.DictReader(table.out.splitlines())}
    assert {rung: float(row["mean"]) for rung, row in rows.items() if row["mean"]} == TOP1
    assert (rows["gelu"]["parameters"], rows["gelu"]["macs"]) == ("41186", "173920")
    assert run_here("collect", "-o", "table.csv", cwd=study).status == 0
    collected = {
        row["rung"]: row for row in csv.DictReader((study / "table.csv").read_text(encoding="utf-8").splitlines())
    }
    assert {rung: row["state"] for rung, row in collected.items()} == {
        "pico": "finished",
        "gelu": "finished",
        "layer-norm": "begun",
    }
    assert float(collected["pico"]["train_loss"]) == 1.9098224401474
    figure = run_here("figure", *SET, "-o", "figure.svg", cwd=study)
    assert figure.status == 0 and "38.1" in (study / "figure.svg").read_text(encoding="utf-8")


def test_the_runs_of_format_2_are_found_by_their_identity(study):
    done = run_here("run", "--dry-run", "--steps", "pico,gelu,layer-norm", *SET, "--out", "runs", cwd=study)
    lines = {line.split()[0]: line for line in done.out.splitlines() if line.split()[:1]}
    for rung in RUNS:
        assert RUNS[rung] in lines[rung] and folder_of(rung) in lines[rung]
        assert ("finished" in lines[rung]) == (rung in TOP1)


def test_the_network_of_a_run_of_format_2_is_exported_and_evaluated(study):
    exported = run_here("export", folder_of("gelu"), "-o", "gelu.safetensors", cwd=study)
    assert exported.status == 0 and (study / "gelu.safetensors").stat().st_size > 4 * 41186
    evaluated = run_here("evaluate", folder_of("gelu"), "--json", cwd=study)
    assert evaluated.status == 0, evaluated.err
    assert f'"top1": {TOP1["gelu"]:.6f}'[:-3] in evaluated.out


def test_a_run_of_format_2_is_resumed(study):
    folder = study / folder_of("layer-norm")
    before = read_metrics(folder)
    done = run_here("run", "--seeds", "1", "--steps", "layer-norm", *SET, "--out", "runs", cwd=study)
    assert done.status == 0, done.out + done.err
    after = read_metrics(folder)
    assert len(after) == 2 and after[:1] == before
    assert [session.epoch for session in read_sessions(folder)] == [0, 1]  # from its checkpoint
    result = read_result(folder, read_run(read_json(folder / "manifest.json") or {}, folder))
    assert result is not None and result.epochs == 2


def test_a_field_without_a_mark_would_change_the_identities():
    """Fails for a field that was added to what a run holds without `added_in` (docs/design.md)."""
    for rung, identity in RUNS.items():
        manifest = read_json(KEPT / folder_of(rung) / "manifest.json") or {}
        run = read_run(manifest, KEPT)
        assert run.identity == identity
        assert to_data(run, hashed=True) == manifest["run"]


def test_the_identity_of_a_librarys_model_is_stable():
    rung, study = reference(StudyContext.of("resnet-50"), "swin-t"), load_study()
    run = Run("resnet-50", "swin-t", rung.experiment, "imagenet", study.dataset("imagenet"), 0, "paper")
    assert run.identity == "9780a11ef8ea"


# A later version: a field more in each class that decides a run's identity, and in a record.
LATER = {
    "recipe.py": ("Recipe", "restarts: int = field(default=0, metadata=added_in('9.9'))"),
    "design.py": ("Conv", "dilation: int = field(default=1, metadata=added_in('9.9'))"),
    "data/dataset.py": ("Dataset", "tags: dict[str, str] = field(default_factory=dict, metadata=added_in('9.9'))"),
    "record/run.py": ("Run", "fold: int | None = field(default=None, metadata=added_in('9.9'))"),
    "record/sessions.py": ("Session", "nodes: int = field(default=1, metadata=added_in('9.9'))"),
}
READ = """
import sys
from dataclasses import replace
from pathlib import Path
from roadmap.design import map_convs
from roadmap.files import read_json
from roadmap.record.folder import read_run, state
from roadmap.record.sessions import read_sessions

folder = Path(sys.argv[1])
run = read_run(read_json(folder / "manifest.json"), folder)
recipe, design = run.experiment.recipe, run.experiment.design
assert (recipe.restarts, design.block.convs[0].dilation, run.dataset.tags, run.fold) == (0, 1, {}, None)
assert [session.nodes for session in read_sessions(folder)] == [1]
assert state(folder, run) == "finished"
dilated = map_convs(design, lambda conv: replace(conv, dilation=2))
others = [
    replace(run, fold=1),
    replace(run, dataset=replace(run.dataset, tags={"a": "b"})),
    replace(run, experiment=replace(run.experiment, recipe=replace(recipe, restarts=1))),
    replace(run, experiment=replace(run.experiment, design=dilated)),
]
print(run.identity, len({run.identity, *(other.identity for other in others)}))
"""


def test_a_field_that_is_added_leaves_the_identities_of_before(tmp_path):
    """By a copy of the package with the fields in it: old manifests load, and only other values are other runs."""
    package = shutil.copytree(ROOT / "roadmap", tmp_path / "roadmap")
    shutil.copy(ROOT / "ablations.yaml", tmp_path)
    for name, (kind, field) in LATER.items():
        lines = (package / name).read_text(encoding="utf-8").splitlines()
        (found,) = (node for node in ast.parse("\n".join(lines)).body if getattr(node, "name", "") == kind)
        last = max(node.end_lineno for node in found.body if isinstance(node, ast.AnnAssign))
        lines.insert(last, f"    {field}")
        start = lines.index("from __future__ import annotations") + 1
        lines[start:start] = ["from dataclasses import field", "from roadmap.serialization.plain_data import added_in"]
        (package / name).write_text("\n".join(lines) + "\n", encoding="utf-8")
    env = os.environ | {"PYTHONPATH": str(tmp_path)}
    command = [sys.executable, "-c", READ, str(KEPT / folder_of("gelu"))]
    done = subprocess.run(command, env=env, cwd=tmp_path, capture_output=True, text=True, check=False)
    assert done.stdout == f"{RUNS['gelu']} 5\n", done.stderr


def test_a_manifest_of_an_earlier_format_is_upgraded_step_by_step(tmp_path):
    steps = {0: lambda manifest: {**manifest, "b": 1}, 1: lambda manifest: {**manifest, "c": manifest["b"] + 1}}
    assert upgraded({"format": 0, "a": 0}, tmp_path, steps) == {"format": 2, "a": 0, "b": 1, "c": 2}
    assert upgraded({"format": 2, "a": 0}, tmp_path, steps) == {"format": 2, "a": 0}


@pytest.mark.parametrize("version", [1, 3, None, "2", True, [2]])
def test_a_manifest_of_an_unknown_format_is_refused(tmp_path, version):
    with pytest.raises(InvalidFile, match=r"manifest\.json has format .*; this version reads 2"):
        upgraded({"format": version}, tmp_path)
