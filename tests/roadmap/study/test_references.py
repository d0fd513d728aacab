"""The systems that the rungs are compared with: built, counted, trained and drawn as rungs are."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import torch
import yaml

import roadmap
from analysis.figures.parts.rows import rows_of
from analysis.results import Bar, Series
from analysis.tables.counting import compare_counts, count_rungs
from roadmap.cli import main
from roadmap.design import NamedModel
from roadmap.network import counts
from roadmap.network.counts import count_named
from roadmap.network.library_models import build_named
from roadmap.options import Selection, StudyOptions
from roadmap.recipe import Experiment
from roadmap.study.load import load_study, parse_study
from roadmap.study.references import REFERENCE, reference, references
from roadmap.study.rungs import StudyContext
from runner.train.optimizer import parameter_groups
from tests.helpers import ROOT
from tests.helpers.command import run_here

# Parameters and multiply-adds of 224 pixels and 1,000 classes, at which the libraries state the same.
GOLDEN = ROOT / "tests" / "goldens" / "references.json"


def all_of(regime):
    return references(StudyContext.of(regime), "all")


@pytest.mark.parametrize("regime", ["pico", "nano", "resnet-50"])
def test_convnext_t_is_the_last_rung(regime):
    (last,) = roadmap.ladder(regime, "layer-scale")
    assert reference(StudyContext.of(regime), "convnext-t").experiment == last.experiment


@pytest.fixture
def no_cache(tmp_path, monkeypatch):
    """An empty folder in the place of the user's cache, and no counts that ship with us."""
    monkeypatch.setattr(counts, "SHIPPED", tmp_path / "none")
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    counts._counted.cache_clear()  # as of a process that has just begun
    yield tmp_path / "cache" / "roadmap" / "counts.jsonl"
    counts._counted.cache_clear()


@pytest.mark.parametrize("regime", ["pico", "nano", pytest.param("resnet-50", marks=pytest.mark.slow)])
def test_parameters_and_macs_are_what_they_were(regime, no_cache):
    classes = load_study().dataset(load_study().regime(regime).data).classes
    found = {}
    for rung in all_of(regime):
        counted = roadmap.cost(rung.experiment.design, rung.experiment.recipe.image_size, classes)
        found[rung.name] = [counted.parameters, counted.macs]
    assert found == json.loads(GOLDEN.read_text(encoding="utf-8"))[regime]


# The published Swin-B of 384 pixels has windows of 12, and EfficientNetV2-L is by its authors' own count.
KNOWN_OFF = {("swin-b", 384), ("efficientnetv2-l", 480)}


@pytest.mark.slow
def test_counts_are_the_published_ones(no_cache):
    found = compare_counts(all_of("resnet-50"))
    assert len(found) >= 20
    for each in found:
        assert each.ours.parameters == pytest.approx(each.published.parameters, rel=0.02)
        if (each.name, each.published.image_size) not in KNOWN_OFF:
            assert abs(each.off) <= 2.1, each


@pytest.mark.parametrize("rung", all_of("pico"), ids=lambda rung: rung.name)
def test_the_small_form_is_built_as_it_is_counted(rung):
    network = roadmap.build(rung.experiment.design, 10, drop_path=0.1, image_size=32)
    assert network(torch.rand(2, 3, 32, 32)).shape == (2, 10)
    parameters = sum(weight.numel() for weight in network.parameters())
    assert parameters == roadmap.cost(rung.experiment.design, 32, 10).parameters


def test_the_recipes_drop_path_reaches_the_library():
    network = build_named(NamedModel("timm", "deit_tiny_patch16_224", {"drop_path_rate": "{drop_path}"}), 10, 224, 0.3)
    assert network.blocks[-1].drop_path1.drop_prob == pytest.approx(0.3)
    design = reference(StudyContext.of("resnet-50"), "vgg-16-bn").experiment
    assert {"drop_path", "initialization"} <= design.unused_fields
    assert "drop_path" not in reference(StudyContext.of("resnet-50"), "swin-t").experiment.unused_fields


def test_what_a_model_names_itself_is_left_by_weight_decay():
    experiment = reference(StudyContext.of("pico"), "swin-t").experiment
    network = roadmap.build(experiment.design, 10, image_size=32)
    names = {id(weight): name for name, weight in network.named_parameters()}
    decayed, left = (
        [names[id(each)] for each in group["params"]] for group in parameter_groups(network, experiment.recipe)
    )
    assert any(name.endswith("relative_position_bias_table") for name in left)
    assert decayed and not any("relative_position" in name or name.endswith("bias") for name in decayed)


def test_all_but_two_have_a_form_in_pico():
    assert len(all_of("resnet-50")) - len(all_of("pico")) == 2 and len(all_of("pico")) == 22


