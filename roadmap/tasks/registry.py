"""The tasks by name. `runner/train/tasks` has the built-in ones; a plug-in adds its own:

@roadmap.task("reconstruction", metric="psnr")
def reconstruction(run):
    return Reconstruction(run)  # a runner.train.tasks.task.Task
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

from roadmap.plugins import Registry, code_of
from roadmap.tasks.heads import DetectorOptions, SegmenterOptions

CLASSIFICATION = "classification"
Build = Callable[[Any], Any]  # takes a Run, returns a Task


@dataclass(frozen=True)
class ClassifierOptions:
    """Fine-tuning a classifier."""


@dataclass(frozen=True)
class NamedTask:
    """An entry of TASKS."""

    name: str
    metric: str  # that compares its runs
    annotations: str = "classes"  # what its images have: classes, objects or regions
    options: type = dict  # a dataclass of its options; dict: any
    unused: frozenset[str] = frozenset()  # fields of the recipe that it does not read
    build: Build | None = None  # None: runner/train/tasks builds it
    code: str | None = None  # of custom tasks: hash of the file that defines it


# Fields about images with one class. Those of images with objects or regions are options of the tasks.
OF_CLASSES = frozenset(
    "crop crop_padding crop_scale crop_ratio interpolation randaugment mixup cutmix mix_probability "
    "mix_switch_probability mix_group random_erasing label_smoothing evaluation_crop head_init_scale".split()
)

TASKS: Registry[NamedTask] = Registry("task")
TASKS.add(CLASSIFICATION, NamedTask(CLASSIFICATION, "top1", "classes", ClassifierOptions))
TASKS.add("detection", NamedTask("detection", "box_ap", "objects", DetectorOptions, OF_CLASSES))
TASKS.add("segmentation", NamedTask("segmentation", "miou", "regions", SegmenterOptions, OF_CLASSES))


def task(name: str, *, metric: str = "top1", annotations: str = "classes") -> Callable[[Build], Build]:
    """Registers the decorated function, which builds the task `name` of `roadmap transfer --to`.

    It takes the run (`roadmap.record.run.Run`) and returns an object with the methods of
    `runner.train.tasks.task.Task`. `metric` is the name of the metric that compares its runs, and `annotations` says
    what its data sets have for each image: "classes", "objects" or "regions". Raises ValueError if the name is taken.
    """
    TASKS.check_name(name)
    if annotations not in ("classes", "objects", "regions"):
        raise ValueError(f"task {name!r}: annotations must be 'classes', 'objects' or 'regions' (got {annotations!r})")

    def register(build: Build) -> Build:
        TASKS.add(name, NamedTask(name, metric, annotations, dict, build=build, code=code_of(build)))
        return build

    return register
