"""The test images on which two rungs differ, and the noise that their choice adds."""

from __future__ import annotations

import threading
from dataclasses import replace
from urllib.request import urlopen

import numpy as np
import pandas as pd
import pytest
from scipy import stats

import roadmap
from analysis.figures import draw_contact_sheet
from analysis.statistics.contrasts import judge
from analysis.statistics.images import ImageNoise, mcnemar
from analysis.statistics.samples import Sample
from roadmap.record.outcomes import NOT_READ, OUTCOMES_FILE, Outcomes, read_outcomes, write_outcomes
from runner.data.datasets import load_data
from tests.helpers.command import run_here
from tests.helpers.records import finish, study_run
from tests.helpers.waiting import until

PICO = {rung.name: rung for rung in roadmap.ladder("pico", "all")}
DIGITS = load_data(study_run(PICO["pico"]))[1].labels.numpy().astype(np.int32)


def finish_with(out, rung, seed, correct):
    """A finished run that is right on these images, and takes the others for the next class."""
    predicted = np.where(correct, DIGITS, (DIGITS + 1) % 10).astype(np.int32)
    folder = finish(study_run(PICO[rung], seed), out, 100 * float(np.mean(correct)))
    write_outcomes(folder, {"": Outcomes(DIGITS, predicted, np.full(len(DIGITS), 0.75, dtype=np.float16))})
    return folder


def right_except(*wrong):
    correct = np.ones(len(DIGITS), dtype=bool)
    correct[list(wrong)] = False
    return correct


@pytest.fixture
def out(tmp_path, monkeypatch):
    """Two rungs with three runs each. One is wrong on images 0 to 3, the other on 3 to 5 and once on 6."""
    monkeypatch.chdir(tmp_path)
    for seed in range(3):
        finish_with(tmp_path / "runs", "recipe", seed, right_except(0, 1, 2, 3))
        finish_with(tmp_path / "runs", "stage-ratio", seed, right_except(3, 4, 5, *([6] if seed == 0 else [])))
    return tmp_path / "runs"


def test_images_and_classes_on_which_rungs_differ(out):
    found = roadmap.disagree("recipe", "stage-ratio")
    assert found.runs == 3 and found.test_images == len(DIGITS)
    assert found.images["index"].tolist() == [0, 1, 2, 4, 5, 6]
    first = found.images.iloc[0]
    assert first["label"] == str(DIGITS[0]) and first["first"] == str((DIGITS[0] + 1) % 10)
    assert first["second"] == str(DIGITS[0]) and first["first_confidence"] == 0.75
    assert found.images["second_correct"].tolist()[-1] == pytest.approx(2 / 3)
    assert (found.test.only_first, found.test.only_second) == (3, 3)  # the first is right in more runs on 4, 5, 6
    assert found.test.p == pytest.approx(stats.binomtest(3, 6).pvalue)
    assert found.classes["only_first"].sum() == 3 and found.classes["images"].sum() == len(DIGITS)


def test_rungs_are_compared_by_equally_many_runs(out):
    """With more runs a rung is right in all of them less often, however good it is."""
    finish_with(out, "gelu", 0, right_except(0, 1))
    found = roadmap.disagree("recipe", "gelu")
    assert found.runs == 1 and found.images["index"].tolist() == [2, 3]
    assert (found.test.only_first, found.test.only_second) == (0, 2)


def test_images_that_a_run_could_not_read_are_left_out(out):
    folder = finish_with(out, "gelu", 0, right_except(0, 1))
    outcomes = read_outcomes(folder)
    predicted = outcomes.predicted.copy()
    predicted[:2] = NOT_READ
    write_outcomes(folder, {"": replace(outcomes, predicted=predicted)})
    found = roadmap.disagree("recipe", "gelu")
    assert found.test_images == len(DIGITS) - 2 == found.classes["images"].sum()
    assert found.images["index"].tolist() == [2, 3]


