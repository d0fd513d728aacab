"""Statistics over seeds, compared with SciPy's tests and with values from textbooks."""

from __future__ import annotations

import math
import re
from dataclasses import replace

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st
from scipy import stats

import roadmap
from analysis.results import judge_published
from analysis.statistics.contrasts import Change, Family, holm, judge, subtract, untested, verdict, welch
from analysis.statistics.planning import NUMBERS, Plan
from analysis.statistics.ranks import Levels, kendall, rank_correlation
from analysis.statistics.samples import Noise, Sample, pooled_noise
from analysis.tradeoff import published_tradeoff
from roadmap.options import Selection, StudyOptions
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


def test_equal_runs_have_no_verdict():
    """Accuracies come in steps of one image, so three runs can have the same accuracy by chance."""
    equal, other = {0: 97.0, 1: 97.0, 2: 97.0}, {0: 97.22, 1: 97.22, 2: 97.22}
    judged = judge([("start", None, equal), ("same", "start", equal), ("step", "same", other)])
    assert (judged["step"].change.interval, judged["step"].p) == (None, None)
    assert judged["step"].verdict == "too few seeds to tell"
    assert judged["same"].p == 1.0 and judged["same"].verdict == "within noise"
    assert welch(Sample.of([97.0] * 3), Sample.of([97.22] * 3)).p is None


def rungs_of(values):
    return [(str(i), str(i - 1) if i else None, dict(enumerate(row))) for i, row in enumerate(values)]


SPREADS = {"equal": np.full(18, 0.1), "unequal": np.geomspace(0.03, 0.25, 18)}


@pytest.mark.slow
@pytest.mark.parametrize("counted", [False, True], ids=["continuous", "counted"])
@pytest.mark.parametrize("spread", SPREADS)
@pytest.mark.parametrize("n", [3, 5, 10])
def test_verdicts_are_no_more_often_wrong_than_promised(n, spread, counted):
    """Eighteen rungs that are all the same network. `benchmarks/verdicts.py` measures the rates more precisely."""
    draw, studies, wrong = np.random.default_rng(n), 200, 0
    pairs = np.array([(i, i + 1) for i in range(17)])
    for _ in range(studies):
        values = draw.normal(97, 3.5 * SPREADS[spread][:, None], (18, n))
        values = np.round(values * 3.59) / 3.59 if counted else values
        family = Family(tuple(Sample.of(row) for row in values.tolist()), pairs, draws=199)
        wrong += any(p is not None and p < 0.05 for _, p in map(family.tested, range(17)))
    assert wrong / studies <= 0.055 + 2.6 * math.sqrt(0.05 * 0.95 / studies)


@pytest.mark.slow
def test_three_seeds_call_twice_the_steps_that_paired_tests_call():
    """Simulated from the paper's means and deviations."""
    judged = judge_published(load_study(), "resnet-50")
    known = {name: judgement.sample for name, judgement in judged.items() if judgement.sample.std is not None}
    parents = {name: judged[name].parent for name in known if judged[name].parent in known}
    draw, ours, paired = np.random.default_rng(1), 0, 0
    for _ in range(40):
        values = {name: draw.normal(sample.mean, sample.std, 3) for name, sample in known.items()}
        study = [(name, parents.get(name), dict(enumerate(row))) for name, row in values.items()]
        ours += sum(judgement.verdict in ("better", "worse") for judgement in judge(study).values())
        ps = [stats.ttest_rel(values[name], values[parent]).pvalue for name, parent in parents.items()]
        paired += sum(p < 0.05 for p in holm(ps))
    assert ours > 2 * paired > 0


VALUES_OF_RUNGS = st.lists(st.lists(st.floats(90, 100), min_size=1, max_size=4), min_size=2, max_size=6).filter(
    lambda rows: any(len(row) > 1 and max(row) - min(row) > 1e-3 for row in rows)
)


@given(VALUES_OF_RUNGS)
@settings(deadline=None, max_examples=40)
def test_intervals_agree_with_p_values(rows):
    judged = judge(rungs_of(rows))
    for judgement in judged.values():
        if judgement.change is None:
            continue
        if judgement.change.n < 3:
            assert judgement.verdict == "too few seeds to tell" and judgement.change.interval is None
            continue
        low, high = judgement.change.interval
        assert (judgement.p < 0.05) == (not low <= 0 <= high)
        assert (judgement.change.p < 0.05) == (not judgement.change.pointwise[0] <= 0 <= judgement.change.pointwise[1])
        assert judgement.p >= judgement.change.p and judgement.change.detectable > 0
        assert judgement.verdict == ("within noise" if low <= 0 <= high else "better" if low > 0 else "worse")


