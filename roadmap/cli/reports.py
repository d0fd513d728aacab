"""report: runs, tables and designs on one HTML page, written to a file or served while a study runs."""

from __future__ import annotations

import argparse
from typing import Any

from roadmap.cli.options import INTERRUPTED, add_output, add_run_options, add_verb, number, study_keywords
from roadmap.serialization.ranges import Range

PORT = 8642


def add_verbs(verbs: Any) -> None:
    parser = add_verb(verbs, "report", "write one HTML page: figure, table, curves, designs, costs", "--serve")
    add_output(parser, "a .html (default: report.html in the folder of the runs)")
    add_run_options(parser)
    parser.add_argument(
        "--serve",
        type=number(Range(0, 2**16 - 1), int),
        nargs="?",
        const=PORT,
        metavar="PORT",
        help=f"serve the page on this machine instead, and update it while runs are in training (default port: {PORT}; "
        "0: any free port)",
    )
    parser.set_defaults(function=report)


def report(options: argparse.Namespace) -> int:
    from roadmap import api

    if options.serve is not None:
        return _serve(options)
    path = api.report(options.out, output=options.output, metric=options.metric, **study_keywords(options))
    print(f"report: {path}")
    return 0


def _serve(options: argparse.Namespace) -> int:
    from roadmap.api import report_server

    if options.output:
        raise ValueError("-o does not apply to --serve, which writes no file")
    keywords = study_keywords(options)
    with report_server(options.out, port=options.serve, metric=options.metric, **keywords) as server:
        host, port = server.server_address[:2]
        print(f"report: http://{host!s}:{port}/ (Ctrl-C ends it)", flush=True)
        try:
            server.serve_forever(poll_interval=0.2)
        except KeyboardInterrupt:
            print("stopped")
            return INTERRUPTED
    return 0
