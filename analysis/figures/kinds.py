"""Draws each kind of figure from its options. FIGURE_KINDS in analysis.options lists the kinds."""

from __future__ import annotations

import warnings
from collections.abc import Callable, Collection, Mapping, Sequence
from dataclasses import replace
from pathlib import Path

from matplotlib.figure import Figure

from analysis.attribution import attribution_of_runs
from analysis.comparison import compare, published_series_for, table_against
from analysis.curves import curves_of_runs
from analysis.figures.attribution import draw_effects, draw_interactions
from analysis.figures.counterparts import draw_counterparts
from analysis.figures.curves import draw_curves
from analysis.figures.difference import draw_difference
from analysis.figures.parts.style import save_figure
from analysis.figures.roadmap import draw_roadmap, draw_side_by_side
from analysis.figures.tradeoff import draw_tradeoff
from analysis.figures.transfer import draw_transfer
from analysis.options import FigureKind, FigureOptions, RunsWarning
from analysis.results import Series, published_series, with_throughput
from analysis.selected_runs import SelectedRuns, only_regime, selected_runs
from analysis.tables.bench import MeasuredRung, rate_series
from analysis.tables.counterparts import pairs_of
from analysis.tradeoff import BENCHMARKED, published_tradeoff, tradeoff_of_runs
from analysis.transfer import transfer_studies
from roadmap.options import Selection
from roadmap.record.benchmarks import Measured, Mode, Quantity, measured, read_rounds, workload_of
from roadmap.record.run import Run


def draw(options: FigureOptions) -> Figure:
    """Draws the figure. Raises ValueError for an option that it leaves unused, and if there is nothing to draw."""
    options.find_metric()
    options.check()
    return DRAW[options.kind](options)


def _roadmap(options: FigureOptions) -> Figure:
    if options.published:
        return _published_roadmap(options)
    selected, metric = selected_runs(options), options.find_metric()
    if options.compare == "difference":
        runs = only_regime(selected, "--compare difference")
        return draw_difference(compare(runs.study, runs.results, options.against, metric, runs.family), options.columns)
    series = [runs.series(metric) for runs in selected]
    if options.compare == "side-by-side":
        published = [_published_series_for(runs, own, options) for runs, own in zip(selected, series, strict=True)]
        return draw_side_by_side(series, published, options.columns)
    if options.throughput:
        runs_by_rung = [{result.rung.name: result.run for result in runs.results} for runs in selected]
        series = _with_throughput(series, runs_by_rung, options)
    return draw_roadmap(series, options.columns)


def _published_roadmap(options: FigureOptions) -> Figure:
    regimes = _published_regimes(options)
    series = [published_series(options.study.study(), regime) for regime in regimes]
    if options.throughput:
        selections = [Selection.of(replace(options.study, regime=regime)) for regime in regimes]
        series = _with_throughput(series, [_runs_by_rung(selection) for selection in selections], options)
    return draw_roadmap(series, options.columns)


def _published_regimes(options: FigureOptions) -> Sequence[str]:
    return [options.study.regime] if options.study.regime else options.study.study().published_regimes()


def _published_series_for(runs: SelectedRuns, own: Series, options: FigureOptions) -> Series:
    return published_series_for(runs.study, own, table_against(runs.study, runs.results[0], options.against))


def _runs_by_rung(selection: Selection) -> dict[str, Run]:
    return {rung.name: selection.run(rung) for rung in selection.rungs()}


def _with_throughput(
    series: Sequence[Series], networks: Sequence[Mapping[str, Run]], options: FigureOptions
) -> list[Series]:
    """The bars with throughputs measured by `roadmap bench`. Raises ValueError if there are none."""
    workloads = [{name: workload_of(run) for name, run in runs.items()} for runs in networks]
    all_workloads = {workload for by_rung in workloads for workload in by_rung.values()}
    speeds = _benchmarked("inference_images_per_second", all_workloads, options)
    if speeds is None:
        raise ValueError("no throughput of these networks has been measured; `roadmap bench` measures it")
    return [with_throughput(bars, by_rung, speeds) for bars, by_rung in zip(series, workloads, strict=True)]


def _benchmarked(quantity: Quantity, workloads: Collection[str], options: FigureOptions) -> Measured | None:
    return measured(read_rounds(options.folder()), quantity, workloads)


def _tradeoff(options: FigureOptions) -> Figure:
    x = options.x or "macs"
    if options.published:
        return draw_tradeoff(published_tradeoff(options.study.study(), _published_regimes(options), x), options.columns)
    selected = selected_runs(options)
    benchmarked = None
    if x in BENCHMARKED:
        workloads = {workload_of(result.run) for runs in selected for result in runs.results if result.seeds}
        benchmarked = _benchmarked(BENCHMARKED[x], workloads, options)
        if benchmarked and len(benchmarked.values) < len(workloads):
            counts = f"{len(benchmarked.values)} of these {len(workloads)} networks"
            message = f"`roadmap bench` has measured {counts}; the figure shows what was measured in training"
            warnings.warn(message, RunsWarning, stacklevel=2)
            benchmarked = None
    titled = [(runs.title, runs.results) for runs in selected]
    tradeoff = tradeoff_of_runs(selected[0].study, titled, x, options.find_metric(), benchmarked)
    return draw_tradeoff(tradeoff, options.columns)


def _curves(options: FigureOptions) -> Figure:
    runs = only_regime(selected_runs(options), "--kind curves")
    metric = options.find_metric()
    curves = curves_of_runs(runs.study, runs.title, runs.results, options.folder(), metric)
    return draw_curves(curves, options.columns)


def _attribution(options: FigureOptions) -> Figure:
    draw_kind = draw_interactions if options.kind == "interactions" else draw_effects
    title = Selection.of(options.study).title
    return draw_kind(attribution_of_runs(options), options.find_metric(), title, options.columns)


def _counterparts(options: FigureOptions) -> Figure:
    selection = Selection.of(replace(options.study, references=options.study.references or "all"))
    pairs = pairs_of(selection.context, _runs_by_rung(selection), read_rounds(options.folder()))
    if not pairs:
        command = f"roadmap bench --regime {selection.regime} --references convnext-t,swin-t"
        raise ValueError(f"no command measured a ConvNeXt and its counterpart together; run `{command}`")
    return draw_counterparts(pairs, selection.title, options.columns)


def save_rates(
    selection: Selection, rows: Sequence[MeasuredRung], only: Mode | None, paths: Sequence[Path]
) -> list[Path]:
    """Draws the images/s of measured rungs as bars, in inference unless `only` training was measured, into `paths`.

    Returns the paths; none if there is nothing to draw.
    """
    if not rows or not paths:
        return []
    return save_figure(draw_roadmap([rate_series(selection, rows, only or "inference")]), paths)


def _transfer(options: FigureOptions) -> Figure:
    """Of several tasks the one with most runs."""
    studies = transfer_studies(options, options.to, options.recipe)
    return draw_transfer(max(studies, key=lambda study: study.runs), options.columns)


DRAW: dict[FigureKind, Callable[[FigureOptions], Figure]] = {
    "roadmap": _roadmap,
    "tradeoff": _tradeoff,
    "curves": _curves,
    "attribution": _attribution,
    "interactions": _attribution,
    "counterparts": _counterparts,
    "transfer": _transfer,
}
