"""sample and space: draw designs from a space at equal cost, and analyse those that were trained."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import (
    add_number,
    add_out,
    add_output,
    add_study_options,
    add_verb,
    choose,
    study_options,
)
from roadmap.record.metrics import TOP1, metric_names
from roadmap.serialization.ranges import Range
from roadmap.text import count, table

if TYPE_CHECKING:
    from roadmap.options import Selection
    from roadmap.study.spaces import Sampled


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs, "sample", "draw designs from a space, at equal cost", "--space stage-ratio --regime resnet-50"
    )
    parser.add_argument("--space", required=True, metavar="NAME", help="a design space of ablations.yaml")
    add_number(parser, "--samples N", Range(1), "number of designs (default: 20)", default=20)
    add_number(parser, "--sample-seed N", Range(0), "draw other designs (default: 0)", default=0)
    add_study_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(function=sample)

    parser = add_verb(
        verbs, "space", "which values the best designs of a space have, with the uncertainty", "stage-ratio"
    )
    parser.add_argument("spaces", nargs="+", metavar="NAME", help="design spaces; several are compared")
    add_output(parser, "a .png, .svg or .pdf; may be repeated (default: in the folder of runs)", several=True)
    parser.add_argument("--metric", default=TOP1.name, metavar="NAME", help=f"metric of the runs: {metric_names()}")
    add_study_options(parser)
    add_out(parser)
    parser.set_defaults(function=analyse)


def sample(options: argparse.Namespace) -> int:
    from roadmap.study.spaces import SpaceOfRungs

    selection = choose(options)
    space = SpaceOfRungs(selection.context, options.space)
    drawn = space.samples(options.samples, options.sample_seed)
    designs = [replace(own, rung=selection.with_settings(own.rung)) for own in drawn]
    if options.json:
        print(json.dumps([_record(selection, own) for own in designs], indent=1))
        return 0
    print(table(["design", "parameters", "MACs", "blocks", "channels"], [_row(selection, own) for own in designs]))
    if space.macs is not None:
        print(f"\nThe width of each design is solved for: {count(space.macs)} multiply-adds within 1 %.")
    return 0


def _record(selection: Selection, drawn: Sampled) -> dict[str, Any]:
    cost, design = selection.cost(drawn.rung), drawn.design
    return {
        "name": drawn.rung.name,
        "parameters": cost.parameters,
        "macs": cost.macs,
        "identity": selection.run(drawn.rung).written_identity,
        "values": {name: list(value) if isinstance(value, tuple) else value for name, value in drawn.values.items()},
        "depths": list(design.depths),
        "widths": list(design.widths),
    }


def _row(selection: Selection, drawn: Sampled) -> list[str]:
    cost, design = selection.cost(drawn.rung), drawn.design
    depths, widths = (":".join(map(str, values)) for values in (design.depths, design.widths))
    return [drawn.rung.name, f"{cost.parameters / 1e6:.2f} M", count(cost.macs), depths, widths]


def analyse(options: argparse.Namespace) -> int:
    from analysis.figures.parts.style import save_figure
    from analysis.options import RunsOptions
    from analysis.spaces.figure import draw_spaces
    from analysis.spaces.study import space_study
    from analysis.spaces.table import space_text

    runs = RunsOptions(study_options(options), options.out, options.metric)
    studies = [space_study(runs, name) for name in dict.fromkeys(options.spaces)]
    print(space_text(studies))
    name = "-".join(["space", studies[0].run.regime, *options.spaces])
    paths = options.output or [runs.folder() / f"{name}{suffix}" for suffix in (".png", ".svg")]
    for path in save_figure(draw_spaces(studies), paths):
        print(f"figure: {path}")
    return 0
