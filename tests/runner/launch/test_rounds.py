"""Successive halving: which epochs and designs the rule gives, what is kept, and that what goes on is exact."""

from __future__ import annotations

from fractions import Fraction

import pytest

from roadmap.options import Selection, StudyOptions
from roadmap.record.folder import read_metrics, state, write_divergences
from roadmap.record.results import Divergence
from runner.launch.plan import RunPlan
from runner.launch.rounds import Halving, due_round, rounds_of
from tests.helpers.command import LIGHT, run_here
from tests.helpers.records import append_row, begin, epoch_row
from tests.helpers.training import UNTIMED


@pytest.mark.parametrize(
    ("rounds", "keep", "epochs", "ends"),
    [(3, "1/3", 9, [1, 3, 9]), (3, "1/3", 300, [33, 100, 300]), (2, "0.5", 2, [1, 2]), (2, "1/10", 30, [3, 30])],
)
def test_rounds_end_after_epochs_that_follow_from_the_options(rounds, keep, epochs, ends):
    assert Halving(rounds, Fraction(keep)).ends(epochs) == ends


def test_as_many_are_kept_as_the_share_says():
    third = Halving(3, Fraction(1, 3))
    assert [third.kept(designs) for designs in (100, 34, 12, 3, 1)] == [34, 12, 4, 1, 1]


@pytest.mark.parametrize(
    ("rounds", "keep", "message"),
    [
        (1, None, "--rounds must be at least 2"),
        (2, "1", "--keep must be above 0 and below 1"),
        (2, "1/0", "--keep must be a share such as 1/3"),
        (2, "some", "--keep must be a share such as 1/3"),
        (None, "1/3", "--keep requires --rounds"),
    ],
)
def test_what_is_no_rule_is_refused(rounds, keep, message):
    with pytest.raises(ValueError, match=message):
        Halving.of(rounds, keep)
    with pytest.raises(ValueError, match=r"3 epochs are too few for 3 rounds that keep 1/3: .* 1, 1, 3"):
        Halving(3, Fraction(1, 3)).ends(3)


THIRD = Halving(3, Fraction(1, 3))


def plan_of(out, samples=6, **options):
    given = StudyOptions.of({"space": "stage-ratio", "samples": samples, "settings": {"recipe.epochs": 9}, **options})
    return RunPlan.of(Selection.of(given), 1, out)


def trained(planned, out, epochs, top1):
    """The folder of a run after so many epochs, with the same accuracy in each."""
    folder = begin(planned.run, out)
    for number in range(1, epochs + 1):
        append_row(folder, epoch_row(number, top1=top1))


def test_the_best_of_a_round_go_on_and_the_first_rung_with_them(tmp_path):
    plan = plan_of(tmp_path)
    first = due_round(plan, THIRD)
    assert (first.number, first.end, len(first.plan.waiting)) == (1, 1, 7)
    # The fourth design diverges; the second and the sixth are equally good, and better than the others.
    for planned, top1 in zip(plan.runs, (50.0, 60.0, 80.0, 70.0, 90.0, 65.0, 80.0), strict=True):
        trained(planned, tmp_path, 0 if top1 == 90.0 else 1, top1)
    write_divergences(plan.runs[4].folder, [Divergence(1, 2, 0.1, "nan", "stem")])
    second = due_round(plan.refreshed(), THIRD)
    assert (second.number, second.end) == (2, 3)
    names = [plan.rungs[i].name for i in (0, 2, 6)]
    assert [rung.name for rung in second.plan.rungs] == names and len(second.dropped) == 4
    # What a run does after a round does not change what the round said.
    for position, top1 in ((0, 50.0), (2, 10.0), (6, 20.0)):
        for number in (2, 3):
            append_row(plan.runs[position].folder, epoch_row(number, top1=top1))
    last = due_round(plan.refreshed(), THIRD)
    assert (last.number, last.plan.execution.stop_after) == (3, None)
    assert [rung.name for rung in last.plan.rungs] == [names[0], names[2]]
    assert [round.number for round in rounds_of(plan.refreshed(), THIRD)] == [1, 2, 3]


def test_a_design_without_its_epoch_is_waited_for(tmp_path):
    plan = plan_of(tmp_path)
    for planned in plan.runs[:-1]:
        trained(planned, tmp_path, 1, 70.0)
    due = due_round(plan.refreshed(), THIRD)
    assert due.number == 1 and [run.run for run in due.plan.waiting] == [plan.runs[-1].run]


