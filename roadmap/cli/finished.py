"""The finished runs that the options mean, rung by rung: what `table`, `figure` and `report` show."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.cli.options import Choice, choose, study_of
from roadmap.cli.text import many

if TYPE_CHECKING:
    import pandas as pd

    from analysis.results import Result


@dataclass(frozen=True)
class Finished:
    """A part of the study and what has become of it."""

    choice: Choice
    results: list[Result]


def finished(options: argparse.Namespace) -> list[Finished]:
    """For the regime asked for, else for each that has finished or diverged runs, in the study's order.

    Raises ValueError where there is none.
    """
    from analysis.collection import collect

    out = options.out or Path(study_of(options).defaults.out)
    table = collect(out)
    found = choices_with_runs(options, table, out)
    foreign = [str(why) for why in table.loc[table["state"] == "foreign", "why"]]
    if not found:
        what = options.regime or "any regime"
        also = f"; not counted: {foreign[0]}" if foreign else ""
        raise ValueError(f"{out}: no finished run of {what} as set here (`roadmap run` makes some){also}")
    if foreign:
        print(f"not counted: {many(len(foreign), 'folder')} (`roadmap collect` lists them)", file=sys.stderr)
    return found


def choices_with_runs(
    options: argparse.Namespace, table: pd.DataFrame, out: Path, *, begun: bool = False
) -> list[Finished]:
    """Those regimes that have finished or diverged runs in `table` (of `collect`), or, if wanted, begun ones."""
    from analysis.results import results_of

    study, found = study_of(options), []
    going = set(table.loc[table["state"] == "begun", "experiment"]) if begun else set()
    # Settings may fit one regime alone, so that those without any run are not even composed.
    for regime in [options.regime] if options.regime else [name for name in study.regimes if (out / name).is_dir()]:
        choice = choose(argparse.Namespace(**{**vars(options), "regime": regime}))
        results = results_of([(rung, choice.run(rung)) for rung in choice.rungs(options.steps)], table)
        if any(result.seeds or result.diverged_seeds or result.experiment in going for result in results):
            found.append(Finished(choice, results))
    return found
