"""Optimizers and data sets of users' own: the documents' examples, found, refused, and part of a run's identity."""

from __future__ import annotations

import json

import pytest
import torch

import roadmap
from roadmap.data.datasets import DATASETS, dataset
from roadmap.files import read_json
from roadmap.options import Selection, StudyOptions
from roadmap.plugins import LOADED, Registry, load_file, load_files
from roadmap.recipe import OPTIMIZERS, optimizer
from roadmap.record.folder import read_run, write_manifest
from runner.data.datasets import class_names, load_data
from runner.train.optimizer import BUILT_IN, make_optimizer
from tests.helpers import ROOT
from tests.helpers.command import LIGHT, run_here
from tests.helpers.designs import recipe_of

OPTIMIZER = ROOT / "docs" / "examples" / "optimizer.py"
DATASET = ROOT / "docs" / "examples" / "dataset.py"
TASK = ROOT / "docs" / "examples" / "rotation.py"
ONE_EPOCH = ["--seeds", "1", "--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0"]


def chosen_run(rung="recipe", **options):
    selection = Selection.of(StudyOptions(**options))
    return selection.run(selection.rung(rung))


def test_a_name_is_taken_once_and_unknown_ones_are_refused_with_the_valid_ones():
    registry: Registry[int] = Registry("number")
    with pytest.raises(ValueError, match=r"unknown number 'one'; none is registered \(--plugin loads the file"):
        registry.find("one")
    assert registry.add("one", 1) == registry.find("one") == 1
    with pytest.raises(ValueError, match="number 'one' exists already"):
        registry.add("one", 2)
    with pytest.raises(ValueError, match="unknown number 'on'; did you mean 'one'"):
        registry.find("on")


@pytest.mark.parametrize("decorator", [roadmap.step, roadmap.dataset, roadmap.optimizer, roadmap.model])
def test_a_decorator_without_its_name_is_refused(decorator):
    with pytest.raises(ValueError, match=r"name must be a text, the first argument of the decorator \(got mine\)"):

        @decorator
        def mine(design):
            return design


def test_every_built_in_optimizer_is_built_here():
    assert set(OPTIMIZERS) == set(BUILT_IN)


def test_an_optimizer_of_ones_own_is_chosen_by_the_recipe():
    load_file(OPTIMIZER)
    recipe = chosen_run(settings=("recipe.optimizer=lion-like",)).experiment.recipe
    assert recipe.unused_fields >= {"momentum", "eps"} and "betas" not in recipe.unused_fields
    model = torch.nn.Linear(3, 2)
    made = make_optimizer(model, recipe)
    assert [group["weight_decay"] for group in made.param_groups] == [0.05, 0.0]
    before = model.bias.clone()
    model(torch.ones(1, 3)).sum().backward()
    made.step()
    assert torch.allclose(model.bias, before - recipe.learning_rate)  # the sign of a gradient of 1


def test_optimizers_that_are_none_are_refused(tmp_path):
    run = ["run", "--steps", "recipe", "--dry-run"]
    unknown = run_here(*run, "--set", "recipe.optimizer=adam", cwd=tmp_path)
    assert unknown.status == 2 and "unknown optimizer 'adam'; did you mean 'adamw'? valid: sgd, adamw" in unknown.err
    with pytest.raises(ValueError, match="uses has 'beta'; did you mean 'betas'"):
        optimizer("mine", uses=["beta"])
    with pytest.raises(ValueError, match=r"uses must be a list of fields \(got 'betas'\)"):
        optimizer("mine", uses="betas")
    with pytest.raises(ValueError, match="optimizer 'sgd' exists already"):
        optimizer("sgd")(lambda groups, recipe: None)
    optimizer("none")(lambda groups, recipe: None)
    with pytest.raises(ValueError, match=r"'none' must return a torch\.optim\.Optimizer \(got NoneType\)"):
        make_optimizer(torch.nn.Linear(1, 1), roadmap.Recipe(**vars(recipe_of("recipe")) | {"optimizer": "none"}))
    optimizer("fails")(lambda groups, recipe: 1 / 0)
    with pytest.raises(ValueError, match="'fails' can't be built: ZeroDivisionError"):
        make_optimizer(torch.nn.Linear(1, 1), roadmap.Recipe(**vars(recipe_of("recipe")) | {"optimizer": "fails"}))


