"""list, show, diff and cost: computed from designs by arithmetic, without torch."""

from __future__ import annotations

import argparse
import json
import sys
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import add_number, add_out, add_output, add_seeds, add_study_options, add_verb, choose
from roadmap.recipe import changes
from roadmap.serialization.plain_data import to_data
from roadmap.serialization.ranges import Range
from roadmap.study.rungs import Rung
from roadmap.study.schema import THROUGHPUT
from roadmap.text import count, duration, outline, table

if TYPE_CHECKING:
    from roadmap.estimates import Estimate


def add_verbs(verbs: Any) -> None:
    parser = add_verb(verbs, "list", "list the rungs: parameters, MACs, published accuracy", "--regime resnet-50")
    add_study_options(parser, ablation=True)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.add_argument(
        "--transfer",
        metavar="TASK",
        help="count the networks of detection or segmentation, with heads, beside what is published",
    )
    parser.add_argument("--recipe", metavar="NAME", help="with --transfer: the transfer recipe whose heads are counted")
    parser.set_defaults(function=list_rungs)

    parser = add_verb(verbs, "show", "show a rung: its design as data, its block as a drawing", "kernel-size=13")
    parser.add_argument(
        "step",
        metavar="STEP",
        help="a rung of `roadmap list`, a variant such as kernel-size=13, or a combination of steps: gelu+layer-norm",
    )
    add_study_options(parser)
    parser.add_argument("--json", action="store_true", help="print the experiment as JSON instead of text")
    add_output(parser, "also draw the block into a .png, .svg or .pdf")
    parser.set_defaults(function=show_rung)

    parser = add_verb(verbs, "diff", "show the differences between two rungs", "resnet gelu")
    parser.add_argument("before", metavar="A", help="a rung, variant or combination of steps, as in `roadmap show`")
    parser.add_argument("after", metavar="B", help="the rung to compare with A")
    add_study_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_output(parser, "also draw both blocks into a .png, .svg or .pdf")
    parser.set_defaults(function=diff_rungs)

    parser = add_verb(verbs, "cost", "estimate the device-hours of training", "--regime resnet-50 --device v100")
    add_seeds(parser)
    add_number(parser, "--gpus N", Range(1), "devices that share the work (default: 1)", default=1)
    parser.add_argument(
        "--device", help="a device of ablations.yaml (default: the speed that runs measured, else the regime's device)"
    )
    add_number(
        parser,
        "--throughput MACS",
        THROUGHPUT,
        "multiply-adds per second of one device, instead of --device",
        kind=float,
    )
    add_study_options(parser, ablation=True)
    add_out(parser, "folder of the runs that measured the speed")
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(function=show_cost)


def list_rungs(options: argparse.Namespace) -> int:
    from analysis.tables.counting import count_rungs, published_count_table, rung_table

    if options.transfer:
        from roadmap.cli.transfer import list_transfers

        return list_transfers(options)
    if options.recipe:
        raise ValueError("--recipe requires --transfer: it names the recipe whose heads are counted")
    selection = choose(options)
    rungs = count_rungs(selection)
    if options.json:
        print(json.dumps([rung.record for rung in rungs], indent=2))
        return 0
    published = selection.study.regime(selection.regime).published is not None
    print(table(*rung_table(rungs, published=published)))
    notes = ["(…) tried, not adopted"] if not all(rung.rung.adopted for rung in rungs) else []
    if any(rung.misprinted for rung in rungs):
        notes.append("* as printed in the paper; the network itself has the number in column MACs")
    print("\n".join(["", *notes] if notes else []))
    if counts := [counted for rung in rungs for counted in rung.as_published]:
        print(table(*published_count_table(counts)))
        notes = ["* pre-trained on ImageNet-22K"] if any(row.published.pretraining for row in counts) else []
        if any(row.published.stated_by for row in counts):
            notes.append("† not in the paper: stated by torchvision")
        print("\n".join(["", *notes]))
    return 0


