"""The ranges of values, and the page that lists them."""

from __future__ import annotations

import runpy
from dataclasses import dataclass
from typing import Annotated, Any

import pytest

from roadmap.data.packed_format import PackOptions
from roadmap.recipe import Recipe
from roadmap.serialization import (
    InvalidField,
    Range,
    Text,
    allowed_by,
    check,
    check_fields,
    field_types,
    from_data,
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
