"""The number of seeds that a study needs to detect a difference, given the noise of its runs."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.options import RunsOptions
from analysis.results import judge_published, named_values
from analysis.selected_runs import selected_runs
from analysis.statistics import SIGNIFICANCE, Noise, detectable, noise_of, pooled_std, seeds_needed
from roadmap.estimates import speed_for
from roadmap.options import Selection
from roadmap.record.metrics import Metric
from roadmap.serialization.ranges import Range, check
from roadmap.text import many

DIFFERENCES = (0.1, 0.2, 0.5, 1.0)  # points of the metric


@dataclass(frozen=True)
class SeedsNeeded:
    """Seeds that detect a difference with a two-sided t test at 5 % and a power of 80 %."""

    difference: float  # points of the metric
    one_step: int | None  # seeds of each rung; None: more than MOST_SEEDS
    all_steps: int | None  # seeds if all steps share the 5 %
    device_hours: float | None  # for `all_steps` seeds of every rung


@dataclass(frozen=True)
class Power:
    """The differences that a study of these rungs can detect."""

    noise: Noise
    source: str  # of the noise
    steps: int  # number of steps that are judged
    needed: tuple[SeedsNeeded, ...]
    hours_source: str  # what the device-hours are estimated from
    seeds: int = 0  # the smallest number of seeds of a rung
    detectable_one: float | None = None  # points that so many seeds detect for one step; None for one seed
    detectable_all: float | None = None  # points if all steps share the 5 %


@dataclass(frozen=True)
class _KnownNoise:
    noise: Noise
    source: str
    seeds: int = 0


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
    steps = max(1, sum(rung.parent is not None for rung in rungs))
    speed = speed_for(selection, options.folder())
    hours = sum(speed.device_hours(rung.experiment, selection.dataset) for rung in rungs)
    needed = tuple(_needed(difference, known.noise, steps, hours) for difference in differences)
    power = Power(known.noise, known.source, steps, needed, speed.source, known.seeds)
    if known.seeds < 2:
        return power
    one, all_steps = (detectable(known.seeds, known.noise, SIGNIFICANCE / count) for count in (1, steps))
    return replace(power, detectable_one=one, detectable_all=all_steps)


def _needed(difference: float, noise: Noise, steps: int, hours: float) -> SeedsNeeded:
    """`hours` are device-hours for one seed of every rung."""
    one, all_steps = (_seeds(difference, noise, SIGNIFICANCE / count) for count in (1, steps))
    return SeedsNeeded(difference, one, all_steps, None if all_steps is None else all_steps * hours)


def _seeds(difference: float, noise: Noise, significance: float) -> int | None:
    try:
        return seeds_needed(difference, noise, significance)
    except ValueError:  # more than MOST_SEEDS
        return None


def _given(noise: float) -> _KnownNoise:
    check(noise, Range(0), "noise")
    return _KnownNoise(Noise(noise, 0), "as given")


def _of_runs(options: RunsOptions, selection: Selection, metric: Metric) -> _KnownNoise | None:
    """None if no rung has two finished runs."""
    options.folder()  # raises ValueError for a file, unlike a folder without runs
    try:
        (runs,) = selected_runs(replace(options, study=replace(options.study, regime=selection.regime)))
    except ValueError:
        return None
    noise = noise_of(named_values(runs.results, metric))
    if noise is None:
        return None
    counts = [count for result in runs.results if (count := len(result.values(metric)))]
    source = f"{many(sum(counts), 'run')} of {selection.regime}, about {noise.freedom:.0f} degrees of freedom"
    return _KnownNoise(noise, source, min(counts))


def _of_paper(selection: Selection, metric: Metric) -> _KnownNoise:
    regime = selection.study.regime(selection.regime)
    is_papers = regime.published and selection.context.data == regime.data and metric.published
    judged = judge_published(selection.study, selection.regime).values() if is_papers else ()
    pooled = pooled_std(judgement.sample for judgement in judged if judgement.sample)
    if pooled:
        return _KnownNoise(Noise(*pooled), f"the deviations that the paper prints, {pooled[1]} degrees of freedom")
    raise ValueError(
        f"the noise of {selection.regime} is not known: no rung has two finished runs, and the paper prints none; "
        "give --noise, or train rungs with --seeds 3"
    )
