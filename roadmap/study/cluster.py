"""Profiles of clusters, as plain data: the resources that a job asks for."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from roadmap.recipe import Recipe
from roadmap.serialization.plain_data import from_data
from roadmap.serialization.ranges import InvalidField, Range, Text, check_fields
from roadmap.study.execution import Execution, accumulation
from roadmap.text import suggest

SHOWN_LAYOUTS = 8  # in an error message
FIGURE_KEYS = ("partition", "account", "qos", "constraint", "memory_gb", "sbatch", "setup")
FIGURE_MEMORY_GB = 4
# Options of sbatch that other keys of a profile set, or that are set for each submission.
RESERVED = set("partition account qos constraint nodes ntasks ntasks-per-node gpus-per-node cpus-per-task mem".split())
RESERVED |= set("time signal array dependency job-name output error open-mode chdir requeue no-requeue".split())
NAME = Text("a name, or null", bool)  # not empty


@dataclass(frozen=True)
class Layout:
    """The processes that train a run, one per device."""

    nodes: int
    tasks_per_node: int

    @property
    def processes(self) -> int:
        return self.nodes * self.tasks_per_node

    def __str__(self) -> str:
        return f"{self.nodes} x {self.tasks_per_node}"


@dataclass(frozen=True)
class Cluster:
    """A profile of `ablations.yaml`: the resources of a job. It is not part of the identity of a run."""

    hours: Annotated[float, Range(above=0, below=10_000)]  # time limit of a job; a longer run resumes in the next job
    nodes: Annotated[int, Range(1)] = 1  # of a run, at most
    tasks_per_node: Annotated[int | None, Range(1)] = None  # null: one per GPU, or 1 without GPUs
    gpus_per_node: Annotated[int, Range(0)] = 0  # 0: runs are trained on CPUs
    cpus_per_task: Annotated[int, Range(1)] = 1  # cores
    memory_gb: Annotated[float | None, Range(above=0)] = None  # of a node; null: the cluster's default
    partition: Annotated[str | None, NAME] = None  # of Slurm; null: the cluster's default
    account: Annotated[str | None, NAME] = None  # of Slurm; null: the user's default
    qos: Annotated[str | None, NAME] = None  # quality of service; null: the cluster's default
    constraint: str | None = None  # features that a node must have, in the notation of sbatch
    device: str | None = None  # an entry of `devices`, for estimates; null: the regime's
    save_seconds: Annotated[int, Range(0)] = 90  # before its time limit, when a job is asked to save its state
    most_crashes: Annotated[int, Range(0)] = 3  # after so many crashes a job is not submitted again
    sbatch: dict[str, str | int | float | bool] = field(default_factory=dict)  # further options of sbatch
    figure: dict[str, Any] = field(default_factory=dict)  # changes for the job that draws the figure
    setup: tuple[str, ...] = ()  # shell commands at the start of each job
    execution: dict[str, Any] = field(default_factory=dict)  # changes to the section `execution`

    def __post_init__(self) -> None:
        check_fields(self)
        if self.gpus_per_node and self.tasks_per_node not in (None, self.gpus_per_node):
            raise InvalidField(
                f"tasks_per_node must be gpus_per_node, {self.gpus_per_node} (got {self.tasks_per_node})"
            )
        for key in self.sbatch:
            if key.replace("_", "-") in RESERVED:
                raise InvalidField(f"sbatch.{key} can't be set: another key of the profile sets it, or each submission")
            if not re.fullmatch(r"[a-z][a-z_-]+", key):
                raise InvalidField(
                    f"sbatch.{key} must be the long name of an option without dashes, such as reservation"
                )
        unknown = sorted(self.figure.keys() - FIGURE_KEYS)
        if unknown:
            raise InvalidField(f"figure.{unknown[0]}: unknown; {suggest(FIGURE_KEYS, unknown[0])}")
        if self.figure:
            try:
                self.for_figure()
            except ValueError as error:
                raise InvalidField(str(error)) from None
        if self.save_seconds >= self.hours * 3600:
            raise InvalidField(
                f"save_seconds must be below the {self.hours * 3600:g} seconds of hours (got {self.save_seconds})"
            )
        if "processes" in self.execution:
            raise InvalidField("execution.processes can't be set: it is nodes x tasks_per_node")

    def for_figure(self) -> Cluster:
        """The profile of the job that draws the figure: small, without GPUs and without `sbatch` options."""
        changes = {"memory_gb": FIGURE_MEMORY_GB, "constraint": None, "sbatch": {}, **self.figure}
        values = {"hours": 1.0, **{key: getattr(self, key) for key in FIGURE_KEYS}, **changes}
        small: Cluster = from_data(Cluster, values, "figure")
        return small

    @property
    def full(self) -> Layout:
        return Layout(self.nodes, self.tasks_per_node or self.gpus_per_node or 1)

    def layout(self, recipe: Recipe, execution: Execution) -> Layout:
        """The processes that train a run with that recipe.

        It is the full layout, unless `execution.device_batch` is a number and the batch is too small for all processes.
        Then it has as many processes as the batch has device batches. Raises ValueError if the layout can't make the
        batch, with layouts that can.
        """
        full, device_batch = self.full, execution.device_batch
        layout = full
        if device_batch != "auto" and recipe.batch_size < full.processes * device_batch:
            layout = _fewest_nodes(full, max(1, recipe.batch_size // device_batch))
        try:
            accumulation(recipe, layout.processes, device_batch)
        except ValueError as error:
            valid = _valid_layouts(full, recipe, execution)
            raise ValueError(f"{full} processes (nodes x tasks per node): {error}. Layouts that can: {valid}") from None
        return layout


def _fewest_nodes(full: Layout, processes: int) -> Layout:
    """The layout of that many processes on the fewest nodes; `full` if there is none."""
    for nodes in range(1, full.nodes + 1):
        if processes % nodes == 0 and processes // nodes <= full.tasks_per_node:
            return Layout(nodes, processes // nodes)
    return full


def _valid_layouts(full: Layout, recipe: Recipe, execution: Execution) -> str:
    """The layouts that can make the batch, those nearest to `full` first."""
    valid = []
    for nodes in range(1, 2 * full.nodes + 1):
        for tasks in range(1, full.tasks_per_node + 1):
            try:
                accumulation(recipe, nodes * tasks, execution.device_batch)
            except ValueError:
                continue
            valid.append(Layout(nodes, tasks))
    nearest = sorted(valid, key=lambda layout: (abs(layout.processes - full.processes), layout.nodes))
    return ", ".join(map(str, nearest[:SHOWN_LAYOUTS])) or "none with this device_batch"
