"""figure: the roadmap figure, from the runs at hand or from the paper's tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from roadmap.cli.finished import finished
from roadmap.cli.options import add_study_options
from roadmap.cli.tables import refuse_study_options
from roadmap.study import load_study


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("figure", help="the roadmap figure")
    parser.add_argument("--published", action="store_true", help="from the paper's tables, without any run")
    parser.add_argument("-o", "--output", type=Path, action="append", help="a .png, .svg or .pdf; may be repeated")
    parser.add_argument("--metric", default="top1", help="top1 (default), top5, ema or loss")
    add_study_options(parser, ablation=True)
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.set_defaults(function=draw)


def draw(options: argparse.Namespace) -> int:
    from analysis.figures import draw_roadmap, save_figure
    from analysis.metrics import find_metric
    from analysis.results import published_series, series_of_runs

    metric = find_metric(options.metric)
    if options.published:
        refuse_study_options(options)
        study = load_study()
        regimes = [options.regime] if options.regime else study.published_regimes()
        series = [published_series(study, regime) for regime in regimes]
    else:
        found = finished(options)
        series = [series_of_runs(each.choice.study, each.results, each.choice.label, metric) for each in found]
    default = "roadmap-published" if options.published else "roadmap"
    paths = options.output or [Path(f"{default}.png"), Path(f"{default}.svg")]
    for path in save_figure(draw_roadmap(series), paths):
        print(f"figure: {path}")
    return 0
