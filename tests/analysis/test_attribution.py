"""Shapley values and pairs, held against games whose answers are known."""

from __future__ import annotations

import itertools
import math
import random
from dataclasses import replace

import pytest
from hypothesis import given
from hypothesis import settings as hypothesis_settings
from hypothesis import strategies as st

import roadmap
from analysis.attribution import Ablations, attribute
from analysis.results import Result
from roadmap.network.cost import Cost
from roadmap.record.metrics import METRICS
from tests.helpers.records import study_run

STEPS = ("patchify-stem", "gelu", "fewer-activations", "fewer-norms", "layer-norm")
TITLES = {step: step.upper() for step in STEPS}


def results(ablation, value, seeds=1, noise=0.0, steps=STEPS, study_number=0):
    """Of rungs whose accuracy is `value` of the set of their steps."""
    found = []
    for rung in roadmap.ladder("pico", steps=steps, ablation=ablation):
        run = study_run(rung)
        draw = random.Random(f"{run.identity} {study_number}")
        rows = {seed: {"top1": value(frozenset(rung.steps)) + draw.gauss(0, noise)} for seed in range(seeds)}
        rows = {seed: row | {"test_loss": -row["top1"]} for seed, row in rows.items()}
        found.append(Result(rung, run, Cost(1, 1), rows))
    return found


def ablations(value, orders=8, **options):
    kinds = ("add-one", "leave-one-out", f"orders:{orders}")
    alone, left_out, in_orders = (results(kind, value, **options) for kind in kinds)
    return Ablations((), alone, left_out, in_orders)


def shapley(value):
    """By its definition: over all orders."""
    sums = dict.fromkeys(STEPS, 0.0)
    for order in itertools.permutations(STEPS):
        for i, step in enumerate(order):
            sums[step] += value(frozenset(order[: i + 1])) - value(frozenset(order[:i]))
    return {step: total / math.factorial(len(STEPS)) for step, total in sums.items()}


def additive(taken):
    return 80.0 + sum(1.0 + STEPS.index(step) for step in taken)


def paired(taken):
    """Additive, but that two steps help each other, and two hinder."""
    helped = 3.0 * ({"gelu", "layer-norm"} <= taken) - 2.0 * ({"patchify-stem", "fewer-norms"} <= taken)
    return additive(taken) + helped


def test_what_adds_up_is_its_own_worth():
    found = attribute(TITLES, ablations(additive))
    assert [effect.shapley for effect in found.effects] == pytest.approx([1, 2, 3, 4, 5])
    assert [effect.alone for effect in found.effects] == pytest.approx([1, 2, 3, 4, 5])
    assert [effect.left_out for effect in found.effects] == pytest.approx([1, 2, 3, 4, 5])
    assert found.total == pytest.approx(15) and found.steps == STEPS and found.effects[0].title == "PATCHIFY-STEM"
    assert {effect.orders for effect in found.effects} == {8}


def test_order_hides_what_pairs_do():
    found = {effect.step: effect for effect in attribute(TITLES, ablations(paired, orders=200)).effects}
    assert found["gelu"].alone == pytest.approx(2) and found["gelu"].left_out == pytest.approx(5)
    for step, exact in shapley(paired).items():
        assert found[step].shapley == pytest.approx(exact, abs=0.3)
        low, high = found[step].interval or (exact, exact)
        assert low - 0.1 <= exact <= high + 0.1


@pytest.mark.parametrize(("steps", "seeds"), [(STEPS[:3], 1), (STEPS[:3], 3), (STEPS, 1), (STEPS, 3)])
def test_intervals_hold_the_truth_as_often_as_they_say(steps, seeds):
    """Of steps that do nothing, by noisy runs: few sets of steps are met again and again by many orders."""
    held = drawn = 0
    for study in range(12):
        kinds = ("add-one", "leave-one-out", "orders:12")
        runs = (results(kind, lambda taken: 80.0, seeds, 1.0, steps, study) for kind in kinds)
        alone, left_out, in_orders = runs
        found = attribute({step: step for step in steps}, Ablations((), alone, left_out, in_orders))
        for effect in found.effects:
            low, high = effect.interval or (0.0, 0.0)
            held, drawn = held + (low <= 0 <= high), drawn + 1
    assert held / drawn >= 0.85


