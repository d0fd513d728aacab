"""The runs of the selected rungs: the folder and state of each, and which of them are to be trained."""

from __future__ import annotations

import contextlib
import glob
import itertools
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Self

from roadmap.data.image_folders import describe_content
from roadmap.estimates import Speed
from roadmap.files import InvalidFile
from roadmap.options import Selection, StudyOptions
from roadmap.record.folder import State, read_divergences, read_manifest, read_metrics, state
from roadmap.record.run import Run, folders_below
from roadmap.serialization.ranges import check
from roadmap.study.execution import MOST_RETRIES, Execution, recorded_execution
from roadmap.study.rungs import Rung
from roadmap.study.schema import SEEDS
from runner.data.datasets import check_trainable, source
from runner.train.trackers import check_installed, missing_trackers

# What will happen to a run in that state.
STATES = {"absent": "to train", "begun": "to resume", "diverged": "diverged", "finished": "finished"}


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
        """`seeds`: runs of each rung, None for the selection's number. Raises ValueError if a run can't be trained."""
        check_installed(selection.execution)
        seeds = selection.seeds if seeds is None else seeds
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
        if self.is_paused(planned):
            return False
        if planned.state == "diverged":
            return self.execution.on_nan == "retry" and len(read_divergences(planned.folder)) <= MOST_RETRIES
        return True

    def is_paused(self, planned: PlannedRun) -> bool:
        """Whether a run has trained for the epochs of `execution.stop_after`, and is not finished."""
        end = self.execution.stop_after
        return end is not None and planned.state == "begun" and len(read_metrics(planned.folder)) >= end

    @property
    def is_complete(self) -> bool:
        """Whether every run is finished or paused."""
        return all(planned.state == "finished" or self.is_paused(planned) for planned in self.runs)

    def count(self, kind: State) -> int:
        return sum(planned.state == kind for planned in self.runs)

    def refreshed(self) -> Self:
        """The plan with the current states of the folders."""
        runs = (replace(planned, state=state(planned.folder, planned.run)) for planned in self.runs)
        return replace(self, runs=tuple(runs))

    def find_data(self) -> None:
        """Finds or downloads the data set once, before every run looks for it. Raises ValueError without one."""
        for planned in self.waiting[:1]:
            source(planned.run).find(self.execution.data_path)

    def describe_data(self) -> str:
        """One line on the data: how many images and classes; of an image folder also what is left out of it."""
        data, dataset, path = self.selection.context.data, self.selection.dataset, self.execution.data_path
        if dataset.content and path and dataset.annotations == "classes":
            return describe_content(Path(path))
        return f"{data}: {dataset.train_images + dataset.test_images} images in {dataset.classes} classes"

    def of_other_files(self) -> list[str]:
        """A sentence for each new run that has begun with other files in the folder of its data set.

        A run of an image folder is known by its files, so that one file more makes another run.
        """
        if self.selection.dataset.content is None:
            return []
        return [
            f"{planned.run.name} is a new run: {other.name} at epoch {epochs} used other files of {planned.run.data}"
            for planned in self.runs
            if planned.state == "absent"
            for other, epochs in _begun_with_other_files(planned.run, self.out, self.execution.data_path)
        ]

    def device_hours(self, speed: Speed) -> dict[str, float]:
        """The device hours of one run of each rung."""
        return {rung.name: speed.device_hours(rung.experiment, self.selection.dataset) for rung in self.rungs}


def _begun_with_other_files(run: Run, out: Path, data_path: Path | None) -> Iterator[tuple[Path, int]]:
    """The folders of runs that would be `run` with its data, and their finished epochs.

    Runs on the data set of another folder that has the same name are not among them.
    """
    planned_folder = run.folder(out, {})
    beginning = planned_folder.name.removesuffix(run.identity)
    for folder in sorted(planned_folder.parent.glob(f"{glob.escape(beginning)}*")):
        with contextlib.suppress(InvalidFile, OSError):  # not a run of this version
            manifest = read_manifest(folder)
            if manifest is None or manifest.run.data != run.data or _is_elsewhere(manifest.data_path, data_path):
                continue
            if replace(manifest.run, dataset=run.dataset).identity == run.identity:
                yield folder, len(read_metrics(folder))


def _is_elsewhere(before: Path | None, now: Path | None) -> bool:
    """Whether the paths are of two folders. One that is no longer there may have been moved."""
    return before is not None and now is not None and before.is_dir() and not before.samefile(now)


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
        manifest = read_manifest(planned.folder)
        assert manifest is not None  # else its state is absent
        began = recorded_execution(manifest.execution, crops_by_batch=planned.run.crops_by_batch)["augment"]
        if execution.augment != began:
            raise ValueError(
                f"--augment must be {began}, with which {planned.folder} began (got {execution.augment}); "
                "--out FOLDER trains it again in another folder"
            )
