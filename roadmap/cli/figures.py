"""figure: the roadmap figure, from the runs at hand or from the paper's tables."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

from roadmap.cli.options import Choice, add_study_options, choose, study_of
from roadmap.study import load_study


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("figure", help="the roadmap figure")
    parser.add_argument("--published", action="store_true", help="from the paper's tables, without any run")
    parser.add_argument("-o", "--output", type=Path, action="append", help="a .png, .svg or .pdf; may be repeated")
    add_study_options(parser, ablation=True)
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.set_defaults(function=draw)


def draw(options: argparse.Namespace) -> int:
    from analysis.figures import draw_roadmap, save_figure
    from analysis.results import published_series

    if options.published:
        given = {"steps": options.steps != "all", "ablation": options.ablation != "cumulative"}
        given |= {name: bool(getattr(options, name)) for name in ("fidelity", "data", "settings", "out", "plugins")}
        conflicting = [name for name, is_given in given.items() if is_given]
        if conflicting:
            option = {"settings": "set", "plugins": "plugin"}.get(conflicting[0], conflicting[0])
            raise ValueError(f"--published draws the paper's tables: --{option} has no say in it")
        study = load_study()
        regimes = [options.regime] if options.regime else study.published_regimes()
        series = [published_series(study, regime) for regime in regimes]
    else:
        series = _series_at_hand(options)
    default = "roadmap-published" if options.published else "roadmap"
    paths = options.output or [Path(f"{default}.png"), Path(f"{default}.svg")]
    for path in save_figure(draw_roadmap(series), paths):
        print(f"figure: {path}")
    return 0


def _series_at_hand(options: argparse.Namespace) -> list[Any]:
    """The regime asked for, else every regime of the study that has finished runs, in the study's order."""
    from analysis.results import collect, series_of_runs

    study = study_of(options)
    out = options.out or Path(study.defaults.out)
    series = []
    # Settings may fit one regime alone, so that those without any run are not even composed.
    for regime in [options.regime] if options.regime else [name for name in study.regimes if (out / name).is_dir()]:
        choice: Choice = choose(argparse.Namespace(**{**vars(options), "regime": regime}))
        results = collect([(rung, choice.run(rung)) for rung in choice.rungs(options.steps)], out)
        if any(result.seeds or result.diverged_seeds for result in results):
            series.append(series_of_runs(choice.study, results, choice.label))
    if not series:
        what = options.regime or "any regime"
        raise ValueError(f"{out}: no finished run of {what} as set here (`roadmap run` makes some)")
    return series
