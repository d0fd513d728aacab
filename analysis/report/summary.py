"""Summarizes a study: the table of the selected rungs, and the roadmap figure."""

from __future__ import annotations

import sys
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from analysis.collection import collect
from analysis.figures import draw_roadmap, save_figure
from analysis.figures.parts.style import figure_paths
from analysis.results import Series, series_of_runs
from analysis.selected_runs import SelectedRuns
from analysis.spaces.conclusion import conclude_space
from analysis.tables.ladder import remarks, rendered, study_table
from roadmap.options import Selection
from roadmap.record.metrics import TOP1
from roadmap.text import table as text_table

if TYPE_CHECKING:
    from matplotlib.figure import Figure


@dataclass(frozen=True)
class Summary:
    """The results of the selected rungs."""

    selection: Selection
    table: pd.DataFrame  # a row for each rung, of `analysis.tables.ladder.study_table`
    series: Series | None  # the bars of the figure; None if no run has finished

    @cached_property
    def figure(self) -> Figure | None:
        """The roadmap figure, drawn at its first use."""
        return draw_roadmap([self.series]) if self.series else None

    def __str__(self) -> str:
        shown = rendered(self.table)
        rows = text_table(list(shown.columns), shown.to_numpy().tolist())
        return "\n\n".join([rows, *remarks(self.table)])

    def save_figure(self, out: Path) -> list[Path]:
        """Writes the figure into `out` as PNG and SVG, named after the study; returns the paths.

        Image folders of the same name have figures of their own, by a hash of their content, as they have runs.
        """
        if self.figure is None:
            return []
        content = (self.selection.dataset.content or "")[:8]
        return save_figure(
            self.figure, figure_paths(out, "roadmap", self.selection.regime, self.selection.label, content)
        )


def conclude(selection: Selection, out: Path) -> None:
    """Prints the table of the selected rungs and saves the figure in `out`, after their runs have ended.

    Of designs that are drawn from a space, it prints and draws what they say about the space.
    """
    if selection.is_space:
        conclude_space(selection, out)
        return
    summary = summarize(selection, out)
    print(f"\n{summary}\n", flush=True)  # before anything is drawn, which may fail
    if summary.series is None:
        print("no run has finished: no figure", file=sys.stderr)
    for path in summary.save_figure(out):
        print(f"figure: {path}")


def summarize(selection: Selection, out: Path) -> Summary:
    """The table of the selected rungs, and the bars of all rungs that have finished runs with these settings."""
    runs = SelectedRuns.of(selection, collect(out), out)
    chosen = {result.rung.name for result in runs.results}
    drawn = [result for result in runs.family if result.seeds or result.rung.name in chosen]
    series = None
    if any(result.seeds or result.diverged_seeds for result in drawn):
        series = series_of_runs(selection.study, drawn, runs.label)
    return Summary(selection, study_table(selection.study, runs.results, TOP1, runs.family), series)
