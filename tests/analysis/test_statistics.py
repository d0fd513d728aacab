"""Statistics over seeds, compared with SciPy's tests and with values from textbooks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

import roadmap
from analysis.results import judge_published
from analysis.statistics import (
    Change,
    Noise,
    Sample,
    change,
    detectable,
    holm,
    judge,
    noise_of,
    power_of,
    rank_correlation,
    seeds_needed,
    subtract,
    verdict,
    welch,
)
from roadmap.study.load import load_study
from tests.helpers.command import run_here
from tests.helpers.records import finish, study_run

VALUES = st.lists(st.floats(50, 100), min_size=2, max_size=9).filter(lambda values: max(values) - min(values) > 1e-3)


@given(VALUES)
def test_a_sample_agrees_with_scipy(values):
    sample = Sample.of(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=stats.tmean(values), scale=stats.sem(values))
    assert sample.interval == pytest.approx((low, high))
    assert sample.std == pytest.approx(stats.tstd(values))


@given(VALUES, VALUES)
def test_welch_agrees_with_scipy(before, after):
    change_found = welch(Sample.of(before), Sample.of(after))
    scipy_result = stats.ttest_ind(after, before, equal_var=False)
    assert change_found.p == pytest.approx(scipy_result.pvalue, abs=1e-12)
    assert change_found.interval == pytest.approx(tuple(scipy_result.confidence_interval(0.95)), rel=1e-6, abs=1e-9)


def test_equal_differences_have_no_verdict():
    """Accuracies come in steps of one image, so three runs can have the same accuracy by chance."""
    before, after = {0: 97.0, 1: 97.2, 2: 96.8}, {0: 97.22, 1: 97.42, 2: 97.02}
    equal_change = change(before, after)
    assert (equal_change.p, equal_change.interval) == (None, None) and verdict(
        equal_change, None
    ) == "too few seeds to tell"
    assert change(before, before).p == 1.0
    assert welch(Sample.of([97.0] * 3), Sample.of([97.22] * 3)).p is None


def test_steps_of_one_image_make_no_more_false_verdicts_than_promised():
    """Eighteen rungs that are all the same network, three seeds, accuracies in steps of 1/454."""
    draw, wrong, studies = np.random.default_rng(3), 0, 150
    for _ in range(studies):
        values = np.round(draw.normal(97, 0.35, (18, 3)) * 4.54) / 4.54
        rungs = [(str(i), str(i - 1) if i else None, dict(enumerate(row))) for i, row in enumerate(values)]
        wrong += any(judgement.verdict in ("better", "worse") for judgement in judge(rungs).values())
    assert wrong / studies < 0.12  # 0.05, plus the sampling error of 150 studies


def test_seeds_are_paired_only_where_one_side_shares_all_its_own():
    many = {seed: 80 + 0.1 * (seed % 3) for seed in range(10)}
    assert change(many, {0: 81.0, 1: 81.1, 2: 81.3}).method == "paired"
    assert change(many, {8: 81.0, 9: 81.2, 10: 81.1, 11: 81.3}).method == "Welch"


def test_subtract_is_the_difference_of_two_changes():
    difference = subtract(Change(1.0, (0.6, 1.4)), Change(0.2, (-0.1, 0.5)))
    assert difference.difference == pytest.approx(0.8) and difference.interval == pytest.approx((0.3, 1.3))
    assert subtract(Change(1.0), Change(0.2, (0.1, 0.3))).interval is None


@given(VALUES)
def test_shared_seeds_are_paired(values):
    before = dict(enumerate(values))
    after = {seed: value + 0.1 + 0.01 * (seed % 2) for seed, value in before.items()}
    paired_change = change(before, after)
    scipy_result = stats.ttest_rel([after[s] for s in before], [before[s] for s in before])
    assert paired_change.method == "paired" and paired_change.p == pytest.approx(
        scipy_result.pvalue, rel=1e-6, abs=1e-12
    )


def test_a_single_seed_has_no_verdict():
    single_change = change({0: 80.0}, {0: 81.0})
    assert single_change == Change(1.0) and verdict(single_change, None) == "too few seeds to tell"


def test_holm_agrees_with_its_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.5, None]) == [None, 0.5, None] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_correction_keeps_the_order_and_makes_nothing_smaller(ps):
    corrected = holm(ps)
    assert all(p <= new <= 1 for p, new in zip(ps, corrected, strict=True))
    ranked = [corrected[i] for i in sorted(range(len(ps)), key=lambda i: ps[i])]
    assert ranked == sorted(ranked)


@pytest.mark.parametrize(("effect", "n"), [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17)])
def test_seeds_needed_are_cohens(effect, n):
    """Cohen 1988, table 2.4.1: n of each group at 5 %, two-sided, power 0.8."""
    assert abs(seeds_needed(effect, Noise(1.0, 0)) - n) <= 1
    assert power_of(effect, Noise(1.0, 0), n) == pytest.approx(0.8, abs=0.02)


@pytest.mark.parametrize("paired", [False, True])
def test_power_is_the_rate_of_detection(paired):
    """Simulates studies and judges them by SciPy's tests."""
    draw = np.random.default_rng(7)
    n, difference, studies = 6, 1.2, 4000
    before, after = draw.normal(0, 1, (n, studies)), draw.normal(difference, 1, (n, studies))
    if paired:
        p, noise = stats.ttest_rel(after, before).pvalue, Noise(math.sqrt(2), 0, paired=True)
    else:
        p, noise = stats.ttest_ind(after, before).pvalue, Noise(1.0, 0)
    assert power_of(difference, noise, n) == pytest.approx(float((p < 0.05).mean()), abs=0.03)