def test_the_command_lists_and_draws_them(out, tmp_path):
    done = run_here("disagree", "recipe", "stage-ratio", "-o", "sheet.png", "-o", "images.csv", "--rows", "2")
    assert done.status == 0
    assert f"recipe and stage-ratio, 3 runs each, on {len(DIGITS)} test images" in done.out
    assert "and 4 more images" in done.out
    assert "recipe is right in more runs on 3 images, stage-ratio on 3. McNemar's exact test: p 1," in done.out
    assert (tmp_path / "sheet.png").stat().st_size > 10_000
    assert pd.read_csv(tmp_path / "images.csv")["index"].tolist() == [0, 1, 2, 4, 5, 6]


def test_the_contact_sheet_shows_each_image_with_both_predictions(out):
    found = roadmap.disagree("recipe", "stage-ratio")
    pictures = [np.full((8, 8, 3), 10 * i, dtype=np.uint8) for i in range(len(found.images))]
    sheet = draw_contact_sheet(found, pictures)
    drawn = [axes for axes in sheet.axes if axes.images]
    assert [int(axes.images[0].get_array().max()) for axes in drawn] == [10 * i for i in range(6)]
    for axes, row in zip(drawn, found.images.to_dict("records"), strict=True):
        assert axes.get_title() == row["label"]
        some = "" if row["index"] != 6 else " (67% right)"
        assert [text.get_text() for text in axes.texts] == [f"A: {row['first']}", f"B: {row['second']}{some}"]


def test_the_report_compares_the_first_and_the_last_rung(out):
    page = roadmap.report(out).read_text()
    assert f"On 3 of {len(DIGITS)} test images more runs of recipe are right, on 3 more of stage-ratio, of 3" in page
    assert '<img class="sheet" src="data:image/png;base64,' in page and 'id="pico-classes"' in page


def test_a_served_report_notices_a_lost_record(out):
    def version():
        with urlopen(f"http://127.0.0.1:{server.server_port}/version") as answer:
            return answer.read()

    with roadmap.report_server(out) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            before = version()
            next(out.rglob(OUTCOMES_FILE)).unlink()
            until(lambda: version() != before, "another version")
        finally:
            server.shutdown()
            thread.join()


@pytest.mark.parametrize(
    ("arguments", "sentence"),
    [
        (["recipe", "gelu"], "no finished run of gelu with these settings"),
        (["recipe", "nothing"], "unknown rung 'nothing'"),
        (["recipe", "stage-ratio", "-o", "sheet.txt"], "sheet.txt: a figure must end in .png, .svg, .pdf; or in .csv"),
        (["recipe", "recipe"], "recipe and recipe are the same experiment"),
    ],
)
def test_wrong_usage_is_refused(out, arguments, sentence):
    done = run_here("disagree", *arguments)
    assert done.status == 2 and sentence in done.err and len(done.err.splitlines()) == 1


def test_runs_without_a_record_are_named(out):
    finish(study_run(PICO["gelu"]), out)
    done = run_here("disagree", "recipe", "gelu")
    assert done.status == 2 and "not every run of gelu has a test_images.npz" in done.err


def test_rungs_that_do_not_differ_are_said_to(out):
    for seed in range(3):
        finish_with(out, "gelu", seed, right_except(0, 1, 2, 3))
    done = run_here("disagree", "recipe", "gelu")
    assert done.status == 0 and "They do not differ in any of the images." in done.out and "p 1," in done.out


def test_a_record_of_other_images_is_named(out):
    folder = finish_with(out, "stage-ratio", 3, right_except(0))
    other = Outcomes(DIGITS[:5], DIGITS[:5], np.ones(5, dtype=np.float16))
    write_outcomes(folder, {"": other})
    for command in (["disagree", "recipe", "stage-ratio"], ["table", "--out", out], ["report", "--out", out]):
        done = run_here(*command)
        assert done.status == 2 and f"it must have {len(DIGITS)} images" in done.err and "Traceback" not in done.err


def test_collect_returns_them(out):
    finish(study_run(PICO["gelu"]), out)
    table = roadmap.collect(out, images=True).set_index(["rung", "seed"])
    assert table.loc[("recipe", 0), "correct"].sum() == len(DIGITS) - 4
    assert table.loc[("recipe", 0), "confidence"].dtype == np.float16
    assert table.loc[("gelu", 0), "correct"] is None
    assert "correct" not in roadmap.collect(out)


