"""figure: draw the roadmap figure and others, from finished runs or the paper's tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any, get_args

from roadmap.cli.options import add_output, add_run_options, add_verb, study_keywords, warnings_as_lines


def add_verbs(verbs: Any) -> None:
    from analysis.options import FIGURE_KINDS, Comparison, TradeoffAxis

    parser = add_verb(
        verbs, "figure", "draw the roadmap figure, and others, of finished runs or the paper", "--published"
    )
    parser.add_argument("--published", action="store_true", help="draw the paper's tables, without any run")
    kinds = ", ".join(f"{kind} ({about})" for kind, (about, _) in FIGURE_KINDS.items())
    parser.add_argument("--kind", choices=tuple(FIGURE_KINDS), default="roadmap", help=f"what to draw: {kinds}")
    parser.add_argument(
        "--compare",
        choices=get_args(Comparison),
        help="draw your roadmap beside the paper's, or yours minus the paper's",
    )
    parser.add_argument(
        "--against",
        metavar="REGIME",
        help="regime of the published table that --compare uses (default: the regime's own, else resnet-50)",
    )
    parser.add_argument(
        "--x",
        choices=get_args(TradeoffAxis),
        help="horizontal axis of a tradeoff: macs (default), parameters, measured throughput or memory",
    )
    parser.add_argument(
        "--throughput", action="store_true", help="write each network's images/s beside its bar, as `bench` measured it"
    )
    parser.add_argument(
        "--columns", type=int, choices=(1, 2), default=2, help="width of the figure, in columns of a page (default: 2)"
    )
    parser.add_argument("--to", metavar="TASK", help="the task of --kind transfer (default: the one with most runs)")
    parser.add_argument(
        "--recipe", metavar="NAME", help="the transfer recipe of --kind transfer (default: the task's first)"
    )
    add_output(parser, "a .png, .svg or .pdf; may be repeated (default: KIND.png and KIND.svg)", several=True)
    add_run_options(parser)
    parser.set_defaults(function=draw)


def draw(options: argparse.Namespace) -> int:
    from roadmap.api import figure

    parts = [options.kind, options.compare or "", "published" if options.published else ""]
    name = "-".join(part for part in parts if part)
    paths = options.output or [Path(f"{name}.png"), Path(f"{name}.svg")]
    with warnings_as_lines():
        figure(
            options.out,
            kind=options.kind,
            metric=options.metric,
            published=options.published,
            compare=options.compare,
            against=options.against,
            x=options.x,
            throughput=options.throughput,
            columns=options.columns,
            to=options.to,
            recipe=options.recipe,
            output=paths,
            **study_keywords(options),
        )
    for path in paths:
        print(f"figure: {path}")
    return 0
