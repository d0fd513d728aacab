"""Ablations beyond the one path, variants, and users' own steps."""

from __future__ import annotations

import contextlib
import json
import re

import pytest
import torch

import roadmap
from roadmap.network.mixers import MIXERS
from roadmap.plugins import load_file
from roadmap.serialization.plain_data import differences
from roadmap.steps import STEPS, NoEffect
from roadmap.study.grammar import Name, StepSpec
from roadmap.study.rungs import StudyContext
from roadmap.study.selection import find_rung
from tests.helpers import ROOT
from tests.helpers.command import LIGHT, run_apart, run_here
from tests.helpers.designs import counted_by_torch

EXAMPLE = ROOT / "docs" / "examples" / "attention.py"
STEP_NAMES = [
    "recipe", "stage-ratio", "patchify-stem", "depthwise", "width", "inverted-bottleneck", "move-up-depthwise",
    "kernel-size-7", "gelu", "fewer-activations", "fewer-norms", "layer-norm", "separate-downsampling", "layer-scale",
]  # fmt: skip


def written(names):
    return [name.replace("kernel-size-7", "kernel-size=7") for name in names]


def test_leave_one_out_is_the_roadmap_less_each_step():
    full, *others = roadmap.ladder("resnet-50", ablation="leave-one-out")
    assert full.experiment == roadmap.ladder("resnet-50")[-1].experiment
    assert [rung.name for rung in others] == [f"without-{name}" for name in STEP_NAMES]
    for rung, name in zip(others, STEP_NAMES, strict=True):
        rest = written(other for other in STEP_NAMES if other != name)
        assert rung.experiment == roadmap.compose("resnet-50", rest)
        assert (rung.parent, rung.no_effect) == ("all-steps", False)


def test_add_one_is_the_start_plus_each_step():
    start, *others = roadmap.ladder("resnet-50", ablation="add-one")
    assert start == roadmap.ladder("resnet-50")[0]
    assert [rung.name for rung in others] == [f"only-{name}" for name in STEP_NAMES]
    assert all(
        rung.experiment == roadmap.compose("resnet-50", written([name]))
        for rung, name in zip(others, STEP_NAMES, strict=True)
    )


def test_orders_are_random_whole_and_the_same_every_time():
    rungs = roadmap.ladder("pico", ablation="orders:3")
    assert rungs == roadmap.ladder("pico", ablation="orders:3")
    assert rungs[: 1 + 2 * 14] == roadmap.ladder("pico", ablation="orders:2")
    chains = [rungs[1 + 14 * i : 1 + 14 * (i + 1)] for i in range(3)]
    orders = [[rung.name.split("-", 2)[2] for rung in chain] for chain in chains]
    assert all(sorted(order) == sorted(STEP_NAMES) for order in orders)
    assert len({tuple(order) for order in orders}) == 3
    for chain, order in zip(chains, orders, strict=True):
        assert [rung.parent for rung in chain] == ["pico", *(rung.name for rung in chain[:-1])]
        assert chain[4].experiment == roadmap.compose("pico", written(order[:5]))


def test_steps_choose_what_an_ablation_takes():
    names = [rung.name for rung in roadmap.ladder("pico", "recipe..stage-ratio,gelu", ablation="leave-one-out")]
    assert names == ["all-steps", "without-recipe", "without-stage-ratio", "without-gelu"]
    names = [rung.name for rung in roadmap.ladder("pico", "kernel-size=13", ablation="add-one")]
    assert names == ["pico", "only-kernel-size-13"]
    names = [rung.name for rung in roadmap.ladder("pico", "kernel-size-5..kernel-size-11", ablation="add-one")]
    assert names == ["pico", "only-kernel-size-7"]  # the adopted one of several
    names = [rung.name for rung in roadmap.ladder("pico", "kernel-size=13,kernel-size=15", ablation="add-one")]
    assert names == ["pico", "only-kernel-size-13", "only-kernel-size-15"]
    with pytest.raises(ValueError, match="is given in two variants"):
        roadmap.ladder("pico", "kernel-size=13,kernel-size=15", ablation="leave-one-out")
    with pytest.raises(ValueError, match="not compositions"):
        roadmap.ladder("pico", "kernel-size=9+gelu", ablation="add-one")
    assert roadmap.ladder("resnet-50", "final-norm", ablation="add-one")[1].no_effect is False
    with pytest.raises(ValueError, match="an ablation needs at least one step"):
        roadmap.ladder("pico", "pico", ablation="add-one")


