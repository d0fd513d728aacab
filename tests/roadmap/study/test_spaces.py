"""Designs that are drawn from spaces: at equal cost, the same ones every time, within their constraints."""

from __future__ import annotations

import json
from collections import Counter
from dataclasses import replace
from random import Random

import pytest

import roadmap
from roadmap.cli import main
from roadmap.design import Design
from roadmap.network.cost import activations, cost
from roadmap.network.equal_cost import EqualCost, _total
from roadmap.options import Selection, StudyOptions
from roadmap.spaces.definition import Space, Values
from roadmap.spaces.parameters import apply_all, quantized_linear
from roadmap.study.load import load_study
from roadmap.study.rungs import StudyContext
from roadmap.study.selection import find_rung, select
from roadmap.study.spaces import SpaceOfRungs
from tests.helpers import ROOT
from tests.helpers.command import run_here

SPACES = tuple(load_study().spaces)


def space_of(name, regime="pico", **changes):
    """A space of the study, with changes."""
    study = load_study()
    changed = replace(study, spaces={**study.spaces, name: replace(study.space(name), **changes)})
    return SpaceOfRungs(StudyContext.of(regime, study=changed), name)


@pytest.mark.parametrize("regime", ["pico", "resnet-50"])
@pytest.mark.parametrize("name", SPACES)
def test_designs_differ_and_cost_the_same(name, regime):
    space = space_of(name, regime)
    samples = list(space.samples(40))
    size, classes = space.base.experiment.recipe.image_size, space.context.study.dataset(space.context.data).classes
    target = cost(space.base.experiment.design, size, classes).macs
    assert len({sample.rung.name for sample in samples}) == len({sample.design for sample in samples}) == 40
    for sample in samples:
        assert cost(sample.design, size, classes).macs == pytest.approx(target, rel=0.01)
        assert sample.rung.parent == space.base.name


@pytest.mark.parametrize("name", SPACES)
def test_more_samples_begin_with_the_same_ones_and_names_say_which(name):
    space = space_of(name)
    few, more = list(space.samples(5)), list(space.samples(12))
    assert more[:5] == few
    assert [sample.rung for sample in space.samples(5, seed=1)] != [sample.rung for sample in few]
    for sample in few:
        assert find_rung(space.context, sample.rung.name) == sample.rung


def test_a_space_is_an_ablation_whose_first_rung_is_the_one_that_varies():
    context = StudyContext.of("pico")
    rungs = select(context, "all", "space:stage-ratio:3")
    assert rungs[0].name == "recipe" and len(rungs) == 4
    assert select(context, rungs[2].name)[0] == rungs[2]
    for wrong in ("space:stage-ratio", "space:stage-ratio:0", "space:stage-ratio:3:x"):
        with pytest.raises(ValueError, match="a sample of a space is space:NAME:COUNT"):
            select(context, "all", wrong)
    with pytest.raises(ValueError, match="unknown design space 'stage'"):
        select(context, "all", "space:stage:3")


@pytest.mark.parametrize("rung", ["recipe", "width", "inverted-bottleneck", "layer-scale"])
def test_the_polynomial_counts_as_the_network_does(rung):
    design = find_rung(StudyContext.of("resnet-50"), rung).experiment.design
    assert isinstance(design, Design)
    random, equal = Random(0), EqualCost(224, 1000)
    for _ in range(20):
        widths = tuple(16 * random.randint(1, 20) for _ in design.depths)
        depths = tuple(random.randint(1, 9) for _ in design.depths)
        drawn = replace(design, width=widths, depths=depths)
        assert _total(equal._terms(drawn), depths, widths) == pytest.approx(cost(drawn).macs, rel=1e-12)


