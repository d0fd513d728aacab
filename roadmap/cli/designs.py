"""list, show, diff and cost: answered by arithmetic on designs, without torch."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import add_study_options, choose, number
from roadmap.design import Design
from roadmap.network.cost import Cost, cost
from roadmap.options import Selection
from roadmap.recipe import Experiment, changes
from roadmap.serialization import Range, show, to_data
from roadmap.study.references import REFERENCE, as_published
from roadmap.study.rungs import Rung
from roadmap.study.schema import SEEDS, THROUGHPUT
from roadmap.text import count, duration, table

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.published import Model
    from analysis.tables.counting import Counted
    from roadmap.record.estimates import Speed


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("list", help="the rungs: parameters, MACs, published accuracy")
    add_study_options(parser, ablation=True)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(function=list_rungs)

    parser = verbs.add_parser("show", help="a rung's design as data, and its block as a drawing")
    parser.add_argument(
        "step",
        metavar="STEP",
        help="a rung of `roadmap list`, a variant such as kernel-size=13, or steps alone: gelu+layer-norm",
    )
    add_study_options(parser)
    parser.add_argument("--json", action="store_true", help="the experiment as JSON")
    parser.add_argument("-o", "--output", type=Path, help="draw the block into a .png, .svg or .pdf too")
    parser.set_defaults(function=show_rung)

    parser = verbs.add_parser("diff", help="what changes from one rung to another, as data")
    parser.add_argument("before", metavar="A")
    parser.add_argument("after", metavar="B")
    add_study_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("-o", "--output", type=Path, help="draw both blocks into a .png, .svg or .pdf too")
    parser.set_defaults(function=diff_rungs)

    parser = verbs.add_parser("cost", help="device-hours before anything is submitted")
    parser.add_argument("--seeds", type=number(SEEDS, int), help="runs of each rung")
    parser.add_argument(
        "--gpus", type=number(Range(1), int), default=1, metavar="N", help="devices that share the work"
    )
    parser.add_argument("--device", help="a device of ablations.yaml (default: as runs measured it, else the regime's)")
    parser.add_argument(
        "--throughput", type=number(THROUGHPUT, float), metavar="MACS", help="multiply-adds a second of one device"
    )
    add_study_options(parser, ablation=True)
    parser.add_argument("--out", type=Path, help="folder of the runs that measured it")
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(function=show_cost)


def rung_cost(choice: Selection, rung: Rung) -> Cost:
    return cost(rung.experiment.design, rung.experiment.recipe.image_size, choice.dataset.classes)


def list_rungs(options: argparse.Namespace) -> int:
    choice, published = choose(options), {}
    if file := choice.study.regime(choice.regime).published:
        from analysis.published import published_rungs

        published = published_rungs(file)
    chosen = choice.rungs()
    rungs = [(rung, rung_cost(choice, rung), published.get(rung.name)) for rung in chosen]
    if options.json:
        beside = _published_counts(choice, chosen) if choice.references else {}
        records = [
            {
                "name": rung.name,
                "title": rung.title,
                "group": rung.group,
                "adopted": rung.adopted,
                "no_effect": rung.no_effect,
                "parameters": counted.parameters,
                "macs": counted.macs,
                "gmacs": round(counted.macs / 1e9, 4),
                "published": to_data(row) if row else None,
                **({"as_published": beside.get(rung.name, [])} if rung.group == REFERENCE else {}),
            }
            for rung, counted, row in rungs
        ]
        print(json.dumps(records, indent=2))
        return 0
    header = ["rung", "group", "parameters", "MACs"]
    rows = [
        [_marked(rung), rung.group, f"{counted.parameters / 1e6:.2f} M", count(counted.macs)]
        for rung, counted, _ in rungs
    ]
    if published:
        header += ["published top-1 %", "published GFLOPs"]
        for line, (_, counted, row) in zip(rows, rungs, strict=True):
            spread = f" ±{row.top1_std:.2f}" if row and row.top1_std is not None else ""
            odd = " *" if row and abs(row.gmacs - counted.macs / 1e9) > 0.0101 else ""
            line += [f"{row.top1_mean:.2f}{spread}", f"{row.gmacs:.2f}{odd}"] if row else ["", ""]
    print(table(header, rows))
    notes = []
    if not all(rung.adopted for rung, _, _ in rungs):
        notes.append("(…) tried, not adopted")
    if published and any(line[-1].endswith("*") for line in rows):
        notes.append("* printed so in the paper; the network itself has what stands under MACs")
    print("\n".join(["", *notes] if notes else []))
    if choice.references:
        _print_published_counts(choice, chosen)
    return 0


def _counted_beside(choice: Selection, rungs: Sequence[Rung]) -> list[Counted]:
    """The references that the regime has as they were published, beside what was published of them."""
    from analysis.tables.counting import counted_beside

    return counted_beside([rung for rung in rungs if as_published(choice.study, choice.regime, rung.name)])


def _published_counts(choice: Selection, rungs: Sequence[Rung]) -> dict[str, list[dict[str, Any]]]:
    """By reference, for each image size that is published: what is counted here, there, and percent between."""
    found: dict[str, list[dict[str, Any]]] = {}
    for each in _counted_beside(choice, rungs):
        ours = {"parameters": each.ours.parameters, "macs": each.ours.macs, "percent_off": round(each.off, 3)}
        found.setdefault(each.name, []).append({**ours, "published": to_data(each.published)})
    return found


def _print_published_counts(choice: Selection, rungs: Sequence[Rung]) -> None:
    found = _counted_beside(choice, rungs)
    if not found:
        return
    header = ["reference", "pixels", "parameters", "published", "GMACs", "published", "difference"]
    header += ["published top-1 %", "images/s of a V100"]
    rows = []
    for each in found:
        ours, theirs = each.ours, each.published
        counts = [
            f"{ours.macs / 1e9:.2f}",
            f"{theirs.gmacs:.1f}" if theirs.gmacs >= 1 else f"{theirs.gmacs:.2f}",
            f"{each.off:+.1f} %",
        ]
        speed = "" if theirs.throughput is None else f"{theirs.throughput:.1f}"
        sizes = [
            str(theirs.image_size),
            f"{ours.parameters / 1e6:.2f} M",
            f"{theirs.parameters / 1e6:.{0 if theirs.parameters > 1e7 else 1}f} M",
        ]
        rows.append([each.name, *sizes, *counts, f"{theirs.top1:.1f}" + _mark(theirs), speed])
    print(table(header, rows))
    notes = ["* pre-trained on ImageNet-22K"] if any(each.published.pretraining for each in found) else []
    notes += ["† not in the paper: as torchvision states it"] if any(each.published.stated_by for each in found) else []
    print("\n".join(["", *notes]))


def _mark(model: Model) -> str:
    return " *" if model.pretraining else " †" if model.stated_by else ""


def _marked(rung: Rung) -> str:
    name = rung.name if rung.adopted else f"({rung.name})"
    return f"{name}: no effect" if rung.no_effect else name


def show_rung(options: argparse.Namespace) -> int:
    from roadmap.network.drawing import draw_block, draw_network

    choice = choose(options)
    rung = choice.rung(options.step)
    if options.output:
        from analysis.figures.blocks import draw_block as draw_figure

        _save(draw_figure(rung.title, _drawable(rung)), options.output)
    if options.json:
        print(json.dumps(to_data(rung.experiment), indent=2))
        return 0
    counted = rung_cost(choice, rung)
    print(f"{rung.name}: {rung.title}" + (f" ({rung.group})" if rung.group else ""))
    print(f"{choice.regime}, {count(counted.parameters)} parameters, {count(counted.macs)} MACs\n")
    print(draw_network(rung.experiment.design) + "\n")
    if block := draw_block(rung.experiment.design):
        print(block + "\n")
    for name, value in to_data(rung.experiment).items():
        print(f"{name}:")
        print("\n".join(_outline(value, 1)))
    if rung.parent:
        print(f"\nagainst {rung.parent}:")
        before, after = choice.rung(rung.parent).experiment, rung.experiment
        for difference in changes(before, after):
            print(f"  {difference}")
    return 0


def _outline(data: dict[str, Any], depth: int) -> list[str]:
    lines = []
    for key, value in data.items():
        indent = "  " * depth
        if isinstance(value, dict) and any(isinstance(item, list | dict) for item in value.values()):
            lines += [f"{indent}{key}:", *_outline(value, depth + 1)]
        elif isinstance(value, list) and any(isinstance(item, dict) for item in value):
            lines += [f"{indent}{key}:", *(f"{indent}  - {show(item)}" for item in value)]
        else:
            lines.append(f"{indent}{key}: {show(value)}")
    return lines


def diff_rungs(options: argparse.Namespace) -> int:
    from roadmap.network.drawing import mark_changes

    choice = choose(options)
    rungs = [choice.rung(name) for name in (options.before, options.after)]
    before, after = (rung.experiment for rung in rungs)
    found = changes(before, after)
    if options.json:
        print(json.dumps(to_data(found), indent=2))
    elif not found:
        print(f"{options.before} and {options.after} are the same experiment")
    else:
        print("\n".join(map(str, found)))
        if before.design != after.design:
            print("\n" + mark_changes(before.design, after.design))
    if options.output:
        from analysis.figures.blocks import draw_change

        left, right = ((rung.name, _drawable(rung)) for rung in rungs)
        _save(draw_change(left, right), options.output)
    return 0


def _drawable(rung: Rung) -> Design:
    """Raises ValueError for another library's model."""
    if isinstance(rung.experiment.design, Design):
        return rung.experiment.design
    raise ValueError(f"-o draws the blocks of designs: {rung.name} is {rung.experiment.design}, which has none here")


