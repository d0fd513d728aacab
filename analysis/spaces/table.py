"""What is printed about a space: its distribution, its parameters, its best designs."""

from __future__ import annotations

from collections.abc import Sequence
from typing import NamedTuple

import numpy as np

from analysis.spaces.study import BEST, SpaceStudy
from analysis.statistics.samples import SIGNIFICANCE
from analysis.statistics.spaces import FEWEST, Difference, Share, differences
from analysis.tables.ladder import interval
from roadmap.text import many
from roadmap.text import table as text_table


class Table(NamedTuple):
    title: str
    columns: list[str]
    rows: list[list[str]]


QUANTILES = {"best": 0.0, "10 %": 0.1, "median": 0.5, "90 %": 0.9, "worst": 1.0}


def space_text(studies: Sequence[SpaceStudy]) -> str:
    """The tables and remarks on spaces, one after the other; with several a comparison of their distributions."""
    parts = [part for study in studies for part in _parts(study)]
    if len(studies) > 1:
        shown = comparison(studies)
        parts.append(text_table(shown.columns, shown.rows))
    return "\n\n".join(parts)


def _parts(study: SpaceStudy) -> list[str]:
    heading = f"{study.title}: {many(len(study.designs), 'design')}, {study.error_title}"
    shown = [text_table(own.columns, own.rows) for own in tables(study)]
    return [heading, *shown, "\n".join(remarks(study))]


def tables(study: SpaceStudy) -> list[Table]:
    """The distribution, the parameters, and the best designs of a space."""
    return [_distribution(study), _parameters(study), _best(study)]


def _distribution(study: SpaceStudy) -> Table:
    errors = [design.first for design in study.designs]
    cells = [f"{np.quantile(errors, share):.2f}" for share in QUANTILES.values()]
    row = [*cells, _number(study.base_error)]
    return Table("Errors of the designs", [*QUANTILES, study.space.base.name], [row])


def _parameters(study: SpaceStudy) -> Table:
    rows = []
    for name, best in study.best.items():
        ends = f"{best.interval[0]:g} to {best.interval[1]:g}" if best else f"fewer than {FEWEST} designs"
        shares = [_percent(own[name]) for own in (study.surface.alone, study.surface.lost)] if study.surface else []
        rows.append(
            [
                name,
                f"{best.value:g}" if best else "",
                ends,
                *(shares or ["", ""]),
                *(_number(values.get(name), "g") for values in study.marked.values()),
            ]
        )
    columns = ["parameter", "best value", "95 % interval", "explains alone", "lost without it", *study.marked]
    return Table("Values of the best designs", columns, rows)


def _best(study: SpaceStudy) -> Table:
    rows = []
    for design in study.designs[:BEST]:
        again = design.again
        spread = "" if again is None or again.std is None else f" ±{again.std:.2f}"
        more = [f"{again.mean:.2f}{spread}", str(again.n), f"{again.mean - design.first:+.2f}"] if again else [""] * 3
        rows.append([design.name, f"{design.first:.2f}", *more, *_judged(study, design.name)])
    compared = [f"against {study.space.base.name}", "95 % interval", "verdict"]
    return Table("Best designs", ["best designs", "first seed", "other seeds", "runs", "shrinkage", *compared], rows)


def _judged(study: SpaceStudy, name: str) -> list[str]:
    """The change of a design's other seeds from the rung that varies."""
    judgement = study.judged.get(name)
    if judgement is None or judgement.change is None:
        return [""] * 3
    change = judgement.change
    return [f"{change.difference:+.2f}", interval(change.interval, 2), judgement.verdict or ""]


def remarks(study: SpaceStudy) -> list[str]:
    """Sentences that a reader of the tables needs."""
    lines = []
    if study.surface:
        lines.append(
            f"A quadratic surface of all parameters explains {_percent(study.surface.explained)} % of the variance of "
            "designs that it was not fitted to, in brackets the 95 % interval over other designs; one of the parameter "
            "alone, and what is lost without it, stand in the table in percent. A parameter that another can stand for "
            "loses little."
        )
    else:
        lines.append("Too few designs for a surface of the parameters.")
    if study.spread is not None:
        noise = (
            "unknown: no design has runs of several seeds" if study.seed_noise is None else f"{study.seed_noise:.2f}"
        )
        lines.append(f"Standard deviation over designs {study.spread:.2f}; over seeds of one design {noise}.")
    if study.shrinkage is None:
        lines.append(
            "No design is called better: the best of many are so by luck too. Train them again with other seeds, then "
            f"call this again, which leaves out the seed that chose them: `{study.again}`."
        )
    else:
        lines.append(
            f"With other seeds the error of the best designs changes by {study.shrinkage:+.2f} in the mean. The first "
            "seed, by which they were chosen, does not count in the verdicts, which are on all of them together."
        )
        if study.unrepeated:
            new = "design has" if study.unrepeated == 1 else "designs have"
            lines.append(f"{study.unrepeated} of the best {new} no other seeds so far: `{study.again}`.")
    if study.diverged:
        lines.append(
            f"{many(study.diverged, 'design')} diverged and left out, so that the space looks better than it is."
        )
    if study.unfinished:
        lines.append(
            f"{many(study.unfinished, 'design')} not finished and left out; if `--rounds` dropped them, the others are "
            "good designs, and not a sample of the space."
        )
    return lines


def compared(studies: Sequence[SpaceStudy]) -> list[Difference]:
    """Every pair of spaces."""
    return differences({study.space.name: [design.first for design in study.designs] for study in studies})


def comparison(studies: Sequence[SpaceStudy]) -> Table:
    rows = [
        [
            *own.spaces,
            f"{own.distance:.2f}",
            f"{own.corrected_p:.3f}",
            "differ" if own.corrected_p < SIGNIFICANCE else "may be alike",
        ]
        for own in compared(studies)
    ]
    columns = ["space", "and", "largest distance", "p, corrected", "their distributions"]
    return Table("Spaces compared, by Kolmogorov and Smirnov's test", columns, rows)


def _percent(share: Share) -> str:
    low, high = share.interval
    return f"{100 * share.value:.0f} ({100 * low:.0f} to {100 * high:.0f})"


def _number(value: float | None, form: str = ".2f") -> str:
    return "" if value is None else f"{value:{form}}"
