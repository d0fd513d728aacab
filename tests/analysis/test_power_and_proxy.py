"""The commands power, attribution, proxy, collect and table."""

from __future__ import annotations

import json
import re
from pathlib import Path

import pytest

import roadmap
from roadmap.cli import main
from roadmap.files import write_json
from tests.helpers.records import finish, study_run


def finish_all(out, steps="all", ablation="cumulative", seeds=1, regime="pico", value=lambda rung, seed: 90.0):
    """Finishes every run of a study."""
    for seed in range(seeds):
        for rung in roadmap.ladder(regime, steps, ablation=ablation):
            finish(study_run(rung, seed, regime), out, value(rung, seed), manifest=ON_ONE_CORE, seconds=36.0)


ON_ONE_CORE = {"execution": {"processes": 1, "threads": 1}, "machine": {}}


@pytest.fixture
def out(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path / "runs"


def output_of(capsys, *arguments, status=0):
    assert main(arguments) == status
    captured = capsys.readouterr()
    return captured.out if status == 0 else captured.err


def test_power_before_a_study_uses_the_papers_noise(out, capsys):
    output = output_of(capsys, "power", "--regime", "resnet-50", "--difference", "0.1")
    assert "noise: 0.0939" in output and "the deviations that the paper prints, 32 degrees of freedom" in output
    row = next(line.split() for line in output.splitlines() if line.strip().startswith("0.1 "))
    one, all_steps = map(int, row[1:3])  # simulated
    assert abs(one - 15) <= 1 and abs(all_steps - 29) <= 2


def test_power_after_a_study_uses_its_noise(out, capsys):
    finish_all(out, "recipe,gelu", seeds=4, value=lambda rung, seed: 90 + seed * (1 + (rung.name == "gelu")))
    output = output_of(capsys, "power", "--steps", "pico,recipe,gelu", "--difference", "2")
    assert "8 runs of pico" in output and "With 4 seeds the smallest detectable differences are" in output


def test_power_plans_the_study_whose_table_it_follows(out, capsys):
    """Each rung has its own noise in both: a step from a quiet rung to a noisy one is noisy."""
    noises = {rung.name: (0.3, 3.0)[i % 2] for i, rung in enumerate(roadmap.ladder("pico", "recipe..gelu"))}
    finish_all(out, "recipe..gelu", seeds=6, value=lambda rung, seed: 90 + (-1) ** seed * noises[rung.name])
    options = ("--steps", "recipe..gelu")
    visible = float(re.search(r"differences are .* ([\d.]+) for \d+ steps", output_of(capsys, "power", *options))[1])
    median = float(re.search(r"detect a change of ([\d.]+) points", output_of(capsys, "table", *options))[1])
    assert visible == pytest.approx(median, rel=0.2)
    noise = roadmap.power(out, steps="recipe..gelu").noise_by_rung
    assert noise["stage-ratio"] > 3 * noise["recipe"]


@pytest.mark.parametrize(("rungs", "expected"), [("recipe..depthwise", 3.0), ("recipe..gelu", 0.35)])
def test_noise_of_few_rungs_is_pooled_and_that_of_more_is_usual(out, rungs, expected):
    """One of the rungs is as noisy as no other."""
    finish_all(
        out, rungs, seeds=4, value=lambda rung, seed: 90 + (-1) ** seed * (5.0 if rung.name == "recipe" else 0.3)
    )
    power = roadmap.power(out, steps=rungs)
    assert power.noise.std == pytest.approx(expected, rel=0.1) and bool(power.noise_by_rung) == (expected < 1)


def test_equal_values_have_no_noise_whatever_their_mean_is_rounded_to(out):
    finish_all(out, "recipe..gelu", seeds=3, value=lambda rung, seed: 97.84 + seed * (rung.name == "width"))
    power = roadmap.power(out, steps="recipe..gelu")
    assert min(power.noise_by_rung.values()) == power.noise.std > 0
    assert 0 < power.detectable_one <= power.detectable_all


def test_power_of_a_given_noise(out, capsys):
    output = output_of(capsys, "power", "--noise", "1", "--difference", "0.5", "--difference", "1e-6")
    rows = dict(line.split()[:2] for line in output.splitlines()[5:7])
    assert abs(int(rows["0.5"]) - 64) <= 2 and rows["1e-06"] == "over"


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["power"], "the noise of pico is not known"),
        (["power", "--noise", "-1"], "--noise must be at least 0 (got -1)"),
        (["power", "--noise", "nan"], "--noise must be at least 0 (got nan)"),
        (["power", "--noise", "1", "--difference", "0"], "--difference must be other than 0 (got 0)"),
        (["power", "--noise", "1", "--metric", "top3"], "unknown metric 'top3'"),
        (["attribution"], "no such folder of runs"),
        (["attribution", "--ablation", "add-one"], "--ablation does not apply: attribution uses all ablations"),
        (["proxy"], "no such folder of runs"),
        (["table"], "no such folder of runs"),
        (["table", "--published", "--metric", "loss"], "--metric does not apply to --published"),
        (["table", "--published", "--format", "word"], "unknown format 'word'; valid: markdown, csv, latex"),
        (["table", "--published", "--format", "csv"], "a CSV file takes one regime (got 2); choose one with --regime"),
        (["table", "--published", "-o", "table.doc"], "table.doc: a table ends in .md, .csv, .tex"),
        (["table", "--published", "--regime", "pico"], "the paper has no table of regime 'pico'"),
        (["collect"], "no such folder"),
    ],
)
def test_an_impossible_request_is_one_sentence(out, capsys, arguments, sentence):
    output = output_of(capsys, *arguments, status=2)
    assert sentence in output and len(output.strip().splitlines()) == 1