def test_many_runs_of_two_rungs_are_judged_as_by_welch():
    draw = np.random.default_rng(4)
    before, after = draw.normal(0, 1, 400), draw.normal(0.15, 3, 300)
    scipy_result = stats.ttest_ind(after, before, equal_var=False)
    change = judge(rungs_of([before.tolist(), after.tolist()]))["1"].change
    assert change.p == pytest.approx(scipy_result.pvalue, abs=0.01)
    assert change.interval == pytest.approx(tuple(scipy_result.confidence_interval(0.95)), abs=0.02)


def test_the_other_rungs_help_to_judge_a_change():
    """Three runs on each side show less alone than among many rungs with less noise."""
    pair = [[97.0, 97.1, 97.2], [97.2, 97.3, 97.4]]
    quiet = np.random.default_rng(2).normal(90, 0.04, (16, 3)).tolist()
    alone, among_many = (judge(rungs_of(rows))["1"].change for rows in (pair, [*pair, *quiet]))
    assert alone.p > 0.05 and among_many.p < 0.8 * alone.p


def test_a_noisy_rung_does_not_hide_the_changes_of_the_others():
    draw, spread = np.random.default_rng(1), np.full(12, 0.05)
    spread[-1] = 1.5
    means = 97 + 0.5 * (np.arange(12) % 2)  # steps of ten deviations
    for _ in range(5):
        judged = judge(rungs_of(draw.normal(means[:, None], spread[:, None], (12, 3)).tolist()))
        assert all(judged[str(i)].verdict in ("better", "worse") for i in range(1, 11))


@pytest.mark.slow
@pytest.mark.parametrize(
    ("spread", "runs", "limit"),
    [
        ([0.1] * 9 + [1.0] + [0.1] * 8, [3] * 18, 0.06),
        ([0.1] * 9 + [0.5] + [0.1] * 8, [10] * 9 + [3] + [10] * 8, 0.09),
        ([0.1, 1], [3, 3], 0.06),
    ],
    ids=["one noisy rung", "with fewer runs", "two rungs"],
)
def test_verdicts_are_not_often_wrong_where_one_rung_is_much_noisier(spread, runs, limit):
    """As often as docs/statistics.md says."""
    draw, studies, wrong = np.random.default_rng(0), 300, 0
    pairs = np.array([(i, i + 1) for i in range(len(runs) - 1)])
    for _ in range(studies):
        samples = tuple(Sample.of(draw.normal(97, std, n).tolist()) for std, n in zip(spread, runs, strict=True))
        family = Family(samples, pairs, draws=1999)
        changes = np.diff([sample.mean for sample in samples])
        wrong += bool((np.abs(changes) > family.bound * family.errors).any())
    assert wrong / studies <= limit + 2 * math.sqrt(limit * (1 - limit) / studies)


def test_subtract_is_the_difference_of_two_changes():
    difference = subtract(Change(1.0, pointwise=(0.6, 1.4)), Change(0.2, pointwise=(-0.1, 0.5)))
    assert difference.difference == pytest.approx(0.8) and difference.interval == pytest.approx((0.3, 1.3))
    assert subtract(Change(1.0), Change(0.2, pointwise=(0.1, 0.3))).interval is None


def test_a_single_seed_has_no_verdict():
    change = untested(Sample.of([80.0]), Sample.of([81.0]))
    assert change == Change(1.0) and verdict(change, None) == "too few seeds to tell"


def test_holm_agrees_with_its_textbook_example():
    assert holm([0.01, 0.04, 0.03, 0.005]) == pytest.approx([0.03, 0.06, 0.06, 0.02])
    assert holm([None, 0.5, None]) == [None, 0.5, None] and holm([]) == []


@given(st.lists(st.floats(0, 1), min_size=1, max_size=20))
def test_a_correction_keeps_the_order_and_makes_nothing_smaller(ps):
    corrected = holm(ps)
    assert all(p <= new <= 1 for p, new in zip(ps, corrected, strict=True))
    ranked = [corrected[i] for i in sorted(range(len(ps)), key=lambda i: ps[i])]
    assert ranked == sorted(ranked)


