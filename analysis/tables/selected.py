"""The tables that options select, one for each regime: of runs, of the paper, or of robustness."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

import pandas as pd

from analysis.options import TableOptions
from analysis.selected_runs import selected_runs
from analysis.tables import ladder, robustness
from analysis.tables.transfer import rendered_transfers, transfer_remarks, transfer_table
from analysis.transfer import TransferStudy, transfer_studies


@dataclass(frozen=True)
class TitledTable:
    title: str
    data: pd.DataFrame  # in full precision
    render: Callable[[pd.DataFrame], pd.DataFrame]  # to text with rounded numbers
    remarks: Sequence[str]  # notes for the reader, in sentences

    def text(self, form: str) -> str:
        """The text in a format; see analysis.tables.ladder.table_text."""
        return ladder.table_text(self.data, form, self.render, self.title)


def tables_of(options: TableOptions) -> list[TitledTable]:
    """The tables. Raises ValueError for an option that they leave unused, and if there is nothing to show."""
    metric = options.find_metric()
    options.check()
    if options.robustness:
        return _robustness(options)
    if options.transfer:
        studies = transfer_studies(options, options.to, options.recipe)
        return [_transfer(study) for study in studies]
    if options.published:
        study = options.study.study()
        regimes = [options.study.regime] if options.study.regime else study.published_regimes()
        title = "{}, as published"
        tables = {title.format(study.regime(name).title): ladder.published_judged(study, name) for name in regimes}
    else:
        tables = {
            runs.title: ladder.study_table(runs.study, runs.results, metric, runs.family)
            for runs in selected_runs(options)
        }
    render = partial(ladder.rendered, metric=metric)
    return [TitledTable(title, table, render, ladder.remarks(table)) for title, table in tables.items()]


def _transfer(study: TransferStudy) -> TitledTable:
    return TitledTable(study.title, transfer_table(study), lambda _: rendered_transfers(study), transfer_remarks(study))


def _robustness(options: TableOptions) -> list[TitledTable]:
    out = options.folder()
    tables = {runs.title: robustness.robustness_table(runs.results, out) for runs in selected_runs(options)}
    tables = {title: table for title, table in tables.items() if table["runs"].any()}
    if not tables:
        raise ValueError(f"{out}: no run was evaluated on other images (roadmap evaluate RUN --data imagenet-a=PATH)")
    return [
        TitledTable(title, table, robustness.rendered, robustness.remarks(table)) for title, table in tables.items()
    ]


def combined(tables: Sequence[TitledTable]) -> pd.DataFrame:
    """All rows in one table, with the title of their table in the column `study`."""
    rows = [{"study": table.title, **row} for table in tables for row in table.data.to_dict("records")]
    return pd.DataFrame(rows)


def tables_text(tables: Sequence[TitledTable], form: str) -> str:
    """All tables as one text. Raises ValueError for several tables as CSV."""
    if form == "csv" and len(tables) > 1:
        raise ValueError(f"a CSV file takes one regime (got {len(tables)}); choose one with --regime")
    return "\n".join(table.text(form) for table in tables)
