"""Shapley values and pairs, compared with games whose answers are known."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st
from scipy import stats

import roadmap
from analysis.attribution import Ablations, attribute
from analysis.results import Result
from roadmap.network.cost import Cost
from roadmap.record.metrics import METRICS
from tests.helpers.records import study_run

STEPS = ("patchify-stem", "gelu", "fewer-activations", "fewer-norms", "layer-norm")
TITLES = {step: step.upper() for step in STEPS}


def results(ablation, value, seeds=1, noise=0.0, steps=STEPS, study_number=0):
    """Results of rungs whose accuracy is `value` of the set of their steps."""
    made_results = []
    for rung in roadmap.ladder("pico", steps=steps, ablation=ablation):
        run = study_run(rung)
        draw = random.Random(f"{run.identity} {study_number}")
        rows = {seed: {"top1": value(frozenset(rung.steps)) + draw.gauss(0, noise)} for seed in range(seeds)}
        rows = {seed: row | {"test_loss": -row["top1"]} for seed, row in rows.items()}
        made_results.append(Result(rung, run, Cost(1, 1), rows))
    return made_results


def ablations(value, orders=8, **options):
    kinds = ("add-one", "leave-one-out", f"orders:{orders}")
    alone, left_out, in_orders = (results(kind, value, **options) for kind in kinds)
    return Ablations((), alone, left_out, in_orders)


def shapley(value):
    """The Shapley values by definition, over all orders."""
    sums = dict.fromkeys(STEPS, 0.0)
    for order in itertools.permutations(STEPS):
        for i, step in enumerate(order):
            sums[step] += value(frozenset(order[: i + 1])) - value(frozenset(order[:i]))
    return {step: total / math.factorial(len(STEPS)) for step, total in sums.items()}


def additive(taken):
    return 80.0 + sum(1.0 + STEPS.index(step) for step in taken)


def paired(taken):
    """Additive, except that two steps help each other, and two hinder each other."""
    helped = 3.0 * ({"gelu", "layer-norm"} <= taken) - 2.0 * ({"patchify-stem", "fewer-norms"} <= taken)
    return additive(taken) + helped


def test_additive_steps_have_their_own_effects():
    attribution = attribute(TITLES, ablations(additive))
    assert [effect.shapley for effect in attribution.effects] == pytest.approx([1, 2, 3, 4, 5])
    assert [effect.alone for effect in attribution.effects] == pytest.approx([1, 2, 3, 4, 5])
    assert [effect.left_out for effect in attribution.effects] == pytest.approx([1, 2, 3, 4, 5])
    assert (
        attribution.total == pytest.approx(15)
        and attribution.steps == STEPS
        and attribution.effects[0].title == "PATCHIFY-STEM"
    )
    assert {effect.orders for effect in attribution.effects} == {8}


def test_effects_average_over_orders():
    effects = {effect.step: effect for effect in attribute(TITLES, ablations(paired, orders=200)).effects}
    assert effects["gelu"].alone == pytest.approx(2) and effects["gelu"].left_out == pytest.approx(5)
    for step, exact in shapley(paired).items():
        assert effects[step].shapley == pytest.approx(exact, abs=0.3)
        assert effects[step].interval
        low, high = effects[step].interval
        assert low - 0.1 <= exact <= high + 0.1


@pytest.mark.parametrize(("steps", "seeds"), [(STEPS[:3], 1), (STEPS[:3], 3), (STEPS, 1), (STEPS, 3)])
def test_intervals_cover_the_truth_at_their_rate(steps, seeds):
    """Steps without effect, noisy runs: many orders share few sets of steps."""
    covering = drawn = 0
    for study in range(12):
        kinds = ("add-one", "leave-one-out", "orders:12")
        runs = (results(kind, lambda taken: 80.0, seeds, 1.0, steps, study) for kind in kinds)
        alone, left_out, in_orders = runs
        attribution = attribute({step: step for step in steps}, Ablations((), alone, left_out, in_orders))
        for effect in attribution.effects:
            if effect.interval:  # none where all changes are the same
                low, high = effect.interval
                covering, drawn = covering + (low <= 0 <= high), drawn + 1
    # Three steps have few different changes, so that most of their effects have no interval.
    assert drawn >= 12 and covering >= stats.binom.ppf(0.01, drawn, 0.95)


def test_pairs_that_help_and_hinder_are_found():
    attribution = attribute(TITLES, ablations(paired, orders=20, noise=0.05))
    by_pair = {(interaction.first, interaction.second): interaction for interaction in attribution.interactions}
    assert len(by_pair) == 10
    assert by_pair["gelu", "layer-norm"].verdict == "help" and by_pair["gelu", "layer-norm"].value == pytest.approx(
        3, abs=0.3
    )
    assert by_pair["patchify-stem", "fewer-norms"].verdict == "hinder"
    others = [interaction for pair, interaction in by_pair.items() if interaction.verdict != "within noise"]
    assert len(others) <= 3


def test_a_loss_helps_if_it_falls():
    attribution = attribute(TITLES, ablations(paired, orders=20, noise=0.05), METRICS["loss"])
    verdicts = {
        (interaction.first, interaction.second): interaction.verdict for interaction in attribution.interactions
    }
    assert verdicts["gelu", "layer-norm"] == "help" and attribution.total == pytest.approx(-16, abs=0.2)


def test_without_orders_there_is_no_interval_and_no_pair():
    attribution = attribute(TITLES, ablations(paired, orders=1))
    assert attribution.interactions == ()
    runs = ablations(paired)
    ends = attribute(TITLES, replace(runs, orders=()))
    assert all(effect.interval is None and effect.orders == 0 for effect in ends.effects)
    orders_alone = attribute(TITLES, replace(runs, alone=(), left_out=()))
    assert all(effect.interval and effect.alone is None for effect in orders_alone.effects)
    assert sum(effect.shapley for effect in orders_alone.effects) == pytest.approx(orders_alone.total)


def test_the_change_in_the_papers_order_is_given():
    def value(taken):
        return 80.0 + 2.0 * len(taken.intersection(STEPS))

    path = results("cumulative", value, steps="all")
    attribution = attribute(TITLES, replace(ablations(value), path=path))
    assert [effect.on_path for effect in attribution.effects] == [2.0] * 5


def test_missing_runs_of_orders_are_counted():
    runs = ablations(additive)
    orders = [
        replace(result, seeds={}) if result.rung.name.startswith("order3-0") else result for result in runs.orders
    ]
    orders[-1] = replace(orders[-1], seeds={}, diverged_seeds=(0,))
    attribution = attribute(TITLES, replace(runs, orders=orders))
    assert (attribution.missing, attribution.diverged) == (6, 1)


@pytest.mark.parametrize("seeds", [1, 4])
def test_a_repeated_measurement_has_no_interval(seeds):
    """A single step has the same place in every order: one change, however often it is drawn."""
    kinds = ("add-one", "leave-one-out", "orders:9")
    runs = (results(kind, additive, seeds=seeds, noise=1.0, steps=("gelu",)) for kind in kinds)
    (effect,) = attribute({"gelu": "GELU"}, Ablations((), *runs)).effects
    assert effect.orders == 9 and effect.interval is None


@pytest.mark.parametrize(("orders", "has_intervals"), [(4, False), (5, True)])
def test_an_interval_requires_five_orders(orders, has_intervals):
    effects = attribute(TITLES, ablations(additive, orders=orders, noise=0.5)).effects
    assert all(effect.orders == orders and effect.shapley is not None for effect in effects)
    assert any(effect.interval for effect in effects) == has_intervals


def test_too_few_runs_are_refused():
    with pytest.raises(ValueError, match="no finished run of the start"):
        attribute(TITLES, Ablations((), (), (), ()))
    with pytest.raises(ValueError, match="no finished run with all of these steps"):
        attribute(TITLES, Ablations((), results("add-one", additive), (), ()))


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=5))
@hypothesis_settings(max_examples=5)
def test_effects_sum_to_the_total(changes):
    def value(taken):
        return 80 + math.prod(1 + 0.1 * changes[STEPS.index(step)] for step in sorted(taken))

    attribution = attribute(TITLES, Ablations((), (), (), results("orders:3", value)))
    assert sum(effect.shapley for effect in attribution.effects) == pytest.approx(attribution.total, abs=1e-9)
