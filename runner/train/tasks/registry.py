"""The task of a run."""

from __future__ import annotations

from roadmap.record.run import Run
from roadmap.tasks.registry import CLASSIFICATION, TASKS
from runner.train.tasks.classification import Classification
from runner.train.tasks.task import Task


def task_of(run: Run) -> Task:
    """The task of a run. The libraries of detection and segmentation are imported only for these.

    Raises ValueError for an unknown task, and for a plug-in's that can't be built.
    """
    if run.task == CLASSIFICATION:
        return Classification(run)
    named = TASKS.find(run.task)
    if named.build is not None:
        try:
            task: Task = named.build(run)
        except Exception as error:  # whatever a user's code raises
            raise ValueError(f"task {run.task!r} can't be built: {type(error).__name__}: {error}") from error
        return task
    if run.task == "detection":
        from runner.train.tasks.detection import Detection

        return Detection(run)
    from runner.train.tasks.segmentation import Segmentation

    return Segmentation(run)