@given(st.integers(2, 40), st.floats(0.01, 3), st.booleans())
def test_what_n_runs_can_detect_needs_n_runs(n, std, paired):
    noise = Noise(std, 0, paired)
    smallest = detectable(n, noise)
    assert seeds_needed(smallest * 1.001, noise) <= n
    assert n == 2 or seeds_needed(smallest * 0.98, noise) >= n


def test_noise_is_of_pairs_where_seeds_are_shared():
    start, step = {0: 80.0, 1: 82.0, 2: 84.0}, {0: 81.0, 1: 83.1, 2: 84.9}
    paired_noise = noise_of([("start", None, start), ("step", "start", step)])
    assert (
        paired_noise.paired
        and paired_noise.freedom == pytest.approx(2 / 1.5)
        and paired_noise.std == pytest.approx(stats.tstd([1.0, 1.1, 0.9]))
    )
    unpaired_noise = noise_of([("start", None, start), ("step", "start", {7: 81.0, 8: 83.0})])
    assert (
        not unpaired_noise.paired
        and unpaired_noise.freedom == 3
        and unpaired_noise.std == pytest.approx(math.sqrt((8 + 2) / 3))
    )
    low, high = unpaired_noise.interval
    assert low < unpaired_noise.std < high
    assert noise_of([("start", None, {0: 80.0}), ("step", "start", {0: 81.0})]) is None
    assert Noise(0.1, 0).interval is None


def test_invalid_arguments_are_refused():
    for wrong in (0, math.nan, math.inf):
        with pytest.raises(ValueError, match="other than 0"):
            seeds_needed(wrong, Noise(1, 0))
    with pytest.raises(ValueError, match="more than 10000 seeds"):
        seeds_needed(1e-6, Noise(1, 0))
    with pytest.raises(ValueError, match="at least one"):
        Sample.of([])
    assert seeds_needed(1, Noise(0, 0)) == 2 and detectable(1, Noise(1, 0)) == math.inf


RUNGS = [("start", None, {0: 80.0, 1: 80.2, 2: 79.8}), ("big", "start", {0: 83.0, 1: 83.1, 2: 82.9})]
RUNGS += [("small", "big", {0: 83.1, 1: 82.9, 2: 83.2}), ("single", "small", {0: 90.0}), ("none", "single", {})]
RUNGS += [("after", "none", {0: 1.0, 1: 2.0, 2: 3.0})]


def test_each_rung_is_judged_against_the_one_before():
    judged = judge(RUNGS)
    verdicts = {name: judgement.verdict for name, judgement in judged.items()}
    assert verdicts == {
        "start": None,
        "big": "better",
        "small": "within noise",
        "single": "too few seeds to tell",
        "none": None,
        "after": None,
    }
    assert judged["big"].p == pytest.approx(2 * judged["big"].change.p)  # of two that have a p
    assert (judged["big"].within_spread, judged["small"].within_spread) == (False, True)
    assert judged["none"].sample is None
    worse = judge(RUNGS, higher_is_better=False)
    assert worse["big"].verdict == "worse" and worse["small"].verdict == "within noise"


def test_the_papers_table_is_judged():
    """Patchify, GELU and layer norm are within the printed spread; no other step is."""
    judged = judge_published(load_study(), "resnet-50")
    assert [name for name, judgement in judged.items() if judgement.within_spread] == [
        "patchify-stem",
        "gelu",
        "layer-norm",
    ]
    changes = [round(judged[name].change.difference, 2) for name in ("patchify-stem", "gelu", "layer-norm")]
    assert changes == [0.15, 0.05, 0.06]
    assert all(judged[name].verdict == "within noise" for name in ("patchify-stem", "gelu", "layer-norm"))
    assert judged["recipe"].verdict == "too few seeds to tell"  # the start has no deviation printed
    assert judged["depthwise"].verdict == "worse" and judged["width"].verdict == "better"
    scipy_result = stats.ttest_ind_from_stats(79.36, 0.07, 3, 78.82, 0.07, 3, equal_var=False)
    assert judged["stage-ratio"].change.p == pytest.approx(scipy_result.pvalue)
    without = judge_published(load_study(), "resnet-200")
    assert {judgement.verdict for judgement in without.values()} == {None, "too few seeds to tell"}


def test_rank_correlation_agrees_with_scipy():
    first = [0.5, 0.1, -1.2, 2.2, 0.1, -0.7, 0.4, 0.0]
    second = [0.3, 0.2, -1.0, 1.0, 0.0, 0.1, 0.9, -0.2]
    correlation = rank_correlation(first, second)
    assert correlation.tau == pytest.approx(stats.kendalltau(first, second).statistic) and correlation.n == 8
    low, high = correlation.interval
    assert low < correlation.tau < high and correlation == rank_correlation(first, second)
    alike = rank_correlation(first, first)
    assert alike.tau == pytest.approx(1) and alike.p < 0.01
    for wrong, message in (([1.0, 2.0, 3.0], "at least 4"), ([1.0] * 5, "no order")):
        with pytest.raises(ValueError, match=message):
            rank_correlation(wrong, wrong)


def test_a_table_names_its_seeds(make_run, tmp_path):
    """Every finished run is in it, also those that an earlier command asked for."""
    rungs = roadmap.ladder("pico", "pico,recipe")
    for rung, seeds in zip(rungs, ((0, 1, 2, 4), (0, 1)), strict=True):
        for seed in seeds:
            finish(study_run(rung, seed), tmp_path)
    run_table = run_here("table", "--steps", "pico,recipe", "--out", tmp_path)
    assert "Seeds included, all that are finished: 0 to 2, 4; of recipe: 0 to 1." in run_table.out
    data = roadmap.table(tmp_path, steps="pico,recipe")
    assert list(data["seeds"]) == [(0, 1, 2, 4), (0, 1)]
