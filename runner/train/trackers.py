"""Mirrors of a run's record where its users look: TensorBoard and Weights & Biases.

The rows of metrics.jsonl and the result are copied to them, and nothing is ever read back: what goes wrong with a
mirror changes nothing in training. Each has a folder of its own in that of the run, tensorboard/ and wandb/. Neither
package is imported here unless its mirror is asked for (timm imports wandb where it is installed).
"""

from __future__ import annotations

import contextlib
import importlib.util
import json
import shutil
from collections.abc import Iterator
from datetime import datetime
from pathlib import Path
from typing import Any, Protocol

from roadmap.files import read_json
from roadmap.record.events import EpochDone, Report, TrainingEvent, Warned
from roadmap.record.folder import read_metrics, read_result
from roadmap.record.results import EpochMetrics, RunResult
from roadmap.record.run import Run
from roadmap.serialization import to_data
from roadmap.study.execution import Execution

COMPLETE = "complete"  # a file in a mirror's folder, once it has the result: what the mirror was asked for as
SERVER_SECONDS = 30  # that W&B's server is waited for at a run's start and end: a preempted job has little more


class Mirror(Protocol):
    """Opened as it is to be when the run is started: empty, or with what the rows that come will not change."""

    def add(self, metrics: EpochMetrics) -> None:
        """An epoch's metrics; they come in order, from the first epoch on, at each start anew."""

    def close(self, result: RunResult | None) -> None:
        """With the result of a run that is finished."""


def check_installed(execution: Execution) -> None:
    """Raises ValueError for a mirror whose package is not installed."""
    for name in _asked_for(execution):
        found = importlib.util.find_spec(name)
        if found is None or found.origin is None:  # a folder of that name, which W&B leaves wherever it is used
            raise ValueError(
                f"execution.{name} needs a package that is not installed: pip install 'roadmap-convnext[{name}]'"
            )


def missing_trackers(folder: Path, execution: Execution) -> list[str]:
    """The mirrors that are asked for and do not have all of a finished run."""
    return [name for name, value in _asked_for(execution).items() if _completed(folder / name) != value]


def copy_finished(run: Run, folder: Path, execution: Execution, report: Report) -> None:
    """Makes the mirrors that a finished run lacks."""
    for name in missing_trackers(folder, execution):
        _Follower(name, run, folder, execution, report).close()


@contextlib.contextmanager
def tracked(run: Run, folder: Path, execution: Execution, report: Report) -> Iterator[Report]:
    """A `report` that the mirrors hear too: they have the record's epochs, get those that come, and the result after.

    For the process that writes the record. A mirror that fails says so once, as a warning.
    """
    followers = [_Follower(name, run, folder, execution, report) for name in _asked_for(execution)]

    def hear(event: TrainingEvent) -> None:
        if isinstance(event, EpochDone):
            for follower in followers:
                follower.add(event.metrics)
        report(event)

    try:
        yield hear
    finally:
        for follower in followers:
            follower.close()


def _asked_for(execution: Execution) -> dict[str, str]:
    """By the name of each mirror, which is its package's, its folder's and its extra's too."""
    tensorboard = {"tensorboard": "tensorboard"} if execution.tensorboard else {}
    return tensorboard | ({"wandb": execution.wandb} if execution.wandb else {})


def _completed(folder: Path) -> str | None:
    try:
        return (folder / COMPLETE).read_text(encoding="utf-8")
    except OSError:
        return None


class _Follower:
    """Keeps a mirror up with the record; from its first failure on, which is told of, it leaves it alone."""

    def __init__(self, name: str, run: Run, folder: Path, execution: Execution, report: Report) -> None:
        self.name, self.run, self.folder, self.report = name, run, folder, report
        self.value = value = _asked_for(execution)[name]
        self.mirror: Mirror | None = None
        with self._failing_alone():
            (folder / name / COMPLETE).unlink(missing_ok=True)
            self.mirror = TensorBoard(run, folder) if name == "tensorboard" else WeightsAndBiases(run, folder, value)
            for metrics in read_metrics(folder):
                self.mirror.add(metrics)

    def add(self, metrics: EpochMetrics) -> None:
        with self._failing_alone():
            if self.mirror:
                self.mirror.add(metrics)

    def close(self) -> None:
        with self._failing_alone():
            if self.mirror:
                result = read_result(self.folder, self.run)
                self.mirror.close(result)
                if result:
                    (self.folder / self.name / COMPLETE).write_text(self.value, encoding="utf-8")

    @contextlib.contextmanager
    def _failing_alone(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            broken, self.mirror = self.mirror, None
            why = " ".join(f"{type(error).__name__}: {error}".split())
            message = f"{self.name} is left behind until the run is started again, training goes on: {why}"
            print(f"warning: {message}")
            self.report(Warned(message))
            with contextlib.suppress(Exception):
                if broken:
                    broken.close(None)


class TensorBoard:
    """Made anew, so that no epoch is in it twice whatever the moment of an interruption.

    An epoch's time is that of training alone, counted from the first start: where one is interrupted shows in no curve.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = SummaryWriter(folder / "tensorboard")
        manifest = read_json(folder / "manifest.json") or {}
        self.time = datetime.fromisoformat(manifest["started"]).timestamp()
        self._add_text("run", to_data(run))

    def add(self, metrics: EpochMetrics) -> None:
        self.time += metrics.seconds or 0.0
        for key, value in metrics.numbers().items():
            self.writer.add_scalar(key, value, metrics.epoch, walltime=self.time)
        self.writer.flush()  # raises what its thread met in writing

    def close(self, result: RunResult | None) -> None:
        if result:
            self._add_text("result", result.to_row())
        self.writer.flush()
        self.writer.close()

    def _add_text(self, tag: str, data: Any) -> None:
        lines = json.dumps(data, indent=2).splitlines()
        self.writer.add_text(tag, "\n".join("    " + line for line in lines), walltime=self.time)  # Markdown for code


class WeightsAndBiases:
    """A run there has this run's identity and goes on, so that epochs it has are not sent again.

    Offline W&B can't know what its server has: each start writes all there is, in place of what the start before left,
    and without `resume`, so that `wandb sync` puts it in place of what was sent before.
    """

    def __init__(self, run: Run, folder: Path, project: str) -> None:
        import wandb

        for left in (folder / "wandb").glob(f"offline-run-*-{run.identity}"):
            shutil.rmtree(left, ignore_errors=True)
        is_offline = wandb.setup().settings.mode in ("offline", "dryrun")
        place = {"regime": run.regime, "rung": run.rung, "data": run.data, "seed": run.seed, "fidelity": run.fidelity}
        self.run = wandb.init(
            project=project,
            id=run.identity,
            name=run.name,
            group=run.rung,
            config={**to_data(run.experiment), **place},
            dir=folder.resolve(),  # W&B's own process may be in another folder
            resume=None if is_offline else "allow",
            reinit="create_new",  # never the run of another training in this process
            settings=wandb.Settings(
                console="off",
                init_timeout=SERVER_SECONDS,
                finish_timeout=SERVER_SECONDS,
                finish_timeout_raises=True,
            ),
        )
        self.next = self.run.step

    def add(self, metrics: EpochMetrics) -> None:
        if metrics.epoch >= self.next:
            self.run.log({"epoch": metrics.epoch, **metrics.numbers()}, step=metrics.epoch, commit=True)

    def close(self, result: RunResult | None) -> None:
        self.run.summary.update(result.to_row() if result else {})
        self.run.finish(exit_code=0 if result else 1)