def test_the_counts_that_ship_are_those_of_all_references(monkeypatch, tmp_path):
    """With the versions of their file, no network is built."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path))
    counts._counted.cache_clear()
    (shipped,) = {tuple(count.model.split("; ")[-3:]) for count in counts._read_counts().values()}
    monkeypatch.setattr(counts, "_versions", lambda named: list(shipped))
    monkeypatch.setattr(counts, "_count", lambda *of: pytest.fail(f"scripts/count_references.py: {of} is missing"))
    golden = json.loads(GOLDEN.read_text(encoding="utf-8"))
    for regime in load_study().regimes:
        for row in count_rungs(Selection.of(StudyOptions(regime=regime, references="all"))):
            expected = golden.get(regime, {}).get(row.rung.name)
            assert expected in (None, [row.cost.parameters, row.cost.macs])
    counts._counted.cache_clear()


def test_a_count_is_kept_for_the_next_process(no_cache, monkeypatch):
    named = NamedModel("timm", "resnet18")
    counted = count_named(named, 64, 10)
    assert len(no_cache.read_text().splitlines()) == 1
    counts._counted.cache_clear()  # the next process's
    # Whether it counts shows nowhere but in the seconds that it takes.
    monkeypatch.setattr(counts, "_count", lambda *_: pytest.fail("counted again"))
    assert count_named(named, 64, 10) == counted
    with pytest.raises(pytest.fail.Exception):  # of other classes it is another network
        count_named(named, 64, 11)


def test_a_cache_that_can_not_be_written_is_done_without(no_cache):
    no_cache.parent.parent.write_text("a file in its place")
    assert count_named(NamedModel("timm", "resnet18"), 64, 10)[0] > 11e6


def test_a_damaged_cache_is_counted_anew(no_cache):
    no_cache.parent.mkdir(parents=True)
    no_cache.write_text('{"model": "x"}\nnonsense\n[1]\n')
    assert count_named(NamedModel("timm", "resnet18"), 64, 10)[0] > 11e6


def test_torchvisions_models_go_by_name_too():
    ours, theirs = (
        roadmap.cost(NamedModel(library, name))
        for library, name in (("torchvision", "swin_t"), ("timm", "swin_tiny_patch4_window7_224"))
    )
    assert ours == theirs


def test_a_reference_keeps_its_identity_by_name_and_arguments(make_run):
    run = make_run("gelu")
    runs = [
        replace(run, experiment=replace(run.experiment, design=NamedModel("timm", name, arguments)))
        for name, arguments in (("resnet18", {}), ("resnet34", {}), ("resnet18", {"drop_rate": 0.1}))
    ]
    assert len({each.identity for each in (run, *runs)}) == 4
    assert isinstance(runs[0].experiment, Experiment) and hash(runs[0].experiment) != hash(runs[1].experiment)


SHORT = ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0"]


@pytest.mark.slow
def test_references_are_trained_counted_and_drawn_beside_rungs(tmp_path, capsys):
    out = str(tmp_path / "runs")
    assert (
        main(["run", "--seeds", "1", "--steps", "pico", "--references", "swin-t,mobilenetv2", "--out", out, *SHORT])
        == 0
    )
    folders = sorted(path.name.rpartition("-")[0] for path in (tmp_path / "runs" / "pico").iterdir())
    assert folders == ["mobilenetv2-s0", "pico-s0", "swin-t-s0"]
    for result in (tmp_path / "runs" / "pico").glob("*/result.json"):
        assert json.loads(result.read_text())["parameters"] > 0
    assert list((tmp_path / "runs").glob("*.svg"))
    capsys.readouterr()
    assert main(["table", "--steps", "pico", "--references", "swin-t", "--out", out, *SHORT]) == 0
    assert re.search(r"^swin-t .* 1\.13 M", capsys.readouterr().out, flags=re.MULTILINE)
    for kind in (["figure", "--kind", "tradeoff"], ["report"]):
        drawn = tmp_path / ("page.html" if kind == ["report"] else "tradeoff.svg")
        chosen = ["--steps", "pico", "--references", "swin-t,mobilenetv2", "--out", out, *SHORT]
        assert main([*kind, *chosen, "-o", str(drawn)]) == 0
        assert drawn.stat().st_size > 10_000
    assert "Swin-T" in drawn.read_text(encoding="utf-8")  # of the page; the pictures' letters are paths


def test_each_reference_has_a_row_and_lone_ones_of_two_regimes_share_one():
    def series(regime, *names):
        bars = [Bar(regime, regime, "", True, 90.0, None, 1e6)]
        bars += [Bar(name, name, REFERENCE, True, 91.0, None, 1e6) for name in names]
        return Series(regime, regime, tuple(bars), ())

    several, other = series("pico", "swin-t", "deit-s"), series("resnet-50", "swin-t")
    assert [[bar and bar.rung for bar in row] for row in rows_of([several, other])] == [
        ["pico", "resnet-50"], ["swin-t", "swin-t"], ["deit-s", None]
    ]  # fmt: skip
    lone = rows_of([other, series("resnet-200", "swin-b")])
    assert [[bar and bar.rung for bar in row] for row in lone] == [["resnet-50", "resnet-200"], ["swin-t", "swin-b"]]


OWN = """
import torch
import yaml
import roadmap