def test_other_seeds_and_references_have_no_say(tmp_path):
    """Designs are chosen by their first seed, so that the others can judge them; a reference goes on in any case."""
    options = StudyOptions.of({"space": "stage-ratio", "samples": 3, "references": "convnext-t"})
    plan = RunPlan.of(Selection.of(options), 2, tmp_path)
    first = [planned for planned in plan.runs if planned.run.seed == 0]
    for planned, top1 in zip(first, (50.0, 60.0, 80.0, 70.0, 10.0), strict=True):
        trained(planned, tmp_path, 4, top1)
    for planned in plan.runs:
        if planned.run.seed == 1:
            trained(planned, tmp_path, 4, 99.0 if planned.run.rung == first[1].run.rung else 20.0)
    due = due_round(plan.refreshed(), Halving(2, Fraction(1, 3)))
    assert due.number == 2
    assert [rung.name for rung in due.plan.rungs] == ["recipe", first[2].run.rung, "convnext-t"]
    assert "1 design, recipe, convnext-t; 2 designs left behind" in str(due)


def test_a_run_that_retries_did_not_help_is_not_waited_for(tmp_path):
    plan = plan_of(tmp_path, settings={"recipe.epochs": 9, "execution.on_nan": "retry"})
    for planned in plan.runs[:-1]:
        trained(planned, tmp_path, 1, 70.0)
    trained(plan.runs[-1], tmp_path, 0, 0.0)
    last = [Divergence(1, 2, 0.1, "nan", "stem", retried_from=(0, 0)) for _ in range(3)]
    write_divergences(plan.runs[-1].folder, [*last, Divergence(1, 2, 0.1, "nan", "stem")])
    assert due_round(plan.refreshed(), THIRD).number == 2


def test_rounds_are_of_spaces_only(tmp_path):
    plan = RunPlan.of(Selection.of(StudyOptions(steps="recipe")), 1, tmp_path)
    with pytest.raises(ValueError, match="--rounds requires --space NAME"):
        due_round(plan, THIRD)


FEW = ["--set", "recipe.epochs=2", "--set", "recipe.warmup_epochs=0", "--set", "recipe.batch_size=256", *LIGHT]
SPACE = ["run", "--space", "stage-ratio", "--samples", "2", *FEW]


@pytest.mark.slow
def test_a_run_that_is_paused_and_resumed_is_the_one_that_was_not(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    rounds = [*SPACE, "--rounds", "2", "--keep", "1/2", "--out", "rounds"]
    done = run_here(*rounds)
    assert done.status == 0, done.err
    assert (
        "round 1 of 2, to epoch 1: 2 designs, recipe" in done.out and "round 2 of 2, to epoch 2: 1 design" in done.out
    )
    assert "1 design not finished and left out" in done.out
    assert run_here(*SPACE, "--out", "whole").status == 0
    options = StudyOptions.of({"space": "stage-ratio", "samples": 2, "settings": tuple(FEW[1::2])})
    plan = RunPlan.of(Selection.of(options), 1, tmp_path / "rounds")
    states = [state(planned.folder, planned.run) for planned in plan.runs]
    assert sorted(states) == ["begun", "finished", "finished"] and states[0] == "finished"
    for planned in plan.runs:
        own, whole = (
            read_metrics(out / planned.folder.relative_to(tmp_path / "rounds"))
            for out in (tmp_path / "rounds", tmp_path / "whole")
        )
        assert len(own) == (1 if planned.state == "begun" else 2)
        for epoch, other in zip(own, whole, strict=False):
            rows = [{k: v for k, v in one.to_row().items() if k not in UNTIMED} for one in (epoch, other)]
            # The last epoch has a value for each class, an earlier one only numbers.
            assert rows[0] == rows[1]
    again = run_here(*rounds)
    assert again.status == 0 and again.out.count("nothing to train") == 2
    rest = run_here(*SPACE, "--out", "rounds")  # without rounds, what stayed behind is finished too
    assert rest.status == 0 and "1 to resume" in rest.out and "2 designs, 100 - top-1" in rest.out


@pytest.mark.parametrize(
    ("more", "message"),
    [
        (["--rounds", "2", "--steps", "recipe"], "it does not go with --steps"),
        (["--rounds", "1"], "must be at least 2"),
        (["--keep", "1/2"], "--keep requires --rounds N"),
        (["--rounds", "3"], "2 epochs are too few for 3 rounds"),
        (["--rounds", "2", "--transfer", "detection"], "--transfer does not go with --rounds"),
    ],
)
def test_bad_usage_is_one_sentence(more, message, tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_here(*SPACE, *more)
    assert done.status == 2 and message in done.err and done.err.count("\n") == 1, done.err
    assert not list(tmp_path.iterdir())


def test_a_dry_run_says_which_round_is_due(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    done = run_here(*SPACE, "--rounds", "2", "--keep", "1/2", "--dry-run")
    assert done.status == 0 and done.out.startswith("round 1 of 2, to epoch 1: 2 designs"), done.err
