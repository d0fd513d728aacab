"""The drawn designs of a space that have finished, with their errors and values."""

from __future__ import annotations

import json
import shlex
from collections import defaultdict
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.collection import collect
from analysis.options import RunsOptions
from analysis.statistics.contrasts import Judgement, judge
from analysis.statistics.samples import Sample, pooled_noise, sample_of
from analysis.statistics.spaces import Best, Distribution, Surface, best_value, distribution, surface
from roadmap.options import Selection
from roadmap.record.folder import read_manifest
from roadmap.record.metrics import TOP1, Metric
from roadmap.record.run import Run
from roadmap.serialization.plain_data import differences
from roadmap.spaces.definition import NONE
from roadmap.spaces.parameters import APPLIED, Drawn
from roadmap.study.grammar import MARK
from roadmap.study.rungs import StudyContext
from roadmap.study.spaces import SpaceOfRungs
from roadmap.tasks.registry import CLASSIFICATION

BEST = 10  # designs that are listed, and trained again


@dataclass(frozen=True)
class DrawnDesign:
    """A design whose runs have finished."""

    name: str
    values: dict[str, float]  # by parameter; of one by stage, `depths 3`
    errors: dict[int, float]  # by seed

    @property
    def first(self) -> float:
        """The error of the lowest seed, by which designs are compared and chosen."""
        return self.errors[min(self.errors)]

    @property
    def others(self) -> dict[int, float]:
        """The errors of the other seeds."""
        return {seed: error for seed, error in self.errors.items() if seed != min(self.errors)}

    @property
    def again(self) -> Sample | None:
        """The other seeds; None without any."""
        return sample_of(self.others) if self.others else None


@dataclass(frozen=True)
class SpaceStudy:
    """A space in a regime. Errors are 100 less an accuracy in percent, or a metric of which less is better."""

    space: SpaceOfRungs
    run: Run  # one of them: regime, data and recipe of all
    metric: Metric
    out: Path  # folder of the runs
    designs: tuple[DrawnDesign, ...]  # the best first
    base: dict[int, float]  # errors of the rung that varies, by seed
    unfinished: int  # designs that have begun
    diverged: int  # designs whose runs have all diverged

    @property
    def title(self) -> str:
        title = self.space.context.study.regime(self.run.regime).title
        return ", ".join([f"{title} on {self.run.data}", *self.settings, f"space {self.space.name}"])

    @cached_property
    def settings(self) -> tuple[str, ...]:
        """What `--set` changes of the regime's recipe: that of the runs, whatever the call has."""
        run = self.run
        context = StudyContext.of(run.regime, run.fidelity, run.data, self.space.context.study)
        usual = SpaceOfRungs(context, self.space.name).base.experiment.recipe
        found = differences(usual, run.experiment.recipe, "recipe")
        return tuple(f"{change.path}={json.dumps(change.after)}" for change in found)

    @property
    def again(self) -> str:
        """The command that trains the best designs, and the rung that varies, with other seeds."""
        run, study = self.run, self.space.context.study
        given = {
            "--regime": run.regime if run.regime != study.defaults.regime else "",
            "--fidelity": run.fidelity if run.fidelity != study.defaults.fidelity else "",
            "--data": run.data if run.data != study.regime(run.regime).data else "",
            "--out": str(self.out) if self.out != study.defaults.out else "",
        }
        options = [f"{name} {shlex.quote(value)}" for name, value in given.items() if value]
        options += [f"--set {shlex.quote(setting)}" for setting in self.settings]
        best = ",".join([self.space.base.name, *(design.name for design in self.designs[:BEST])])
        return " ".join(["roadmap run", *options, f"--steps {best} --seeds 4"])

    @property
    def error_title(self) -> str:
        return f"100 - {self.metric.title}" if self.metric.higher_is_better else self.metric.title

    @cached_property
    def distribution(self) -> Distribution:
        return distribution([design.first for design in self.designs])

    @cached_property
    def parameters(self) -> dict[str, list[float]]:
        """The values of each parameter that varies, in the order of the designs."""
        values = {name: [design.values[name] for design in self.designs] for name in self.designs[0].values}
        return {name: own for name, own in values.items() if len(set(own)) > 1}

    @cached_property
    def best(self) -> dict[str, Best | None]:
        errors = [design.first for design in self.designs]
        return {name: best_value(values, errors) for name, values in self.parameters.items()}

    @cached_property
    def surface(self) -> Surface | None:
        return surface(self.parameters, [design.first for design in self.designs])

    @cached_property
    def marked(self) -> dict[str, dict[str, float]]:
        """The values of the rung that varies, and of the one that the space marks, as far as a design shows them."""
        return {name: dict(_numbers(self.space, values)) for name, values in self.space.marked.items()}

    @cached_property
    def judged(self) -> dict[str, Judgement]:
        """The designs that were trained again, against the rung that varies, all together.

        The first seed, by which they were chosen, does not count.
        """
        base = self.space.base.name
        again = [(design.name, base, design.others) for design in self.designs if design.others]
        return judge([(base, None, self.base), *again], higher_is_better=False)

    @property
    def base_error(self) -> float | None:
        """The mean of the rung that varies; None if it was not trained."""
        return float(np.mean(list(self.base.values()))) if self.base else None

    @property
    def seed_noise(self) -> float | None:
        """The standard deviation over seeds of one design, pooled, without the seeds that chose; None without any."""
        runs = [self.base, *(design.others for design in self.designs)]
        noise = pooled_noise([sample_of(errors) for errors in runs if len(errors) > 1])
        return None if noise is None else float(noise.std)

    @property
    def spread(self) -> float | None:
        """The standard deviation over the designs."""
        errors = [design.first for design in self.designs]
        return float(np.std(errors, ddof=1)) if len(errors) > 1 else None

    @property
    def unrepeated(self) -> int:
        """How many of the best designs have no runs with other seeds."""
        return sum(not design.again for design in self.designs[:BEST])

    @property
    def shrinkage(self) -> float | None:
        """How much more error the best designs have with their other seeds than with the first; the mean."""
        repeated = [design.again.mean - design.first for design in self.designs[:BEST] if design.again]
        return float(np.mean(repeated)) if repeated else None


