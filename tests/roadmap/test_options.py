"""The ranges of values, and the page that lists them."""

from __future__ import annotations

import pickle
import runpy
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

import roadmap
from roadmap.data.packed_format import PackOptions
from roadmap.options import Selection, StudyOptions
from roadmap.recipe import Recipe
from roadmap.serialization.plain_data import from_data
from roadmap.serialization.ranges import (
    InvalidField,
    Range,
    Text,
    allowed_by,
    check,
    check_fields,
    field_types,
    range_of,
)
from roadmap.study.cluster import Cluster
from roadmap.study.execution import Execution
from tests.helpers import ROOT


@pytest.mark.parametrize(
    ("allowed", "inside", "outside", "words"),
    [
        (Range(1, 3), (1, 3), (0, 4), "between 1 and 3"),
        (Range(1), (1, 1e14), (0, 1e16, float("inf"), 10**400), "at least 1"),
        (Range(maximum=2), (2, -1e14), (3, -float("inf")), "at most 2"),
        (Range(above=0, below=1), (0.5,), (0, 1, float("nan")), "above 0 and below 1"),
        (Range(3, odd=True), (3, 5), (1, 4), "odd and at least 3"),
        (Range(other_than=0), (-1, 1), (0, float("nan"), float("inf")), "other than 0"),
    ],
)
def test_a_range_holds_numbers_and_has_words(allowed, inside, outside, words):
    assert str(allowed) == words
    assert all(value in allowed for value in inside)
    assert not any(value in allowed for value in outside)


def test_a_value_out_of_range_is_named_with_what_it_must_be():
    check(None, Range(1), "seeds")
    check("auto", Range(1), "seeds")
    check([1, 2], Range(1), "seeds")
    with pytest.raises(ValueError, match=r"^seeds must be between 1 and 10000 \(got 0\)$"):
        check(0, Range(1, 10_000), "seeds")
    with pytest.raises(ValueError, match=r"^seeds\[1\] must be at least 1 \(got 0\)$"):
        check([1, 0], Range(1), "seeds")
    with pytest.raises(ValueError, match=r"^noise must be a number of at most 1e\+15 \(got inf\)$"):
        check(float("inf"), Range(0), "noise")
    with pytest.raises(ValueError, match=r"^seeds must be between 1 and 3 \(got inf\)$"):
        check(float("inf"), Range(1, 3), "seeds")
    with pytest.raises(ValueError, match=r"^name must be short \(got 'long'\)$"):
        check("long", Text("short", lambda written: len(written) < 4), "name")


@dataclass(frozen=True)
class Inner:
    low: Annotated[int, Range(0)]
    high: Annotated[int | None, Range(0)] = None

    def __post_init__(self) -> None:
        check_fields(self)
        if self.high is not None and self.high < self.low:
            raise InvalidField(f"high must be at least low, {self.low} (got {self.high})")


@dataclass(frozen=True)
class Outer:
    inner: Inner
    items: tuple[Inner, ...] = ()


@pytest.mark.parametrize(
    ("data", "message"),
    [
        ({"inner": {"low": -1}}, r"^study\.inner\.low must be at least 0 \(got -1\)$"),
        ({"inner": {"low": 2, "high": 1}}, r"^study\.inner\.high must be at least low, 2 \(got 1\)$"),
        ({"inner": {"low": 0}, "items": [{"low": -1}]}, r"^study\.items\[0\]\.low must be at least 0 \(got -1\)$"),
    ],
)
def test_data_out_of_range_is_refused_with_its_key_path(data, message):
    assert from_data(Outer, {"inner": {"low": 0}}, "study") == Outer(Inner(0))
    with pytest.raises(ValueError, match=message):
        from_data(Outer, data, "study")


def test_a_dataclass_made_in_python_is_checked_too():
    with pytest.raises(ValueError, match=r"^low must be at least 0 \(got -1\)$"):
        Inner(-1)


def test_a_fields_range_is_one_that_others_can_use():
    assert range_of(Recipe, "epochs") == Range(1)


def reference() -> dict[str, Any]:
    return runpy.run_path(str(ROOT / "scripts" / "document_options.py"))


def test_the_options_page_is_up_to_date():
    script = reference()
    written = (ROOT / "docs" / "options.md").read_text(encoding="utf-8")
    assert written == script["page"](), f"docs/options.md is out of date: run `{script['COMMAND']}`"