def test_impossible_constraints_fail_at_once():
    with pytest.raises(
        ValueError, match=r"has 0 designs here beside recipe, not 3; the last one drawn: parameters are"
    ):
        list(space_of("stage-ratio", bands={"parameters": (50.0, 60.0)}).samples(3))
    few = space_of("kernel-by-stage", vary={"kernels": Values(values=(3, 5))}, match=None)
    with pytest.raises(ValueError, match="has 16 designs here beside layer-scale, not 17"):
        list(few.samples(17))
    assert len(list(few.samples(16))) == 16
    of_texts = space_of("stage-ratio", vary={"depths": Values(values=("a", "b"))}, regimes={})
    with pytest.raises(ValueError, match="the last one drawn: parameter 'depths' can't be"):
        list(of_texts.samples(1))
    of_one = {"blocks": Values(range=(4, 8)), "slope": Values(values=(0.5,)), "multiplier": Values(values=(1.0,))}
    with pytest.raises(ValueError, match=r"parameter 'blocks' can't be .*: float division by zero"):
        list(space_of("regnet", vary=of_one, regimes={}).samples(1))
    with pytest.raises(ValueError, match="depths follow from blocks"):
        list(space_of("regnet", vary={**of_one, "depths": Values(range=(1, 2))}, regimes={}).samples(1))


def test_cost_is_equal_at_the_size_of_images_that_is_set():
    """Maps of odd sizes are rounded up, so that stages cost other shares of a network at other sizes."""
    options = StudyOptions.of(
        {"regime": "nano", "space": "stage-ratio", "samples": 30, "settings": {"recipe.image_size": 20}}
    )
    selection = Selection.of(options)
    base, *drawn = selection.rungs()
    macs = [selection.cost(rung).macs / selection.cost(base).macs for rung in drawn]
    assert 0.99 <= min(macs) and max(macs) <= 1.01
    for rung in drawn:
        assert selection.rung(rung.name) == rung
    options = StudyOptions.of(
        {"regime": "nano", "steps": "recipe,stage-ratio=4:4:4:4@recipe", "settings": {"recipe.image_size": 20}}
    )
    recipe, matched = (Selection.of(options).cost(rung).macs for rung in Selection.of(options).rungs())
    assert matched == pytest.approx(recipe, rel=0.01)


def test_the_rungs_own_design_is_not_drawn():
    """It is trained anyway."""
    space = space_of("stage-ratio", vary={"depths": Values(values=(1, 2))}, regimes={}, match=None)
    drawn = {sample.design.depths for sample in space.samples(15)}
    assert len(drawn) == 15 and (1, 2, 2, 1) not in drawn


def test_values_have_names_that_say_them_exactly():
    vary = {"growth": Values(range=(1.0, 2.0), multiple=1e-7)}
    space = space_of("stage-ratio-final", vary=vary, regimes={}, match=None)
    for sample in space.samples(5):
        assert space.named(sample.rung.name) == sample


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        (
            "spaces: {bad~name: {rung: recipe, vary: {depths: {range: [1, 2]}}}}",
            "spaces.bad~name must have only letters",
        ),
        ("spaces: {odd: {rung: recipe, vary: {depths: {range: [1, 2]}}, regimes: {pcio: {}}}}", "did you mean 'pico'"),
        (
            "spaces: {odd: {rung: recipe, vary: {depths: {range: [1, 2]}}, regimes: {pico: {dephts: {values: [1]}}}}}",
            "did you mean 'depths'",
        ),
    ],
)
def test_a_study_with_a_wrong_space_is_refused(changes, message, tmp_path):
    text = (ROOT / "ablations.yaml").read_text(encoding="utf-8")
    begin, rest = text.split("\nspaces:", 1)
    execution = rest.split("\nexecution:", 1)[1]
    (tmp_path / "ablations.yaml").write_text(f"{begin}\n{changes}\nexecution:{execution}", encoding="utf-8")
    done = run_here("list", cwd=tmp_path)
    assert done.status == 2 and message in done.err, done.err


def test_bands_hold():
    space = space_of("stage-ratio", bands={"parameters": (0.8, 1.2), "activations": (0.9, 1.1)})
    base = space.base.experiment.design
    for sample in space.samples(20):
        assert 0.8 <= cost(sample.design, 32, 10).parameters / cost(base, 32, 10).parameters <= 1.2
        assert 0.9 <= activations(sample.design, 32) / activations(base, 32) <= 1.1