def space_studies(options: RunsOptions, names: Sequence[str]) -> list[SpaceStudy]:
    """The studies of several spaces, to be compared.

    Raises ValueError as `study_of` does, and if their designs were trained with different recipes or data.
    """
    selection, out, metric = Selection.of(options.study), options.folder(), options.find_metric()
    for name in names:
        selection.study.space(name)  # raises for an unknown name, before the runs are read
    table = collect(out)
    studies = [study_of(selection, name, out, table, metric) for name in dict.fromkeys(names)]
    recipes = {study.run.recipe_identity: study.title for study in studies}
    if len(recipes) > 1:
        raise ValueError(
            f"spaces must have the same recipe and data to be compared (got {'; '.join(recipes.values())})"
        )
    return studies


def study_of(selection: Selection, name: str, out: Path, table: pd.DataFrame, metric: Metric = TOP1) -> SpaceStudy:
    """The finished designs of a space in `table` (of `collect(out)`), with the recipe and data of the selection.

    If there are none, and the selection has no settings, those with another recipe are taken. Raises ValueError if that
    has no designs either, and if there are several other recipes.
    """
    space = SpaceOfRungs(selection.context, name)
    drawn = table[_of_space(table, space)]
    recipe = _recipe(selection, space, drawn[drawn["state"] == "finished"], out)
    own = drawn[_with_recipe(drawn, selection, space, recipe)]
    run = _run(own[own["state"] == "finished"]["folder"].iloc[0], out)
    finished = _of_designs(own[own["state"] == "finished"], space, run)
    errors: dict[str, dict[int, float]] = defaultdict(dict)
    for rung, seed, value in zip(finished["rung"], finished["seed"], finished[metric.key], strict=True):
        if pd.notna(value):
            errors[rung][int(seed)] = _error(value, metric)
    designs = [
        DrawnDesign(rung, dict(_numbers(space, space.values_of(rung))), by_seed) for rung, by_seed in errors.items()
    ]
    if not designs:
        raise ValueError(f"{out}: no finished design of {name!r} has a {metric.title}")
    left = own[~own["rung"].isin(list(errors))]
    begun = set(left[left["state"] == "begun"]["rung"])
    return SpaceStudy(
        space,
        run,
        metric,
        out,
        tuple(sorted(designs, key=lambda design: (design.first, design.name))),
        _base(run, space, table, metric),
        len(begun),
        len(set(left[left["state"] == "diverged"]["rung"]) - begun),
    )


