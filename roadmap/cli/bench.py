"""bench: how fast the networks are here, and the memory that they take; pipeline.py has how fast images come."""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Callable, Sequence
from dataclasses import fields
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

from roadmap.cli.options import FAILED, add_study_options, choose, number, study_options
from roadmap.cli.pipeline import bench_data
from roadmap.options import Selection
from roadmap.record.benchmarks import FILE, Conditions, Mode, Rates, Round, append_round, rates_of, workload_of
from roadmap.record.run import Run
from roadmap.serialization import Range, three_digits, to_data
from roadmap.study.execution import Execution
from roadmap.study.references import as_published
from roadmap.study.rungs import Rung
from roadmap.text import count, many, table

BOTH: tuple[Mode, ...] = ("training", "inference")
# What of an execution has a say.
USED = {
    "networks": ("device", "device_batch", "threads", "channels_last", "compile"),
    "data": ("device", "device_batch", "channels_last", "augment", "bad_images"),
}


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("bench", help="measured images/s and memory of every rung")
    parser.add_argument(
        "what",
        nargs="?",
        choices=tuple(KINDS),
        default="networks",
        help="networks (default): the rungs, on one device; data: where the input pipeline's time goes, on one core",
    )
    add_study_options(parser, ablation=True)
    parser.add_argument(
        "--batch",
        type=number(Range(1), int),
        metavar="N",
        help="images at a time (default: a device's in training; on a CPU 16 of 224²)",
    )
    parser.add_argument(
        "--rounds",
        type=number(Range(1), int),
        default=5,
        metavar="N",
        help="measurements of each rung (default: 5)",
    )
    parser.add_argument(
        "--warm-up",
        type=number(Range(0), int),
        metavar="N",
        help="steps before the clock starts (default: 2, or on a GPU 10)",
    )
    parser.add_argument(
        "--seconds",
        type=number(Range(above=0), float),
        default=1.0,
        help="that are measured at least, in whole steps (default: 1)",
    )
    parser.add_argument("--only", choices=BOTH, help="one of both")
    parser.add_argument("--cuda-graphs", action="store_true", help="replay what was captured once (on a GPU)")
    parser.add_argument(
        "--rate",
        type=number(Range(above=0), float),
        metavar="IMAGES",
        help="of data: images/s of a device, for how many workers it needs",
    )
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.add_argument("-o", "--output", type=Path, action="append", help="images/s as bars: a .png, .svg or .pdf")
    parser.add_argument("--out", type=Path, help="folder of the runs, whose bench.jsonl keeps every measurement")
    parser.set_defaults(function=bench)


def bench(options: argparse.Namespace) -> int:
    for setting in options.settings:
        section, _, key = setting.partition("=")[0].partition(".")
        if section == "execution" and key in {field.name for field in fields(Execution)} - set(USED[options.what]):
            used = ", ".join(USED[options.what])
            instead = "; --data NAME=PATH has" if key == "data_path" else f"; of the execution {used} have"
            raise ValueError(f"--set {setting} has no say in bench {options.what}{instead}")
    return KINDS[options.what](options)


