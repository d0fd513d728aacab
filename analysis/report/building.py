"""Builds the report of the selected runs: written once, or served and updated during training."""

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
from roadmap.files import make_parent, write_atomic
from roadmap.recipe import Experiment
from roadmap.record.metrics import Metric


def write_report(options: RunsOptions, output: Path | None = None) -> Path:
    """Writes the page to `output`, by default report.html in the folder of runs; returns its path.

    Raises ValueError for a suffix other than .html, and if there is no folder of runs.
    """
    report = _Report(options, options.folder(), options.find_metric())
    path = output or report.out / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: a report must end in .html")
    page = report.page(collect(report.out))
    make_parent(path)
    write_atomic(path, page.encode(errors="backslashreplace"))
    return path


def report_server(options: RunsOptions, port: int = 0) -> ThreadingHTTPServer:
    """A server of the page for this machine only, which updates it when runs change. Port 0 is any free port.

    Raises ValueError as `write_report` does, and for a port that is not available.
    """
    report = _Report(options, options.folder(), options.find_metric())
    report.look().make()  # raises for wrong options, which are a notice on the page later
    return make_server(report.look_or_notice, port)


@dataclass(frozen=True)
class _Report:
    options: RunsOptions
    out: Path  # folder of the runs
    metric: Metric

    def page(self, table: pd.DataFrame, version: str | None = None) -> str:
        """The page of the runs in `table` (of `collect`)."""
        selected = regimes_with_runs(self.options.study, table, self.out, begun=True)
        parts = [_part(runs, table, self.metric) for runs in selected]
        return render(parts, table, self.out, self.metric, version=version)

    def look(self) -> State:
        table = collect(self.out)
        version = hashlib.sha256(table.to_csv().encode()).hexdigest()[:16]
        return State(version, partial(self.page, table, version))

    def look_or_notice(self) -> State:
        """The state; errors in reading become a notice on the page, which keeps polling."""
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
    """The experiments of rungs that others are compared with, but that are not on the page."""
    shown = {result.rung.name for result in runs.results}
    missing = {result.rung.parent for result in runs.results if result.rung.parent} - shown
    return {name: runs.selection.rung(name).experiment for name in sorted(missing)}


def _attribution(runs: SelectedRuns, table: pd.DataFrame, metric: Metric) -> Attribution | None:
    """None without runs beyond the study's own order."""
    try:
        attribution = attribution_of(runs.selection, table, metric)
    except ValueError:
        return None
    return attribution if attribution.effects else None