def test_the_file_of_an_optimizer_or_a_data_set_is_part_of_the_identity(tmp_path):
    assert not chosen_run().mixers
    runs = []
    for name in ("one", "other"):
        for example in (OPTIMIZER, DATASET):
            path = tmp_path / f"{name}-{example.name}"
            path.write_text(f"{example.read_text(encoding='utf-8')}# {name}\n", encoding="utf-8")
            load_file(path)
        runs += [chosen_run(settings=("recipe.optimizer=lion-like",)), chosen_run(data="stripes")]
        del OPTIMIZERS["lion-like"], DATASETS["stripes"]
    assert [list(run.mixers) for run in runs] == [["optimizer/lion-like"], ["data/stripes"]] * 2
    assert len({run.identity for run in runs}) == 4


def test_a_manifest_is_read_without_the_plugin(make_run, tmp_path):
    load_file(OPTIMIZER)
    run = chosen_run(settings=("recipe.optimizer=lion-like",))
    write_manifest(tmp_path, run)
    del OPTIMIZERS["lion-like"]
    assert read_run(read_json(tmp_path / "manifest.json"), tmp_path) == run


def test_a_data_set_of_ones_own_is_read_as_its_function_says():
    load_file(DATASET)
    run = chosen_run(data="stripes")
    assert (run.data, run.kind, run.dataset.classes) == ("stripes", "memory", 4) and run.crops_by_batch
    assert run.experiment.recipe.horizontal_flip == 0
    train, held_out = load_data(run)
    assert train.images.shape == (1600, 1, 16, 16) and len(held_out) == 400
    assert class_names(run) == ("across", "rising", "down", "falling")
    with pytest.raises(ValueError, match="data set 'digits' exists already"):
        dataset("digits")(lambda path: None)


def test_the_study_may_describe_a_data_set_of_ones_own(tmp_path):
    text = (ROOT / "ablations.yaml").read_text(encoding="utf-8")
    facts = "classes: 4, train_images: 1600, test_images: 400, mean: [0.4, 0.4, 0.4], std: [0.3, 0.3, 0.3]"
    text = text.replace("\ndata:\n", f"\nplugins: [{DATASET}]\n\ndata:\n  stripes: {{{facts}}}\n")
    (tmp_path / "ablations.yaml").write_text(text, encoding="utf-8")
    done = run_here("run", "--steps", "pico", "--data", "stripes", *ONE_EPOCH, "--set", "design.width=8", cwd=tmp_path)
    assert done, done.err
    (manifest,) = (tmp_path / "runs").glob("pico/pico-*/manifest.json")
    run = read_run(read_json(manifest), manifest.parent)
    assert run.dataset.mean == (0.4, 0.4, 0.4)  # the study's word on it
    assert json.loads(manifest.read_text())["classes"] == ["across", "rising", "down", "falling"]


def test_a_folder_of_ones_own_is_read_like_any_other(make_run, tmp_path):
    from tests.helpers.images import make_folder

    root = make_folder(tmp_path / "images", images=3)
    described = roadmap.Dataset(2, 6, 6, (0.5,) * 3, (0.5,) * 3)

    @dataset("insects", described, kind="folder")
    def insects(path):
        return path or root

    run = chosen_run(data="insects")
    assert run.kind == "folder" and not run.crops_by_batch
    assert class_names(run) == tuple(sorted(path.name for path in (root / "train").iterdir()))
    assert len(load_data(run)) == 2


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ("1 / 0", "can't be read: ZeroDivisionError"),
        ("3", r"must return \(\(images, labels\), \(images, labels\)\)"),
        ("2 * [(torch.zeros(4, 8, 8), torch.zeros(4))]", r"images must be uint8, N x 1 or 3 x H x W"),
        ("2 * [(torch.zeros(4, 1, 8, 8, dtype=torch.uint8), torch.zeros(3, dtype=int))]", "labels must be whole"),
    ],
)
def test_what_is_no_data_set_is_refused(given, message):
    dataset("wrong", roadmap.Dataset(2, 4, 4, (0.5,) * 3, (0.5,) * 3))(lambda path: eval(given))
    with pytest.raises(ValueError, match=f"data set 'wrong'.*{message}"):
        load_data(chosen_run(data="wrong"))