@pytest.mark.parametrize(
    "ablation", ["leave-one", "orders", "orders:0", "orders:x", "orders:100000000", "add-one:3", ""]
)
def test_unknown_ablations_are_refused(ablation):
    with pytest.raises(ValueError, match=r"unknown ablation .* valid: cumulative, leave-one-out"):
        roadmap.ladder("pico", ablation=ablation)


def test_a_step_without_effect_is_an_error_on_the_ladder_and_marked_in_an_ablation(monkeypatch):
    idle = roadmap.Step("idle", lambda design: design)
    monkeypatch.setitem(STEPS, "idle", idle)
    with pytest.raises(roadmap.NoEffect, match="'idle' changes nothing"):
        roadmap.ladder("pico", "all,idle")
    # kernel-size=3 is what the network has: alone it is idle, on the ladder too.
    with pytest.raises(roadmap.NoEffect):
        roadmap.ladder("pico", "kernel-size=3")
    import yaml

    from roadmap.study.load import parse_study

    data = yaml.safe_load((ROOT / "ablations.yaml").read_text(encoding="utf-8"))
    data["ladder"] = [{"step": "gelu", "title": "a", "group": "b"}, {"step": "idle", "title": "c", "group": "d"}]
    study = parse_study(data)
    with pytest.raises(roadmap.NoEffect):
        roadmap.ladder("pico", study=study)
    marks = {rung.name: rung.no_effect for rung in roadmap.ladder("pico", study=study, ablation="add-one")}
    assert marks == {"pico": False, "only-gelu": False, "only-idle": True}
    assert roadmap.ladder("pico", study=study, ablation="leave-one-out")[2].no_effect
    # Idle where it stands on the roadmap, or alone: marked, not refused.
    marks = {
        rung.name: rung.no_effect for rung in roadmap.ladder("pico", "gelu,idle,kernel-size=3", ablation="add-one")
    }
    assert marks == {"pico": False, "only-gelu": False, "only-idle": True, "only-kernel-size-3": True}
    assert [rung.no_effect for rung in roadmap.ladder("pico", "gelu..fewer-norms,idle", ablation="leave-one-out")] == [
        False,
        False,
        False,
        False,
        True,
    ]


def test_variants_stand_on_the_rung_before_their_step():
    for name, parent in (("kernel-size=13", "move-up-depthwise"), ("stage-ratio=2:2:6:2", "recipe")):
        (rung,) = roadmap.ladder("resnet-50", name)
        assert (rung.parent, rung.adopted) == (parent, False)
        (before,) = roadmap.ladder("resnet-50", parent)
        assert len(differences(before.experiment, rung.experiment)) == 1
    (expanded,) = roadmap.ladder("resnet-50", "inverted-bottleneck=6")
    assert [conv.width for conv in expanded.experiment.design.block.convs] == [6.0, "same", 1.0]
    (patches,) = roadmap.ladder("resnet-50", "patchify-stem=8")
    assert (patches.experiment.design.stem.kernel, patches.experiment.design.stem.stride) == (8, 8)


def test_the_studys_variants_stand_among_the_rungs_they_are_compared_with():
    rungs = {rung.name: rung for rung in roadmap.ladder("resnet-50", ablation="variants")}
    assert {"recipe", "stage-ratio", "stage-ratio-2-2-6-2", "kernel-size-7", "kernel-size-13"} <= set(rungs)
    assert all(rung.parent in rungs for rung in rungs.values() if rung.name.startswith("stage-ratio-"))
    with pytest.raises(ValueError, match=r"regimes\.pico\.variants"):
        roadmap.ladder("pico", "gelu", ablation="variants")


@pytest.mark.parametrize("regime", ["resnet-50", "resnet-200"])
def test_matched_variants_have_the_flops_of_their_rung_at_multiples_of_8(regime):
    rungs = {rung.name: rung for rung in roadmap.ladder(regime, ablation="variants")}
    target = roadmap.cost(rungs["recipe"].experiment.design).macs
    matched = [rung for name, rung in rungs.items() if name.endswith("-matching-recipe")]
    assert len(matched) >= 2
    for rung in matched:
        assert roadmap.cost(rung.experiment.design).macs == pytest.approx(target, rel=0.01)
        assert all(width % 8 == 0 for width in rung.experiment.design.widths)


