"""bench data: where the input pipeline's time goes, and how many cores a device needs."""

from __future__ import annotations

import argparse
import json
import math
import statistics
from collections.abc import Sequence
from pathlib import Path

from roadmap.cli.options import choose, study_options
from roadmap.options import Selection
from roadmap.record.benchmarks import measured, read_rounds, workload_of
from roadmap.serialization import three_digits
from roadmap.study.rungs import Rung
from roadmap.text import many, table

IDLE = ("batch", "warm_up", "only", "cuda_graphs", "output")  # options of the networks alone


def bench_data(options: argparse.Namespace) -> int:
    _check(options)
    choice = choose(options)
    out = study_options(options).out(options.out)
    rung = choice.rungs()[-1]  # the modern recipe's, where nothing is said
    from roadmap.progress import show_count
    from runner.measure.pipeline import stage_seconds  # with all that training imports: what is wrong is said before

    rounds: list[dict[str, float]] = []
    try:
        with show_count(options.rounds, f"{choice.title}, {rung.name}") as say:
            found = stage_seconds(choice.run(rung), choice.execution, options.rounds, options.seconds)
            for number, each in enumerate(found, start=1):
                rounds.append(each)
                say(f"round {number} of {options.rounds}: {three_digits(1 / sum(each.values()))} images/s")
    finally:
        if rounds:  # also where it was stopped
            _print(choice, rung, rounds, _rate(choice, options, out), in_json=options.json)
    return 0


def _print(
    choice: Selection,
    rung: Rung,
    rounds: Sequence[dict[str, float]],
    needed: tuple[float | None, str],
    *,
    in_json: bool,
) -> None:
    from runner.measure.pipeline import REST, TRAINERS, WORKERS

    stages = {stage: statistics.median(each[stage] for each in rounds) for stage in (*WORKERS, *TRAINERS, REST)}
    worker, all_of_it = (_median_sum(rounds, which) for which in (WORKERS, tuple(stages)))
    rate, source = needed
    if in_json:
        record = {
            "rung": rung.name,
            "milliseconds": {stage: seconds * 1e3 for stage, seconds in stages.items()},
            "images_per_second_of_a_core": 1 / all_of_it,
            "images_per_second_of_a_worker": 1 / worker,
            "device_images_per_second": rate,
            "workers_needed": math.ceil(rate * worker) if rate else None,
        }
        print(json.dumps(record, indent=2))
        return
    lines = [
        [stage, "worker" if stage in WORKERS else "trainer", f"{seconds * 1e3:.3f}", f"{seconds / all_of_it:.0%}"]
        for stage, seconds in stages.items()
        if seconds
    ]
    lines += [
        ["a worker's part", "", f"{worker * 1e3:.3f}", f"{worker / all_of_it:.0%}"],
        ["all", "", f"{all_of_it * 1e3:.3f}", "100%"],
    ]
    print(f"{choice.title}, {rung.name}: {rung.experiment.recipe.image_size} pixels\n")
    print(table(["stage", "whose", "ms an image", "of all"], lines))
    print(f"\nMedians of {many(len(rounds), 'round')}. One core does {three_digits(1 / all_of_it)} images/s, ", end="")
    print(f"and as a worker beside the trainer {three_digits(1 / worker)}.")
    if rate:
        cores = math.ceil(rate * worker)
        print(f"A device that trains on {three_digits(rate)} images/s{source} keeps {many(cores, 'worker')} busy.")
    else:
        print("--rate IMAGES tells how many workers a device needs that trains on so many images/s.")


def _median_sum(rounds: Sequence[dict[str, float]], stages: Sequence[str]) -> float:
    return statistics.median(sum(each[stage] for stage in stages) for each in rounds)


def _check(options: argparse.Namespace) -> None:
    """Raises ValueError for options that have no say."""
    for name in IDLE:
        if getattr(options, name) is not None and getattr(options, name) is not False:
            raise ValueError(f"--{name.replace('_', '-')} has no say in bench data: it is of the networks")


def _rate(choice: Selection, options: argparse.Namespace, out: Path) -> tuple[float | None, str]:
    """Images/s of a device in training, and where that is from: as given, else as bench measured the fastest rung."""
    if options.rate is not None:
        return options.rate, ""
    workloads = {workload_of(choice.run(rung)): rung.name for rung in choice.rungs()}
    found = measured(read_rounds(out), "training_images_per_second", workloads)
    if found is None:
        return None, ""
    workload, rate = max(found.values.items(), key=lambda item: item[1])
    return rate, f" (as {workloads[workload]} was measured on {found.conditions})"
