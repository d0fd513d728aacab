"""What seeds can tell, against SciPy's own tests and figures of textbooks."""

from __future__ import annotations

import math

import pytest
from hypothesis import given
from hypothesis import strategies as st
from scipy import stats

from analysis.statistics import Change, Sample, change, holm, power_of, seeds_needed, verdict, welch

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
    assert abs(seeds_needed(effect, 1.0) - n) <= 1
    assert power_of(effect, 1.0, n) == pytest.approx(0.8, abs=0.02)


def test_what_cannot_be_asked_is_refused():
    with pytest.raises(ValueError, match="other than 0"):
        seeds_needed(0, 1)
    with pytest.raises(ValueError, match="more than 10000 seeds"):
        seeds_needed(1e-6, 1)
    with pytest.raises(ValueError, match="at least one"):
        Sample.of([])
    assert math.isclose(seeds_needed(1, 0), 2)
