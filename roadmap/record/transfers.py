"""The options of `roadmap transfer`, and the runs that they make."""

from __future__ import annotations

from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

from roadmap.options import Selection, StudyOptions, with_settings
from roadmap.recipe import Experiment
from roadmap.record.run import Run, custom_code
from roadmap.serialization.plain_data import from_data, to_data
from roadmap.study.schema import Study
from roadmap.tasks.registry import TASKS
from roadmap.tasks.transfer import AVERAGED_RUN, RUN, SCRATCH, Frozen, Transfer

From = Literal["run", "ema", "scratch"]
OPTIONS = "transfer."  # before the key of a setting that changes an option of the task


@dataclass(frozen=True)
class TransferOptions:
    """Options as on the command line or in a call."""

    to: str  # a task
    begin: From = "run"  # weights to begin with: those of the run, its averaged ones, or new ones
    frozen: Frozen = "none"
    recipe: str | None = None  # a transfer recipe of the study; None: the first one for the task and the data
    state_dict: Path | None = None  # a file to begin with
    of: str | None = None  # the network that the file is of, LIBRARY/NAME

    def __post_init__(self) -> None:
        if (self.state_dict is None) != (self.of is None):
            raise ValueError("--state-dict FILE and --of LIBRARY/NAME belong together")
        if self.state_dict and self.begin != "run":
            raise ValueError(f"--from {self.begin} and --state-dict are two beginnings; give one")


@dataclass(frozen=True)
class Transfers:
    """How runs are transferred: the resolved options."""

    selection: Selection  # of the task's data
    recipe: str  # the name of the transfer recipe
    options: TransferOptions
    settings: tuple[str, ...]  # of the task's options

    @staticmethod
    def of(options: TransferOptions, study_options: StudyOptions) -> Transfers:
        """Raises ValueError for an unknown name, and for data that the task can't use."""
        study = study_options.study()
        task = TASKS.find(options.to)
        regime = study_options.regime or study.defaults.regime
        name = options.recipe or study.transfer_for(task.name, study_options.data, regime)
        recipe = study.transfer(name)
        if recipe.task != task.name:
            raise ValueError(f"--recipe {name} is for {recipe.task}, not for {task.name}")
        own = tuple(setting for setting in study_options.settings if setting.startswith(OPTIONS))
        others = tuple(setting for setting in study_options.settings if not setting.startswith(OPTIONS))
        for setting in others:
            section, _, field = setting.partition("=")[0].partition(".")
            if section == "recipe" and field in task.unused:
                raise ValueError(f"--set {setting}: {task.name} does not use recipe.{field}")
        data = study_options.data if study_options.data is not None else recipe.data
        selection = Selection.of(replace(study_options, data=data, settings=others))
        has = selection.dataset.annotations
        if has != task.annotations:
            valid = [name for name, data in study.datasets.items() if data.annotations == task.annotations]
            raise ValueError(
                f"--data {selection.context.data} has {has} for each image, and {task.name} needs {task.annotations}; "
                f"such data sets are {', '.join(valid)}"
            )
        execution = replace(selection.execution, weights=options.state_dict, weights_of=options.of)
        return Transfers(replace(selection, execution=execution), name, options, own)

    @property
    def study(self) -> Study:
        return self.selection.study

    @property
    def is_borrowed(self) -> bool:
        """Whether nothing is published for the regime, so that the recipe is another's."""
        return self.selection.regime in self.study.transfer(self.recipe).borrowed

    def task_options(self) -> dict[str, Any]:
        """All options of the task, as plain data. Raises ValueError for one that is not valid."""
        recipe, task = self.study.transfer(self.recipe), TASKS.find(self.options.to)
        if task.options is dict:
            values = with_settings(dict[str, Any], {"transfer": dict(recipe.options)}, self.settings)
            return dict(values["transfer"])
        options = from_data(task.options, recipe.options, f"transfers.{self.recipe}.options")
        changed = with_settings(dict[str, task.options], {"transfer": options}, self.settings)["transfer"]  # type: ignore[name-defined]
        plain: dict[str, Any] = to_data(changed)
        return plain

    def run(self, source: Run, weights: str | None = None) -> Run:
        """The transfer of a run with the run's seed. `weights`: of a file (`Transfer.weights`)."""
        context = self.selection.context
        recipe = self.study.transferred(self.recipe, source.regime, source.fidelity, context.data)
        experiment = with_settings(Experiment, Experiment(source.experiment.design, recipe), self.selection.settings)
        origin = ""
        if weights is None and self.options.begin == "scratch":
            weights = SCRATCH
        elif weights is None:
            weights = f"{RUN if self.options.begin == 'run' else AVERAGED_RUN}{source.identity}"
            origin = replace(source, seed=0).identity
        transfer = Transfer(self.options.to, weights, origin, self.options.frozen, self.task_options())
        code = custom_code(experiment, context.data)
        task = TASKS.find(self.options.to)
        code |= {f"task/{task.name}": task.code} if task.code else {}
        return Run(
            source.regime,
            source.rung,
            experiment,
            context.data,
            self.selection.dataset,
            source.seed,
            source.fidelity,
            code,
            transfer,
        )