def test_attribution_uses_all_ablations(out, capsys):
    steps = "recipe,gelu,layer-norm"

    def value(rung, seed):
        return 80 + 2 * ("gelu" in rung.steps) + 3 * ({"gelu", "layer-norm"} <= set(rung.steps))

    for ablation in ("add-one", "leave-one-out", "orders:30"):
        finish_all(out, steps, ablation, value=value)
    output = output_of(capsys, "attribution", "--steps", steps)
    rows = {line.split()[0]: line.split() for line in output.splitlines() if line}
    assert rows["recipe"][1] == "+0.00" and rows["gelu"][-2:] == ["+2.00", "+5.00"]
    assert "All steps together: +5.00. The Shapley values sum to" in output
    assert "Effects of pairs can't be separated: more than 7 sets of steps are needed" in output


def test_proxy_compares_the_order_of_the_steps(out, capsys):
    from analysis.published import published_rungs

    published = published_rungs("modernize_resnet50.csv")
    finish_all(out, value=lambda rung, seed: published[rung.name].top1_mean if rung.name in published else 76.13)
    output = output_of(capsys, "proxy")
    assert (
        "Kendall's tau +1.00" in output and "of 14 steps" in output and "The orders agree more than by chance" in output
    )
    assert main(["table", "-o", "study.csv"]) == 0
    capsys.readouterr()
    assert "Kendall's tau +1.00" in output_of(capsys, "proxy", "--against", "study.csv")
    assert "Kendall's tau" in output_of(capsys, "proxy", "--against", "resnet-200")
    assert "no column 'adopted'" in output_of(capsys, "proxy", "--against", str(_written(out, "a,b\n1,2\n")), status=2)
    twice = Path("study.csv").read_text() + Path("study.csv").read_text().splitlines()[-1] + "\n"
    told = output_of(capsys, "proxy", "--against", str(_written(out, twice)), status=2)
    assert "is in two rows; a table has one for each rung" in told
    assert "No such file" in output_of(capsys, "proxy", "--against", "nothing.csv", status=2)
    assert "unknown regime 'resnet-5'" in output_of(capsys, "proxy", "--against", "resnet-5", status=2)
    assert "4 or more" in output_of(capsys, "proxy", "--steps", "pico..stage-ratio", status=2)


def _written(out, text):
    path = out / "wrong.csv"
    path.write_text(text)
    return path


