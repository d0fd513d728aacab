"""Measurements of `roadmap bench` by rung: rates, memory, and the published images/s."""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from analysis.published import published_model
from analysis.results import Series, series_of_bench
from analysis.tables.counterparts import QUANTITIES, names_of_networks, pairs_of
from roadmap.options import Selection
from roadmap.record.benchmarks import Conditions, Mode, Rates, Round, rates_of, workload_of
from roadmap.record.run import Run
from roadmap.serialization.plain_data import to_data
from roadmap.study.references import as_published
from roadmap.study.rungs import Rung
from roadmap.text import count, three_digits

MODES: tuple[Mode, ...] = ("training", "inference")


@dataclass(frozen=True)
class MeasuredRung:
    """A rung and one or more measurements of its network."""

    rung: Rung
    run: Run
    rounds: tuple[Round, ...]
    published: float | None  # the paper's images/s in inference on one V100, at the same image size

    @property
    def rates(self) -> dict[Mode, Rates | None]:
        return {mode: rates_of(self.rounds, mode) for mode in MODES}

    @property
    def record(self) -> dict[str, Any]:
        """The measurements as plain data."""
        first = self.rounds[0]
        names = ("regime", "workload", "image_size", "parameters", "macs", "started")
        return {
            "rung": self.rung.name,
            "published_v100_images_per_second": self.published,
            **{name: getattr(first, name) for name in names},
            "conditions": to_data(first.conditions),
            "rounds": len(self.rounds),
            **{mode: to_data(rates) for mode, rates in self.rates.items()},
            "matrix_gmacs_per_second": statistics.median(round.matrix_gmacs_per_second for round in self.rounds),
        }


def measured_rungs(selection: Selection, rounds: Sequence[Round]) -> list[MeasuredRung]:
    """The selected rungs with measurements. Rungs with the same network share them."""
    by_workload: dict[str, list[Round]] = {}
    for result in rounds:
        by_workload.setdefault(result.workload, []).append(result)
    rungs = [(rung, selection.run(rung)) for rung in selection.rungs()]
    measured = [(rung, run, by_workload[key]) for rung, run in rungs if (key := workload_of(run)) in by_workload]
    published = _published(selection, {rung.name: run for rung, run, _ in measured})
    return [
        MeasuredRung(rung, run, tuple(rung_rounds), published.get(rung.name)) for rung, run, rung_rounds in measured
    ]


def _published(selection: Selection, runs: Mapping[str, Run]) -> dict[str, float]:
    """The paper's images/s by rung, for the same network and image size."""
    names, published = names_of_networks(selection.context, runs), {}
    for rung, run in runs.items():
        name = names.get(rung, rung)
        model = published_model(name, run.experiment.recipe.image_size)
        if model and model.throughput and as_published(selection.study, selection.regime, name):
            published[rung] = model.throughput
    return published


def rate_row(row: MeasuredRung) -> dict[str, Any]:
    """A rung's rates as one row of numbers."""
    numbers: dict[str, Any] = {"rung": row.rung.name, "macs": row.rounds[0].macs, "rounds": len(row.rounds)}
    for mode, rates in row.rates.items():
        for name in ("images_per_second", "spread", "peak_bytes", "macs_per_second", "share"):
            numbers[f"{mode}_{name}"] = getattr(rates, name) if rates else None
    return numbers | {"published_v100_images_per_second": row.published, "conditions": str(row.rounds[0].conditions)}


def rate_table(rows: Sequence[MeasuredRung]) -> tuple[list[str], list[list[str]]]:
    """The header, and a line of text for each rung."""
    modes = [mode for mode in MODES if rows[0].rates[mode]]
    published = any(row.published for row in rows)
    header = ["rung", "MACs"]
    for mode in modes:
        header += [f"{mode} images/s", "MiB", "GMACs/s", "share of matmul"]
    header += ["V100, published"] if published else []
    lines = []
    for row in rows:
        line = [row.rung.name, count(row.rounds[0].macs)]
        for mode in modes:
            if rates := row.rates[mode]:
                line += _cells(rates)
        line += [f"{row.published or '-'}"] if published else []
        lines.append(line)
    return header, lines


def _cells(rates: Rates) -> list[str]:
    speed = three_digits(rates.images_per_second)
    decimals = len(speed.partition(".")[2])
    return [
        f"{speed} ±{rates.spread:.{decimals}f}",
        f"{rates.peak_bytes / 2**20:.0f}",
        three_digits(rates.macs_per_second / 1e9),
        f"{rates.share:.0%}",
    ]


def conditions_of(rows: Sequence[MeasuredRung]) -> list[str]:
    """A line for each set of conditions, with the rate of matrix products under them."""
    products: dict[Conditions, list[float]] = {}
    for row in rows:
        for result in row.rounds:
            products.setdefault(result.conditions, []).append(result.matrix_gmacs_per_second)
    return [
        f"{conditions}, torch {conditions.torch}: matmul {three_digits(statistics.median(rates))} GMACs/s"
        for conditions, rates in products.items()
    ]


def pair_table(selection: Selection, rows: Sequence[MeasuredRung]) -> tuple[list[str], list[list[str]]] | None:
    """Ratios of each ConvNeXt to the system of its size: the header, and a line for each pair. None without pairs."""
    runs = {row.rung.name: row.run for row in rows}
    pairs = pairs_of(selection.context, runs, [result for row in rows for result in row.rounds])
    if not pairs:
        return None
    names = [name for name in QUANTITIES if any(name in pair.ratios for pair in pairs)]
    lines = []
    for pair in pairs:
        published = {name: f" ({ratio:.2f})" for name, ratio in pair.published.items()}
        cells = [
            f"{pair.ratios[name].value:.2f}{published.get(name, '')}" if name in pair.ratios else "-" for name in names
        ]
        lines.append([f"{pair.titles[0]} / {pair.titles[1]}", *cells])
    return ["", *(QUANTITIES[name].title for name in names)], lines


def rate_series(selection: Selection, rows: Sequence[MeasuredRung], mode: Mode) -> Series:
    """The bars of a figure of images/s."""
    measured = [(row.rung, row.rounds) for row in rows]
    axis_title = f"images/s in {mode} on {rows[0].rounds[0].conditions}"
    return series_of_bench(selection.study, selection.title, measured, mode, axis_title)
