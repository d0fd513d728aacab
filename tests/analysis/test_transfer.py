"""Which steps transfer: verdicts, tables and the figure, on fabricated runs."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest

import roadmap
from analysis.figures.predictions import draw_predictions
from analysis.figures.transfer import draw_transfer
from analysis.options import RunsOptions
from analysis.published.transfer import end_points, published_transfer
from analysis.tables.transfer import transfer_remarks, transfer_table
from analysis.transfer import tau_of, transfer_studies
from roadmap.cli import main
from roadmap.files import write_json
from roadmap.options import StudyOptions
from roadmap.record.predictions import Found, Predicted, read_predictions, write_predictions
from roadmap.record.transfers import TransferOptions, Transfers
from roadmap.tasks.registry import TASKS
from tests.helpers.records import begin, finish, study_run

# Of each rung: top-1, box AP with trained weights, with frozen ones, and from scratch.
VALUES = {
    "pico": (90.0, 40.0, 30.0, 20.0),
    "recipe": (95.0, 46.0, 33.0, 26.0),  # better in both
    "stage-ratio": (97.0, 46.1, None, 24.0),  # in classification
    "patchify-stem": (97.1, 50.0, None, None),  # in detection
    "depthwise": (97.0, 50.1, None, None),  # in neither
}
NOISE = (-0.2, 0.0, 0.2)  # of the seeds


def finish_transfer(source, out, value, begin_with="run", frozen="none"):
    transfers = Transfers.of(TransferOptions("detection", begin_with, frozen), StudyOptions())
    run = transfers.run(source)
    folder = begin(run, out)
    write_json(
        folder / "result.json", {"identity": run.identity, "box_ap": value, "mask_ap": value - 5, "seconds": 9.0}
    )
    return folder


@pytest.fixture
def runs(tmp_path):
    out = tmp_path / "runs"
    for rung in roadmap.ladder("pico", ",".join(VALUES)):
        top1, *aps = VALUES[rung.name]
        for seed, noise in enumerate(NOISE):
            source = study_run(rung, seed)
            finish(source, out, top1 + noise)
            for value, how in zip(aps, (("run", "none"), ("run", "all"), ("scratch", "none")), strict=True):
                if value is not None:
                    finish_transfer(source, out, value + noise, *how)
    return out


@pytest.fixture
def study(runs):
    (found,) = transfer_studies(RunsOptions(out=runs))
    return found


def test_each_step_is_judged_in_both_tasks(study):
    verdicts = {rung.name: study.verdict(rung.name) for rung in study.rungs if study.verdict(rung.name)}
    assert verdicts == {
        "recipe": "transfers",
        "stage-ratio": "helps classification only",
        "patchify-stem": "helps transfer only",
        "depthwise": "helps neither",
    }


def test_one_seed_gives_no_verdict(tmp_path):
    for rung in roadmap.ladder("pico", "pico,recipe"):
        finish(study_run(rung), tmp_path, 90.0)
        finish_transfer(study_run(rung), tmp_path, 40.0)
    (found,) = transfer_studies(RunsOptions(out=tmp_path))
    assert found.verdict("recipe") == "too few seeds"
    assert "A verdict takes three seeds of a rung and of the one before it, in both tasks." in transfer_remarks(found)


def test_the_table_has_means_by_beginning_and_changes(study, runs):
    table = transfer_table(study).set_index("rung")
    assert table.loc["recipe", ["top1", "pre-trained", "frozen", "from scratch"]].tolist() == pytest.approx(
        [95, 46, 33, 26]
    )
    assert table.loc["recipe", ["change of top1", "change of box_ap", "mask_ap"]].tolist() == pytest.approx([5, 6, 41])
    assert table["pre-trained seeds"].tolist() == [3] * 5 and list(table.index) == list(VALUES)
    assert roadmap.table(runs, transfer=True)["verdict"].tolist()[1:] == list(transfer_table(study)["verdict"])[1:]
    columns = roadmap.collect(runs)
    assert (
        set(columns["task"]) == {"classification", "detection"} and columns["box_ap"].notna().sum() == 3 * 9
    )  # from scratch two rungs are one run
    assert len(set(columns[(columns["task"] == "detection") & (columns["rung"] == "recipe")]["experiment"])) == 3


def test_runs_with_other_settings_are_found_if_there_are_no_others(tmp_path):
    for rung in roadmap.ladder("pico", "pico,recipe"):
        recipe = replace(rung.experiment.recipe, epochs=5)
        source = study_run(replace(rung, experiment=replace(rung.experiment, recipe=recipe)))
        finish(source, tmp_path, 80.0)
        finish_transfer(source, tmp_path, 30.0)
    table = roadmap.table(tmp_path, transfer=True)
    assert table[["rung", "top1", "pre-trained"]].to_numpy().tolist() == [["pico", 80, 30], ["recipe", 80, 30]]


def test_classification_does_not_count_the_transfers(runs):
    assert roadmap.table(runs, steps="pico,recipe")["seeds"].tolist() == [(0, 1, 2)] * 2


def test_rank_correlation_by_hand():
    """Of four rungs one pair of six is in another order: (5 - 1) / 6."""
    tau = tau_of([(1, 1), (2, 2), (3, 4), (4, 3)])
    assert tau is not None and tau.value == pytest.approx(4 / 6) and tau.interval[0] <= tau.value <= tau.interval[1]
    assert tau_of([(1, 1), (2, 2), (3, 3)]) is None and tau_of([(1, 1)] * 5) is None


def test_published_end_points():
    points = {
        point.title: (point.top1, point.value) for point in end_points("resnet-50", "coco", "mask-rcnn-3x", "box_ap")
    }
    assert points == {"ConvNeXt-T": (82.1, 46.2), "Swin-T": (81.3, 46.0)}
    row = published_transfer("ade20k", "upernet-160k", "convnext-b")
    assert row is not None and (row.metrics["miou"], row.metrics["miou_ms"], row.gmacs) == (49.1, 49.9, 1170)
    assert end_points("pico", "scenes", "mask-rcnn-3x", "box_ap") == []


def test_the_command_prints_and_draws(runs, tmp_path, capsys):
    assert main(["table", "--transfer", "--out", str(runs)]) == 0
    printed = capsys.readouterr().out
    assert "ResNet-pico, detection on scenes" in printed and "helps classification only" in printed
    assert "Kendall's tau" in printed
    path = tmp_path / "t.svg"
    assert (
        main(["figure", "--kind", "transfer", "--out", str(runs), "-o", str(path)]) == 0 and path.stat().st_size > 5000
    )
    assert main(["table", "--to", "detection", "--out", str(runs)]) == 2
    assert "--to requires --transfer" in capsys.readouterr().err
    assert main(["table", "--transfer", "--to", "segmentation", "--out", str(runs)]) == 2
    assert "no finished transfer with these settings" in capsys.readouterr().err


def test_the_figure_has_a_point_a_rung_and_beginning_and_two_bars_a_step(study):
    scatter, bars = draw_transfer(study).axes
    labels = {text.get_text() for text in scatter.texts}
    assert set(VALUES) <= labels and {text.get_text() for text in bars.texts} >= {"transfers", "helps neither"}
    assert len(bars.patches) == 2 * 4
    keys = [text.get_text() for text in scatter.get_legend().get_texts()]
    assert keys == ["pre-trained", "frozen", "from scratch"]


@pytest.mark.mpl_image_compare(style="default", tolerance=8, savefig_kwargs={"dpi": 60})
def test_picture_of_transfers(study):
    figure = draw_transfer(study)
    for artist in [text for axes in figure.axes for text in axes.findobj() if hasattr(text, "get_text")]:
        artist.set_visible(False)
    return figure


def test_predictions_are_read_as_written_and_drawn(tmp_path):
    image = np.zeros((20, 30, 3), np.uint8)
    mask = np.zeros((1, 20, 30), bool)
    mask[0, 5:10, 5:15] = True
    boxes = np.array([[5, 5, 15, 10]], np.float32)
    truth = Found(np.array([3]), mask, boxes)
    found = Found(np.array([4]), mask, boxes, np.array([0.9], np.float32))
    write_predictions(tmp_path, [Predicted(image, truth, found)])
    (again,) = read_predictions(tmp_path)
    assert again.truth.scores is None and again.found.scores is not None
    assert np.array_equal(again.found.masks, mask) and again.found.labels.tolist() == [4]
    figure = draw_predictions({"pico": tmp_path}, "a title")
    assert [axes.get_ylabel() for axes in figure.axes] == ["annotated", "pico"]
    assert [text.get_text() for text in figure.axes[1].texts] == ["4 0.9"]
    (tmp_path / "predictions.npz").write_bytes(b"damaged")
    assert read_predictions(tmp_path) == []


def test_every_task_has_a_recipe_and_a_metric():
    from roadmap.record.metrics import find_metric
    from roadmap.study.load import load_study

    study = load_study()
    for name, task in TASKS.items():
        assert find_metric(task.metric).unit == "%"
        assert (
            study.dataset(study.transfer(study.transfer_for(name, None, "pico")).data or "digits").annotations
            == task.annotations
        )
    for name, recipe in study.transfers.items():
        for regime in study.regimes:
            transfers = Transfers.of(TransferOptions(recipe.task, "scratch", recipe=name), StudyOptions(regime=regime))
            assert (
                transfers.run(study_run(roadmap.ladder(regime, "gelu")[0], regime=regime)).transfer.options is not None
            )


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["--to", "nothing"], "unknown task 'nothing'; valid: classification, detection, segmentation"),
        (
            ["--to", "detection", "--data", "digits"],
            "--data digits has classes for each image, and detection needs objects",
        ),
        (
            ["--to", "detection", "--recipe", "upernet-160k"],
            "--recipe upernet-160k is for segmentation, not for detection",
        ),
        (["--to", "detection", "--recipe", "none"], "unknown transfer recipe 'none'"),
        (["--to", "detection", "--state-dict", "w.pt"], "--state-dict FILE and --of LIBRARY/NAME belong together"),
        (["--to", "detection", "--set", "transfer.channel=3"], "unknown key 'channel'"),
        (["--to", "detection", "--set", "transfer.channels=0"], "transfer.channels must be at least 1 (got 0)"),
        (["--to", "detection", "--set", "recipe.mixup=0.5"], "detection does not use recipe.mixup"),
        (["pico-detection-s0", "--to", "segmentation"], "is a run of detection; a transfer begins with a classifier"),
        (["nowhere-s0", "--to", "detection"], "no run is called 'nowhere-s0'"),
    ],
)
def test_bad_usage_is_one_sentence(arguments, message, runs, capsys):
    assert main(["transfer", *arguments, "--out", str(runs)]) == 2
    error = capsys.readouterr().err
    assert message in error and error.count("\n") == 1


def test_an_unfinished_run_is_not_transferred(tmp_path, capsys):
    begin(study_run(roadmap.ladder("pico", "pico")[0]), tmp_path, 1)
    assert main(["transfer", "pico-s0", "--to", "detection", "--out", str(tmp_path)]) == 2
    assert "has not finished training, so there is nothing to transfer yet" in capsys.readouterr().err


def test_a_dry_run_prints_the_learning_rates(runs, capsys):
    arguments = ["pico-s0", "--to", "detection", "--dry-run", "--set", "recipe.layer_decay=0.5", "--out", str(runs)]
    assert main(["transfer", *arguments]) == 0
    printed = capsys.readouterr().out
    assert "pico-detection" in printed and "Nothing was started" in printed
    rates = [line.split()[0] for line in printed.splitlines() if line.strip()[:1].isdigit()]
    assert "0.002" in rates and f"{0.002 * 0.5**5:.4g}" in rates  # the head's, and the stem's of 3 + 1 layers


def test_the_report_has_a_section_on_other_tasks(runs):
    page = roadmap.report(runs).read_text(encoding="utf-8")
    assert "<h3>Other tasks</h3>" in page and "helps classification only" in page
    assert page.count('<img class="sheet" src="data:image/png;base64,') == 1  # the figure; no run recorded predictions


def test_a_report_without_transfers_has_no_such_section(tmp_path):
    finish(study_run(roadmap.ladder("pico", "pico")[0]), tmp_path, 90.0)
    assert "Other tasks" not in roadmap.report(tmp_path).read_text(encoding="utf-8")
