"""The runs of the selected rungs: the folder and state of each, and which of them are to be trained."""

from __future__ import annotations

import itertools
from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from roadmap.files import read_json
from roadmap.options import Selection, StudyOptions
from roadmap.record.estimates import Speed
from roadmap.record.folder import State, state
from roadmap.record.run import Run, folders_below
from roadmap.serialization import check
from roadmap.study.execution import Execution, recorded_execution
from roadmap.study.rungs import Rung
from roadmap.study.schema import SEEDS
from runner.data.datasets import check_trainable, source
from runner.train.trackers import check_installed, missing_trackers


@dataclass(frozen=True)
class PlannedRun:
    """A run, its folder and its state."""

    run: Run
    folder: Path
    state: State

    @property
    def log(self) -> Path:
        return self.folder / "log.txt"


@dataclass(frozen=True)
class RunPlan:
    """All runs of the selected rungs, each experiment and seed once."""

    selection: Selection
    out: Path  # the folder of all runs
    rungs: tuple[Rung, ...]
    runs: tuple[PlannedRun, ...]

    @classmethod
    def of(cls, selection: Selection, seeds: int | None, out: Path) -> Self:
        """`seeds`: runs of each rung, None for the study's number. Raises ValueError if a run can't be trained."""
        check_installed(selection.execution)
        seeds = selection.study.defaults.seeds if seeds is None else seeds
        check(seeds, SEEDS, "seeds")
        rungs, existing = selection.rungs(), folders_below(out)
        runs: dict[str, PlannedRun] = {}
        for seed, rung in itertools.product(range(seeds), rungs):
            run = selection.run(rung, seed)
            check_trainable(run)
            folder = run.folder(out, existing)
            # Two rungs may be the same experiment.
            runs.setdefault(run.identity, PlannedRun(run, folder, state(folder, run)))
        _check_augmentation(selection.execution, list(runs.values()))
        return cls(selection, out, rungs, tuple(runs.values()))

    @property
    def execution(self) -> Execution:
        return self.selection.execution

    @property
    def waiting(self) -> tuple[PlannedRun, ...]:
        """The runs to train, and the finished ones that a requested tracker does not have."""
        return tuple(filter(self._is_waiting, self.runs))

    def _is_waiting(self, planned: PlannedRun) -> bool:
        if planned.state == "finished":
            return self.selection.cluster is None and bool(missing_trackers(planned.folder, self.execution))
        return planned.state != "diverged" or self.execution.on_nan == "retry"

    def count(self, kind: State) -> int:
        return sum(planned.state == kind for planned in self.runs)

    def refreshed(self) -> Self:
        """The plan with the current states of the folders."""
        runs = (replace(planned, state=state(planned.folder, planned.run)) for planned in self.runs)
        return replace(self, runs=tuple(runs))

    def find_data(self) -> None:
        """Finds or downloads the data set once, before every run looks for it. Raises ValueError without one."""
        for planned in self.waiting[:1]:
            source(planned.run).find(Path(self.execution.data_path) if self.execution.data_path else None)

    def device_hours(self, speed: Speed) -> dict[str, float]:
        """The device hours of one run of each rung."""
        return {rung.name: speed.device_hours(rung.experiment, self.selection.dataset) for rung in self.rungs}


def check_local(options: StudyOptions, pack: int | None, max_running: int | None) -> None:
    """Raises ValueError for an option that requires a cluster."""
    for name, value in (("--cluster", options.cluster), ("--pack", pack), ("--max-running", max_running)):
        if options.on == "local" and value is not None:
            raise ValueError(f"{name} requires --on slurm")


def _check_augmentation(execution: Execution, runs: Sequence[PlannedRun]) -> None:
    """Raises ValueError if a run began with the other augmentation: it would be trained with both."""
    if execution.augment == "auto":
        return
    for planned in runs:
        if planned.state == "absent":
            continue
        path = planned.folder / "manifest.json"
        recorded = (read_json(path) or {}).get("execution")
        try:
            began = recorded_execution(recorded, crops_by_batch=planned.run.crops_by_batch)["augment"]
        except ValueError as error:
            raise ValueError(f"{path}: {error}") from None
        if execution.augment != began:
            raise ValueError(
                f"--augment must be {began}, with which {planned.folder} began (got {execution.augment}); "
                "--out FOLDER trains it again in another folder"
            )
