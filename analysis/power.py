"""The number of seeds that a study needs to detect a difference, given the noise of its runs."""

from __future__ import annotations

import math
import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace

import numpy as np

from analysis.options import RunsOptions
from analysis.results import judge_published
from analysis.selected_runs import selected_runs
from analysis.statistics.contrasts import FEWEST
from analysis.statistics.planning import MOST_SEEDS, Plan
from analysis.statistics.samples import Noise, pooled_noise
from analysis.statistics.variances import Variances
from roadmap.estimates import speed_for
from roadmap.options import Selection
from roadmap.record.metrics import Metric
from roadmap.serialization.ranges import Range, check
from roadmap.study.rungs import Rung
from roadmap.text import many

DIFFERENCES = (0.1, 0.2, 0.5, 1.0)  # points of the metric
FEWEST_RUNGS = 5  # with several runs that show what noise is usual; that of fewer is pooled
MEDIAN_EFFICIENCY = 2 / math.pi  # of the median of normal values, compared with their mean
LEAST_NOISE = 1e-6  # points; less is computed as this, for the square of it must be a number


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds of each rung that detect a difference by the test of `roadmap table`, with a power of 80 %.

    Of a usual step: where the noise of each rung is known, half of the steps need no more.
    """

    difference: float  # points of the metric
    one_step: int | None  # in a study of two rungs; None: more than MOST_SEEDS
    all_steps: int | None  # in the study of all selected rungs
    device_hours: float | None  # for `all_steps` seeds of every rung


@dataclass(frozen=True)
class Power:
    """The differences that a study of these rungs can detect."""

    noise: Noise  # of a usual rung
    source: str  # of the noise
    steps: int  # number of steps that are judged
    needed: tuple[SeedsNeeded, ...]
    hours_source: str  # what the device-hours are estimated from
    seeds: int = 0  # the smallest number of seeds of a rung
    detectable_one: float | None = None  # points that so many seeds detect in a study of two rungs; None: too few seeds
    detectable_all: float | None = None  # points in the study of all selected rungs, for a usual step
    noise_by_rung: Mapping[str, float] = field(default_factory=dict)  # points, as the table takes it


@dataclass(frozen=True)
class _KnownNoise:
    noise: Noise  # of a usual rung
    source: str
    seeds: int = 0
    rungs: tuple[Rung, ...] = ()  # of the study that have finished runs
    by_rung: Mapping[str, float] = field(default_factory=dict)  # points


def power_of_study(
    options: RunsOptions, differences: Sequence[float] = DIFFERENCES, noise: float | None = None
) -> Power:
    """`noise` is one standard deviation in points; None: that of the runs, else that of the paper's table.

    Raises ValueError for a difference of 0, for a negative noise, and if the noise is not known.
    """
    metric, selection = options.find_metric(), Selection.of(options.study)
    for difference in differences:
        check(difference, Range(other_than=0), "difference")
    rungs = [rung for rung in selection.rungs() if not rung.no_effect]
    known = _given(noise) if noise is not None else _of_runs(options, selection, metric) or _of_paper(selection, metric)
    family = {rung.name: rung for rung in (*rungs, *known.rungs)}
    one, study = Plan(known.noise, (None, 0)), _plan(list(family.values()), known)
    speed = speed_for(selection, options.folder())
    hours = sum(speed.device_hours(rung.experiment, selection.dataset) for rung in family.values())
    needed = []
    for difference in differences:
        all_steps = _seeds(study, difference)
        needed.append(
            SeedsNeeded(
                difference, _seeds(one, difference), all_steps, None if all_steps is None else all_steps * hours
            )
        )
    detectable = [plan.detectable(known.seeds) if known.seeds >= FEWEST else None for plan in (one, study)]
    return Power(
        known.noise,
        known.source,
        study.comparisons,
        tuple(needed),
        speed.source,
        known.seeds,
        detectable_one=detectable[0],
        detectable_all=detectable[1],
        noise_by_rung=known.by_rung,
    )


def _plan(rungs: Sequence[Rung], known: _KnownNoise) -> Plan:
    """The study of these rungs and those before them, each with its own noise where that is known."""
    parents = {rung.name: rung.parent for rung in rungs}
    names = list(dict.fromkeys([*parents, *filter(None, parents.values())]))
    positions = tuple(names.index(parent) if (parent := parents.get(name)) else None for name in names)
    if not any(position is not None for position in positions):
        return Plan(known.noise, (None, 0))
    relative = tuple(known.by_rung.get(name, known.noise.std) / (known.noise.std or 1.0) for name in names)
    return Plan(known.noise, positions, relative if known.by_rung else ())


def _seeds(plan: Plan, difference: float) -> int | None:
    return None if plan.detectable(MOST_SEEDS) > abs(difference) else plan.seeds_needed(difference)


def _given(noise: float) -> _KnownNoise:
    check(noise, Range(0), "noise")
    return _KnownNoise(Noise(max(noise, LEAST_NOISE) if noise else 0.0), "as given")


def _of_runs(options: RunsOptions, selection: Selection, metric: Metric) -> _KnownNoise | None:
    """None if no rung has two finished runs that differ."""
    options.folder()  # raises ValueError for a file, unlike a folder without runs
    try:
        (runs,) = selected_runs(replace(options, study=replace(options.study, regime=selection.regime)))
    except ValueError:
        return None
    finished = [result for result in runs.family if result.values(metric)]
    found = {result.run.identity: sample for result in finished if (sample := result.sample(metric))}
    samples = list(found.values())  # once each: rungs may share runs
    noise, by_rung = pooled_noise(samples), dict[str, float]()
    if noise is None:
        return None
    counts = [sample.n for sample in samples]
    source = f"{many(sum(counts), 'run')} of {selection.regime}, {noise.freedom:.0f} degrees of freedom"
    if sum(count > 1 for count in counts) >= FEWEST_RUNGS:
        by_identity = dict(zip(found, np.sqrt(Variances.of(samples).moderated()).tolist(), strict=True))
        by_rung = {result.rung.name: by_identity[result.run.identity] for result in finished}
        noise = Noise(statistics.median(by_identity.values()), noise.freedom * MEDIAN_EFFICIENCY)
    rungs = tuple(result.rung for result in finished if not result.rung.no_effect)
    return _KnownNoise(noise, source, min(counts), rungs, by_rung)


def _of_paper(selection: Selection, metric: Metric) -> _KnownNoise:
    regime = selection.study.regime(selection.regime)
    is_papers = regime.published and selection.context.data == regime.data and metric.published
    judged = judge_published(selection.study, selection.regime).values() if is_papers else ()
    noise = pooled_noise(judgement.sample for judgement in judged if judgement.sample)
    if noise:
        source = f"the deviations that the paper prints, {noise.freedom:.0f} degrees of freedom"
        return _KnownNoise(noise, source)
    raise ValueError(
        f"the noise of {selection.regime} is not known: no rung has two finished runs that differ, and the paper "
        "prints none; give --noise, or train rungs with --seeds 3"
    )
