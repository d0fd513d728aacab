"""Ratios of each ConvNeXt to the system of its size: from made-up measurements, and from a quick bench."""

from __future__ import annotations

import json
import re
from dataclasses import replace

import pytest
import yaml

import roadmap
from analysis.figures import draw_counterparts
from analysis.tables.counterparts import QUANTITIES, names_of_networks, pairs_of
from roadmap.cli import main
from roadmap.record.benchmarks import Conditions, Round, append_round, workload_of
from roadmap.study.load import FILE_NAME, parse_study
from roadmap.study.references import reference, references
from roadmap.study.rungs import StudyContext
from roadmap.study.selection import find_rung, ladder
from tests.helpers import ROOT
from tests.helpers.records import study_run

CONDITIONS = Conditions("cpu", "a processor", "fp32", 2, 16, True, None, False, "2.14.1")
NAMES = "convnext-t,swin-t,convnext-iso-s,vit-s-16,swin-s"


@pytest.fixture(scope="module")
def networks():
    context = StudyContext.of("resnet-50")
    rungs = (find_rung(context, "layer-scale"), *references(context, NAMES))
    return {rung.name: study_run(rung, regime="resnet-50") for rung in rungs}


def measured(run, started, speed, memory=2**30, conditions=CONDITIONS):
    counts = {"convnext-t": (28_589_128, 4_455_531_264), "swin-t": (28_288_354, 4_490_000_000)}.get(run.rung, (1, 1))
    speeds = {"training_images_per_second": speed / 4, "inference_images_per_second": speed}
    peaks = {"training_peak_bytes": memory, "inference_peak_bytes": memory // 4}
    named = {"started": started, "regime": "resnet-50", "rung": run.rung, "workload": workload_of(run)}
    sizes = dict(zip(("parameters", "macs"), counts, strict=True)) | {"image_size": 224}
    return Round(**named, **sizes, conditions=conditions, **speeds, **peaks, matrix_gmacs_per_second=400.0)


def test_ratios_are_of_one_commands_rounds(networks):
    """The newest command that measured both is used; a later one that measured only one is not."""
    one, other = networks["convnext-t"], networks["swin-t"]
    rounds = [measured(one, "1", 1.0), measured(other, "1", 1.0)]
    for speed, other_speed in ((50, 40), (30, 40), (60, 40)):
        rounds += [measured(one, "2", speed), measured(other, "2", other_speed)]
    rounds.append(measured(one, "3", 500.0))
    (pair,) = pairs_of(StudyContext.of("resnet-50"), networks, rounds)
    assert (pair.one, pair.other, pair.titles) == ("convnext-t", "swin-t", ("ConvNeXt-T", "Swin-T"))
    ratio = pair.ratios["inference_images_per_second"]
    assert (ratio.value, ratio.low, ratio.high) == (1.25, 0.75, 1.5)
    assert pair.ratios["parameters"].value == pytest.approx(28_589_128 / 28_288_354)
    assert pair.ratios["training_peak_bytes"].value == 1
    assert pair.published["inference_images_per_second"] == pytest.approx(774.7 / 757.9)
    assert pair.published["parameters"] == pytest.approx(29 / 28) and "training_peak_bytes" not in pair.published


def test_other_conditions_are_another_measurement(networks):
    other = replace(CONDITIONS, precision="bf16")
    rounds = [measured(networks["convnext-t"], "1", 1.0), measured(networks["swin-t"], "1", 1.0, conditions=other)]
    assert pairs_of(StudyContext.of("resnet-50"), networks, rounds) == []


def test_the_last_rung_is_used_for_the_convnext(networks):
    """The last rung is the ConvNeXt. Isotropic pairs have the paper's memory too."""
    chosen = {name: networks[name] for name in ("layer-scale", "swin-t", "convnext-iso-s", "vit-s-16")}
    rounds = [measured(run, "1", 10.0 * i, 2**30 * i) for i, run in enumerate(chosen.values(), start=1)]
    first, second = pairs_of(StudyContext.of("resnet-50"), chosen, rounds)
    assert (first.one, first.ratios["inference_images_per_second"].value) == ("convnext-t", 0.5)
    assert second.published["training_peak_bytes"] == pytest.approx(4.2 / 4.9)
    assert second.published["inference_images_per_second"] == pytest.approx(1038.7 / 978.5)


@pytest.mark.parametrize("columns", [1, 2])
def test_the_figure_has_a_panel_for_each_quantity(networks, columns):
    chosen = {name: networks[name] for name in ("convnext-t", "swin-t", "convnext-iso-s", "vit-s-16")}
    rounds = [measured(run, "1", 10.0 * i, 2**30 * i) for i, run in enumerate(chosen.values(), start=1)]
    figure = draw_counterparts(pairs_of(StudyContext.of("resnet-50"), chosen, rounds), "title", columns)
    titles = [axes.get_title().replace("\n", " ") for axes in figure.axes]
    assert titles == [quantity.title for quantity in QUANTITIES.values()]
    assert len({axes.get_xlim() for axes in figure.axes}) == 1  # distances from 1 are the same in all
    low, high = figure.axes[0].get_xlim()
    assert low * high == pytest.approx(1)
    dots = [line.get_xdata()[0] for line in figure.axes[2].lines if line.get_marker() == "o"]
    hollow = [line.get_xdata()[0] for line in figure.axes[2].lines if line.get_marker() == "D"]
    assert dots == [0.5, 0.75] and hollow == pytest.approx([774.7 / 757.9, 1038.7 / 978.5])
    assert not [line for line in figure.axes[3].lines if line.get_marker() == "D"]


def test_the_command_draws_what_was_measured(networks, tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    command = ["figure", "--kind", "counterparts", "--regime", "resnet-50", "--references", "convnext-t,swin-t"]
    assert main([*command, "-o", "pairs.svg"]) == 2
    assert "no command measured a ConvNeXt and its counterpart together" in capsys.readouterr().err
    for name in ("convnext-t", "swin-t"):
        append_round(tmp_path / "runs", measured(networks[name], "1", 10.0))
    assert main([*command, "-o", "pairs.svg"]) == 0 and (tmp_path / "pairs.svg").exists()
    assert main([*command, "--published"]) == 2


@pytest.mark.parametrize("regime", ["pico", "nano", "resnet-50"])
def test_counterparts_are_of_one_size(regime):
    """They match in parameters and multiply-adds, in their narrow forms too."""
    context = StudyContext.of(regime)
    size, classes = (224, 1000) if regime == "resnet-50" else (32, 10)
    counterparts = {
        name: known_reference.counterpart
        for name, known_reference in context.study.references.items()
        if known_reference.counterpart
    }
    assert len(counterparts) == 6
    for name, counterpart in counterparts.items():
        pair = [reference(context, key).experiment.design for key in (name, counterpart)]
        one, other = (roadmap.cost(design, size, classes) for design in pair)
        # A Swin of seven channels is as near to a ConvNeXt of eight as its heads allow.
        assert one.parameters / other.parameters == pytest.approx(1, abs=0.12), name
        assert one.macs / other.macs == pytest.approx(1, abs=0.1), name


def test_a_regime_of_ones_own_may_be_too_short_for_a_references_recipe():
    """The isotropic ConvNeXts warm up for 50 epochs; their networks are compared all the same."""
    data = yaml.safe_load((ROOT / FILE_NAME).read_text(encoding="utf-8"))
    data["regimes"]["mine"] = data["regimes"]["pico"]
    context = StudyContext.of("mine", study=parse_study(data))
    (last,) = ladder("pico", "layer-scale")
    assert names_of_networks(context, {"layer-scale": study_run(last)}) == {}
    with pytest.raises(ValueError, match=r"below epochs, 4 \(got 50\); references.convnext-iso-s.forms.mine gives it"):
        references(context, "all")


@pytest.mark.slow
def test_bench_prints_the_pairs_and_the_published_speeds(tmp_path, monkeypatch, capsys):
    """For pico no speed is published, since its networks are not the paper's. A ratio of one step may be any number."""
    monkeypatch.chdir(tmp_path)
    quick = ["--rounds", "1", "--warm-up", "0", "--seconds", "0.001", "--batch", "4", "--steps", "layer-scale"]
    assert main(["bench", *quick, "--references", "swin-t"]) == 0
    out = capsys.readouterr().out
    assert re.search(r"ConvNeXt-T / Swin-T +\d\.\d\d +\d\.\d\d +[\d.]+", out) and "V100, published" not in out
    assert "roadmap figure --kind counterparts --regime pico" in out
    large = [*quick, "--batch", "1", "--regime", "resnet-50", "--references", "swin-t", "--only", "inference"]
    assert main(["bench", *large]) == 0
    out = capsys.readouterr().out
    rows = {line.split()[0]: line.split()[-1] for line in out.splitlines() if line[:1].isalpha()}
    assert (rows["layer-scale"], rows["swin-t"]) == ("774.7", "757.9")  # the closing rung is ConvNeXt-T
    assert re.search(r"ConvNeXt-T / Swin-T +1\.01 \(1\.04\) +0\.99 \(1\.00\) +[\d.]+ \(1\.02\)", out)
    assert main(["bench", *large, "--json"]) == 0
    records = json.loads(capsys.readouterr().out)
    assert [record["published_v100_images_per_second"] for record in records] == [774.7, 757.9]