@pytest.mark.slow
@pytest.mark.parametrize(("effect", "n"), [(0.2, 394), (0.5, 64), (0.8, 26), (1.0, 17)])
def test_seeds_for_one_step_are_about_cohens(effect, n):
    """Cohen 1988, table 2.4.1: n of each group at 5 %, two-sided, power 0.8; that test knows the variances equal."""
    assert Plan(Noise(1.0), (None, 0)).seeds_needed(effect) == pytest.approx(n, rel=0.05, abs=1)


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 8])
def test_a_plan_keeps_its_promise(n):
    """Simulates studies with the difference that so many seeds detect in four of five cases, and judges them."""
    plan, draw = Plan(Noise(0.3), (None, *range(11))), np.random.default_rng(n)
    means, called, studies = 97 + plan.detectable(n) * (np.arange(12) % 2), 0, 60
    for _ in range(studies):
        judged = judge(rungs_of(draw.normal(means[:, None], 0.3, (12, n)).tolist()))
        called += sum(judgement.verdict in ("better", "worse") for judgement in judged.values())
    assert called / studies / 11 == pytest.approx(0.8, abs=0.06)


@pytest.mark.slow
@pytest.mark.parametrize("parents", [(None, 0), (None, *range(17))], ids=["one step", "a ladder"])
def test_what_n_runs_can_detect_needs_n_runs(parents):
    plan = Plan(Noise(0.5, 20), parents)
    differences = [plan.detectable(n) for n in range(3, 120)]
    assert differences == sorted(differences, reverse=True)
    for n in (*NUMBERS, 6, 33, 100):
        assert plan.seeds_needed(plan.detectable(n) * 1.0001) == n
    assert plan.detectable(2) == math.inf and plan.comparisons == len(parents) - 1


@pytest.mark.slow
def test_noise_that_is_an_estimate_needs_more_seeds():
    known, estimated = Plan(Noise(1.0), (None, 0)), Plan(Noise(1.0, 4), (None, 0))
    assert estimated.seeds_needed(1.0) > known.seeds_needed(1.0)


def test_noise_is_pooled_over_the_rungs():
    noise = pooled_noise([Sample.of([80.0, 82.0, 84.0]), Sample.of([81.0, 83.0]), Sample.of([90.0])])
    assert noise.freedom == 3 and noise.std == pytest.approx(math.sqrt((8 + 2) / 3))
    low, high = noise.interval
    assert low < noise.std < high
    assert pooled_noise([Sample.of([80.0]), Sample.of([81.0])]) is None
    assert Noise(0.1).interval is None


def test_invalid_arguments_are_refused():
    plan = Plan(Noise(1), (None, 0))
    for wrong in (0, math.nan, math.inf):
        with pytest.raises(ValueError, match="other than 0"):
            plan.seeds_needed(wrong)
    with pytest.raises(ValueError, match="more than 10000 seeds"):
        plan.seeds_needed(1e-6)
    with pytest.raises(ValueError, match="at least one"):
        Sample.of([])
    assert Plan(Noise(0), (None, 0)).seeds_needed(1) == 3


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
    assert judged["big"].p >= judged["big"].change.p  # of two that have a p
    assert (judged["big"].within_spread, judged["small"].within_spread) == (False, True)
    assert judged["none"].sample is None
    worse = judge(RUNGS, higher_is_better=False)
    assert worse["big"].verdict == "worse" and worse["small"].verdict == "within noise"


def test_the_papers_table_is_judged():
    """Patchify, GELU and layer norm are within the printed spread; no other step is."""
    judged = judge_published(load_study(), "resnet-50")
    within = ["patchify-stem", "gelu", "layer-norm"]
    assert [name for name, judgement in judged.items() if judgement.within_spread] == within
    assert [round(judged[name].change.difference, 2) for name in within] == [0.15, 0.05, 0.06]
    assert all(judged[name].verdict == "within noise" for name in within)
    assert judged["recipe"].verdict == "too few seeds to tell"  # the start has no deviation printed
    assert judged["depthwise"].verdict == "worse" and judged["width"].verdict == "better"
    # Two steps of +0.14, of which one has low printed deviations by chance, are judged alike.
    alike = [judged[name] for name in ("inverted-bottleneck", "fewer-norms")]
    assert [round(judgement.change.difference, 2) for judgement in alike] == [0.14, 0.14]
    assert {judgement.verdict for judgement in alike} == {"within noise"}
    without = judge_published(load_study(), "resnet-200")
    assert {judgement.verdict for judgement in without.values()} == {None, "too few seeds to tell"}


def test_deviations_of_a_population_make_the_paper_less_certain():
    sample, population = (judge_published(load_study(), "resnet-50", population=flag) for flag in (False, True))
    assert population["width"].sample.std == pytest.approx(sample["width"].sample.std * math.sqrt(1.5))
    ps = [(population[rung].p, own.p) for rung, own in sample.items() if own.p is not None]
    assert all(wider >= own for wider, own in ps) and any(wider > own for wider, own in ps)
    table = roadmap.table(published=True, regime="resnet-50").set_index("rung")
    assert table.loc["width", "verdict_population"] == population["width"].verdict
    assert "verdict, if of a population" in run_here("table", "--published", "--regime", "resnet-50").out


