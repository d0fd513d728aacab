"""What seeds can tell, against SciPy's own tests and figures of textbooks."""

from __future__ import annotations

import math

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

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

VALUES = st.lists(st.floats(50, 100), min_size=2, max_size=9).filter(lambda values: max(values) - min(values) > 1e-3)


@given(VALUES)
def test_a_sample_is_as_scipy_has_it(values):
    sample = Sample.of(values)
    low, high = stats.t.interval(0.95, len(values) - 1, loc=stats.tmean(values), scale=stats.sem(values))
    assert sample.interval == pytest.approx((low, high))
    assert sample.std == pytest.approx(stats.tstd(values))


@given(VALUES, VALUES)
def test_welch_is_scipys(before, after):
    found = welch(Sample.of(before), Sample.of(after))
    theirs = stats.ttest_ind(after, before, equal_var=False)
    assert found.p == pytest.approx(theirs.pvalue, abs=1e-12)
    assert found.interval == pytest.approx(tuple(theirs.confidence_interval(0.95)), rel=1e-6, abs=1e-9)


def test_differences_all_alike_prove_nothing():
    """Accuracies come in steps of one image: three runs fall on the same step by chance."""
    before, after = {0: 97.0, 1: 97.2, 2: 96.8}, {0: 97.22, 1: 97.42, 2: 97.02}
    found = change(before, after)
    assert (found.p, found.interval) == (None, None) and verdict(found, None) == "too few seeds to tell"
    assert change(before, before).p == 1.0
    assert welch(Sample.of([97.0] * 3), Sample.of([97.22] * 3)).p is None


def test_steps_of_one_image_make_no_more_false_verdicts_than_promised():
    """Eighteen rungs that are all the same network, three seeds, accuracies in steps of 1/454."""
    draw, wrong, studies = np.random.default_rng(3), 0, 150
    for _ in range(studies):
        values = np.round(draw.normal(97, 0.35, (18, 3)) * 4.54) / 4.54
        rungs = [(str(i), str(i - 1) if i else None, dict(enumerate(row))) for i, row in enumerate(values)]
        wrong += any(each.verdict in ("better", "worse") for each in judge(rungs).values())
    assert wrong / studies < 0.12  # 0.05, and what 150 studies may be off


def test_seeds_are_paired_only_where_one_side_shares_all_its_own():
    many = {seed: 80 + 0.1 * (seed % 3) for seed in range(10)}
    assert change(many, {0: 81.0, 1: 81.1, 2: 81.3}).method == "paired"
    assert change(many, {8: 81.0, 9: 81.2, 10: 81.1, 11: 81.3}).method == "Welch"


def test_less_is_the_difference_of_two_changes():
    found = subtract(Change(1.0, (0.6, 1.4)), Change(0.2, (-0.1, 0.5)))
    assert found.difference == pytest.approx(0.8) and found.interval == pytest.approx((0.3, 1.3))
    assert subtract(Change(1.0), Change(0.2, (0.1, 0.3))).interval is None


@given(VALUES)
def test_shared_seeds_are_paired(values):
    before = dict(enumerate(values))
    after = {seed: value + 0.1 + 0.01 * (seed % 2) for seed, value in before.items()}
    found = change(before, after)
    theirs = stats.ttest_rel([after[s] for s in before], [before[s] for s in before])
    assert found.method == "paired" and found.p == pytest.approx(theirs.pvalue, rel=1e-6, abs=1e-12)


def test_a_single_seed_says_nothing():
    found = change({0: 80.0}, {0: 81.0})
    assert found == Change(1.0) and verdict(found, None) == "too few seeds to tell"


def test_holm_is_as_in_his_example():
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
def test_power_is_how_often_the_test_sees_it(paired):
    """By drawing studies, judged by SciPy's tests."""
    draw = np.random.default_rng(7)
    n, difference, studies = 6, 1.2, 4000
    before, after = draw.normal(0, 1, (n, studies)), draw.normal(difference, 1, (n, studies))
    if paired:
        p, noise = stats.ttest_rel(after, before).pvalue, Noise(math.sqrt(2), 0, paired=True)
    else:
        p, noise = stats.ttest_ind(after, before).pvalue, Noise(1.0, 0)
    assert power_of(difference, noise, n) == pytest.approx(float((p < 0.05).mean()), abs=0.03)


@given(st.integers(2, 40), st.floats(0.01, 3), st.booleans())
def test_what_n_runs_can_show_needs_n_runs(n, std, paired):
    noise = Noise(std, 0, paired)
    smallest = detectable(n, noise)
    assert seeds_needed(smallest * 1.001, noise) <= n
    assert n == 2 or seeds_needed(smallest * 0.98, noise) >= n


def test_noise_is_of_pairs_where_seeds_are_shared():
    start, step = {0: 80.0, 1: 82.0, 2: 84.0}, {0: 81.0, 1: 83.1, 2: 84.9}
    found = noise_of([("start", None, start), ("step", "start", step)])
    assert (
        found.paired
        and found.freedom == pytest.approx(2 / 1.5)
        and found.std == pytest.approx(stats.tstd([1.0, 1.1, 0.9]))
    )
    apart = noise_of([("start", None, start), ("step", "start", {7: 81.0, 8: 83.0})])
    assert not apart.paired and apart.freedom == 3 and apart.std == pytest.approx(math.sqrt((8 + 2) / 3))
    low, high = apart.interval
    assert low < apart.std < high
    assert noise_of([("start", None, {0: 80.0}), ("step", "start", {0: 81.0})]) is None
    assert Noise(0.1, 0).interval is None


def test_what_cannot_be_asked_is_refused():
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
    verdicts = {name: each.verdict for name, each in judged.items()}
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


def test_the_papers_own_table_is_judged():
    """Patchify, GELU and layer norm lie within its printed spread, and no other step does."""
    judged = judge_published(load_study(), "resnet-50")
    assert [name for name, each in judged.items() if each.within_spread] == ["patchify-stem", "gelu", "layer-norm"]
    changes = [round(judged[name].change.difference, 2) for name in ("patchify-stem", "gelu", "layer-norm")]
    assert changes == [0.15, 0.05, 0.06]
    assert all(judged[name].verdict == "within noise" for name in ("patchify-stem", "gelu", "layer-norm"))
    assert judged["recipe"].verdict == "too few seeds to tell"  # the start has no deviation printed
    assert judged["depthwise"].verdict == "worse" and judged["width"].verdict == "better"
    theirs = stats.ttest_ind_from_stats(79.36, 0.07, 3, 78.82, 0.07, 3, equal_var=False)
    assert judged["stage-ratio"].change.p == pytest.approx(theirs.pvalue)
    without = judge_published(load_study(), "resnet-200")
    assert {each.verdict for each in without.values()} == {None, "too few seeds to tell"}


def test_ranks_are_correlated_as_scipy_does():
    first = [0.5, 0.1, -1.2, 2.2, 0.1, -0.7, 0.4, 0.0]
    second = [0.3, 0.2, -1.0, 1.0, 0.0, 0.1, 0.9, -0.2]
    found = rank_correlation(first, second)
    assert found.tau == pytest.approx(stats.kendalltau(first, second).statistic) and found.n == 8
    low, high = found.interval
    assert low < found.tau < high and found == rank_correlation(first, second)
    alike = rank_correlation(first, first)
    assert alike.tau == pytest.approx(1) and alike.p < 0.01
    for wrong, said in (([1.0, 2.0, 3.0], "too few"), ([1.0] * 5, "no order")):
        with pytest.raises(ValueError, match=said):
            rank_correlation(wrong, wrong)