def _save(figure: Figure, path: Path) -> None:
    from analysis.figures import save_figure

    for written in save_figure(figure, [path]):
        print(f"figure: {written}", file=sys.stderr)


def speed(choice: Selection, out: Path, device: str | None = None, throughput: float | None = None) -> Speed:
    """As given, else as the runs at hand measured it, else as the study has it. Raises ValueError for unknown names.

    On a cluster it is that of the profile's device; here that of whatever the newest runs were trained on.
    """
    from roadmap.record.estimates import speed_given, speed_measured, speed_of

    if throughput is not None:
        return speed_given(throughput)
    default = (choice.cluster and choice.cluster.device) or choice.study.regime(choice.regime).device
    measured = None if device else speed_measured(out, choice.regime, default if choice.cluster else None)
    return measured or speed_of(choice.study, device or default)


def distinct(rungs: Sequence[Rung]) -> list[Rung]:
    """The first rung of each experiment."""
    first: dict[Experiment, Rung] = {}
    for rung in rungs:
        first.setdefault(rung.experiment, rung)
    return list(first.values())


def show_cost(options: argparse.Namespace) -> int:
    choice = choose(options)
    seeds = choice.study.defaults.seeds if options.seeds is None else options.seeds
    found = speed(choice, options.out or Path(choice.study.defaults.out), options.device, options.throughput)
    source = found.source
    rungs = choice.rungs()
    new = distinct(rungs)
    each = {rung.name: found.device_hours(rung.experiment, choice.dataset) for rung in new}
    hours = {rung.name: each.get(rung.name, 0.0) * seeds for rung in rungs}
    total = sum(hours.values())
    if options.json:
        record = {"device": source, "seeds": seeds, "device_hours": hours, "total_device_hours": total}
        print(json.dumps(record, indent=2))
        return 0
    rows = []
    for rung in rungs:
        epochs, spent = rung.experiment.recipe.epochs, hours[rung.name]
        shared = duration(spent * 3600 / options.gpus)
        rows.append([rung.name, str(epochs), count(rung_cost(choice, rung).macs), f"{spent:.4g}", shared])
    rows.append(["all", "", "", f"{total:.4g}", duration(total * 3600 / options.gpus)])
    print(table(["rung", "epochs", "MACs", "device-hours", f"time on {options.gpus}"], rows))
    print(f"\n{seeds} seed{'s' if seeds > 1 else ''} each. {source}.")
    if len(new) < len(rungs):
        print("Rungs that are the same experiment are one run: the later ones cost nothing.")
    return 0
