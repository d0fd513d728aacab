"""Trackers, to which a run's record is copied: TensorBoard and Weights & Biases.

The rows of metrics.jsonl and the result are copied, and nothing is read back: a tracker's failure changes nothing in
training. Each has a subfolder of the run's folder, tensorboard/ and wandb/. A tracker's package is imported only if
the tracker is requested (timm imports wandb if it is installed).
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

from roadmap.record.events import EpochDone, Report, TrainingEvent, Warned
from roadmap.record.folder import read_manifest, read_metrics, read_result
from roadmap.record.results import EpochMetrics, RunResult
from roadmap.record.run import Run
from roadmap.serialization.plain_data import to_data
from roadmap.study.execution import Execution

COMPLETE = "complete"  # a file in a tracker's folder, written after the result; it contains the execution's setting
SERVER_SECONDS = 30  # timeout of W&B's server at a run's start and end: a preempted job has little more time


class Tracker(Protocol):
    """Created at each start of a run: empty, or with rows that the ones to come do not change."""

    def add(self, metrics: EpochMetrics) -> None:
        """Adds an epoch's metrics. At each start all epochs are added in order, from the first."""

    def close(self, result: RunResult | None) -> None:
        """`result`: of a finished run."""


def check_installed(execution: Execution) -> None:
    """Raises ValueError for a tracker whose package is not installed."""
    for name in _requested(execution):
        spec = importlib.util.find_spec(name)
        if spec is None or spec.origin is None:  # without origin it is a folder of that name, such as W&B creates
            raise ValueError(
                f"execution.{name} requires a package that is not installed: pip install 'roadmap-convnext[{name}]'"
            )


def missing_trackers(folder: Path, execution: Execution) -> list[str]:
    """The requested trackers that do not have all of a finished run."""
    return [name for name, value in _requested(execution).items() if _completed_as(folder / name) != value]


def copy_finished_run(run: Run, folder: Path, execution: Execution, report: Report) -> None:
    """Copies a finished run to the requested trackers that do not have it."""
    for name in missing_trackers(folder, execution):
        _SafeTracker(name, run, folder, execution, report).close()


@contextlib.contextmanager
def tracked(run: Run, folder: Path, execution: Execution, report: Report) -> Iterator[Report]:
    """A `report` that also goes to the trackers. They get the recorded epochs, the new ones, and at the end the result.

    For the process that writes the record. A tracker's failure is reported once, as a warning.
    """
    trackers = [_SafeTracker(name, run, folder, execution, report) for name in _requested(execution)]

    def track_and_report(event: TrainingEvent) -> None:
        if isinstance(event, EpochDone):
            for tracker in trackers:
                tracker.add(event.metrics)
        report(event)

    try:
        yield track_and_report
    finally:
        for tracker in trackers:
            tracker.close()


def _requested(execution: Execution) -> dict[str, str]:
    """The execution's settings by the tracker's name, which is also that of its package, folder and extra."""
    tensorboard = {"tensorboard": "tensorboard"} if execution.tensorboard else {}
    return tensorboard | ({"wandb": execution.wandb} if execution.wandb else {})


def _completed_as(folder: Path) -> str | None:
    try:
        return (folder / COMPLETE).read_text(encoding="utf-8")
    except OSError:
        return None


class _SafeTracker:
    """Keeps a tracker up to date. Its first failure is reported, and from then on it is not used."""

    def __init__(self, name: str, run: Run, folder: Path, execution: Execution, report: Report) -> None:
        self.name, self.run, self.folder, self.report = name, run, folder, report
        self.value = value = _requested(execution)[name]
        self.tracker: Tracker | None = None
        with self._failure_reported():
            (folder / name / COMPLETE).unlink(missing_ok=True)
            self.tracker = TensorBoard(run, folder) if name == "tensorboard" else WeightsAndBiases(run, folder, value)
            for metrics in read_metrics(folder):
                self.tracker.add(metrics)

    def add(self, metrics: EpochMetrics) -> None:
        with self._failure_reported():
            if self.tracker:
                self.tracker.add(metrics)

    def close(self) -> None:
        with self._failure_reported():
            if self.tracker:
                result = read_result(self.folder, self.run)
                self.tracker.close(result)
                if result:
                    (self.folder / self.name / COMPLETE).write_text(self.value, encoding="utf-8")

    @contextlib.contextmanager
    def _failure_reported(self) -> Iterator[None]:
        try:
            yield
        except Exception as error:
            failed_tracker, self.tracker = self.tracker, None
            reason = " ".join(f"{type(error).__name__}: {error}".split())
            message = f"{self.name} failed and is not updated until the run is started again; training continues"
            message = f"{message}: {reason}"
            print(f"warning: {message}")
            self.report(Warned(message))
            with contextlib.suppress(Exception):
                if failed_tracker:
                    failed_tracker.close(None)


class TensorBoard:
    """Rewritten at each start, so that no epoch is in it twice, whenever the run was interrupted.

    Wall-clock times count only training, from the first start: interruptions do not show in the curves.
    """

    def __init__(self, run: Run, folder: Path) -> None:
        from torch.utils.tensorboard import SummaryWriter

        shutil.rmtree(folder / "tensorboard", ignore_errors=True)
        self.writer = SummaryWriter(folder / "tensorboard")
        manifest = read_manifest(folder)
        assert manifest is not None and manifest.environment.started is not None  # written before training starts
        self.time = datetime.fromisoformat(manifest.environment.started).timestamp()
        self._add_text("run", to_data(run))

    def add(self, metrics: EpochMetrics) -> None:
        self.time += metrics.seconds or 0.0
        for key, value in metrics.numbers().items():
            self.writer.add_scalar(key, value, metrics.epoch, walltime=self.time)
        self.writer.flush()  # raises the errors of the writing thread

    def close(self, result: RunResult | None) -> None:
        if result:
            self._add_text("result", result.to_row())
        self.writer.flush()
        self.writer.close()

    def _add_text(self, tag: str, data: Any) -> None:
        lines = json.dumps(data, indent=2).splitlines()
        self.writer.add_text(tag, "\n".join("    " + line for line in lines), walltime=self.time)  # Markdown for code


class WeightsAndBiases:
    """The run has the same identity in W&B and is resumed there, so that no epoch is sent twice.

    Offline, W&B can't know what its server has. Then each start writes all epochs and replaces the files of the
    previous start, without `resume`, so that `wandb sync` replaces what was sent before.
    """

    def __init__(self, run: Run, folder: Path, project: str) -> None:
        import wandb

        for previous in (folder / "wandb").glob(f"offline-run-*-{run.identity}"):
            shutil.rmtree(previous, ignore_errors=True)
        is_offline = wandb.setup().settings.mode in ("offline", "dryrun")
        labels = {"regime": run.regime, "rung": run.rung, "data": run.data, "seed": run.seed, "fidelity": run.fidelity}
        self.run = wandb.init(
            project=project,
            id=run.identity,
            name=run.name,
            group=run.rung,
            config={**to_data(run.experiment), **labels},
            dir=folder.resolve(),  # W&B's process may run in another folder
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
