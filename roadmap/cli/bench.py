"""bench: speed and memory of the networks on this machine, or the time of each stage of the input pipeline."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import FAILED, add_number, add_out, add_output, add_study_options, add_verb, study_options
from roadmap.options import Selection
from roadmap.record.benchmarks import FILE
from roadmap.serialization.ranges import Range
from roadmap.text import many, table, three_digits

if TYPE_CHECKING:
    from analysis.tables.bench import MeasuredRung
    from runner.measure.networks import Measurement
    from runner.measure.pipeline import PipelineTimes

NETWORKS_ONLY = ("batch", "warm_up", "only", "cuda_graphs", "output")  # options that bench data does not use


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs, "bench", "measure images/s and memory of the rungs, or the input pipeline", "--steps recipe,gelu"
    )
    parser.add_argument(
        "what",
        nargs="?",
        choices=("networks", "data"),
        default="networks",
        help="networks (default): the rungs, on one device; data: the stages of the input pipeline, on one core",
    )
    add_study_options(parser, ablation=True)
    add_number(
        parser, "--batch N", Range(1), "images in a batch (default: those of a device in training; on a CPU 16 of 224²)"
    )
    add_number(parser, "--rounds N", Range(1), "measurements of each rung (default: 5)", default=5)
    add_number(parser, "--warm-up N", Range(0), "steps before the clock starts (default: 2, or on a GPU 10)")
    add_number(
        parser,
        "--seconds S",
        Range(above=0),
        "minimum time of each measurement, in whole steps (default: 1)",
        default=1.0,
        kind=float,
    )
    parser.add_argument(
        "--only", choices=("training", "inference"), help="measure only training, or only inference (default: both)"
    )
    parser.add_argument("--cuda-graphs", action="store_true", help="capture each step once and replay it (GPU only)")
    add_number(
        parser,
        "--rate IMAGES",
        Range(above=0),
        "data: images/s of a device that needs workers (default: as measured)",
        kind=float,
    )
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    add_output(parser, "also draw images/s as bars into a .png, .svg or .pdf; may be repeated", several=True)
    add_out(parser, "folder of the runs, whose bench.jsonl keeps every measurement")
    parser.set_defaults(function=bench)


def bench(options: argparse.Namespace) -> int:
    return bench_networks(options) if options.what == "networks" else bench_data(options)


def bench_networks(options: argparse.Namespace) -> int:
    from analysis.figures.kinds import save_rates
    from runner.measure.networks import NetworkBench
    from runner.measure.plan import BenchOptions

    if options.rate is not None:
        raise ValueError("--rate applies to bench data only")
    names = ("batch", "rounds", "warm_up", "seconds", "only", "cuda_graphs")
    bench_options = BenchOptions(**{name: getattr(options, name) for name in names})
    if options.output:
        from analysis.figures import prepare_files

        prepare_files(options.output)
    networks = NetworkBench.of(study_options(options), bench_options, options.out)
    selection, file = networks.selection, networks.out / FILE
    measurements: list[Measurement] = []
    try:
        for measurement in networks.measure():
            measurements.append(measurement)  # those so far are printed after an interrupt
    except (KeyboardInterrupt, SystemExit):
        kept = any(measurement.result for measurement in measurements)
        state = f"measurements are kept in {file}" if kept else "nothing was measured"
        print(f"stopped: {state}", file=sys.stderr)
        raise
    finally:
        rows = _print_rates(selection, measurements, in_json=options.json)
    for path in save_rates(selection, rows, options.only, options.output or ()):
        print(f"figure: {path}", file=sys.stderr)
    for measurement in measurements:
        if measurement.failure:
            print(f"failed: {measurement.run.rung}: {measurement.failure}", file=sys.stderr)
    if rows and not options.json:
        _print_pairs(selection, rows, options)
        print(f"Kept in {file}." + _figure_command(selection, options))
    return FAILED if any(measurement.failure for measurement in measurements) else 0


def _print_rates(selection: Selection, measurements: Sequence[Measurement], *, in_json: bool) -> list[MeasuredRung]:
    """Prints and returns the measured rungs, also when the command was stopped early."""
    from analysis.tables.bench import conditions_of, measured_rungs, rate_table

    rows = measured_rungs(selection, [measurement.result for measurement in measurements if measurement.result])
    if in_json:
        print(json.dumps([row.record for row in rows], indent=2))
    elif rows:
        print(f"{selection.title}\n" + "\n".join(conditions_of(rows)))
        print("\n" + table(*rate_table(rows)) + "\n")
        rounds = many(max(len(row.rounds) for row in rows), "round")
        print(f"Medians of {rounds}, ± half of their range. ", end="")
        print("Training counts three times the forward pass's multiply-adds.")
        if any(row.published for row in rows):
            print("Published: images/s of inference on one V100, in the paper's Tables 1 and 2.")
    return rows


def _print_pairs(selection: Selection, rows: Sequence[MeasuredRung], options: argparse.Namespace) -> None:
    from analysis.tables.bench import pair_table

    if pairs := pair_table(selection, rows):
        print(
            "\nA ConvNeXt over the system of its size, medians of the rounds' ratios (and as published, on one V100)\n"
        )
        print(table(*pairs))
        out = f" --out {options.out}" if options.out else ""
        print(f"\nAs a figure: roadmap figure --kind counterparts --regime {selection.regime}{out}")


def _figure_command(selection: Selection, options: argparse.Namespace) -> str:
    """A sentence with the command that draws the measurements.

    Empty where no figure shows them: figures show inference, on the regime's own data.
    """
    if selection.label or options.only == "training":
        return ""
    parts = ["roadmap figure --throughput --regime", selection.regime]
    parts += ["--published"] if selection.study.regime(selection.regime).published else []
    return " In the figure: " + " ".join([*parts, *(["--out", str(options.out)] if options.out else [])])


def bench_data(options: argparse.Namespace) -> int:
    for name in NETWORKS_ONLY:
        if (value := getattr(options, name)) is not None and value is not False:
            raise ValueError(f"--{name.replace('_', '-')} applies to bench networks only")
    from runner.measure.pipeline import measure_pipeline

    study, newest = study_options(options), None
    try:
        for times in measure_pipeline(study, options.rounds, options.seconds, options.rate, options.out):
            newest = times
    finally:
        if newest and options.json:  # also when the command was stopped
            print(json.dumps(newest.record, indent=2))
        elif newest:
            _print_times(newest)
    return 0


def _print_times(times: PipelineTimes) -> None:
    from runner.measure.pipeline import WORKERS

    print(f"{times.title}: {times.image_size} pixels\n")
    lines = [
        [stage, "worker" if stage in WORKERS else "trainer", f"{seconds * 1e3:.3f}", f"{seconds / times.total:.0%}"]
        for stage, seconds in times.stages.items()
        if seconds
    ]
    for name, seconds in (("worker total", times.worker), ("total", times.total)):
        lines.append([name, "", f"{seconds * 1e3:.3f}", f"{seconds / times.total:.0%}"])
    print(table(["stage", "process", "ms per image", "share"], lines))
    print(
        f"\nMedians of {many(times.rounds, 'round')}. One core does {three_digits(1 / times.total)} images/s, ", end=""
    )
    print(f"and as a worker beside the trainer {three_digits(1 / times.worker)}.")
    if times.device and times.workers_needed:
        source = f" (as {times.device.source})" if times.device.source else ""
        rate, workers = three_digits(times.device.images_per_second), many(times.workers_needed, "worker")
        print(f"A device that trains on {rate} images/s{source} keeps {workers} busy.")
    else:
        print("--rate IMAGES computes how many workers keep a device of that many images/s busy.")