def bench_networks(options: argparse.Namespace) -> int:
    from roadmap.progress import show_count
    from runner.measure.networks import rounds_of
    from runner.measure.plan import make_plan

    choice = choose(options)
    out = study_options(options).out(options.out)
    _check(options)
    rungs = choice.rungs()
    networks: dict[str, Run] = {}  # by workload, since two rungs may be one
    for rung in rungs:
        networks.setdefault(workload_of(choice.run(rung)), choice.run(rung))
    plan = make_plan(
        list(networks.values()),
        choice.execution,
        batch=options.batch,
        warm_up=options.warm_up,
        seconds=options.seconds,
        what=(options.only,) if options.only else BOTH,
        cuda_graphs=options.cuda_graphs,
    )
    found: dict[str, list[Round]] = {workload: [] for workload in networks}
    failed: dict[str, str] = {}

    def shown() -> list[tuple[Rung, list[Round]]]:
        return [(rung, rounds) for rung in rungs if (rounds := found[workload_of(choice.run(rung))])]

    out.mkdir(parents=True, exist_ok=True)
    started = datetime.now(UTC).isoformat(timespec="seconds")
    try:
        with show_count(len(networks) * options.rounds, choice.title) as say:
            for run, number, result in rounds_of(list(networks.values()), plan, options.rounds, started):
                said = f"failed: {result}"
                if isinstance(result, str):
                    failed[workload_of(run)] = result
                else:
                    append_round(out, result)
                    found[result.workload].append(result)
                    said = _said(result)
                say(f"{run.rung}, round {number} of {options.rounds}: {said}")
    except (KeyboardInterrupt, SystemExit):
        told = f"what was measured is kept in {out / FILE}" if shown() else "nothing was measured yet"
        print(f"stopped: {told}", file=sys.stderr)
        raise
    finally:
        _print(choice, shown(), options)
    if options.output and shown():
        _draw(choice, shown(), options)
    for workload, why in failed.items():
        print(f"failed: {networks[workload].rung}: {why}", file=sys.stderr)
    if not options.json and shown():
        _print_pairs(choice, shown(), options)
        print(f"Kept in {out / FILE}." + _figure(choice, options))
    return FAILED if failed else 0


def _figure(choice: Selection, options: argparse.Namespace) -> str:
    """The command that takes what was measured, where there is one: figures are of the paper's data, in inference."""
    if choice.label or options.only == "training":
        return ""
    parts = ["roadmap figure --throughput --regime", choice.regime]
    parts += ["--published"] if choice.study.regime(choice.regime).published else []
    return " In the figure: " + " ".join([*parts, *(["--out", str(options.out)] if options.out else [])])


def _check(options: argparse.Namespace) -> None:
    """Raises ValueError for what has no say."""
    if options.rate is not None:
        raise ValueError("--rate has no say in bench networks: it is of bench data")
    if options.output:
        from analysis.figures import check_suffixes

        check_suffixes(options.output)
        for path in options.output:  # what can't be written is said before anything is measured
            path.parent.mkdir(parents=True, exist_ok=True)


def _said(result: Round) -> str:
    rates = {what: rates_of([result], what) for what in BOTH}
    return ", ".join(
        f"{three_digits(each.images_per_second)} images/s in {what}" for what, each in rates.items() if each
    )


def _print(choice: Selection, shown: Sequence[tuple[Rung, Sequence[Round]]], options: argparse.Namespace) -> None:
    """What was measured of each rung, however far that is."""
    published = _published(choice, shown)
    if options.json:
        records = [_record(rung, rounds, published.get(rung.name)) for rung, rounds in shown]
        print(json.dumps(records, indent=2))
        return
    if not shown:
        return
    kinds: list[Mode] = [what for what in BOTH if rates_of(shown[0][1], what)]
    header = ["rung", "MACs"]
    for what in kinds:
        header += [f"{what} images/s", "MiB", "GMACs/s", "share of matmul"]
    header += ["V100, published"] if published else []
    rows = []
    for rung, rounds in shown:
        row = [rung.name, count(rounds[0].macs)]
        for what in kinds:
            if rates := rates_of(rounds, what):
                row += _cells(rates)
        row += [f"{published.get(rung.name, '-')}"] if published else []
        rows.append(row)
    print(f"{choice.title}\n" + "\n".join(_heading(shown)))
    print("\n" + table(header, rows) + "\n")
    print(f"Medians of {many(max(len(rounds) for _, rounds in shown), 'round')}, ± half of their range. ", end="")
    print("Training counts three times the forward pass's multiply-adds.")
    if published:
        print("Published: images/s of inference on one V100, in the paper's Tables 1 and 2.")