def test_a_class_with_ranges_checks_them():
    script = reference()
    kinds = {*script["SECTIONS"].values(), *script["DESIGN"].values(), Recipe, Execution, Cluster, PackOptions}
    ranged = [kind for kind in kinds if any(map(allowed_by, field_types(kind).values()))]
    assert len(ranged) > 8
    for kind in ranged:
        assert "check_fields" in kind.__post_init__.__code__.co_names, kind.__name__


def test_a_field_without_a_meaning_is_not_documented():
    with pytest.raises(ValueError, match=r"Inner\.low needs a comment"):
        reference()["fields_table"](Inner)


@pytest.mark.parametrize(
    ("call", "given", "message"),
    [
        ("plan", {"on": "locl"}, r"^on must be local or slurm \(got 'locl'\)$"),
        ("plan", {"cluster": "paper"}, "--cluster requires --on slurm"),
        ("plan", {"seeds": True}, r"^seeds must be a whole number or None \(got True\)$"),
        ("plan", {"seeds": "3"}, "seeds must be a whole number"),
        ("plan", {"steps": None}, r"^steps must be text or a list, each text \(got None\)$"),
        ("plan", {"steps": []}, "steps must name at least one rung"),
        ("plan", {"settings": None}, "settings must be a list, each text or a mapping"),
        ("plan", {"settings": {"recipe.epochs": object()}}, "recipe.epochs must be a number"),
        ("plan", {"data": 3}, r"data must be a path or None \(got 3\)"),
        ("plan", {"regime": ""}, "unknown regime ''"),
        ("figure", {"compare": "x"}, "compare must be side-by-side, difference or None"),
        ("figure", {"kind": "x"}, "kind must be roadmap, tradeoff"),
        ("figure", {"kind": "tradeoff", "x": "x"}, "x must be macs"),
        ("figure", {"columns": 3}, r"columns must be 1 or 2 \(got 3\)"),
        ("figure", {"metric": 3}, "metric must be text"),
        ("figure", {"cluster": "paper"}, "cluster applies only to plan"),
        ("rungs", {"on": "slurm"}, "on applies only to plan"),
        ("evaluate", {"weights": "x"}, "weights must be raw or ema"),
        ("evaluate", {}, "at least one run"),
        ("bench", {"only": "x"}, "only must be training, inference or None"),
        ("estimate", {"gpus": 1.5}, r"gpus must be a whole number \(got 1.5\)"),
        ("estimate", {"throughput": "1"}, "throughput must be a number or None"),
        ("report_server", {"port": 99_999}, r"port must be between 0 and 65535 \(got 99999\)"),
    ],
)
def test_arguments_of_the_api_are_checked(tmp_path, call, given, message):
    with pytest.raises(ValueError, match=message):
        getattr(roadmap, call)(**given)


def test_an_unknown_argument_is_refused_with_the_valid_ones():
    with pytest.raises(TypeError, match=r"plan\(\) has no argument 'regme'; did you mean 'regime'"):
        roadmap.plan(regme="pico")
    with pytest.raises(ValueError, match="to must be safetensors, torchscript, onnx or timm"):
        roadmap.export("recipe", "x")


def test_a_file_in_the_place_of_a_folder_is_named(tmp_path):
    (tmp_path / "file").touch()
    with pytest.raises(ValueError, match=r"--out must be a folder.*got the file .*file, in which"):
        roadmap.plan(out=tmp_path / "file" / "x")
    with pytest.raises(ValueError, match="file is not a folder"):
        roadmap.figure(published=True, output=tmp_path / "file" / "x.png")


def test_one_item_is_a_sequence_of_one_and_paths_may_be_text(tmp_path):
    plan = roadmap.plan(settings="recipe.epochs=3", steps=["recipe", "gelu"], seeds=1, out=str(tmp_path))
    assert [planned.run.experiment.recipe.epochs for planned in plan.runs] == [3, 3]
    (tmp_path / "mine.py").touch()
    assert roadmap.plan(plugins=str(tmp_path / "mine.py"), steps="recipe").runs


def test_settings_of_a_mapping_keep_their_type(tmp_path):
    import numpy as np

    given = {"recipe.epochs": np.int64(20), "execution.wandb": "2024", "recipe.warmup_epochs": 0}
    selection = Selection.of(StudyOptions.of({"settings": given}))
    assert selection.execution.wandb == "2024"
    assert selection.rung("recipe").experiment.recipe.epochs == 20
    assert pickle.loads(pickle.dumps(selection)).settings == selection.settings
    with pytest.raises(ValueError, match="'20' is not a whole number"):
        Selection.of(StudyOptions.of({"settings": {"recipe.epochs": "20"}})).rung("recipe")