def test_activations_by_hand():
    """A stem of 4 x 4 patches and one block of three convolutions in each of two stages, at 32 pixels."""
    design = replace(find_rung(StudyContext.of("resnet-50"), "layer-scale").experiment.design, depths=(1, 1), width=8)
    first, second = 8 * 8 * (8 + 8 + 32 + 8), 4 * 4 * (16 + 16 + 64 + 16)
    assert activations(design, 32) == first + second


def test_the_ends_of_a_range_are_as_likely_as_its_middle():
    counts = Counter(Values(range=(1, 4)).draw(random) for random in [Random(0)] for _ in range(8000))
    assert set(counts) == {1, 2, 3, 4} and all(abs(count / 8000 - 0.25) < 0.02 for count in counts.values())
    random = Random(0)
    log = Counter(Values(range=(1, 8), log=True).draw(random) for _ in range(8000))
    assert set(log) == set(range(1, 9)) and log[1] > 2 * log[3] > log[8]
    assert Values(values=("a", "b")).draw(random) in ("a", "b")


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({}, "must have either values or a range"),
        ({"values": (1,), "range": (1, 2)}, "must have either values or a range"),
        ({"range": (0, 2), "log": True}, "must begin above 0"),
        ({"range": (3, 2)}, "must end above its beginning"),
        ({"range": (1, 24), "multiple": 8}, "must end at multiples of 8"),
        ({"values": (1, "a")}, "must be numbers or texts, not both"),
    ],
)
def test_impossible_values_are_refused(given, message):
    with pytest.raises(ValueError, match=message):
        Values(**given)
    with pytest.raises(ValueError, match="vary must name at least one"):
        Space("recipe", {})


def test_quantized_linear_widths_by_hand():
    """1, 2, 3, 4 and 5 times the first width are 0, 1, 1.58, 2 and 2.32 powers of two: 0, 1, 2, 2 and 2."""
    design = replace(find_rung(StudyContext.of("pico"), "layer-scale").experiment.design, depths=(1, 1, 1), width=16)
    drawn = quantized_linear(design, blocks=5, slope=1.0, multiplier=2.0)
    assert drawn.depths == (1, 1, 3) and drawn.widths == (16, 32, 64)
    with pytest.raises(ValueError, match="have 1 stages"):
        quantized_linear(design, blocks=5, slope=0.01, multiplier=2.0)


def test_parameters_change_what_they_name():
    design = find_rung(StudyContext.of("resnet-50"), "layer-scale").experiment.design
    drawn = apply_all(
        design, {"kernels": (3, 5, 7, 9), "expansion": 2.0, "depths": (1, 2, 3, 4), "growth": (2, 1, 1.5)}
    )
    assert [block.convs[0].kernel for block in drawn.blocks] == [3, 5, 7, 9]
    assert {block.convs[1].width for block in drawn.blocks} == {2.0}
    assert drawn.depths == (1, 2, 3, 4) and drawn.widths == (96, 192, 192, 288)


