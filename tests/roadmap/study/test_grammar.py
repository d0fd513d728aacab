"""The grammar of --steps: one parser, whose values are written as they were read."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st

from roadmap.study.grammar import All, Composition, Generated, Name, Slice, StepSpec, parse_item, parse_steps
from roadmap.study.rungs import StudyContext
from roadmap.study.selection import find_rung, select

GELU, LAYER_NORM = StepSpec("gelu"), StepSpec("layer-norm")


@pytest.mark.parametrize(
    ("written", "item"),
    [
        ("all", All()),
        ("gelu", Name("gelu")),
        ("kernel-size-9", Name("kernel-size-9")),
        ("recipe..gelu", Slice("recipe", "gelu")),
        ("..gelu", Slice(None, "gelu")),
        ("recipe..", Slice("recipe", None)),
        ("kernel-size=9", StepSpec("kernel-size", 9)),
        ("stage-ratio=2:2:6:2@recipe", StepSpec("stage-ratio", [2, 2, 6, 2], Name("recipe"))),
        ("stage-ratio=2:2:6:2@kernel-size=9", StepSpec("stage-ratio", [2, 2, 6, 2], StepSpec("kernel-size", 9))),
        ("gelu@recipe", StepSpec("gelu", None, Name("recipe"))),
        ("gelu+layer-norm", Composition((GELU, LAYER_NORM))),
        ("+gelu", Composition((GELU,))),
        ("kernel-size=9+gelu", Composition((StepSpec("kernel-size", 9), GELU))),
        ("all-steps", Generated("all-steps")),
        ("without-kernel-size-7", Generated("without", "kernel-size-7")),
        ("only-gelu", Generated("only", "gelu")),
        ("order3-02-gelu", Generated("order", "gelu", 3, 2)),
        ("order10-14-gelu", Generated("order", "gelu", 10, 14)),
    ],
)
def test_every_kind_of_item(written, item):
    assert parse_item(f" {written} ") == item
    assert str(item) == written


@pytest.mark.parametrize("written", ["order03-02-gelu", "order3-2-gelu", "order3-002-gelu", "without-", "a,b"])
def test_what_is_almost_a_generated_name_is_a_name(written):
    assert parse_item(written) == Name(written)


def test_a_plus_within_a_value_parts_no_steps():
    assert parse_item("layer-scale=1e+2") == StepSpec("layer-scale", 100.0)


def test_commas_part_items_and_a_sequence_has_them_parted():
    assert parse_steps("recipe, gelu..") == parse_steps(["recipe", "gelu.."]) == (Name("recipe"), Slice("gelu", None))


def test_a_rungs_name_comes_before_any_other_meaning():
    assert parse_item("wide+slow", ["wide+slow"]) == Name("wide+slow")
    assert parse_item("kernel-size=9", ["kernel-size-9"]) == Name("kernel-size-9")


names = st.sampled_from(["gelu", "layer-norm", "kernel-size-9", "resnet-50", "mine"]).map(Name)
values = st.one_of(
    st.builds(StepSpec, st.just("kernel-size"), st.integers(1, 4999).map(lambda half: 2 * half + 1)),
    st.builds(StepSpec, st.just("layer-scale"), st.floats(1e-9, 1e9)),
    st.builds(StepSpec, st.just("stage-ratio"), st.lists(st.integers(1, 99), min_size=2, max_size=5)),
)
specs = st.one_of(
    st.sampled_from([GELU, LAYER_NORM]),
    values,
    st.builds(lambda spec, match: StepSpec(spec.step, spec.value, match), values, st.one_of(names, values)),
)
items = st.one_of(
    st.just(All()),
    names,
    st.builds(Slice, st.none() | names.map(str), st.none() | names.map(str)),
    specs.filter(lambda spec: spec.value is not None),
    st.builds(Composition, st.lists(specs, min_size=1, max_size=4).map(tuple)),
    st.just(Generated("all-steps")),
    st.builds(Generated, st.sampled_from(["without", "only"]), names.map(str)),
    st.builds(Generated, st.just("order"), names.map(str), st.integers(1, 9999), st.integers(1, 999)),
)


@given(st.lists(items, min_size=1, max_size=5))
def test_what_is_written_is_read_again(chosen):
    written = ",".join(map(str, chosen))
    assert list(parse_steps(written)) == chosen
    assert ",".join(map(str, parse_steps(written))) == written


@given(st.text(alphabet="aegl-ru+.=@,:0129 ", max_size=20))
def test_any_text_is_read_or_refused_in_a_sentence(text):
    try:
        parsed = parse_steps(text)
    except ValueError as error:
        assert str(error)
    else:
        assert parse_steps(",".join(map(str, parsed))) == parsed


def test_a_generated_rung_is_unknown_beyond_the_orders_that_there_are():
    context = StudyContext.of("pico")
    with pytest.raises(ValueError, match="unknown rung 'order9999-01-gelu'"):
        find_rung(context, "order9999-01-gelu")
    with pytest.raises(ValueError, match="unknown rung 'only-gelu'"):
        select(context, "only-gelu", "add-one")


def test_compositions_and_generated_rungs_come_behind_the_ladder():
    written = ["only-gelu", "+gelu", "kernel-size=13", "layer-scale", "kernel-size-11", "kernel-size-7"]
    rungs = select(StudyContext.of("pico"), written)
    assert [rung.name for rung in rungs] == [
        *("kernel-size-7", "kernel-size-11", "kernel-size-13", "layer-scale", "+gelu", "only-gelu"),
    ]