def test_widths_are_solved_finer_where_eights_are_too_coarse_and_refused_where_nothing_fits():
    for written in ("2:2:2:2", "3:3:27:3", "4:4:4:4"):
        (recipe, rung) = roadmap.ladder("nano", f"recipe,stage-ratio={written}@recipe")
        wanted = roadmap.cost(recipe.experiment.design, 32, 10).macs
        assert roadmap.cost(rung.experiment.design, 32, 10).macs == pytest.approx(wanted, rel=0.01)
    with pytest.raises(ValueError, match="no width comes within 1 %"):
        roadmap.compose("pico", ["width=1", "inverted-bottleneck=64@width=1"])


def test_step_specs_are_written_and_named():
    assert StepSpec.parse("gelu") == StepSpec("gelu")
    assert StepSpec.parse("kernel-size=9") == StepSpec("kernel-size", 9)
    spec = StepSpec.parse("stage-ratio=2:2:6:2@recipe")
    assert (spec.value, spec.match) == ([2, 2, 6, 2], Name("recipe"))
    assert spec.name == "stage-ratio-2-2-6-2-matching-recipe"
    with pytest.raises(ValueError, match="did you mean 'gelu'"):
        StepSpec.parse("gleu")


@pytest.mark.parametrize(
    ("name", "steps"),
    [
        ("gelu+layer-norm", ["gelu", "layer-norm"]),
        ("+gelu", ["gelu"]),
        ("kernel-size=9+gelu", ["kernel-size=9", "gelu"]),
        ("only-kernel-size-7", ["kernel-size"]),
        ("order2-01-fewer-activations", ["fewer-activations"]),
    ],
)
def test_rungs_are_found_by_what_they_are(name, steps):
    assert find_rung(StudyContext.of("resnet-50"), name).experiment == roadmap.compose("resnet-50", steps)


def test_generated_names_may_be_chosen_too():
    names = ["gelu", "without-gelu", "only-gelu", "all-steps", "order1-03-stage-ratio"]
    assert [rung.name for rung in roadmap.ladder("pico", names)] == names
    assert roadmap.compose("pico", ["layer-scale=1e+2"]).design.block.layer_scale == 100


@pytest.mark.parametrize(
    "name",
    [
        "recipe..gelu",
        "all",
        "+",
        "kernel-size=",
        "gelu@",
        "without-gelo",
        "only-x",
        "gelu+nothing",
        "kernel-size=4",
        "nothing",
    ],
)
def test_what_is_no_rung_is_refused(name):
    with pytest.raises(ValueError, match=r"unknown|must be odd|not valid|several rungs|names no step|ends without"):
        find_rung(StudyContext.of("pico"), name)


@pytest.fixture
def attention():
    """The worked example of the docs, loaded as a user loads it."""
    load_file(EXAMPLE)


def test_attention_takes_the_place_of_the_convolution_in_the_last_stage(attention):
    (last, mine) = roadmap.ladder("resnet-50", "layer-scale,attention")
    assert (mine.parent, mine.group, mine.title) == ("layer-scale", "Mine", "attention, last stage")
    *earlier, final = mine.experiment.design.blocks
    assert {block for block in earlier} == {last.experiment.design.block}
    assert final.convs[0].mixer == "attention" and all(conv.mixer is None for conv in final.convs[1:])


@pytest.mark.parametrize(
    "steps", [[], ["depthwise"], ["separate-downsampling"], ["layer-norm", "move-up-depthwise", "width"], ["width=20"]]
)
def test_attention_costs_what_torch_counts_wherever_it_stands(attention, steps):
    design = roadmap.compose("pico", ["attention", *steps]).design
    assert counted_by_torch(design, 64) == tuple(vars(roadmap.cost(design, 64, 10)).values())
    model = roadmap.build(design, 10)
    model.train()(torch.randn(2, 3, 64, 64)).sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


def test_another_code_is_another_run(attention, make_run, monkeypatch):
    from dataclasses import replace

    from roadmap.record.run import custom_code

    (rung,) = roadmap.ladder("pico", "attention")
    run = replace(make_run(), experiment=rung.experiment, mixers=custom_code(rung.experiment, "digits"))
    assert run.mixers.keys() == {"attention"}
    assert replace(run, mixers={"attention": "0123456789ab"}).identity != run.identity