def levels(values):
    return Levels(values, [(i, i + 1) for i in range(len(values) - 1)])


def test_rank_correlation_agrees_with_scipy():
    first = [0.5, 0.1, -1.2, 2.2, 0.1, -0.7, 0.4, 0.0, 0.3]
    second = [0.3, 0.2, -1.0, 1.0, 0.0, 0.1, 0.9, -0.2, 0.5]
    here, there = levels(first), levels(second)
    correlation = rank_correlation(here, there)
    assert correlation.tau == pytest.approx(stats.kendalltau(np.diff(first), np.diff(second)).statistic)
    assert correlation.n == 8
    low, high = correlation.interval
    assert low < correlation.tau < high and correlation == rank_correlation(here, there)
    alike = rank_correlation(here, here)
    assert alike.tau == pytest.approx(1) and alike.p < 0.01
    for wrong, message in (([1.0, 2.0, 4.0, 3.0], "at least 4"), ([1.0, 2.0, 3.0, 4.0, 5.0, 6.0], "no order")):
        with pytest.raises(ValueError, match=message):
            rank_correlation(levels(wrong), levels(wrong))


TIED = st.lists(st.integers(0, 5), min_size=3, max_size=8).filter(lambda values: len(set(values)) > 1)


@given(TIED, st.randoms(use_true_random=False))
def test_kendall_counts_ties_as_scipy_does(values, random):
    other = random.sample(values, len(values))
    statistic = stats.kendalltau(values, other).statistic
    assert float(kendall(np.array(values), np.array(other))) == pytest.approx(statistic)


@pytest.mark.slow
def test_unrelated_studies_seldom_agree():
    """Successive changes share a rung; permuting them would find agreement in 8 % of unrelated studies."""
    draw, studies = np.random.default_rng(0), 120
    drawn = draw.normal(80, 1, (studies, 2, 13))
    of_levels = np.array([rank_correlation(*(levels(row.tolist()) for row in study)).p for study in drawn])
    of_changes = np.array([stats.kendalltau(*np.diff(study, axis=1)).pvalue for study in drawn])
    assert np.mean(of_levels < 0.05) <= 0.05 + 2.6 * math.sqrt(0.05 * 0.95 / studies)
    assert np.mean(of_levels < 0.05) < np.mean(of_changes < 0.05)


def test_the_comparisons_of_a_study_do_not_depend_on_what_is_shown(tmp_path):
    draw = np.random.default_rng(0)
    for rung in roadmap.ladder("pico", "all"):
        for seed in range(3):
            finish(study_run(rung, seed), tmp_path, float(draw.normal(90, 0.3)))
    whole = roadmap.table(tmp_path).set_index("rung")
    part = roadmap.table(tmp_path, steps="fewer-norms,layer-norm").set_index("rung")
    assert list(part.index) == ["fewer-norms", "layer-norm"]
    columns = ["change", "change_low", "change_high", "p", "p_corrected", "verdict"]
    assert part[columns].equals(whole.loc[part.index, columns])
    assert part["p_corrected"].notna().all()


@pytest.mark.slow
@pytest.mark.parametrize("n", [3, 8])
def test_what_a_table_calls_detectable_is_detected_in_four_of_five_cases(n):
    draw, detectable, called, studies = np.random.default_rng(n), [], 0, 40
    for _ in range(studies):
        judged = judge(rungs_of(draw.normal(97, 0.3, (12, n)).tolist()))
        detectable += [judgement.change.detectable for judgement in judged.values() if judgement.change]
    means = 97 + np.mean(detectable) * (np.arange(12) % 2)
    for _ in range(studies):
        judged = judge(rungs_of(draw.normal(means[:, None], 0.3, (12, n)).tolist()))
        called += sum(judgement.verdict in ("better", "worse") for judgement in judged.values())
    assert called / studies / 11 == pytest.approx(0.8, abs=0.08)


def test_leaving_out_a_few_steps_is_a_study_of_its_own(tmp_path):
    """Rungs of the same names but of other experiments are not compared with one another."""
    steps = "gelu,layer-norm"
    for seed in range(3):
        for number, rung in enumerate(roadmap.ladder("pico", steps, ablation="leave-one-out")):
            finish(study_run(rung, seed), tmp_path, 90.0 + number + 0.1 * seed)
    selected = {"steps": steps, "ablation": "leave-one-out"}
    alone = roadmap.table(tmp_path, **selected)
    for rung in roadmap.ladder("pico", ablation="leave-one-out"):
        for seed in range(3):
            finish(study_run(rung, seed), tmp_path, 70.0 + 7 * seed)
    assert roadmap.table(tmp_path, **selected)["p_corrected"].equals(alone["p_corrected"])


