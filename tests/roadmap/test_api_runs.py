"""roadmap.run, plan, status, logs, cancel and retry: the command's work as functions that return values."""

from __future__ import annotations

import threading

import pytest

import roadmap
from roadmap.cli import Options, make_parser
from tests.helpers.training import warm_fork_server

QUICK = {"recipe.epochs": 1, "recipe.warmup_epochs": 0, "recipe.decay_epochs": 1, "recipe.batch_size": 256}
QUICK |= {"design.width": 8}


def in_thread(function):
    """Calls a function in a thread that is not the main one, as a notebook's widgets and job queues do."""
    returned = []
    thread = threading.Thread(target=lambda: returned.append(function()))
    thread.start()
    thread.join()
    return returned[0]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.slow
def test_a_study_is_trained_from_any_thread_and_returned_as_values(tmp_path, capsys):
    warm_fork_server()
    given = {"steps": "pico", "regime": "pico", "seeds": 1, "out": tmp_path / "runs", "settings": QUICK}
    results = in_thread(lambda: roadmap.run(**given))
    (finished,) = results.runs
    assert results.is_finished and not results.failed and not results.diverged
    assert finished.state == "finished" and (finished.folder / "result.json").exists()
    assert list(results.table["rung"]) == ["pico"] and results.table["n"].iloc[0] == 1
    assert results.figure is not None and results.figure.axes
    assert "[1/1] pico (seed 0): top-1" in capsys.readouterr().out

    status = roadmap.status(out=tmp_path / "runs")
    assert [run.kind for run in status.runs] == ["finished"] and "1 run: 1 finished" in str(status)
    assert "finished: top-1" in roadmap.logs("pico-s0", out=tmp_path / "runs")


@pytest.mark.slow
def test_a_run_that_fails_or_diverges_is_reported(tmp_path):
    warm_fork_server()
    given = {"steps": "pico", "seeds": 2, "out": "runs", "settings": QUICK | {"recipe.learning_rate": 1e14}}
    broken = roadmap.plan(**given).runs[1]
    broken.log.mkdir(parents=True)  # where the log is to be written
    results = roadmap.run(**given)
    assert [planned.run.seed for planned in results.diverged] == [0]
    assert [planned.run.seed for planned in results.failed] == [1] and results.failed[0].folder == broken.folder
    assert not results.is_finished and results.table["n"].iloc[0] == 0


def test_a_plan_lists_runs_and_writes_nothing(tmp_path):
    jobs = roadmap.plan_jobs(steps="gelu,layer-norm", seeds=2, on="slurm", out=tmp_path / "runs", pack=2)
    assert [[run.rung for run, _ in job.runs] for job in jobs.jobs] == [["gelu", "layer-norm"]] * 2
    assert "#SBATCH --array=0-1" in jobs.scripts[0] and jobs.device_hours > 0
    with pytest.raises(ValueError, match='plan_jobs requires on="slurm"'):
        roadmap.plan_jobs(steps="gelu")
    plan = roadmap.plan(steps="gelu,layer-norm", seeds=2, on="slurm")
    assert [(planned.run.rung, planned.run.seed, planned.state) for planned in plan.runs] == [
        ("gelu", 0, "absent"),
        ("layer-norm", 0, "absent"),
        ("gelu", 1, "absent"),
        ("layer-norm", 1, "absent"),
    ]
    assert plan.waiting == plan.runs and not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("given", "message"),
    [
        ({"seeds": 0}, r"seeds must be between 1 and 10000 \(got 0\)"),
        ({"steps": "nonsense"}, "unknown rung 'nonsense'"),
        ({"settings": {"recipe.epochs": "many"}}, "'many' is not a whole number"),
        ({"pack": 2}, "--pack requires --on slurm"),
        ({"on": "slurm", "max_running": 0}, r"max_running must be at least 1 \(got 0\)"),
    ],
)
def test_bad_input_raises_value_error(tmp_path, given, message):
    with pytest.raises(ValueError, match=message):
        roadmap.run(**given)
    with pytest.raises(ValueError, match="no such folder of runs"):
        roadmap.status()
    assert not list(tmp_path.iterdir())


def test_parsed_options_can_not_be_changed():
    options = Options(make_parser().parse_args(["run", "--set", "recipe.epochs=1", "--plugin", "a.py"]))
    assert options.settings == ("recipe.epochs=1",) and isinstance(options.plugins, tuple)
    with pytest.raises(AttributeError, match="seeds"):
        options.seeds = 3
    with pytest.raises(AttributeError, match="seeds"):
        del options.seeds