@pytest.mark.slow
def test_every_verb_takes_a_step_of_ones_own(tmp_path):
    plugin = ["--plugin", str(EXAMPLE)]
    listed = run_here("list", "--steps", "all,attention", *plugin, "--json", cwd=tmp_path)
    assert json.loads(listed.out)[-1]["name"] == "attention"
    assert "attention, 64" in run_here("show", "attention", *plugin, cwd=tmp_path).out
    changed = run_here("diff", "layer-scale", "attention", *plugin, "-o", "diff.png", cwd=tmp_path).out
    assert changed.splitlines()[0] == "design.block[3].convs[0].mixer: none -> attention"
    assert "block of stage 4" in changed and "block of stage 2" not in changed
    assert (tmp_path / "diff.png").read_bytes().startswith(b"\x89PNG")
    assert "attention" in run_here("cost", "--steps", "attention", *plugin, cwd=tmp_path).out
    quick = ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0", *LIGHT, *plugin]
    done = run_here("run", "--seeds", "1", "--steps", "attention", *quick, cwd=tmp_path)
    assert done.status == 0 and "figure: runs/roadmap-pico-" in done.out, done.out + done.err
    assert run_here("figure", "--steps", "attention", *quick, cwd=tmp_path).status == 0
    missing = run_here("list", "--steps", "attention", cwd=tmp_path)
    assert missing.status == 2 and "unknown rung 'attention'" in missing.err


def test_a_study_names_plugins_and_puts_their_steps_on_the_ladder(tmp_path):
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    text = (ROOT / "ablations.yaml").read_text(encoding="utf-8")
    entry = "  - {step: attention, title: attention, group: Mine}\n"
    text = text.replace("\n# Whose word is followed", entry + "\n# Whose word is followed") + "\nplugins: [mine.py]\n"
    (tmp_path / "ablations.yaml").write_text(text, encoding="utf-8")
    listed = run_here("list", "--json", cwd=tmp_path)
    assert [row["name"] for row in json.loads(listed.out)][-2:] == ["layer-scale", "attention"], listed.err


@pytest.mark.slow
def test_installed_packages_bring_steps_and_mixers_by_an_entry_point(tmp_path):
    (tmp_path / "thinner.py").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    info = tmp_path / "thinner-1.0.dist-info"
    info.mkdir()
    (info / "METADATA").write_text("Metadata-Version: 2.1\nName: thinner\nVersion: 1.0\n")
    (info / "entry_points.txt").write_text("[roadmap.steps]\nthinner = thinner\n")
    import os

    path = os.pathsep.join([str(tmp_path), *filter(None, [os.environ.get("PYTHONPATH")])])
    shown = run_apart("diff", "layer-scale", "attention", cwd=tmp_path, env={"PYTHONPATH": path})
    assert shown.status == 0 and "mixer: none -> attention" in shown.out, shown.err
    quick = ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0", *LIGHT]
    done = run_apart("run", "--seeds", "1", "--steps", "attention", *quick, cwd=tmp_path, env={"PYTHONPATH": path})
    assert done.status == 0, done.out + done.err
    text = (ROOT / "ablations.yaml").read_text(encoding="utf-8")
    entry = "  - {step: attention, title: attention, group: Mine}\n"
    text = text.replace("\n# Whose word is followed", entry + "\n# Whose word is followed")
    (tmp_path / "ablations.yaml").write_text(text, encoding="utf-8")
    listed = run_apart("list", "--json", cwd=tmp_path, env={"PYTHONPATH": path})
    assert json.loads(listed.out)[-1]["name"] == "attention", listed.err


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (None, "no such file"),
        ("import nothing_of_the_kind", "ModuleNotFoundError"),
        ("import roadmap\n@roadmap.step('gelu')\ndef f(design): pass", "'gelu' exists already"),
        ("def broken(:", "SyntaxError"),
        ("import sys\nsys.exit(3)", "SystemExit"),
        ("import roadmap\n@roadmap.step('mine')\ndef f(design, k): pass", "must be keyword-only"),
    ],
)
def test_plugins_that_do_not_load_are_named(tmp_path, text, message):
    if text is not None:
        (tmp_path / "plugin.py").write_text(text)
    done = run_here("list", "--plugin", "plugin.py", cwd=tmp_path)
    assert done.status == 2 and "plugin.py" in done.err and message in done.err
    assert len(done.err.strip().splitlines()) == 1


@pytest.mark.parametrize(
    ("body", "written", "message"),
    [
        ("def f(design): return 1 / 0", "mine", "step 'mine' fails: ZeroDivisionError"),
        (
            "def f(design, *, width: str): return replace(design, width=width)",
            "mine=wide",
            "step 'mine': width must be at least 1 (got 'wide')",
        ),
        ("def f(design, *, k: Nothing): return design", "mine=3", "annotation of its parameters"),
        ("def f(design, *, k: set): return design", "mine=3", "can't be written"),
    ],
)
def test_steps_that_fail_are_named(tmp_path, body, written, message):
    head = "from __future__ import annotations\nfrom dataclasses import replace\nimport roadmap\n"
    (tmp_path / "plugin.py").write_text(f"{head}@roadmap.step('mine')\n{body}\n")
    done = run_here("list", "--steps", written, "--plugin", "plugin.py", cwd=tmp_path)
    assert done.status == 2 and message in done.err and "Traceback" not in done.err


