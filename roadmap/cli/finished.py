"""The finished runs that the options mean, rung by rung: what `table`, `figure` and `report` show."""

from __future__ import annotations

import argparse
import sys
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING

from roadmap.cli.options import choose, study_options
from roadmap.options import Selection
from roadmap.text import many

if TYPE_CHECKING:
    import pandas as pd

    from analysis.attribution import Attribution
    from analysis.results import Result
    from roadmap.record.metrics import Metric


@dataclass(frozen=True)
class Finished:
    """A part of the study and what has become of it."""

    choice: Selection
    results: list[Result]


def finished(options: argparse.Namespace, regime: str | None = None) -> list[Finished]:
    """For the regime asked for, else for each that has finished or diverged runs, in the study's order.

    Raises ValueError where there is none.
    """
    from analysis.collection import collect

    out = options.out or Path(study_options(options).study().defaults.out)
    options, table = _with_regime(options, regime), collect(out)
    found = choices_with_runs(options, table, out)
    foreign = [str(why) for why in table.loc[table["state"] == "foreign", "why"]]
    if not found:
        what = options.regime or "any regime"
        also = f"; not counted: {foreign[0]}" if foreign else ""
        raise ValueError(f"{out}: no finished run of {what} as set here (`roadmap run` makes some){also}")
    if foreign:
        print(f"not counted: {many(len(foreign), 'folder')} (`roadmap collect` lists them)", file=sys.stderr)
    return found


def _with_regime(options: argparse.Namespace, regime: str | None) -> argparse.Namespace:
    return argparse.Namespace(**{**vars(options), "regime": regime or options.regime})


def choices_with_runs(
    options: argparse.Namespace, table: pd.DataFrame, out: Path, *, begun: bool = False
) -> list[Finished]:
    """Those regimes that have finished or diverged runs in `table` (of `collect`), or, if wanted, begun ones."""
    from analysis.results import results_of

    study, found = study_options(options).study(), []
    # Settings may fit one regime alone, so that those without any run are not even composed.
    for regime in [options.regime] if options.regime else [name for name in study.regimes if (out / name).is_dir()]:
        choice = choose(_with_regime(options, regime))
        results = results_of([(rung, choice.run(rung)) for rung in choice.rungs()], table)
        if any(result.seeds or (result.unfinished if begun else result.diverged_seeds) for result in results):
            found.append(Finished(choice, results))
    return found


def attribution_of(choice: Selection, steps: str, runs: pd.DataFrame, metric: Metric) -> Attribution:
    """What runs of all four ways to take the steps apart tell of them. Raises ValueError where it is too little."""
    from analysis.attribution import Ablations, attribute
    from analysis.results import results_of

    numbers = runs.loc[runs["regime"] == choice.regime, "rung"].dropna().str.extract(r"^order(\d{1,4})-")[0].dropna()
    kinds = ["cumulative", "add-one", "leave-one-out", f"orders:{numbers.astype(int).max()}" if len(numbers) else ""]

    def results(ablation: str) -> list[Result]:
        ladder = replace(choice, steps=steps, ablation=ablation, references=None).rungs() if ablation else ()
        return results_of([(rung, choice.run(rung)) for rung in ladder], runs)

    found = Ablations(*map(results, kinds))
    taken = [result.rung for result in found.alone if result.rung.steps]
    return attribute({rung.steps[-1]: rung.title.removeprefix("only ") for rung in taken}, found, metric)