def test_the_command_prints_designs(capsys):
    assert main(["sample", "--space", "stage-ratio", "--samples", "3", "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [set(record) for record in records] == [
        {"name", "parameters", "macs", "identity", "values", "depths", "widths"}
    ] * 3
    selection = Selection.of(StudyOptions())
    rung = selection.rung(records[0]["name"])
    assert selection.run(rung).written_identity == records[0]["identity"]
    assert records[0]["values"] == {"depths": list(records[0]["depths"])}
    assert main(["sample", "--space", "stage-ratio", "--samples", "2"]) == 0
    assert "1.51 M multiply-adds within 1 %" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["sample", "--space", "nowhere"], "unknown design space 'nowhere'"),
        (["sample", "--space", "stage-ratio", "--samples", "0"], "must be between 1 and 1000000"),
        (["run", "--samples", "3", "--dry-run"], "--samples requires --space NAME"),
        (["run", "--space", "stage-ratio", "--steps", "gelu", "--dry-run"], "it does not go with --steps"),
        (["show", "stage-ratio~1-2"], "depths must have 4 values"),
        (["show", "stage-ratio~1-2-3-x"], "'x' must be a number"),
        (["show", "stage-ratio~1-2-3-nan"], "'nan' must be a number"),
        (["show", "stage-ratio~inf-1-1-1"], "'inf' must be a number"),
        (["show", "stage-ratio~1.5-1-1-1"], "depths can't be 1.5 in this space"),
        (["show", "kernel-by-stage~31-1-1-1"], "kernels can't be 31 in this space"),
        (["sample", "--space", "stage-ratio", "--samples", "2000000"], "must be between 1 and 1000000"),
        (["run", "--space", "stage-ratio", "--base", "gelu", "--dry-run"], "it does not go with --base"),
        (["run", "--ablation", "space:stage-ratio:3", "--steps", "gelu", "--dry-run"], "it does not go with steps"),
        (["space", "stage-ratio"], "no such folder of runs"),
    ],
)
def test_bad_usage_is_one_sentence(arguments, message, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    try:
        status = main(arguments)
    except SystemExit as stop:
        status = stop.code
    error = capsys.readouterr().err
    assert status == 2 and message in error, error


def test_steps_are_drawn_and_applied():
    """Each of three steps is in or out; what a name says is what the design has."""
    steps = ("gelu", "fewer-activations", "fewer-norms")
    vary = {"steps": Values(values=steps, subset=True), "kernels": Values(values=(5, 7))}
    space = space_of("kernel-by-stage", rung="move-up-depthwise", match="move-up-depthwise", vary=vary)
    samples = list(space.samples(60))
    drawn = {sample.values["steps"] for sample in samples}
    assert {"none", "gelu", "gelu+fewer-norms", "gelu+fewer-activations+fewer-norms"} <= drawn
    for sample in samples:
        applied, convs = (
            sample.values["steps"].split("+"),
            [conv for block in sample.design.blocks for conv in block.convs],
        )
        assert ("gelu" in applied) == any(conv.act == "gelu" for conv in convs)
        assert ("fewer-norms" in applied) == any(conv.norm is None for conv in convs)
        assert find_rung(space.context, sample.rung.name).experiment == sample.rung.experiment
    with pytest.raises(ValueError, match="steps can't be nothing in this space"):
        find_rung(space.context, "kernel-by-stage~nothing~5-5-5-5")
    with pytest.raises(ValueError, match="subset needs texts"):
        Values(values=(1, 2), subset=True)


def test_a_step_may_change_the_recipe():
    """A design that differs from the rung's own only in its recipe is another one."""
    vary = {"steps": Values(values=("recipe",), subset=True)}
    space = space_of("stage-ratio", rung="pico", match=None, vary=vary, regimes={})
    (modern,) = space.samples(1)
    assert modern.design == space.base.experiment.design and modern.rung.experiment.recipe.optimizer == "adamw"
    with pytest.raises(ValueError, match="has 1 design here beside pico, not 2"):
        list(space.samples(2))


EXAMPLE = str(ROOT / "docs" / "examples" / "space.py")


def test_a_plugin_defines_spaces_and_parameters():
    done = run_here("sample", "--space", "hidden-width", "--plugin", EXAMPLE, "--samples", "8", "--json")
    designs = json.loads(done.out)
    assert len(designs) == 8 and {tuple(design["values"]) for design in designs} == {("hidden", "depths")}
    macs = [design["macs"] for design in designs]
    assert max(macs) / min(macs) <= 1.01 / 0.99
    name = designs[0]["name"]
    shown = run_here("show", name, "--plugin", EXAMPLE)
    assert shown.status == 0 and f"width: {designs[0]['values']['hidden']:g}," in shown.out
    missing = run_here("sample", "--space", "hidden-width")
    assert missing.status == 2 and "unknown design space 'hidden-width'" in missing.err
    with pytest.raises(ValueError, match="must be a text, the first argument of the decorator"):

        @roadmap.design_space
        def mine():
            return None


def test_cost_is_for_the_seeds_that_run_trains():
    """One of each drawn design; three of each rung of the ladder."""
    for chosen, seeds in (([], 3), (["--space", "stage-ratio", "--samples", "2"], 1)):
        assert f"\n{seeds} seed" in run_here("cost", *chosen).out