def test_a_table_covers_the_test_images_where_all_runs_recorded_them(out):
    steps = "recipe,stage-ratio"
    table = roadmap.table(out, steps=steps).set_index("rung").loc["stage-ratio"]
    assert table["images_high"] - table["images_low"] > table["change_high"] - table["change_low"]
    shown = run_here("table", "--steps", steps, "--out", out).out
    assert "95 %, other images too" in shown and "also for other test images" in shown
    next(out.rglob("test_images.npz")).unlink()
    assert roadmap.table(out, steps=steps)["images_low"].isna().all()
    shown = run_here("table", "--steps", steps, "--out", out).out
    assert "95 %, other images too" not in shown and "do not cover other test images" in shown


def simulated(draw, *, images, runs, effect):
    """Runs of two rungs on images of differing difficulty, on which the second is better by `effect` on average."""
    difficulty = draw.normal(1.5, 2.0, images)
    by_rung = [difficulty, difficulty + effect + draw.normal(0, 0.7, images)]
    return [draw.normal(0, 1, (runs, images)) < logits for logits in by_rung]


@pytest.mark.slow
def test_the_noise_of_images_is_that_of_other_images():
    """The variance over test sets, without that over seeds, is recovered from one test set."""
    draw = np.random.default_rng(0)
    changes, by_images, by_seeds = [], [], []
    for _ in range(600):
        first, second = simulated(draw, images=300, runs=3, effect=0.0)
        covariance = ImageNoise.of({"a": first, "b": second}).covariance
        by_images.append(covariance[0, 0] + covariance[1, 1] - 2 * covariance[0, 1])
        by_seeds.append(sum(np.var(100 * side.mean(axis=1), ddof=1) / 3 for side in (first, second)))
        changes.append(100 * (second.mean() - first.mean()))
    assert np.mean(by_images) + np.mean(by_seeds) == pytest.approx(np.var(changes), rel=0.15)


@pytest.mark.slow
def test_intervals_cover_the_change_on_other_images():
    draw = np.random.default_rng(1)
    first, second = simulated(draw, images=400_000, runs=2, effect=0.4)
    truth = 100 * (second.mean() - first.mean())
    covered = {"seeds": 0, "images": 0}
    for _ in range(200):
        runs = dict(zip("ab", simulated(draw, images=300, runs=8, effect=0.4), strict=True))
        values = {name: dict(enumerate(100 * side.mean(axis=1))) for name, side in runs.items()}
        judged = judge([("a", None, values["a"]), ("b", "a", values["b"])], image_noise=ImageNoise.of(runs))["b"]
        for noise in covered:
            low, high = getattr(judged, noise).change.interval
            covered[noise] += low <= truth <= high
    assert covered["images"] / 200 >= 0.92 > covered["seeds"] / 200


def test_mcnemar_counts_images_that_one_network_alone_gets_right():
    test = mcnemar(3, 1)
    assert (test.only_first, test.only_second) == (3, 1)
    assert test.p == pytest.approx(stats.binomtest(3, 4).pvalue)
    assert mcnemar(0, 0).p == 1.0


def test_without_noise_of_seeds_there_is_no_verdict_for_other_images():
    same = np.tile(np.arange(100) < 90, (3, 1))
    noise = ImageNoise.of({"a": same, "b": ~same})
    judged = judge([("a", None, Sample.of([90.0] * 3)), ("b", "a", Sample.of([10.0] * 3))], image_noise=noise)["b"]
    assert judged.verdict == "too few seeds to tell" and judged.images is None


def test_the_interval_for_other_images_is_never_the_narrower_one():
    draw = np.random.default_rng(3)
    names = [str(i) for i in range(6)]
    runs = {name: np.tile(draw.random(2000) < 0.9, (3, 1)) ^ (draw.random((3, 2000)) < 0.01) for name in names}
    rungs = [
        (name, names[i - 1] if i else None, dict(enumerate(100 * runs[name].mean(1)))) for i, name in enumerate(names)
    ]
    for judged in judge(rungs, image_noise=ImageNoise.of(runs)).values():
        if judged.seeds:
            (low, high), (seeds_low, seeds_high) = judged.images.change.interval, judged.seeds.change.interval
            assert low <= seeds_low and high >= seeds_high and judged.images.p >= judged.seeds.p
