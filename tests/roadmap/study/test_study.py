"""ablations.yaml: what it holds, where it is found, and how it is refused."""

from __future__ import annotations

import copy
import shutil
from dataclasses import replace

import pytest
import yaml

import roadmap
from roadmap.serialization.yaml_text import parse_value
from roadmap.study.load import FILE_NAME, load_study, parse_study, study_path
from roadmap.study.references import reference
from roadmap.study.rungs import StudyContext
from tests.helpers import ROOT

SHIPPED = yaml.safe_load((ROOT / FILE_NAME).read_text(encoding="utf-8"))


@pytest.fixture
def data():
    return copy.deepcopy(SHIPPED)


def put(data, path, value):
    *parents, last = path
    for key in parents:
        data = data[key]
    data[last] = value


@pytest.mark.parametrize(
    ("path", "value", "message"),
    [
        (["regimez"], {}, "regimez: unknown key; did you mean 'regimes'"),
        (["format"], 2, "format: 2 is not valid; this version reads 1"),
        (["defaults", "regime"], "picco", "defaults.regime: unknown 'picco'; did you mean 'pico'"),
        (["defaults", "seeds"], "three", "defaults.seeds: 'three' is not a whole number"),
        (["defaults", "seeds"], True, "defaults.seeds: True is not a whole number"),
        (["recipes", "modern", "epocs"], 3, "recipes.modern.epocs: unknown key; did you mean 'epochs'"),
        (["recipes", "modern", "epochs"], 0, r"recipes.modern.epochs must be at least 1 \(got 0\)"),
        (
            ["recipes", "modern", "optimizer"],
            "adam",
            "recipes.modern.optimizer: unknown 'adam'; did you mean 'adamw'",
        ),
        (["recipes", "modern", "betas"], [0.9], r"recipes.modern.betas: \[0.9\] is not a list of 2"),
        (["recipes", "modern", "ema"], "no", "recipes.modern.ema: 'no' is not valid; expected a number or null"),
        (
            ["regimes", "pico", "start", "depths"],
            [1, "x"],
            r"regimes.pico.start.depths\[1\]: 'x' is not a whole number",
        ),
        (["regimes", "pico", "data"], "digit", "regimes.pico.data: unknown 'digit'; did you mean 'digits'"),
        (["regimes", "pico", "recipes", "modern", "epoch"], 3, "regimes.pico.recipes.modern.epoch: unknown key"),
        (["regimes", "pico", "recipes", "modrn"], {}, "regimes.pico.recipes.modrn: unknown 'modrn'"),
        (["regimes", "pico", "steps", "wide"], {}, "regimes.pico.steps.wide: unknown 'wide'; did you mean 'width'"),
        (
            ["regimes", "pico", "steps", "width"],
            {"widht": 3},
            "regimes.pico.steps.width.widht: step 'width' has no such",
        ),
        (["regimes", "pico", "steps", "width"], {"width": "x"}, "regimes.pico.steps.width.width: 'x' is not a whole"),
        (["ladder", 3, "step"], "depthwize", r"ladder\[3\].step: unknown 'depthwize'; did you mean 'depthwise'"),
        (["ladder", 7, "adopted"], 8, r"ladder\[7\].adopted: unknown 8"),
        (["ladder", 7, "adopted"], 9, r"ladder\[7\].adopted: unknown 9"),  # it is among the rejected
        (["ladder", 7, "variants"], [5, 7, 9, 11, "big"], r"ladder\[7\].variants.kernel: 'big' is not a whole number"),
        (["ladder", 0, "parameters", "to"], "moderm", "unknown recipe 'moderm'; did you mean 'modern'"),
        (["fidelities", "authors", "steps", "x"], {}, "fidelities.authors.steps.x: unknown 'x'"),
        (["references", "swin-t", "regime"], "resnet-5", "references.swin-t.regime: unknown 'resnet-5'"),
        (["data", "digits", "mean"], 3, "data.digits.mean: 3 is not a list"),
        (["data", "digits", "classes"], 0, "data.digits.classes must be at least 1"),
        (["data", "digits", "std"], [0, 0, 0], r"data.digits.std\[0\] must be above 0 \(got 0.0\)"),
        (["data", "imagenet", "recipe"], {"bogus": 1}, "data.imagenet.recipe.bogus: unknown key"),
        (["defaults", "seeds"], 0, "defaults.seeds must be between 1 and 10000"),
        (["devices", "v100", "macs_per_second"], 0, "devices.v100.macs_per_second must be between 1 and"),
        (["recipes", "modern", "betas"], [0.9, 1.5], r"recipes.modern.betas\[1\] must be at least 0 and below 1"),
        (["regimes", "pico", "steps"], {}, "regimes.pico.steps.stage-ratio.depths: missing"),
        (["ladder", 0, "parameters"], {}, "steps.recipe.to: missing"),
        (["ladder", 0, "parameters", "to"], ["modern"], r"parameters.to: \['modern'\] is not the name of a recipe"),
        (["ladder", 1, "step"], "recipe", r"ladder\[1\].step: 'recipe' is given twice"),
        (["regimes", ".."], {}, "regimes"),
        (
            ["regimes", "pico", "variants"],
            {"kernel-size": ["x"]},
            r"regimes.pico.variants.kernel-size\[0\]: .*whole number",
        ),
        (["regimes", "pico", "variants"], {"gelu": [3]}, r"variants.gelu\[0\]: .*no parameter to vary"),
        (["devices", "v100", "macs_per_second"], None, "devices.v100.macs_per_second: None is not a finite number"),
    ],
)
def test_what_is_wrong_is_refused_with_its_place_and_what_is_valid(data, path, value, message):
    put(data, path, value)
    with pytest.raises(ValueError, match=message):
        parse_study(data)