def _recipe(selection: Selection, space: SpaceOfRungs, finished: pd.DataFrame, out: Path) -> str:
    """The recipe to analyse. Raises ValueError as `study_of` does."""
    wanted = selection.run(selection.with_settings(space.base)).recipe_identity
    found = list(finished["recipe"].unique())
    is_default = not selection.settings and not space.varies_recipe
    if wanted in found or (space.varies_recipe and found):
        return wanted
    if len(found) == 1 and is_default and finished["data"].iloc[0] == selection.context.data:
        return str(found[0])
    given = f" with {', '.join(selection.settings)}" if selection.settings else ""
    others = f"; {len(found)} other recipes or data sets have some: --set and --data choose one" if found else ""
    raise ValueError(
        f"{out}: no finished design of {space.name!r} in {selection.regime}{given} "
        f"(`roadmap run --space {space.name}`){others}"
    )


def _with_recipe(drawn: pd.DataFrame, selection: Selection, space: SpaceOfRungs, recipe: str) -> pd.Series:
    """Which runs have the recipe; of a space whose steps change it, that which their design begins with."""
    if not space.varies_recipe:
        return drawn["recipe"] == recipe
    expected: dict[object, str] = {}
    wanted = []
    for name in drawn["rung"]:
        steps = space.values_of(name)[APPLIED]
        if steps not in expected:
            rung = selection.with_settings(space.named(name).rung)
            expected[steps] = selection.run(rung).recipe_identity
        wanted.append(expected[steps])
    return drawn["recipe"] == pd.Series(wanted, drawn.index, dtype=object)


def _of_designs(finished: pd.DataFrame, space: SpaceOfRungs, run: Run) -> pd.DataFrame:
    """Without runs of a changed design that has the name of a drawn one (`--set design.KEY=VALUE`)."""
    several = finished.groupby("rung")["experiment"].nunique()
    wrong, context = [], replace(space.context, image_size=run.experiment.recipe.image_size)
    space = replace(space, context=context)
    for name in several[several > 1].index:
        experiment = space.named(str(name)).rung.experiment
        if not space.varies_recipe:
            experiment = replace(experiment, recipe=run.experiment.recipe)
        expected = replace(run, rung=str(name), experiment=experiment).experiment_identity
        wrong += list(finished.index[(finished["rung"] == name) & (finished["experiment"] != expected)])
    return finished.drop(index=wrong)


def _base(run: Run, space: SpaceOfRungs, table: pd.DataFrame, metric: Metric) -> dict[int, float]:
    """The errors of the rung that varies, trained as `run` was, by seed."""
    base = space.base.experiment
    experiment = base if space.varies_recipe else replace(run.experiment, design=base.design)
    same = replace(run, rung=space.base.name, experiment=experiment).experiment_identity
    rows = table[(table["experiment"] == same) & (table["state"] == "finished") & table[metric.key].notna()]
    return {int(seed): _error(value, metric) for seed, value in zip(rows["seed"], rows[metric.key], strict=True)}


def _error(value: float, metric: Metric) -> float:
    return 100 - float(value) if metric.higher_is_better else float(value)


def _of_space(table: pd.DataFrame, space: SpaceOfRungs) -> Any:
    own = table["rung"].astype(str).str.startswith(f"{space.name}{MARK}")
    return own & (table["regime"] == space.context.regime) & (table["task"] == CLASSIFICATION)


def _run(folder: str, out: Path) -> Run:
    manifest = read_manifest(out / folder)
    assert manifest is not None  # the run has finished
    return manifest.run


def _numbers(space: SpaceOfRungs, drawn: dict[str, Drawn]) -> Iterator[tuple[str, float]]:
    """The numbers among the values of a design, one for each stage; of steps whether each was applied."""
    for parameter, values in drawn.items():
        if isinstance(values, tuple):
            first = space.first_stage(parameter)
            yield from ((f"{parameter} {i}", float(value)) for i, value in enumerate(values, start=1 + first))
        elif not isinstance(values, str):
            yield parameter, float(values)
        elif parameter == APPLIED:
            steps = dict.fromkeys("+".join(map(str, space.space.vary[parameter].values)).split("+"))
            yield from ((step, float(step in values.split("+"))) for step in steps if step != NONE)
