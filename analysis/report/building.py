"""Builds the report of the selected runs: written once, or served and updated during training."""

from __future__ import annotations

import hashlib
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from http.server import ThreadingHTTPServer
from pathlib import Path

import pandas as pd

from analysis.attribution import Attribution, attribution_of
from analysis.collection import collect, empty_table
from analysis.disagreement import Disagreement, compare_images
from analysis.options import RunsOptions
from analysis.report.page import Part, SpacePart, TransferPart, render
from analysis.report.serving import State, make_server
from analysis.selected_runs import SelectedRuns, regimes_with_runs
from analysis.spaces.study import study_of
from analysis.transfer import transfer_studies
from roadmap.files import make_parent, write_atomic
from roadmap.recipe import Experiment
from roadmap.record.metrics import Metric
from roadmap.record.outcomes import OUTCOMES_FILE
from roadmap.study.grammar import MARK
from roadmap.study.references import REFERENCE

ContactSheet = Callable[[Disagreement], bytes]  # a PNG; raises ValueError or OSError without the test images


def write_report(options: RunsOptions, output: Path | None = None, *, contact_sheet: ContactSheet) -> Path:
    """Writes the page to `output`, by default report.html in the folder of runs; returns its path.

    Raises ValueError for a suffix other than .html, and if there is no folder of runs.
    """
    report = _Report(options, options.folder(), options.find_metric(), contact_sheet)
    path = output or report.out / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: a report must end in .html")
    page = report.page(collect(report.out))
    make_parent(path)
    write_atomic(path, page.encode(errors="backslashreplace"))
    return path


def report_server(options: RunsOptions, port: int = 0, *, contact_sheet: ContactSheet) -> ThreadingHTTPServer:
    """A server of the page for this machine only, which updates it when runs change. Port 0 is any free port.

    Raises ValueError as `write_report` does, and for a port that is not available.
    """
    report = _Report(options, options.folder(), options.find_metric(), contact_sheet)
    report.look().make()  # raises for wrong options, which are a notice on the page later
    return make_server(report.look_or_notice, port)


@dataclass(frozen=True)
class _Report:
    options: RunsOptions
    out: Path  # folder of the runs
    metric: Metric
    contact_sheet: ContactSheet

    def page(self, table: pd.DataFrame, version: str | None = None) -> str:
        """The page of the runs in `table` (of `collect`)."""
        selected = regimes_with_runs(self.options.study, table, self.out, begun=True)
        parts = [self._part(runs, table) for runs in selected]
        return render(parts, table, self.out, self.metric, version=version)

    def _part(self, runs: SelectedRuns, table: pd.DataFrame) -> Part:
        part = Part(
            runs.study,
            runs.results,
            runs.label,
            runs.family,
            _parents(runs),
            _attribution(runs, table, self.metric),
            transfers=tuple(self._transfers(runs.selection.regime)),
            spaces=tuple(self._spaces(runs, table)),
        )
        rungs = [(result.rung, result.seeds) for result in runs.results]
        finished = [rung.name for rung, seeds in rungs if seeds and rung.adopted and rung.group != REFERENCE]
        if len(finished) < 2:
            return part
        try:
            found = compare_images(runs.selection, self.out, table, finished[0], finished[-1])
        except ValueError:  # runs that did not record their test images
            return part
        return replace(part, disagreement=found, sheet=self._sheet(found))

    def _transfers(self, regime: str) -> Iterator[TransferPart]:
        """Of each task that has finished runs."""
        try:
            studies = transfer_studies(replace(self.options, study=replace(self.options.study, regime=regime)))
        except ValueError:
            return
        # matplotlib is slow to import, and the rest of the page does without.
        from analysis.figures.parts.style import png
        from analysis.figures.predictions import draw_predictions
        from analysis.figures.transfer import draw_transfer
        from analysis.report.transfers import predicting

        for study in studies:
            found = predicting(study, self.out)
            pictures = png(draw_predictions(found, study.title)) if found else None
            yield TransferPart(study, png(draw_transfer(study)), pictures)

    def _spaces(self, runs: SelectedRuns, table: pd.DataFrame) -> Iterator[SpacePart]:
        """Of each space that has designs in this regime; instead of a study, why there is none."""
        drawn = table[table["regime"] == runs.selection.regime]["rung"].astype(str).str.partition(MARK)
        for name in dict.fromkeys(drawn[0][drawn[1] == MARK]):
            try:
                study = study_of(runs.selection, name, self.out, table, self.metric)
            except ValueError as error:
                yield SpacePart(name, None, b"", str(error))
                continue
            from analysis.figures.parts.style import png
            from analysis.spaces.figure import draw_spaces

            yield SpacePart(name, study, png(draw_spaces([study])))

    def _sheet(self, found: Disagreement) -> bytes | None:
        """None if the test images are not on this machine."""
        if found.images.empty:
            return None
        try:
            return self.contact_sheet(found)
        except (ValueError, OSError):
            return None

    def look(self) -> State:
        table = collect(self.out)
        # A run may get or lose its record of the test images without a change of its row.
        records = [(self.out / folder / OUTCOMES_FILE).exists() for folder in table["folder"]]
        version = hashlib.sha256(f"{table.to_csv()}{records}".encode()).hexdigest()[:16]
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