def test_what_is_missing_is_named(data):
    del data["recipes"]["modern"]["drop_path"]
    with pytest.raises(ValueError, match=r"recipes\.modern\.drop_path: missing"):
        parse_study(data)


def test_the_shipped_study_has_the_eighteen_rungs_in_order():
    names = [rung.name for rung in roadmap.ladder("resnet-50")]
    assert names == [
        "resnet-50", "recipe", "stage-ratio", "patchify-stem", "depthwise", "width", "inverted-bottleneck",
        "move-up-depthwise", "kernel-size-5", "kernel-size-7", "kernel-size-9", "kernel-size-11", "gelu",
        "fewer-activations", "fewer-norms", "layer-norm", "separate-downsampling", "layer-scale",
    ]  # fmt: skip
    assert [rung.name for rung in roadmap.ladder("pico") if not rung.adopted] == ["kernel-size-9", "kernel-size-11"]
    gelu = {rung.name: rung for rung in roadmap.ladder("pico")}["gelu"]
    assert gelu.parent == "kernel-size-7" and gelu.experiment.design.block.convs[0].kernel == 7
    authors = [rung.name for rung in roadmap.ladder("resnet-50", fidelity="authors")]
    assert authors.index("final-norm") == authors.index("separate-downsampling") - 1
    assert "layer-scale" not in authors and len(authors) == 18


def test_adopted_is_what_the_papers_figure_does_not_hatch():
    from analysis.published import published_rungs

    for regime in ("resnet-50", "resnet-200"):
        published = published_rungs(load_study().regime(regime).published)
        for rung in roadmap.ladder(regime):
            if rung.name in published:
                assert (rung.adopted, rung.group) == (published[rung.name].adopted, published[rung.name].group)


def test_the_recipes_are_those_of_the_paper():
    start, modern = (rung.experiment.recipe for rung in roadmap.ladder("resnet-50", "resnet-50,recipe"))
    assert (start.epochs, start.optimizer, start.learning_rate, start.batch_size) == (90, "sgd", 0.1, 256)
    assert (start.weight_decay, start.decay_norms_and_biases, start.warmup_epochs) == (1e-4, True, 0)
    assert (start.mixup, start.cutmix, start.random_erasing, start.label_smoothing) == (0, 0, 0, 0)
    assert (modern.epochs, modern.warmup_epochs, modern.learning_rate, modern.batch_size) == (300, 20, 4e-3, 4096)
    assert (modern.mixup, modern.cutmix, modern.mix_probability, modern.mix_switch_probability) == (0.8, 1, 1, 0.5)
    assert (modern.weight_decay, modern.decay_norms_and_biases, modern.drop_path) == (0.05, False, 0.1)
    assert (modern.randaugment, modern.random_erasing, modern.ema) == ("rand-m9-mstd0.5-inc1", 0.25, None)
    assert roadmap.ladder("resnet-200", "recipe")[0].experiment.recipe.drop_path == 0.5
    released, authors = (
        roadmap.ladder("resnet-50", "recipe", source)[0].experiment.recipe for source in ("released", "authors")
    )
    assert released == replace(modern, ema=0.9999, precision="fp32")
    # As its commands and defaults are in the ablation code, commit 03c78ad.
    own = {"ema": 0.9999, "precision": "fp16-on-cuda", "initialization": "pytorch", "order_seed": 0}
    assert authors == replace(modern, **own)
    pico = roadmap.ladder("pico", "recipe", "authors")[0].experiment.recipe  # where the regime has another one
    assert (pico.initialization, roadmap.compose("pico", ["recipe"]).recipe.initialization) == (
        "pytorch",
        "torchvision",
    )


def test_isotropic_references_warm_up_for_fifty_epochs():
    """Appendix A.1 of the paper."""
    for name in ("convnext-iso-s", "convnext-iso-b", "convnext-iso-l"):
        assert reference(StudyContext.of("resnet-50"), name).experiment.recipe.warmup_epochs == 50
        assert reference(StudyContext.of("nano"), name).experiment.recipe.warmup_epochs == 2
        assert reference(StudyContext.of("pico"), name).experiment.recipe.warmup_epochs == 1


def test_digits_are_not_mirrored_whatever_the_recipe():
    assert {rung.experiment.recipe.horizontal_flip for rung in roadmap.ladder("pico")} == {0.0}