@pytest.mark.parametrize(
    ("description", "message"),
    [
        ({"classes": 2}, r"its description must be a roadmap\.Dataset \(got \{'classes': 2\}\)"),
        (roadmap.Dataset(2, 4, 4, 0.5, (0.5,) * 3), "mean: 0.5 is not a list"),
        (roadmap.Dataset(2, 4, 4, (0.5,), (0.5,) * 3), r"mean: \[0.5\] is not a list of 3"),
        (roadmap.Dataset(3, 4, 4, (0.5,) * 3, (0.5,) * 3), r"class_names must be as many as the 3 classes \(got 2\)"),
    ],
)
def test_a_wrong_description_of_a_data_set_is_refused_before_any_run(description, message):
    with pytest.raises(ValueError, match=f"data set 'wrong'.*{message}"):
        dataset("wrong", description, class_names=["one", "other"])


def test_a_data_set_that_nothing_describes_is_refused_with_where_to_describe_it():
    dataset("wrong")(lambda path: None)
    with pytest.raises(ValueError, match=r"--data wrong: the data set lacks a description.*data\.wrong in ablations"):
        chosen_run(data="wrong")


@pytest.mark.slow
def test_an_optimizer_and_a_data_set_of_ones_own_train_together(tmp_path):
    plugins = ["--plugin", OPTIMIZER, "--plugin", DATASET, "--data", "stripes", "--set", "recipe.optimizer=lion-like"]
    done = run_here("run", "--steps", "recipe", *plugins, *ONE_EPOCH, *LIGHT, cwd=tmp_path)
    assert done, done.err
    assert len(list((tmp_path / "runs").glob("pico/recipe-*/result.json"))) == 1


def test_a_plugin_that_changed_after_it_was_loaded_is_refused(tmp_path):
    path = tmp_path / "mine.py"
    path.write_text("", encoding="utf-8")
    load_file(path)
    load_file(path)
    before = {path: LOADED[path]}
    path.write_text("changed = 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match="changed after it was loaded; restart Python"):
        roadmap.plan(plugins=path, steps="recipe", out=tmp_path / "runs")
    del LOADED[path]  # as in the process of a run
    with pytest.raises(ValueError, match="changed after it was loaded"):
        load_files(before)


def test_a_plugin_that_failed_half_way_can_be_loaded_after_its_correction(tmp_path):
    path = tmp_path / "mine.py"
    step = "import roadmap\n\n@roadmap.step('halves')\ndef mine(design):\n    return design\n"
    path.write_text(f"{step}1 / 0\n", encoding="utf-8")
    for _ in range(2):
        with pytest.raises(ValueError, match="ZeroDivisionError"):
            load_file(path)
    path.write_text(step, encoding="utf-8")
    load_file(path)


@pytest.mark.slow
def test_a_task_of_ones_own_is_trained_from_a_run_and_compared(tmp_path):
    short = ("--set", "recipe.epochs=1")
    trained = run_here("run", "--steps", "pico", "--seeds", "1", *short, "--set", "recipe.decay_epochs=1", cwd=tmp_path)
    assert trained.status == 0, trained.err
    chosen = ("--to", "rotation", "--plugin", TASK, *short, "--set", "recipe.warmup_epochs=0")
    done = run_here("transfer", "pico-s0", *chosen, cwd=tmp_path)
    assert done.status == 0, done.err
    assert "turns, pre-trained" in done.out and "[1/1] pico-rotation (seed 0): turns" in done.out
    (folder,) = (tmp_path / "runs" / "pico").glob("pico-rotation-s0-*")
    result = json.loads((folder / "result.json").read_text())
    assert 25 < result["turns"] <= 100 and "top1" not in result
    manifest = json.loads((folder / "manifest.json").read_text())
    assert len(manifest["weights"]) == 16 and "task/rotation" in manifest["run"]["mixers"]