def test_a_plugin_is_loaded_once_however_it_is_spelt(tmp_path):
    (tmp_path / "sub").mkdir()
    (tmp_path / "mine.py").write_text(EXAMPLE.read_text(encoding="utf-8"), encoding="utf-8")
    text = (ROOT / "ablations.yaml").read_text(encoding="utf-8") + "\nplugins: [sub/../mine.py]\n"
    (tmp_path / "ablations.yaml").write_text(text, encoding="utf-8")
    assert run_here("list", "--plugin", "mine.py", cwd=tmp_path).status == 0


def test_two_files_of_one_name_are_two_codes(tmp_path):
    for name in ("a", "b"):
        (tmp_path / name).mkdir()
        text = "from roadmap.network.mixers import mixer\n"
        text += f"@mixer('{name}', parameters=len, macs=len)\nclass Mix:\n    pass\n"
        (tmp_path / name / "mix.py").write_text(text)
        load_file(tmp_path / name / "mix.py")
    assert MIXERS["a"].code != MIXERS["b"].code


def test_changed_boxes_are_those_gone_and_those_new():
    from analysis.figures.blocks import changed_boxes, draw_change

    assert changed_boxes(["a", "b", "+", "r"], ["a", "c", "d", "+"]) == ({1, 3}, {1, 2})
    before, after = (roadmap.ladder("resnet-50", name)[0].experiment.design for name in ("gelu", "fewer-activations"))
    figure = draw_change(("gelu", before), ("fewer-activations", after))
    dashed = [[box.get_linestyle() for box in axes.patches].count("--") for axes in figure.axes]
    assert dashed == [2, 0]  # one behind the first convolution, one behind the sum
    before, after = (
        roadmap.ladder("resnet-50", name)[0].experiment.design for name in ("layer-norm", "separate-downsampling")
    )
    figure = draw_change(("a", before), ("b", after))
    bold = [[text.get_text() for text in axes.texts if text.get_fontweight() == "bold"] for axes in figure.axes]
    assert any("downsampling: LN → 2x2" in text for text in bold[1]) and any("stem: " in text for text in bold[0])


def test_every_rung_has_the_base():
    """The start with the modern recipe: the paper's own comparisons begin there."""
    for ablation in ("cumulative", "add-one", "leave-one-out", "orders:2"):
        rungs = roadmap.ladder("pico", ablation=ablation, base=["recipe"])
        modern = roadmap.compose("pico", ["recipe"]).recipe
        assert all(rung.experiment.recipe == modern for rung in rungs)
        assert not any("recipe" in rung.steps for rung in rungs)
    start, first, *_ = roadmap.ladder("pico", base=["recipe"])
    assert (start.name, start.title, start.parent) == ("recipe", "ResNet-pico … training recipe", None)
    assert start.experiment == roadmap.compose("pico", ["recipe"]) and first.parent == "recipe"
    whole, based = roadmap.ladder("pico"), roadmap.ladder("pico", base=["recipe", "stage-ratio"])
    assert based[0].name == "stage-ratio"
    assert roadmap.ladder("pico", "gelu", base=["layer-norm", "recipe"])[0].steps == ("stage-ratio", *STEP_NAMES[2:9])
    apart = roadmap.ladder("pico", base=["layer-norm", "recipe"])[0]
    assert (apart.name, apart.title) == ("layer-norm+recipe", "ResNet-pico, layer-norm, recipe")
    assert [rung.experiment for rung in based] == [rung.experiment for rung in whole[2:]]
    with pytest.raises(ValueError, match="did you mean 'recipe'"):
        roadmap.ladder("pico", base=["recip"])


@pytest.mark.parametrize("ablation", ["cumulative", "add-one", "leave-one-out", "orders:3"])
def test_a_rung_knows_the_steps_that_led_to_it(ablation):
    for rung in roadmap.ladder("pico", ablation=ablation):
        experiment = roadmap.ladder("pico", "pico")[0].experiment
        for step in rung.steps:
            with contextlib.suppress(NoEffect):
                experiment = StudyContext.of("pico").apply(spec_named(step), experiment)
        assert experiment == rung.experiment


def spec_named(name):
    found = re.fullmatch(r"(kernel-size)-(\d+)", name)
    return StepSpec(found[1], int(found[2])) if found else StepSpec(name)