def test_the_working_directory_comes_first(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    assert study_path().parent != tmp_path
    text = (ROOT / FILE_NAME).read_text(encoding="utf-8").replace("seeds: 3", "seeds: 5")
    assert load_study().defaults.seeds == 3
    (tmp_path / FILE_NAME).write_text(text, encoding="utf-8")
    assert load_study().defaults.seeds == 5
    (tmp_path / FILE_NAME).write_text(text.replace("seeds: 5", "seeds: 12"), encoding="utf-8")
    assert load_study().defaults.seeds == 12  # edited in the session


def test_errors_name_the_file(tmp_path):
    path = tmp_path / "mine.yaml"
    shutil.copy(ROOT / FILE_NAME, path)
    path.write_text(path.read_text(encoding="utf-8") + "\nsurprise: 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.yaml: surprise: unknown key"):
        load_study(path)
    path.write_text("a: [1, 2\nb: 3\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.yaml, line 2: not valid YAML"):
        load_study(path)
    path.write_text("", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.yaml: the file is empty"):
        load_study(path)
    path.write_text("format: 1\nformat: 1\n", encoding="utf-8")
    with pytest.raises(ValueError, match=r"mine\.yaml, line 2: not valid YAML: 'format' is given twice"):
        load_study(path)
    with pytest.raises(ValueError, match="not a file"):
        load_study(tmp_path)


def test_numbers_mean_what_they_look_like(tmp_path):
    """YAML 1.1 reads 030 as 24, 2:2:6:2 as 439322, and 4e-3 as text."""
    path, text = tmp_path / "mine.yaml", (ROOT / FILE_NAME).read_text(encoding="utf-8")
    path.write_text(text.replace("learning_rate: 0.1", "learning_rate: 1e-1"), encoding="utf-8")
    assert load_study(path).recipes["classic"].learning_rate == 0.1
    for written, message in (
        ("030", "030 has a leading zero, .*; write 30, or '030' in quotes"),
        ("08", "08 has a leading zero, .*; write 8, or"),
        ("2:2:6:2", "2:2:6:2 is 439562 to some readers of YAML; write 439562, or '2:2:6:2' in quotes for text"),
        ("1:30.5", "1:30.5 is 90.5 to some"),
        ("-0_7", "-0_7 has .*; write -7"),
        ("2026-13-01", "can't be read: month must be in 1..12"),
    ):
        path.write_text(f"format: 1\ndefaults: {{seeds: {written}}}\n", encoding="utf-8")
        with pytest.raises(ValueError, match=rf"mine\.yaml.*: {message}"):
            load_study(path)
        with pytest.raises(ValueError, match="--set x" if written.startswith("2026") else message):
            parse_value(written, "--set x")
    written = {"4e-3": 0.004, "-1E+2": -100.0, ".5e1": 5.0, "1_0": 10, "0x1F": 31, "0": 0, "0.5": 0.5, "00.5": 0.5}
    assert {text: parse_value(text, "") for text in written} == written
    assert [parse_value(text, "") for text in ("'030'", '"4e-3"', "'1:30'")] == ["030", "4e-3", "1:30"]


def test_titles_may_have_braces(data):
    put(data, ["ladder", 7, "title"], "k {} {x} {")
    assert roadmap.ladder("pico", "kernel-size-5", study=parse_study(data))[0].title == "k 5 {x} {"


@pytest.mark.parametrize(
    ("steps", "names"),
    [
        ("gelu", ["gelu"]),
        ("kernel-size=9", ["kernel-size-9"]),
        ("kernel-size", ["kernel-size-7"]),
        ("kernel-size=13", ["kernel-size-13"]),
        ("gelu,recipe", ["recipe", "gelu"]),
        ("fewer-norms..", ["fewer-norms", "layer-norm", "separate-downsampling", "layer-scale"]),
        ("..stage-ratio", ["pico", "recipe", "stage-ratio"]),
        (["gelu", "pico..recipe"], ["pico", "recipe", "gelu"]),
    ],
)
def test_steps_choose_rungs_in_the_ladders_order(steps, names):
    assert [rung.name for rung in roadmap.ladder("pico", steps)] == names


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        ("gelo", "unknown rung 'gelo'; did you mean 'gelu'"),
        ("gelu..recipe", "runs backwards"),
        ("", "steps must be names separated by commas"),
        ("recipe,", r"steps must be names .* \(got 'recipe,'\)"),
        ("kernel-size=4", r"kernel-size=4.kernel must be odd and at least 3 \(got 4\)"),
    ],
)
def test_unknown_rungs_are_refused(steps, message):
    with pytest.raises(ValueError, match=message):
        roadmap.ladder("pico", steps)


def test_unknown_regimes_and_fidelities_are_refused():
    with pytest.raises(ValueError, match="unknown regime 'resnet50'; did you mean 'resnet-50'"):
        roadmap.ladder("resnet50")
    with pytest.raises(ValueError, match="unknown fidelity 'author'; did you mean 'authors'"):
        roadmap.ladder("pico", fidelity="author")