def test_pairs_that_help_and_hinder_are_found():
    found = attribute(TITLES, ablations(paired, orders=20, noise=0.05))
    told = {(each.first, each.second): each for each in found.interactions}
    assert len(told) == 10
    assert told["gelu", "layer-norm"].verdict == "help" and told["gelu", "layer-norm"].value == pytest.approx(
        3, abs=0.3
    )
    assert told["patchify-stem", "fewer-norms"].verdict == "hinder"
    others = [each for pair, each in told.items() if each.verdict != "within noise"]
    assert len(others) <= 3


def test_a_loss_helps_where_it_falls():
    found = attribute(TITLES, ablations(paired, orders=20, noise=0.05), METRICS["loss"])
    told = {(each.first, each.second): each.verdict for each in found.interactions}
    assert told["gelu", "layer-norm"] == "help" and found.total == pytest.approx(-16, abs=0.2)


def test_without_orders_there_is_no_interval_and_no_pair():
    found = attribute(TITLES, ablations(paired, orders=1))
    assert found.interactions == ()
    runs = ablations(paired)
    ends = attribute(TITLES, replace(runs, orders=()))
    assert all(effect.interval is None and effect.orders == 0 for effect in ends.effects)
    orders_alone = attribute(TITLES, replace(runs, alone=(), left_out=()))
    assert all(effect.interval and effect.alone is None for effect in orders_alone.effects)
    assert sum(effect.shapley for effect in orders_alone.effects) == pytest.approx(orders_alone.total)


def test_the_papers_path_is_told_beside():
    def counted(taken):
        return 80.0 + 2.0 * len(taken.intersection(STEPS))

    path = results("cumulative", counted, steps="all")
    found = attribute(TITLES, replace(ablations(counted), path=path))
    assert [effect.on_path for effect in found.effects] == [2.0] * 5


def test_what_the_orders_lack_is_counted():
    runs = ablations(additive)
    lacking = [replace(each, seeds={}) if each.rung.name.startswith("order3-0") else each for each in runs.orders]
    lacking[-1] = replace(lacking[-1], seeds={}, diverged_seeds=(0,))
    found = attribute(TITLES, replace(runs, orders=lacking))
    assert (found.missing, found.diverged) == (6, 1)


def test_one_measurement_is_one_however_often_it_counts():
    """A step alone stands in every order at the same place."""
    kinds = ("add-one", "leave-one-out", "orders:9")
    runs = (results(kind, additive, seeds=1, noise=1.0, steps=("gelu",)) for kind in kinds)
    (effect,) = attribute({"gelu": "GELU"}, Ablations((), *runs)).effects
    assert effect.orders == 9 and effect.interval is None
    runs = (results(kind, additive, seeds=4, noise=1.0, steps=("gelu",)) for kind in kinds)
    (effect,) = attribute({"gelu": "GELU"}, Ablations((), *runs)).effects
    low, high = effect.interval
    assert high - low > 1


def test_too_little_is_refused():
    with pytest.raises(ValueError, match="no finished run of the start"):
        attribute(TITLES, Ablations((), (), (), ()))
    with pytest.raises(ValueError, match="no finished run with all of these steps"):
        attribute(TITLES, Ablations((), results("add-one", additive), (), ()))


@given(st.lists(st.floats(-5, 5), min_size=5, max_size=5))
@hypothesis_settings(max_examples=5)
def test_orders_share_out_the_whole(changes):
    def value(taken):
        return 80 + math.prod(1 + 0.1 * changes[STEPS.index(step)] for step in sorted(taken))

    found = attribute(TITLES, Ablations((), (), (), results("orders:3", value)))
    assert sum(effect.shapley for effect in found.effects) == pytest.approx(found.total, abs=1e-9)