def show_rung(options: argparse.Namespace) -> int:
    from roadmap.network.drawing import draw_block, draw_network

    selection = choose(options)
    rung = selection.rung(options.step)
    if options.output:
        _draw(options.output, rung)
    if options.json:
        print(json.dumps(to_data(rung.experiment), indent=2))
        return 0
    counted = selection.cost(rung)
    print(f"{rung.name}: {rung.title}" + (f" ({rung.group})" if rung.group else ""))
    print(f"{selection.regime}, {count(counted.parameters)} parameters, {count(counted.macs)} MACs\n")
    print(draw_network(rung.experiment.design) + "\n")
    if block := draw_block(rung.experiment.design):
        print(block + "\n")
    print("\n".join(outline(to_data(rung.experiment))))
    if rung.parent:
        print(f"\nagainst {rung.parent}:")
        for difference in changes(selection.rung(rung.parent).experiment, rung.experiment):
            print(f"  {difference}")
    return 0


def diff_rungs(options: argparse.Namespace) -> int:
    from roadmap.network.drawing import mark_changes

    selection = choose(options)
    rungs = [selection.rung(name) for name in (options.before, options.after)]
    before, after = (rung.experiment for rung in rungs)
    differences = changes(before, after)
    if options.json:
        print(json.dumps(to_data(differences), indent=2))
    elif not differences:
        print(f"{options.before} and {options.after} are the same experiment")
    else:
        print("\n".join(map(str, differences)))
        if before.design != after.design:
            print("\n" + mark_changes(before.design, after.design))
    if options.output:
        _draw(options.output, *rungs)
    return 0


def _draw(path: Path, *rungs: Rung) -> None:
    from analysis.figures.blocks import save_rungs

    for written in save_rungs(rungs, [path]):
        print(f"figure: {written}", file=sys.stderr)


def show_cost(options: argparse.Namespace) -> int:
    from roadmap.estimates import estimate

    selection = choose(options)
    out = options.out or selection.study.defaults.out
    numbers = {name: getattr(options, name) for name in ("seeds", "gpus", "device", "throughput")}
    estimated = estimate(selection, out, **numbers)
    if options.json:
        hours = {row.rung.name: row.device_hours for row in estimated.rungs}
        ranges = {row.rung.name: row.hours_range for row in estimated.rungs}
        record: dict[str, Any] = {"device": estimated.source, "seeds": estimated.seeds, "device_hours": hours}
        record["device_hours_range"] = ranges
        print(json.dumps(record | {"total_device_hours": estimated.device_hours}, indent=2))
        return 0
    header = ["rung", "epochs", "MACs", "device-hours", f"time on {estimated.gpus}", "least to most device-hours"]
    print(table(header, _cost_rows(estimated)))
    print(f"\n{estimated.seeds} seed{'s' if estimated.seeds > 1 else ''} each. {estimated.source}.")
    if any(row.hours_range[0] < row.hours_range[1] for row in estimated.rungs):
        print("Least and most: at the speeds of the fastest and the slowest network that is known on that device.")
    if any(row.repeated for row in estimated.rungs):
        print("Rungs with the same experiment share one run: the later ones cost nothing.")
    return 0


def _cost_rows(estimated: Estimate) -> list[list[str]]:
    rows = [
        (row.rung.name, str(row.rung.experiment.recipe.epochs), count(row.cost.macs), row.device_hours, row.hours_range)
        for row in estimated.rungs
    ]
    everything = ("all", "", "", estimated.device_hours, estimated.hours_range)
    return [
        [name, epochs, macs, f"{hours:.4g}", duration(estimated.seconds(hours)), _range_text(*ends)]
        for name, epochs, macs, hours, ends in (*rows, everything)
    ]


def _range_text(least: float, most: float) -> str:
    return f"{least:.3g} to {most:.3g}" if least < most else ""
