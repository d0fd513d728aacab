"""sample and space: draw designs from a space at equal cost, and analyse those that were trained."""

from __future__ import annotations

import argparse
import json
from typing import Any

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
from roadmap.spaces.definition import SAMPLES
from roadmap.text import count, table


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs, "sample", "draw designs from a space, at equal cost", "--space stage-ratio --regime resnet-50"
    )
    parser.add_argument("--space", required=True, metavar="NAME", help="a design space of ablations.yaml")
    add_number(parser, "--samples N", SAMPLES, "number of designs (default: 20)")
    add_number(parser, "--sample-seed N", Range(0), "draw other designs (default: 0)")
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
    from analysis.spaces.drawn import drawn_designs, space_of

    selection = choose(options)
    designs = list(drawn_designs(selection))
    if options.json:
        print(json.dumps(designs, indent=1))
        return 0
    print(table(["design", "parameters", "MACs", "blocks", "channels"], list(map(_row, designs))))
    if (macs := space_of(selection).macs) is not None:
        print(f"\nThe width of each design is solved for: {count(macs)} multiply-adds within 1 %.")
    return 0


def _row(design: dict[str, Any]) -> list[str]:
    depths, widths = (":".join(map(str, design[name])) for name in ("depths", "widths"))
    return [design["name"], f"{design['parameters'] / 1e6:.2f} M", count(design["macs"]), depths, widths]


def analyse(options: argparse.Namespace) -> int:
    from analysis.options import RunsOptions
    from analysis.spaces.conclusion import save_spaces
    from analysis.spaces.study import space_studies
    from analysis.spaces.table import space_text

    runs = RunsOptions(study_options(options), options.out, options.metric)
    studies = space_studies(runs, options.spaces)
    print(space_text(studies))
    for path in save_spaces(studies, runs.folder(), options.output or ()):
        print(f"figure: {path}")
    return 0
