"""collect and table: the runs as data, and the paper's table beside one's own."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.finished import finished
from roadmap.cli.options import add_study_options
from roadmap.cli.text import many, table
from roadmap.study import load_study

if TYPE_CHECKING:
    import pandas as pd

    from analysis.metrics import Metric


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("collect", help="every run as a row of one table")
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument("-o", "--output", type=Path, action="append", help="a .csv or .parquet; may be repeated")
    parser.set_defaults(function=collect_runs)

    parser = verbs.add_parser("table", help="the paper's table beside the reproduced one, each step judged")
    parser.add_argument("--published", action="store_true", help="the paper's own table, without any run")
    parser.add_argument(
        "--format", default=None, help="markdown, csv or latex (default: as a terminal has it, or by the output's name)"
    )
    parser.add_argument("-o", "--output", type=Path, help="a .md, .csv or .tex (default: printed)")
    parser.add_argument("--metric", default="top1", help="top1 (default), top5, ema or loss")
    add_study_options(parser, ablation=True)
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.set_defaults(function=show_table)


def collect_runs(options: argparse.Namespace) -> int:
    from analysis.collection import STATES, collect, write_table

    out = options.out or Path(load_study().defaults.out)
    found = collect(out)
    counts = {state: int((found["state"] == state).sum()) for state in STATES}
    told = "".join(f", {count} {state}" for state, count in counts.items() if count)
    print(f"{out}: {many(len(found), 'folder')}{told}")
    for row in found[found["state"] != "finished"].to_dict("records"):
        print(f"{row['state']}: {row['folder']}: {row['why']}")
    for path in options.output or []:
        write_table(found, path)
        print(f"table: {path}")
    return 0


def refuse_study_options(options: argparse.Namespace) -> None:
    """What is published is neither trained nor set. Raises ValueError for an option that has no say in it."""
    given = {"steps": options.steps != "all", "ablation": options.ablation != "cumulative"}
    given |= {name: bool(getattr(options, name)) for name in ("fidelity", "data", "settings", "out", "plugins", "base")}
    given["metric"] = options.metric != "top1"
    conflicting = [name for name, is_given in given.items() if is_given]
    if conflicting:
        option = {"settings": "set", "plugins": "plugin"}.get(conflicting[0], conflicting[0])
        raise ValueError(f"--published is the paper's tables: --{option} has no say in it")


SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex"}


def show_table(options: argparse.Namespace) -> int:
    from analysis.metrics import find_metric
    from analysis.tables import published_judged, remarks, study_table

    metric = find_metric(options.metric)
    if options.published:
        refuse_study_options(options)
        study = load_study()
        regimes = [options.regime] if options.regime else study.published_regimes()
        tables = {f"{study.regime(regime).title}, as published": published_judged(study, regime) for regime in regimes}
    else:
        found = finished(options)
        tables = {each.choice.title: study_table(each.choice.study, each.results, metric) for each in found}
    form = options.format or (SUFFIXES.get(options.output.suffix.lower()) if options.output else "terminal")
    if form is None:
        raise ValueError(f"{options.output}: a table ends in {', '.join(SUFFIXES)}, or --format says what it is")
    text = _as_text(tables, form, metric)
    if options.output:
        from roadmap.record import write_whole

        options.output.parent.mkdir(parents=True, exist_ok=True)
        write_whole(options.output, text.encode())
        print(f"table: {options.output}")
    else:
        print(text, end="")
    for title, each in tables.items():
        for remark in remarks(each):
            print(f"{title}: {remark}", file=sys.stderr if form != "terminal" else sys.stdout)
    return 0


def _as_text(tables: dict[str, pd.DataFrame], form: str, metric: Metric) -> str:
    from analysis.tables import rendered, written

    if form == "csv" and len(tables) > 1:
        raise ValueError("a CSV file holds one regime: choose with --regime")
    parts = []
    for title, each in tables.items():
        if form == "terminal":
            shown = rendered(each, metric)
            parts.append(f"{title}\n\n{table(list(shown.columns), shown.to_numpy().tolist())}\n")
        else:
            parts.append(written(each, form, metric, title))
    return "\n".join(parts)
