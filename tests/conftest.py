"""What every test has: fixtures, a state that no other test has touched, and the rule that CI skips nothing."""

from __future__ import annotations

import itertools
import os
import signal
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import replace

import pytest
from hypothesis import settings

from roadmap.record.run import Run
from roadmap.serialization.plain_data import changed
from roadmap.study.load import load_study
from roadmap.study.selection import ladder
from tests.helpers.cluster import Cluster, cluster, is_installed
from tests.helpers.command import kill_started, untouched
from tests.helpers.training import AUGMENTED, FEW_DIGITS

# No test talks to W&B. Before any process is started: those of a fork server have the environment of its start.
os.environ["WANDB_MODE"] = "offline"

# Nor do they read what users keep: a count that is there already hides what counting gives now. The workers of xdist
# have one folder, of the process that starts them.
if "PYTEST_XDIST_WORKER" not in os.environ:
    CACHE = tempfile.TemporaryDirectory(prefix="roadmap-cache-")
    os.environ["XDG_CACHE_HOME"] = CACHE.name

# A shell starts what is in its background with Ctrl-C ignored, and so would be what the tests start.
if signal.getsignal(signal.SIGINT) is signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)

# The machines are noisy, so that no test is timed; and in CI the draws are the same every time.
settings.register_profile("roadmap", deadline=None, derandomize=os.environ.get("CI") == "true")
settings.load_profile("roadmap")


# Each with a cluster of its own, on which its tests come one after the other. They mostly wait.
SLURM_GROUPS = itertools.cycle(["slurm-0", "slurm-1"])


def pytest_itemcollected(item: pytest.Item) -> None:
    """Shares out the tests of Slurm to two workers. Later is too late: xdist has looked for groups by then."""
    if "slurm" in getattr(item, "fixturenames", ()):
        item.add_marker(pytest.mark.xdist_group(next(SLURM_GROUPS)))


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Slow tests first, so that no worker is left with a long one at the end."""
    items.sort(key=lambda item: item.get_closest_marker("slow") is None)


def pytest_sessionfinish(session: pytest.Session) -> None:
    """In CI a test that is skipped fails the run: what it needs was to be installed."""
    reporter = session.config.pluginmanager.get_plugin("terminalreporter")  # none in a worker of xdist
    if os.environ.get("CI") == "true" and reporter and reporter.stats.get("skipped"):
        session.exitstatus = pytest.ExitCode.TESTS_FAILED


@pytest.fixture(autouse=True)
def isolated() -> Iterator[None]:
    """No test finds plug-ins or processes of another."""
    with untouched():
        yield
    kill_started()


@pytest.fixture(scope="session")
def session_cluster() -> Iterator[Cluster]:
    if not is_installed():
        pytest.skip("Slurm and its accounting are not installed, or this is not root's")
    with cluster() as started:
        yield started


@pytest.fixture
def slurm(session_cluster: Cluster) -> Iterator[Cluster]:
    """A real cluster, with nothing in its queue."""
    yield session_cluster
    session_cluster.clear()


@pytest.fixture
def make_run() -> Callable[..., Run]:
    """A short run of a rung of pico, with changes to its recipe: `make_run("gelu", epochs=3)`.

    The modern recipe augments as the paper's does.
    """

    def make(
        rung: str = "pico", seed: int = 0, data: str = "digits", width: int | None = None, **recipe: object
    ) -> Run:
        study = load_study()
        (chosen,) = ladder("pico", rung, data=data)
        quick: dict[str, object] = {"epochs": 2, "warmup_epochs": 0, "batch_size": 256}
        if chosen.experiment.recipe.optimizer == "adamw":
            quick |= AUGMENTED
        quick |= recipe
        experiment = changed(chosen.experiment, {"recipe": vars(chosen.experiment.recipe) | quick}, "test")
        design = experiment.design if width is None else replace(experiment.design, width=width)
        return Run("pico", rung, replace(experiment, design=design), data, study.dataset(data), seed, "paper")

    return make


@pytest.fixture
def tiny_run(make_run: Callable[..., Run]) -> Callable[..., Run]:
    """Like `make_run`, at a quarter of the work: 322 of the digits in five batches an epoch."""

    def make(rung: str = "pico", seed: int = 0, **recipe: object) -> Run:
        run = make_run(rung, seed, width=8, **{"batch_size": 64} | recipe)
        return replace(run, data=FEW_DIGITS, dataset=replace(run.dataset, train_images=322, test_images=128))

    return make
