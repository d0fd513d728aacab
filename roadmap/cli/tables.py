"""collect and table: the runs as data, and the paper's table beside that of the runs."""

from __future__ import annotations

import argparse
import sys
from typing import Any

from roadmap.cli.options import add_out, add_output, add_run_options, add_verb, study_options, warnings_as_lines
from roadmap.study.load import load_study
from roadmap.text import many

FORMATS = {".md": "markdown", ".csv": "csv", ".tex": "latex"}  # values of --format by suffix of the output


def add_verbs(verbs: Any) -> None:
    parser = add_verb(verbs, "collect", "collect every run as a row of one table", "-o runs.csv")
    add_out(parser)
    add_output(parser, "a .csv or .parquet; may be repeated (default: only counts are printed)", several=True)
    parser.set_defaults(function=collect_runs)

    parser = add_verb(
        verbs,
        "table",
        "print the paper's table beside that of the runs, with a verdict on each step",
        "--regime resnet-50 -o table.md",
    )
    parser.add_argument("--published", action="store_true", help="print the paper's own table, without any run")
    parser.add_argument("--format", help="markdown, csv or latex (default: plain text, or by the suffix of the output)")
    add_output(parser, "a .md, .csv or .tex (default: printed)")
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="print instead the accuracy on ImageNet-C, -A, -R and -Sketch of the runs that `roadmap evaluate` "
        "measured, above the paper's Table 8",
    )
    parser.add_argument("--transfer", action="store_true", help="print instead what the rungs reach in other tasks")
    parser.add_argument("--to", metavar="TASK", help="with --transfer: this task only (default: each that has runs)")
    parser.add_argument(
        "--recipe", metavar="NAME", help="with --transfer: the transfer recipe (default: the task's first)"
    )
    add_run_options(parser)
    parser.set_defaults(function=show_table)


def collect_runs(options: argparse.Namespace) -> int:
    from analysis.collection import STATES, check_suffix, write_table
    from roadmap.api import collect

    for path in options.output or []:
        check_suffix(path)
    table = collect(options.out)
    counts = {state: int((table["state"] == state).sum()) for state in STATES}
    states = "".join(f", {count} {state}" for state, count in counts.items() if count)
    print(f"{options.out or load_study().defaults.out}: {many(len(table), 'folder')}{states}")
    for row in table[table["state"] != "finished"].to_dict("records"):
        print(f"{row['state']}: {row['folder']}: {row['why']}")
    for path in options.output or []:
        write_table(table, path)
        print(f"table: {path}")
    return 0


def show_table(options: argparse.Namespace) -> int:
    from analysis.options import TableOptions
    from analysis.tables.selected import tables_of, tables_text
    from roadmap.files import write_atomic

    table_options = TableOptions(
        study_options(options),
        options.out,
        options.metric,
        options.published,
        options.robustness,
        options.transfer,
        options.to,
        options.recipe,
    )
    with warnings_as_lines():
        tables = tables_of(table_options)
    form = _form(options)
    text = tables_text(tables, form)
    if options.output:
        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(options.output, text.encode(errors="backslashreplace"))
        text = f"table: {options.output}\n"
    print(text, end="")
    for table in tables:
        for remark in table.remarks:
            print(f"{table.title}: {remark}", file=sys.stdout if form == "terminal" else sys.stderr)
    return 0


def _form(options: argparse.Namespace) -> str:
    """The format of the table. Raises ValueError for an output with an unknown suffix."""
    form = options.format or (FORMATS.get(options.output.suffix.lower()) if options.output else "terminal")
    if form is None:
        raise ValueError(f"{options.output}: a table ends in {', '.join(FORMATS)}; or give --format")
    return str(form)