def test_the_table_has_the_papers_values(out, capsys):
    spread = {0: -0.1, 1: 0.0, 2: 0.1}
    means = {"recipe": 78.82, "stage-ratio": 70.0}

    def value(rung, seed):
        return means[rung.name] + spread[seed] * (1 + (rung.name == "stage-ratio"))

    finish_all(out, "recipe,stage-ratio", seeds=3, regime="resnet-50", value=value)
    markdown = output_of(capsys, "table", "--regime", "resnet-50", "--format", "markdown").splitlines()
    assert markdown[0] == "**ResNet-50 on imagenet**"
    rows = {line.split("|")[1].strip(): [cell.strip() for cell in line.split("|")[1:-1]] for line in markdown[2:]}
    head = rows["rung"]
    recipe, ratio = (dict(zip(head, rows[name], strict=True)) for name in ("recipe", "stage-ratio"))
    assert recipe["published"] == "78.82 ±0.07" and recipe["top-1 accuracy (%)"] == "78.82 ±0.10"
    assert (recipe["to published"], recipe["agreement"]) == ("+0.00", "within noise")
    assert (ratio["to published"], ratio["agreement"], ratio["verdict"]) == ("-9.36", "lower", "worse")
    assert ratio["device-hours"] == "0.03" and ratio["MACs"] == "4.53 G" and ratio["parameters"] == "28.63 M"
    latex = output_of(capsys, "table", "--regime", "resnet-50", "--format", "latex")
    assert all(word in latex for word in ("\\toprule", "\\midrule", "\\bottomrule", "top-1 accuracy (\\%)"))
    assert main(["table", "--regime", "resnet-50", "-o", "deep/table.csv"]) == 0
    assert (out.parent / "deep" / "table.csv").read_text().startswith("metric,rung,title,group,adopted,published")


def test_the_papers_table_is_judged_by_its_deviations(out, capsys):
    output = output_of(capsys, "table", "--published", "--regime", "resnet-50")
    assert "patchify-stem +0.15, spread 0.07 and 0.18; gelu +0.05, spread 0.14 and 0.14; layer-norm +0.06" in output
    verdicts = [line for line in output.splitlines() if "within noise" in line]
    # Also two steps of +0.14, whose changes are beyond the spread but not significant.
    names = ["patchify-stem", "inverted-bottleneck", "gelu", "fewer-norms", "layer-norm"]
    assert [line.split()[0] for line in verdicts] == names


def test_collect_lists_what_is_not_finished(out, capsys):
    finish_all(out, "recipe")
    (out / "pico" / "notes").mkdir()
    output = output_of(capsys, "collect", "-o", "all.csv", "-o", "all.parquet")
    assert "runs: 2 folders, 1 finished, 1 foreign" in output and "foreign: pico/notes: no manifest.json" in output
    assert (out.parent / "all.csv").exists() and (out.parent / "all.parquet").exists()
    assert "a table must end in .csv or .parquet" in output_of(capsys, "collect", "-o", "all.xls", status=2)


def test_a_network_of_another_base_is_not_compared_with_the_papers(out, capsys):
    for rung in roadmap.ladder("resnet-50", "recipe", base=["layer-norm"]):
        finish(study_run(rung, regime="resnet-50"), out, 70.0)
    output = output_of(capsys, "table", "--regime", "resnet-50", "--steps", "recipe", "--base", "layer-norm")
    assert "to published" not in output and output.startswith("ResNet-50 on imagenet, on layer-norm")


def test_a_loss_is_compared_with_accuracies_in_the_right_direction(out, capsys):
    from analysis.published import published_rungs

    published = published_rungs("modernize_resnet50.csv")

    def value(rung, seed):
        return published[rung.name].top1_mean if rung.name in published else 76.13

    finish_all(out, value=value)
    for path in out.glob("pico/*/result.json"):
        result = json.loads(path.read_text())
        write_json(path, result | {"test_loss": 3 - result["top1"] / 50})
    assert "Kendall's tau +1.00" in output_of(capsys, "proxy", "--metric", "loss")
    assert main(["table", "-o", "loss.csv", "--metric", "loss"]) == 0
    capsys.readouterr()
    assert "Kendall's tau +1.00" in output_of(capsys, "proxy", "--against", "loss.csv")
    for path in out.glob("pico/*/result.json"):
        result = json.loads(path.read_text())
        write_json(path, result | {"top1": 150 - result["top1"]})
    assert "The orders disagree more than by chance" in output_of(capsys, "proxy")
