"""The drawn designs of a space that have finished, with their errors and values."""

from __future__ import annotations

from collections import defaultdict
from collections.abc import Iterator
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
from roadmap.spaces.definition import NONE
from roadmap.spaces.parameters import APPLIED, Drawn
from roadmap.study.grammar import MARK
from roadmap.study.spaces import SpaceOfRungs
from roadmap.tasks.registry import CLASSIFICATION

BEST = 10  # designs that are listed


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
    designs: tuple[DrawnDesign, ...]  # the best first
    base: dict[int, float]  # errors of the rung that varies, by seed
    unfinished: int  # designs that have begun
    settings: tuple[str, ...] = ()  # of --set

    @property
    def title(self) -> str:
        study = self.space.context.study
        return f"{study.regime(self.run.regime).title} on {self.run.data}, space {self.space.name}"

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
    def again(self) -> str:
        """The command that trains the best designs with other seeds."""
        regime, default = self.run.regime, self.space.context.study.defaults.regime
        options = [*([f"--regime {regime}"] if regime != default else []), *map("--set {}".format, self.settings)]
        best = ",".join([self.space.base.name, *(design.name for design in self.designs[:BEST])])
        return " ".join(["roadmap run", *options, f"--steps {best} --seeds 4"])

    @property
    def base_error(self) -> float | None:
        """The mean of the rung that varies; None if it was not trained."""
        return float(np.mean(list(self.base.values()))) if self.base else None

    @property
    def seed_noise(self) -> float | None:
        """The standard deviation of a design's runs of several seeds, pooled; None without any."""
        samples = [sample_of(design.errors) for design in self.designs if len(design.errors) > 1]
        noise = pooled_noise(samples)
        return None if noise is None else float(noise.std)

    @property
    def spread(self) -> float | None:
        """The standard deviation over the designs."""
        errors = [design.first for design in self.designs]
        return float(np.std(errors, ddof=1)) if len(errors) > 1 else None

    @property
    def shrinkage(self) -> float | None:
        """How much worse the repeated designs are with their other seeds than with the first, points; the mean."""
        repeated = [design.again.mean - design.first for design in self.designs if design.again]
        return float(np.mean(repeated)) if repeated else None


def space_study(options: RunsOptions, name: str) -> SpaceStudy:
    """The finished runs of a space below the folder: those with the study's settings, else those of one other recipe.

    Raises ValueError if there are none, or several recipes to choose from.
    """
    return study_of(Selection.of(options.study), name, options.folder(), options.find_metric())


def study_of(selection: Selection, name: str, out: Path, metric: Metric = TOP1) -> SpaceStudy:
    """As `space_study`, of a selection."""
    space = SpaceOfRungs(selection.context, name)
    selection.study.space(name)  # raises for an unknown name, before the runs are read
    table = collect(out)
    drawn = table[_of_space(table, space) & (table["state"] == "finished")]
    wanted = selection.run(selection.with_settings(space.base)).recipe_identity
    recipes = list(drawn["recipe"].unique())
    if wanted not in recipes and len(recipes) != 1:
        shown = f"{len(recipes)} recipes or data sets; --set and --data choose one" if recipes else "no finished run"
        raise ValueError(f"{out}: {shown} of designs of {name!r} in {selection.regime} (`roadmap run --space {name}`)")
    rows = drawn[drawn["recipe"] == (wanted if wanted in recipes else recipes[0])]
    run = _run(rows["folder"].iloc[0], out)
    errors: dict[str, dict[int, float]] = defaultdict(dict)
    for rung, seed, value in zip(rows["rung"], rows["seed"], rows[metric.key], strict=True):
        if pd.notna(value):
            errors[rung][int(seed)] = _error(value, metric)
    designs = [
        DrawnDesign(rung, dict(_numbers(space, space.values_of(rung))), by_seed) for rung, by_seed in errors.items()
    ]
    if not designs:
        raise ValueError(f"{out}: no finished design of {name!r} has a {metric.title}")
    base = _base(run, space, table, metric)
    begun = table[_of_space(table, space) & (table["state"] == "begun")]
    return SpaceStudy(
        space,
        run,
        metric,
        tuple(sorted(designs, key=lambda design: (design.first, design.name))),
        base,
        begun["rung"].nunique(),
        selection.settings,
    )


def _base(run: Run, space: SpaceOfRungs, table: pd.DataFrame, metric: Metric) -> dict[int, float]:
    """The errors of the rung that varies, trained as `run` was, by seed."""
    experiment = replace(run.experiment, design=space.base.experiment.design)
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
    """The numbers among the values of a design, one for each stage."""
    for parameter, values in drawn.items():
        if isinstance(values, tuple):
            first = space.first_stage(parameter)
            yield from ((f"{parameter} {i}", float(value)) for i, value in enumerate(values, start=1 + first))
        elif not isinstance(values, str):
            yield parameter, float(values)
        elif parameter == APPLIED:
            steps = dict.fromkeys("+".join(map(str, space.space.vary[parameter].values)).split("+"))
            yield from ((step, float(step in values.split("+"))) for step in steps if step != NONE)