def test_references_change_no_verdict(tmp_path):
    draw = np.random.default_rng(0)
    for rung in roadmap.ladder("pico", "pico,recipe,stage-ratio"):
        for seed in range(3):
            finish(study_run(rung, seed), tmp_path, float(draw.normal(90, 0.3)))
    selection = Selection.of(StudyOptions(references="convnext-t"))
    for seed in range(3):
        finish(selection.run(selection.rung("convnext-t"), seed), tmp_path, 80.0 + 5 * seed)
    tables = [roadmap.table(tmp_path, **more).set_index("rung") for more in ({}, {"references": "convnext-t"})]
    columns = ["change", "change_low", "p_corrected", "detectable"]
    assert tables[1].loc[tables[0].index, columns].equals(tables[0][columns])
    assert tables[1].loc["convnext-t", "n"] == 3


def test_a_table_says_what_so_many_seeds_can_show(tmp_path):
    for rung in roadmap.ladder("pico", "pico,recipe,stage-ratio"):
        for seed, accuracy in enumerate((90.0, 90.3, 89.7)):
            finish(study_run(rung, seed), tmp_path, accuracy)
    table = run_here("table", "--steps", "pico,recipe", "--out", tmp_path)
    assert re.search(r"So many runs detect a change of \d\.\d\d points .*in four of five studies\.", table.out)
    assert "No change is beyond the noise; `roadmap power` says how many seeds show one of a given size." in table.out
    for rung in roadmap.ladder("pico", "pico,recipe"):
        for seed, accuracy in enumerate((90.0, 90.3, 89.7)):
            finish(study_run(rung, seed), tmp_path / "apart", accuracy + 5 * (rung.name == "recipe"))
    assert "No change is beyond" not in run_here("table", "--steps", "pico,recipe", "--out", tmp_path / "apart").out


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


def test_a_table_says_what_else_differs_between_runs(tmp_path):
    for rung, precision, torch in zip(
        roadmap.ladder("pico", "pico,recipe"), ("fp32", "bf16"), ("2.14.1", "2.15.0"), strict=True
    ):
        execution = {"processes": 1, "threads": 1, "precision": precision}
        manifest = {"execution": execution, "versions": {"torch": torch, "timm": "1.0.31"}}
        finish(study_run(rung), tmp_path, manifest=manifest)
    shown = run_here("table", "--steps", "pico,recipe", "--out", tmp_path).out
    assert "the runs differ in precision: fp32 (pico); bf16 (recipe)." in shown
    assert "the runs differ in version of torch: 2.14.1 (pico); 2.15.0 (recipe)." in shown
    assert "versions of libraries" not in shown
    collected = roadmap.collect(tmp_path).set_index("rung")
    assert collected["precision"].to_dict() == {"pico": "fp32", "recipe": "bf16"}
    assert set(collected["libraries"]) == {"timm 1.0.31"}


def test_the_best_epoch_is_beside_the_last_where_the_source_reports_it(tmp_path):
    (rung,) = roadmap.ladder("pico", "gelu", "authors")
    for seed, best in enumerate((91.0, 93.0)):
        finish(replace(study_run(rung, seed), fidelity="authors"), tmp_path, 90.0, best_top1=best)
    table = roadmap.table(tmp_path, steps="gelu", fidelity="authors")
    assert table["best"].tolist() == [92.0] and table["mean"].tolist() == [90.0]
    shown = run_here("table", "--steps", "gelu", "--fidelity", "authors", "--out", tmp_path).out
    assert "best epoch" in shown and "biases it upwards" in shown
    finish(study_run(*roadmap.ladder("pico", "gelu")), tmp_path, 90.0, best_top1=91.0)
    assert "best" not in roadmap.table(tmp_path, steps="gelu")


def test_a_start_that_was_tested_at_another_size_is_not_compared():
    table = roadmap.table(published=True, regime="resnet-200").set_index("rung")
    assert table.loc["resnet-200", "test_size"] == 320 and table["change"].isna().tolist()[:3] == [True, True, False]
    shown = run_here("table", "--published", "--regime", "resnet-200").out
    assert "resnet-200 was tested at 320 pixels, the others at 224; it is not compared." in shown
    assert "78.20 (at 320 px)" in run_here("list", "--regime", "resnet-200").out
    (path,) = published_tradeoff(load_study(), ["resnet-200"], "macs").paths
    assert [point.note for point in path.points[:2]] == ["at 320 px", ""]
