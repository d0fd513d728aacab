"""The report of the runs that options select: made once, or again and again while they train."""

from __future__ import annotations

import hashlib
from dataclasses import dataclass
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pandas as pd

from analysis.attribution import Attribution, attribution_of
from analysis.collection import collect, empty_table
from analysis.options import RunsOptions
from analysis.report.page import Part, render
from analysis.report.serving import State, make_server
from analysis.selected_runs import SelectedRuns, regimes_with_runs
from roadmap.files import write_atomic
from roadmap.recipe import Experiment
from roadmap.record.metrics import Metric


def write_report(options: RunsOptions, output: Path | None = None) -> Path:
    """Writes the page to `output`, else to report.html among the runs; returns its path.

    Raises ValueError for another suffix than .html, and where there is no folder of runs.
    """
    report = _Report(options, options.folder(), options.find_metric())
    path = output or report.out / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: a report ends in .html")
    page = report.page(collect(report.out))
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page.encode())
    return path


def report_server(options: RunsOptions, port: int = 0) -> ThreadingHTTPServer:
    """Serves the page on this machine, made again when runs have changed; at any free port for 0.

    Raises ValueError as `write_report` does, and for a port that can't be had.
    """
    report = _Report(options, options.folder(), options.find_metric())
    report.look().make()  # so that wrong options are an error here, and not a notice on the page
    return make_server(report.look_or_notice, port)


@dataclass(frozen=True)
class _Report:
    options: RunsOptions
    out: Path  # folder of the runs
    metric: Metric

    def page(self, table: pd.DataFrame, version: str | None = None) -> str:
        """Of the runs of `table` (of `collect`)."""
        selected = regimes_with_runs(self.options.study, table, self.out, begun=True)
        parts = [_part(runs, table, self.metric) for runs in selected]
        return render(parts, table, self.out, self.metric, version=version)

    def look(self) -> State:
        table = collect(self.out)
        version = hashlib.sha256(table.to_csv().encode()).hexdigest()[:16]
        return State(version, partial(self.page, table, version))

    def look_or_notice(self) -> State:
        """What can't be read at this moment is a notice on the page, which asks again."""
        try:
            state = self.look()
        except (ValueError, OSError) as error:
            return State(str(error), partial(self._notice, str(error), str(error)))

        def make() -> str:
            try:
                return state.make()
            except (ValueError, OSError) as error:
                return self._notice(str(error), state.version)

        return State(state.version, make)

    def _notice(self, message: str, version: str) -> str:
        return render([], empty_table(), self.out, self.metric, version=version, notice=message)


def _part(runs: SelectedRuns, table: pd.DataFrame, metric: Metric) -> Part:
    return Part(runs.study, runs.results, runs.label, _parents(runs), _attribution(runs, table, metric))


def _parents(runs: SelectedRuns) -> dict[str, Experiment]:
    """The experiments of rungs that others are compared with without being shown themselves."""
    shown = {result.rung.name for result in runs.results}
    missing = {result.rung.parent for result in runs.results if result.rung.parent} - shown
    return {name: runs.selection.rung(name).experiment for name in sorted(missing)}


def _attribution(runs: SelectedRuns, table: pd.DataFrame, metric: Metric) -> Attribution | None:
    """None where there are no runs beyond the study's own order."""
    try:
        attribution = attribution_of(runs.selection, table, metric)
    except ValueError:
        return None
    return attribution if attribution.effects else None
