"""sample: draw designs from a space at equal cost."""

from __future__ import annotations

import argparse
import json
from dataclasses import replace
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import add_number, add_study_options, add_verb, choose
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
