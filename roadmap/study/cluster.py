"""How jobs are submitted to a cluster, as plain data."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Annotated, Any

from roadmap.recipe import Recipe
from roadmap.serialization import InvalidField, Range, Text, check_fields, from_data, suggest
from roadmap.study.execution import Execution, accumulation

NAMED = 8  # layouts that a refusal names
FIGURE_KEYS = ("partition", "account", "qos", "constraint", "memory_gb", "sbatch", "setup")
FIGURE_MEMORY_GB = 4
# Options of sbatch that follow from other keys of a profile, or from what is submitted.
OWNED = set("partition account qos constraint nodes ntasks ntasks-per-node gpus-per-node cpus-per-task mem".split())
OWNED |= set("time signal array dependency job-name output error open-mode chdir requeue no-requeue".split())
NAME = Text("a name, or null", bool)  # not empty


@dataclass(frozen=True)
class Layout:
    """The processes that train a run, one a device."""

    nodes: int
    tasks_per_node: int

    @property
    def processes(self) -> int:
        return self.nodes * self.tasks_per_node

    def __str__(self) -> str:
        return f"{self.nodes} x {self.tasks_per_node}"


@dataclass(frozen=True)
class Cluster:
    """A profile of `ablations.yaml`: what a job asks for. None of it is part of a run's identity."""

    hours: Annotated[float, Range(above=0, below=10_000)]  # of a job at most; a run that needs more resumes in the next
    nodes: Annotated[int, Range(1)] = 1  # of a run at most
    tasks_per_node: Annotated[int | None, Range(1)] = None  # null: one a GPU, or one where there are none
    gpus_per_node: Annotated[int, Range(0)] = 0  # 0: runs are trained on CPUs
    cpus_per_task: Annotated[int, Range(1)] = 1  # cores
    memory_gb: Annotated[float | None, Range(above=0)] = None  # of a node; null: as the cluster has it
    partition: Annotated[str | None, NAME] = None  # Slurm's; null: the cluster's default
    account: Annotated[str | None, NAME] = None  # Slurm's; null: the user's default
    qos: Annotated[str | None, NAME] = None  # quality of service; null: the cluster's default
    constraint: str | None = None  # features that a node must have, as sbatch takes them
    device: str | None = None  # an entry of `devices`, for estimates; null: the regime's
    save_seconds: Annotated[int, Range(0)] = 90  # before the end of its hours a job is asked to save its state
    most_crashes: Annotated[int, Range(0)] = 3  # after which a job is not tried again
    sbatch: dict[str, str | int | float | bool] = field(default_factory=dict)  # further options of sbatch
    figure: dict[str, Any] = field(default_factory=dict)  # what differs for the job that draws the figure
    setup: tuple[str, ...] = ()  # lines of the shell, first in each job
    execution: dict[str, Any] = field(default_factory=dict)  # what differs from the section `execution`

    def __post_init__(self) -> None:
        check_fields(self)
        if self.gpus_per_node and self.tasks_per_node not in (None, self.gpus_per_node):
            raise InvalidField(f"tasks_per_node must be one a GPU, {self.gpus_per_node} (got {self.tasks_per_node})")
        for key in self.sbatch:
            if key.replace("_", "-") in OWNED:
                raise InvalidField(f"sbatch.{key}: it has a key of its own in the profile, or is chosen for each job")
            if not re.fullmatch(r"[a-z][a-z_-]+", key):
                raise InvalidField(f"sbatch.{key}: not an option's long name without its dashes, such as reservation")
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
            raise InvalidField("execution.processes is nodes x tasks_per_node here; leave it out")

    def for_figure(self) -> Cluster:
        """For the job that draws the figure: small, on no GPU, and with none of `sbatch`, which may ask for more."""
        own = {"memory_gb": FIGURE_MEMORY_GB, "constraint": None, "sbatch": {}, **self.figure}
        values = {"hours": 1.0, **{key: getattr(self, key) for key in FIGURE_KEYS}, **own}
        small: Cluster = from_data(Cluster, values, "figure")
        return small

    @property
    def full(self) -> Layout:
        return Layout(self.nodes, self.tasks_per_node or self.gpus_per_node or 1)

    def layout(self, recipe: Recipe, execution: Execution) -> Layout:
        """The processes that train a run of that recipe.

        All of them, but where `execution.device_batch` is a number and the batch too small for so many: then as few as
        take that many images each. Raises ValueError with layouts that can make the batch, where this can't.
        """
        full, each = self.full, execution.device_batch
        layout = full
        if each != "auto" and recipe.batch_size < full.processes * each:
            layout = _fewest(full, max(1, recipe.batch_size // each))
        try:
            accumulation(recipe, layout.processes, each)
        except ValueError as error:
            able = _able(full, recipe, execution)
            raise ValueError(f"{full} processes (nodes x tasks a node): {error}. Layouts that can: {able}") from None
        return layout


def _fewest(full: Layout, processes: int) -> Layout:
    """So many on as few nodes as it takes; all of them where no layout has so many."""
    for nodes in range(1, full.nodes + 1):
        if processes % nodes == 0 and processes // nodes <= full.tasks_per_node:
            return Layout(nodes, processes // nodes)
    return full


def _able(full: Layout, recipe: Recipe, execution: Execution) -> str:
    """Layouts that can make the batch, those nearest to the wanted one first."""
    able = []
    for nodes in range(1, 2 * full.nodes + 1):
        for tasks in range(1, full.tasks_per_node + 1):
            try:
                accumulation(recipe, nodes * tasks, execution.device_batch)
            except ValueError:
                continue
            able.append(Layout(nodes, tasks))
    near = sorted(able, key=lambda layout: (abs(layout.processes - full.processes), layout.nodes))
    return ", ".join(map(str, near[:NAMED])) or "none with this device_batch"