def _published(choice: Selection, shown: Sequence[tuple[Rung, Sequence[Round]]]) -> dict[str, float]:
    """By rung the images/s that the paper has of its network, at the same image size."""
    from analysis.published import published_model
    from analysis.tables.counterparts import names_of_networks

    names = names_of_networks(choice.context, {rung.name: choice.run(rung) for rung, _ in shown})
    found = {}
    for rung, _ in shown:
        name = names.get(rung.name, rung.name)
        model = published_model(name, rung.experiment.recipe.image_size)
        if model and model.throughput and as_published(choice.study, choice.regime, name):
            found[rung.name] = model.throughput
    return found


def _print_pairs(choice: Selection, shown: Sequence[tuple[Rung, Sequence[Round]]], options: argparse.Namespace) -> None:
    """Each ConvNeXt over the system of its size, where both were measured."""
    from analysis.tables.counterparts import QUANTITIES, pairs_of

    networks = {rung.name: choice.run(rung) for rung, _ in shown}
    pairs = pairs_of(choice.context, networks, [each for _, rounds in shown for each in rounds])
    if not pairs:
        return
    kinds = [name for name in QUANTITIES if any(name in pair.ratios for pair in pairs)]
    rows = []
    for pair in pairs:
        cells = [
            f"{pair.ratios[name].value:.2f}" + (f" ({pair.published[name]:.2f})" if name in pair.published else "")
            if name in pair.ratios
            else "-"
            for name in kinds
        ]
        rows.append([f"{pair.titles[0]} / {pair.titles[1]}", *cells])
    print("\nA ConvNeXt over the system of its size, medians of the rounds' ratios (and as published, on one V100)\n")
    print(table(["", *(QUANTITIES[name].title for name in kinds)], rows))
    out = f" --out {options.out}" if options.out else ""
    print(f"\nAs a figure: roadmap figure --kind counterparts --regime {choice.regime}{out}")


def _draw(choice: Selection, shown: Sequence[tuple[Rung, Sequence[Round]]], options: argparse.Namespace) -> None:
    """Images/s in inference as bars, or in training where no other was measured."""
    from analysis.figures import draw_roadmap, save_figure
    from analysis.results import series_of_bench

    what: Mode = options.only or "inference"
    where = f"images/s in {what} on {shown[0][1][0].conditions}"
    series = series_of_bench(choice.study, choice.title, shown, what, where)
    for path in save_figure(draw_roadmap([series]), options.output):
        print(f"figure: {path}", file=sys.stderr)


def _cells(rates: Rates) -> list[str]:
    speed = three_digits(rates.images_per_second)
    decimals = len(speed.partition(".")[2])
    return [
        f"{speed} ±{rates.spread:.{decimals}f}",
        f"{rates.peak_bytes / 2**20:.0f}",
        three_digits(rates.macs_per_second / 1e9),
        f"{rates.share:.0%}",
    ]


def _heading(shown: Sequence[tuple[Rung, Sequence[Round]]]) -> list[str]:
    """What the networks were measured under, and the rate of matrix products there."""
    products: dict[Conditions, list[float]] = {}
    for _, rounds in shown:
        for each in rounds:
            products.setdefault(each.conditions, []).append(each.matrix_gmacs_per_second)
    return [
        f"{conditions}, torch {conditions.torch}: matmul {three_digits(rate)} GMACs/s"
        for conditions, rates in products.items()
        for rate in [statistics.median(rates)]
    ]


def _record(rung: Rung, rounds: Sequence[Round], published: float | None) -> dict[str, Any]:
    first = rounds[0]
    names = ("regime", "workload", "image_size", "parameters", "macs", "started")
    rates = {what: rates_of(rounds, what) for what in BOTH}
    return {
        "rung": rung.name,
        "published_v100_images_per_second": published,
        **{name: getattr(first, name) for name in names},
        "conditions": to_data(first.conditions),
        "rounds": len(rounds),
        **{what: to_data(each) if each else None for what, each in rates.items()},
        "matrix_gmacs_per_second": statistics.median([each.matrix_gmacs_per_second for each in rounds]),
    }


KINDS: dict[str, Callable[[argparse.Namespace], int]] = {"networks": bench_networks, "data": bench_data}
