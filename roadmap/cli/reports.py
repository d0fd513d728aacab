"""report: runs, tables and designs as one HTML page, in a file or served while a study runs."""

from __future__ import annotations

import argparse
import hashlib
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.finished import Finished, attribution_of, choices_with_runs
from roadmap.cli.options import INTERRUPTED, add_metric, add_study_options, study_options
from roadmap.record.metrics import Metric
from roadmap.study.load import load_study

if TYPE_CHECKING:
    import pandas as pd

    from analysis.attribution import Attribution
    from analysis.report.page import Part
    from analysis.report.serving import State

PORT = 8642


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("report", help="one HTML page of everything: figure, table, curves, designs, costs")
    parser.add_argument("-o", "--output", type=Path, help="a .html (default: report.html among the runs)")
    add_metric(parser)
    add_study_options(parser, ablation=True)
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.add_argument(
        "--serve",
        type=int,
        nargs="?",
        const=PORT,
        metavar="PORT",
        help=f"serve the page on this machine (port {PORT}; 0: any free), refreshed while runs go on",
    )
    parser.set_defaults(function=report)


def report(options: argparse.Namespace) -> int:
    from analysis.collection import collect
    from analysis.report.page import render
    from roadmap.files import write_atomic

    metric = study_options(options).metric(options.metric)
    out = options.out or Path(load_study().defaults.out)
    if options.serve is not None:
        return _serve(options, out, metric)
    path = options.output or out / "report.html"
    if path.suffix.lower() not in (".html", ".htm"):
        raise ValueError(f"{path}: a report ends in .html")
    table = collect(out)
    page = render(_parts(options, table, out, metric), table, out, metric)
    path.parent.mkdir(parents=True, exist_ok=True)
    write_atomic(path, page.encode())
    print(f"report: {path}")
    return 0


def _parts(options: argparse.Namespace, table: pd.DataFrame, out: Path, metric: Metric) -> list[Part]:
    from analysis.report.page import Part

    return [
        Part(
            each.choice.study,
            each.results,
            ", ".join(each.choice.differences),
            _parents(each),
            _attribution(each, options.steps, table, metric),
        )
        for each in choices_with_runs(options, table, out, begun=True)
    ]


def _parents(found: Finished) -> dict[str, Any]:
    """The experiments of rungs that others are held against without being shown themselves."""
    shown = {result.rung.name for result in found.results}
    missing = {result.rung.parent for result in found.results if result.rung.parent} - shown
    return {name: found.choice.rung(name).experiment for name in sorted(missing)}


def _attribution(found: Finished, steps: str, table: pd.DataFrame, metric: Metric) -> Attribution | None:
    """What each step is worth beyond the one path, where there are runs that tell."""
    try:
        told = attribution_of(found.choice, steps, table, metric)
    except ValueError:
        return None
    return told if told.worths else None


def _serve(options: argparse.Namespace, out: Path, metric: Metric) -> int:
    from analysis.report.serving import make_server

    if options.output:
        raise ValueError("--serve writes no file: -o has no say in it")
    _look(options, out, metric).make()  # what is wrong from the start is said here, not on the page
    with make_server(lambda: _look_on(options, out, metric), options.serve) as server:
        host, port = server.server_address[:2]
        print(f"report: http://{host!s}:{port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("stopped")
            return INTERRUPTED
    return 0


def _look(options: argparse.Namespace, out: Path, metric: Metric) -> State:
    from analysis.collection import collect
    from analysis.report.page import render
    from analysis.report.serving import State

    table = collect(out)
    version = hashlib.sha256(table.to_csv().encode()).hexdigest()[:16]
    return State(version, lambda: render(_parts(options, table, out, metric), table, out, metric, version=version))


def _look_on(options: argparse.Namespace, out: Path, metric: Metric) -> State:
    """What can't be read at this moment is told on the page, which asks again."""
    from analysis.collection import empty_table
    from analysis.report.page import render
    from analysis.report.serving import State

    def told(message: str, version: str) -> str:
        return render([], empty_table(), out, metric, version=version, notice=message)

    try:
        state = _look(options, out, metric)
    except (ValueError, OSError) as error:
        return State(str(error), partial(told, str(error), str(error)))

    def make() -> str:
        try:
            return state.make()
        except (ValueError, OSError) as error:
            return told(str(error), state.version)

    return State(state.version, make)
