"""Selects the runs that tables, figures and the report show, by regime."""

from __future__ import annotations

import contextlib
import warnings
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

import pandas as pd

from analysis.collection import collect
from analysis.options import RunsOptions, RunsWarning
from analysis.results import Result, Series, results_of, series_of_runs
from roadmap.options import Selection, StudyOptions
from roadmap.record.metrics import Metric
from roadmap.study.schema import Study
from roadmap.text import many

SUBSETS = ("cumulative", "add-one", "variants")  # ablations of which a few steps make some of the same rungs


@dataclass(frozen=True)
class SelectedRuns:
    """The selected rungs of a regime, with the results of their runs."""

    selection: Selection
    results: list[Result]
    family: list[Result]  # of all rungs of the study, the selected ones included: what is judged together

    @staticmethod
    def of(selection: Selection, table: pd.DataFrame, out: Path) -> SelectedRuns:
        """The results in `table` (of `collect(out)`).

        Steps select rungs of a study, which do not change its other comparisons. Leaving out or reordering only a few
        steps is a study of its own. References are compared with no rung.
        """
        chosen = {rung.name: rung for rung in selection.rungs()}
        results = family = results_of([(rung, selection.run(rung)) for rung in chosen.values()], table, out)
        if selection.steps != "all" and selection.ablation in SUBSETS:
            # Settings and the size of images may be valid for the chosen rungs only.
            with contextlib.suppress(ValueError):
                others = {rung.name: rung for rung in replace(selection, steps="all").rungs()}
                runs = [(rung, selection.run(rung)) for name, rung in others.items() if name not in chosen]
                family = _in_order(others, [*results, *results_of(runs, table, out)])
        return SelectedRuns(selection, results, family)

    @property
    def study(self) -> Study:
        return self.selection.study

    @property
    def title(self) -> str:
        return self.selection.title

    @property
    def label(self) -> str:
        """The differences to the regime's definition in the study, except the data."""
        return ", ".join(self.selection.differences)

    def series(self, metric: Metric) -> Series:
        return series_of_runs(self.study, self.results, self.label, metric)


def _in_order(names: Iterable[str], results: Sequence[Result]) -> list[Result]:
    """The results in the order of these names, those of other names last."""
    positions = {name: position for position, name in enumerate(names)}
    return sorted(results, key=lambda result: positions.get(result.rung.name, len(positions)))


def selected_runs(options: RunsOptions) -> list[SelectedRuns]:
    """The runs of the given regime, else of each regime with finished or diverged runs, in the study's order.

    Warns of folders that are not counted. Raises ValueError if there are no such runs.
    """
    out = options.folder()
    table = collect(out)
    selected = regimes_with_runs(options.study, table, out)
    foreign = [str(reason) for reason in table.loc[table["state"] == "foreign", "why"]]
    if not selected:
        wanted = options.study.regime or "any regime"
        hint = f"; not counted: {foreign[0]}" if foreign else ""
        raise ValueError(f"{out}: no finished run of {wanted} with these settings (`roadmap run` trains them){hint}")
    if foreign:
        count = many(len(foreign), "folder")
        warnings.warn(f"not counted: {count} (`roadmap collect` lists them)", RunsWarning, stacklevel=2)
    return selected


def regimes_with_runs(
    options: StudyOptions, table: pd.DataFrame, out: Path, *, begun: bool = False
) -> list[SelectedRuns]:
    """The regimes with finished or diverged runs in `table` (of `collect`); with `begun`, also with begun runs."""
    # Settings may be valid for one regime only, so regimes without runs are not composed.
    study, selected = options.study(), []
    for regime in [options.regime] if options.regime else [name for name in study.regimes if (out / name).is_dir()]:
        runs = SelectedRuns.of(Selection.of(replace(options, regime=regime)), table, out)
        if any(result.seeds or (result.unfinished if begun else result.diverged_seeds) for result in runs.results):
            selected.append(runs)
    return selected


def only_regime(selected: Sequence[SelectedRuns], option: str) -> SelectedRuns:
    """The only regime. Raises ValueError for several."""
    if len(selected) > 1:
        raise ValueError(f"{option} takes one regime (got {len(selected)}); choose one with --regime")
    return selected[0]