@roadmap.model("two-layers")
class TwoLayers(torch.nn.Module):
    def __init__(self, num_classes, width=8):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, width, 3), torch.nn.Linear(width, num_classes)

    def forward(self, images):
        return self.head(self.conv(images).mean((2, 3)))
"""


@pytest.mark.slow
def test_a_users_own_module_is_a_reference(tmp_path):
    (tmp_path / "two.py").write_text(OWN)
    plugin = ["--plugin", "two.py"]
    assert run_here(
        "run", "--seeds", "1", "--steps", "pico", "--references", "two-layers", *plugin, *SHORT, cwd=tmp_path
    )
    (result,) = tmp_path.glob("runs/pico/two-layers-s0-*/result.json")
    assert json.loads(result.read_text())["parameters"] == 8 * 27 + 8 + 8 * 10 + 10
    manifest = json.loads((result.parent / "manifest.json").read_text())
    assert manifest["run"]["mixers"].keys() == {"own/two-layers"}
    for verb in ("export", "evaluate"):
        without = run_here(verb, "two-layers", cwd=tmp_path)
        assert without.status == 2 and "--plugin loads the file that defines it" in without.err
        assert run_here(verb, "two-layers", *plugin, cwd=tmp_path)


@pytest.mark.parametrize(
    ("arguments", "told"),
    [
        (["--references", "swin"], "unknown reference 'swin'; did you mean 'swin-"),
        (["--references", "vgg-16-bn"], "can't be trained in regime 'pico': it has no form for it"),
        (["--references", "timm/resnet19"], "timm has no model 'resnet19'; similar names: .*resnet18"),
        (["--references", "own/none"], "unknown model own/none; "),
        (["--references", "timm/swin_tiny_patch4_window7_224"], "takes no image of 32 pixels"),
    ],
)
def test_what_is_no_reference_is_said_so(arguments, told, capsys):
    assert main(["list", *arguments]) == 2
    assert re.search(told, capsys.readouterr().err)


ASKING = """
import roadmap, torch

