"""What the tests share, and the rule that CI skips nothing."""

from __future__ import annotations

import os
import tempfile
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING

import pytest
from hypothesis import settings

from roadmap.execution import Execution
from roadmap.ladders import ladder
from roadmap.record import Run
from roadmap.study import load_study
from tests.slurm import cluster, is_installed

if TYPE_CHECKING:
    from runner.device import Setup

ROOT = Path(__file__).parent.parent

# No test talks to W&B. Before any process is started: those of a fork server have the environment of its start.
os.environ["WANDB_MODE"] = "offline"

# Nor do they read what users keep: a count that is there already hides what counting gives now.
os.environ["XDG_CACHE_HOME"] = tempfile.mkdtemp(prefix="roadmap-cache-")

# The machines are noisy, so that no test is timed; and in CI the draws are the same every time.
settings.register_profile("roadmap", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("roadmap")


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that is skipped fails the run: what it needs was to be installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")
    if os.environ.get("CI") == "true" and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(scope="session")
def whole_slurm():
    if not is_installed():
        pytest.skip("Slurm and its accounting are not installed, or this is not root's")
    # Not below pytest's own folder, which other users may not pass through.
    with tempfile.TemporaryDirectory(prefix="roadmap-slurm-", ignore_cleanup_errors=True) as folder:
        with cluster(Path(folder)) as found:
            yield found


@pytest.fixture
def slurm(whole_slurm):
    """A real cluster, with nothing in its queue."""
    yield whole_slurm
    whole_slurm.clear()


@pytest.fixture
def make_run():
    """A small run of a rung of pico: `make_run("gelu", epochs=2)`."""

    def make(rung: str = "pico", seed: int = 0, data: str = "digits", **recipe: object) -> Run:
        from roadmap.study import changed

        study = load_study()
        (chosen,) = ladder("pico", rung, data=data)
        quick = {"epochs": 2, "warmup_epochs": 0, "batch_size": 256} | recipe
        experiment = changed(chosen.experiment, {"recipe": vars(chosen.experiment.recipe) | quick}, "test")
        return Run("pico", rung, experiment, data, study.dataset(data), seed, "paper")

    return make


def execution(**changes: object) -> Execution:
    """The study's way to compute a run, with changes; whatever the disk's pace, each epoch ends with a checkpoint."""
    return replace(load_study().execution, **{"checkpoint_share": 1.0} | changes)


def setup_of(run: Run, rank_count: int = 1, **changes: object) -> Setup:
    from runner.device import choose_setup

    return choose_setup(run.experiment.recipe, execution(**changes), rank_count, 1)
