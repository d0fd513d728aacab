"""The metric of each rung against its cost: for runs, or for the paper's tables."""

from __future__ import annotations

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import groupby

from analysis.published import Model, published_models
from analysis.results import Result, difference_of, published_sample, published_table
from roadmap.network.cost import cost
from roadmap.record.benchmarks import Measured, Quantity, workload_of
from roadmap.record.metrics import TOP1, Metric
from roadmap.study.references import REFERENCE
from roadmap.study.schema import Study
from roadmap.study.selection import ladder

TITLES = {
    "macs": "multiply-adds of an image",
    "parameters": "parameters",
    "throughput": "images/s",
    "memory": "peak memory (MiB)",
}
MEASURED = {"throughput": "images_per_second", "memory": "peak_memory_bytes"}  # columns of the collection
BENCHMARKED: dict[str, Quantity] = {"throughput": "inference_images_per_second", "memory": "training_peak_bytes"}
SPELLED = {"convnext": "ConvNeXt", "swin": "Swin", "deit": "DeiT", "regnety": "RegNetY"}
SPELLED |= {"efficientnet": "EfficientNet", "efficientnetv2": "EfficientNetV2"}


@dataclass(frozen=True)
class Point:
    name: str
    title: str
    group: str
    adopted: bool
    x: float
    y: float  # in the metric's unit
    std: float | None
    size: float  # multiply-adds; parameters where x is multiply-adds
    runs: int = 1  # y is the mean of so many runs
    note: str = ""  # how it differs from the others


@dataclass(frozen=True)
class Line:
    """Points that a line connects, in order."""

    title: str
    points: tuple[Point, ...]


@dataclass(frozen=True)
class Tradeoff:
    x: str  # of TITLES
    x_title: str
    metric: Metric
    groups: tuple[str, ...]  # of the study, in order
    paths: tuple[Line, ...]  # the rungs of each regime, in the roadmap's order
    families: tuple[Line, ...] = ()  # models that the rungs are compared with
    families_title: str = "references, trained alike"


def tradeoff_of_runs(
    study: Study,
    titled_results: Sequence[tuple[str, Sequence[Result]]],
    x: str,
    metric: Metric = TOP1,
    benchmarked: Measured | None = None,
) -> Tradeoff:
    """A path of the finished rungs for each pair of a title and results.

    Throughput and memory are from `benchmarked` if it is given, else from the runs. Raises ValueError if no run has
    finished, or none has the measurement.
    """
    paths = [Line(title, tuple(_points(_rungs(results), x, metric, benchmarked))) for title, results in titled_results]
    references = [[result for result in results if result.rung.group == REFERENCE] for _, results in titled_results]
    if not any(result.values(metric) for _, results in titled_results for result in results):
        raise ValueError(f"no finished run has a {metric.title}: there is no point to draw")
    if not any(path.points for path in paths):
        raise ValueError(f"no finished run has measured its {TITLES[x].partition(' (')[0]}: --x macs needs none")
    condition = " in training, as measured" if x == "throughput" else ", as measured" if x == "memory" else ""
    if benchmarked:
        condition = f"{' in inference' if x == 'throughput' else ' of training'} on {benchmarked.conditions}"
    shown = tuple(path for path in paths if path.points)
    families = tuple(
        line for results in references for line in _reference_lines(study, _points(results, x, metric, benchmarked))
    )
    return Tradeoff(x, TITLES[x] + condition, metric, study.groups, shown, families)


def _rungs(results: Sequence[Result]) -> list[Result]:
    """The results without the references, which are on no path."""
    return [result for result in results if result.rung.group != REFERENCE]


def _reference_lines(study: Study, points: Sequence[Point]) -> tuple[Line, ...]:
    """A line for each family of the study's references, and for each other reference."""
    families: dict[str, list[Point]] = {}
    for point in points:
        family = family_of(point.name) if point.name in study.references else point.name
        families.setdefault(family, []).append(point)
    return tuple(Line(name, tuple(sorted(members, key=lambda point: point.x))) for name, members in families.items())


def family_of(name: str) -> str:
    """The name without its size: convnext-iso for convnext-iso-s, vit for vit-s-16."""
    without_patch_size = re.sub(r"-\d+$", "", name)
    return without_patch_size.rpartition("-")[0] or without_patch_size


def _points(results: Sequence[Result], x: str, metric: Metric, benchmarked: Measured | None) -> list[Point]:
    points = []
    for result in results:
        sample, x_value = result.sample(metric), _x_of(result, x, benchmarked)
        if sample and x_value is not None:
            rung, model_cost = result.rung, result.cost
            size = model_cost.parameters if x == "macs" else model_cost.macs
            labels = (rung.name, rung.title, rung.group, rung.adopted)
            points.append(Point(*labels, x_value, sample.mean, sample.std, size, sample.n))
    return points


def _x_of(result: Result, x: str, benchmarked: Measured | None) -> float | None:
    if x in MEASURED:
        value = benchmarked.values.get(workload_of(result.run)) if benchmarked else result.median(MEASURED[x])
        return value / 2**20 if value is not None and x == "memory" else value
    return float(result.cost.macs if x == "macs" else result.cost.parameters)


def published_tradeoff(study: Study, regimes: Sequence[str], x: str) -> Tradeoff:
    """The rungs of the paper's Tables 10 and 11, and the models of its Table 1.

    Raises ValueError for memory, which the paper does not have. Throughput is of the models only, in inference.
    """
    if x == "memory":
        raise ValueError("--x memory does not apply to --published: the paper has no measured memory")
    paths = [] if x in MEASURED else [_published_path(study, regime, x) for regime in regimes]
    condition = " in inference on one V100, as the paper measured" if x == "throughput" else ""
    return Tradeoff(
        x, TITLES[x] + condition, TOP1, study.groups, tuple(paths), _families(x), "models of the paper's Table 1"
    )


def _published_path(study: Study, regime: str, x: str) -> Line:
    rows, points = published_table(study, regime), []
    for rung in ladder(regime, study=study):
        if row := rows.get(rung.name):
            model_cost, sample = cost(rung.experiment.design), published_sample(row)
            x_value, size = (model_cost.macs, model_cost.parameters)[:: 1 if x == "macs" else -1]
            labels = (rung.name, rung.title, row.group, row.adopted)
            note = difference_of(row)
            points.append(Point(*labels, x_value, sample.mean, sample.std, size, sample.n, note))
    return Line(study.regime(regime).title, tuple(points))


def _families(x: str) -> tuple[Line, ...]:
    """The models of Table 1, a line for each family and image size."""
    shown = [model for model in published_models() if x != "throughput" or model.throughput]
    models = sorted(shown, key=lambda model: (model.family, model.image_size))
    return tuple(
        Line(SPELLED[family], tuple(_model_point(model, x) for model in members))
        for (family, _), members in groupby(models, key=lambda model: (model.family, model.image_size))
    )


def _model_point(model: Model, x: str) -> Point:
    x_value = {"macs": model.gmacs * 1e9, "parameters": model.parameters, "throughput": model.throughput or 0.0}[x]
    size = model.parameters if x == "macs" else model.gmacs * 1e9
    name = f"{SPELLED[model.family]}-{model.name.rpartition('-')[2].upper()}"
    title = name if model.image_size == 224 else f"{name} at {model.image_size}"
    return Point(model.name, title, model.family, True, x_value, model.top1, None, size)