@roadmap.model("asking")
class Asking(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.conv, self.head = torch.nn.Conv2d(3, 8, 3), torch.nn.Linear(8, num_classes)
        self.scale = float(self.conv.weight.abs().max())  # which a tensor of no numbers has not

    def forward(self, images):
        return self.head(self.conv(images).mean((2, 3))) * self.scale
"""


ATTENDING = """
import roadmap, torch

@roadmap.model("attending{ask}")
class Attending(torch.nn.Module):
    def __init__(self, num_classes):
        super().__init__()
        self.embed, self.head = torch.nn.Conv2d(3, 16, 8, 8), torch.nn.Linear(16, num_classes)
        self.layer = torch.nn.TransformerEncoderLayer(16, 2, 32, batch_first=True)
        if "{ask}":
            self.embed.weight.max().item()

    def forward(self, images):
        return self.head(self.layer(self.embed(images).flatten(2).transpose(1, 2)).mean(1))
"""


def test_attention_counts_the_same_on_shapes_and_on_values(tmp_path, capsys):
    """Of 16 tokens: projections and products of attention, two layers, the embedding and the head."""
    (tmp_path / "one.py").write_text(ATTENDING.format(ask=""))
    (tmp_path / "other.py").write_text(ATTENDING.format(ask="-asking"))
    plugins = ["--plugin", str(tmp_path / "one.py"), "--plugin", str(tmp_path / "other.py")]
    assert main(["list", "--steps", "pico", "--references", "attending,attending-asking", *plugins, "--json"]) == 0
    one, other = json.loads(capsys.readouterr().out)[-2:]
    tokens, width = 16, 16
    attention = tokens * width * 4 * width + 2 * tokens * tokens * width
    assert one["macs"] == other["macs"] == tokens * 192 * width + attention + tokens * 2 * width * 32 + width * 10


def test_a_model_that_asks_for_values_is_counted_on_them(tmp_path, capsys):
    (tmp_path / "asking.py").write_text(ASKING)
    plugin = ["--plugin", str(tmp_path / "asking.py")]
    assert main(["list", "--steps", "pico", "--references", "asking", *plugin, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)[-1]
    assert found["parameters"] == 8 * 27 + 8 + 8 * 10 + 10 and found["macs"] == 8 * 27 * 30 * 30 + 80


@pytest.mark.parametrize(
    ("body", "told"),
    [
        ("return 3", "own/wrong must return a torch.nn.Module (got int)"),
        ("return torch.nn.ReLU()", "own/wrong has no weights to train"),
        ("return torch.nn.Conv2d(3, 8, 32)", "own/wrong gives [1, 8, 1, 1] for one image; logits of 10 classes are"),
        ("return torch.nn.LSTM(32, 8)", "own/wrong takes no image of 32 pixels"),
        ("raise KeyError('a')", "own/wrong can't be built with num_classes=10: KeyError"),
    ],
)
def test_a_model_that_gives_something_else_is_refused_before_training(tmp_path, body, told):
    (tmp_path / "wrong.py").write_text(
        f"import roadmap, torch\n@roadmap.model('wrong')\ndef wrong(num_classes):\n    {body}\n"
    )
    done = run_here(
        "run", "--seeds", "1", "--steps", "pico", "--references", "wrong", "--plugin", "wrong.py", cwd=tmp_path
    )
    assert done.status == 2 and told in done.err and "Traceback" not in done.err


def test_a_plugins_model_does_not_hide_a_step(tmp_path):
    (tmp_path / "own.py").write_text(OWN.replace("two-layers", "gelu"))
    done = run_here("show", "gelu", "--plugin", "own.py", cwd=tmp_path)
    assert done.status == 2 and "step 'gelu' exists already" in done.err


def test_families_in_the_tradeoff_are_the_studys():
    from analysis.tradeoff import family_of

    names = ("convnext-t", "convnext-iso-s", "vit-s-16", "efficientnet-b7", "mobilenetv2", "resnext-50", "regnety-16g")
    wanted = ["convnext", "convnext-iso", "vit", "efficientnet", "mobilenetv2", "resnext", "regnety"]
    assert [family_of(name) for name in names] == wanted


def test_a_plugins_model_does_not_hide_behind_a_reference(tmp_path):
    (tmp_path / "own.py").write_text(OWN.replace("two-layers", "swin-t"))
    done = run_here("list", "--references", "swin-t", "--plugin", "own.py", cwd=tmp_path)
    assert done.status == 2 and "'swin-t' is a reference of the study already" in done.err


def test_the_json_has_what_was_published(capsys):
    assert main(["list", "--regime", "resnet-50", "--references", "convnext-b,vit-s-16", "--json"]) == 0
    *rungs, large, small = json.loads(capsys.readouterr().out)
    assert "as_published" not in rungs[0]
    assert [each["published"]["gmacs"] for each in large["as_published"]] == [15.4, 45.0]
    (only,) = small["as_published"]
    assert only["published"]["training_memory"] == 4.9 and abs(only["percent_off"]) < 2


@pytest.mark.parametrize(
    ("changes", "told"),
    [
        ({"a/b": {"title": "A"}}, "references.a/b must have only letters"),
        ({"gelu": {"title": "A"}}, "references.gelu: 'gelu' is the name of a rung already"),
        (
            {"a": {"title": "A", "form": {"model": "resnet18"}}},
            "references.a.form.model must be one of timm/",
        ),
        ({"a": {"title": "A", "form": {"model": "family/convnext"}}}, "references.a.form.model: unknown 'convnext'"),
        ({"a": {"title": "A", "forms": {"pico": {"recipe": {"epoch": 1}}}}}, "references.a.forms.pico.recipe: unknown"),
        ({"a": {"title": "A", "counterpart": "a"}}, "references.a.counterpart must be another reference"),
        (
            {"a": {"title": "A", "form": {"modle": "timm/a"}}},
            "references.a.form.modle: unknown key; did you mean 'model'",
        ),
        ({"a": {"title": "A", "counterpart": "swin"}}, "references.a.counterpart: unknown 'swin'; did you mean"),
    ],
)
def test_references_are_checked_where_they_are_read(changes, told):
    data = yaml.safe_load((ROOT / "ablations.yaml").read_text())
    data["references"] |= changes
    with pytest.raises(ValueError, match=f"^{re.escape(told)}"):
        parse_study(data)


def test_show_and_diff_tell_of_references(capsys):
    assert main(["show", "swin-t"]) == 0
    assert "timm/swin_tiny_patch4_window7_224" in capsys.readouterr().out
    assert main(["diff", "layer-scale", "swin-t"]) == 0
    assert "recipe.drop_path" not in (told := capsys.readouterr().out) and "+ timm/swin" in told
    assert main(["diff", "gelu", "swin-t", "-o", "block.svg"]) == 2
    assert "a model of another library" in capsys.readouterr().err
