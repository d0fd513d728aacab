"""collect and table: the runs as data, and the paper's table beside one's own."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.finished import finished
from roadmap.cli.options import add_metric, add_study_options, study_options
from roadmap.record.metrics import TOP1
from roadmap.study.load import load_study
from roadmap.text import many, table

if TYPE_CHECKING:
    import pandas as pd


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
    add_metric(parser)
    parser.add_argument(
        "--robustness",
        action="store_true",
        help="instead: ImageNet-C, -A, -R and -Sketch of the runs that `roadmap evaluate` held against them, above "
        "the paper's Table 8",
    )
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
    given["metric"] = options.metric != TOP1.name
    conflicting = [name for name, is_given in given.items() if is_given]
    if conflicting:
        option = {"settings": "set", "plugins": "plugin"}.get(conflicting[0], conflicting[0])
        raise ValueError(f"--published is the paper's tables: --{option} has no say in it")


SUFFIXES = {".md": "markdown", ".csv": "csv", ".tex": "latex"}


def show_table(options: argparse.Namespace) -> int:
    from analysis.tables.ladder import published_judged, remarks, rendered, study_table

    metric = study_options(options).metric(options.metric)
    if options.robustness:
        return _show_robustness(options)
    if options.published:
        refuse_study_options(options)
        study = load_study()
        regimes = [options.regime] if options.regime else study.published_regimes()
        tables = {f"{study.regime(regime).title}, as published": published_judged(study, regime) for regime in regimes}
    else:
        found = finished(options)
        tables = {each.choice.title: study_table(each.choice.study, each.results, metric) for each in found}
    form = _form(options)
    _give(_as_text(tables, form, partial(rendered, metric=metric)), options.output)
    _tell(tables, form, remarks)
    return 0


def _show_robustness(options: argparse.Namespace) -> int:
    from analysis.tables.robustness import remarks, rendered, robustness_table

    for name, given in (("published", options.published), ("metric", options.metric != TOP1.name)):
        if given:
            raise ValueError(f"--{name} has no say in --robustness, which has the paper's Table 8 below one's own runs")
    out = options.out or Path(load_study().defaults.out)
    tables = {each.choice.title: robustness_table(each.results, out) for each in finished(options)}
    tables = {title: each for title, each in tables.items() if each["runs"].any()}
    if not tables:
        told = "no run was held against other images yet (roadmap evaluate RUN --data imagenet-a=PATH)"
        raise ValueError(f"{out}: {told}")
    form = _form(options)
    _give(_as_text(tables, form, rendered), options.output)
    _tell(tables, form, remarks)
    return 0


def _tell(tables: dict[str, pd.DataFrame], form: str, remarks: Callable[[pd.DataFrame], list[str]]) -> None:
    for title, each in tables.items():
        for remark in remarks(each):
            print(f"{title}: {remark}", file=sys.stderr if form != "terminal" else sys.stdout)


def _form(options: argparse.Namespace) -> str:
    """Raises ValueError for an output that ends in none."""
    form = options.format or (SUFFIXES.get(options.output.suffix.lower()) if options.output else "terminal")
    if form is None:
        raise ValueError(f"{options.output}: a table ends in {', '.join(SUFFIXES)}, or --format says what it is")
    return str(form)


def _give(text: str, output: Path | None) -> None:
    """Printed, or in a file."""
    if output is None:
        print(text, end="")
        return
    from roadmap.files import write_atomic

    output.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(output, text.encode())
    print(f"table: {output}")


def _as_text(tables: dict[str, pd.DataFrame], form: str, render: Callable[[pd.DataFrame], pd.DataFrame]) -> str:
    from analysis.tables.ladder import written

    if form == "csv" and len(tables) > 1:
        raise ValueError("a CSV file holds one regime: choose with --regime")
    parts = []
    for title, each in tables.items():
        if form == "terminal":
            shown = render(each)
            parts.append(f"{title}\n\n{table(list(shown.columns), shown.to_numpy().tolist())}\n")
        else:
            parts.append(written(each, form, render, title))
    return "\n".join(parts)
