"""Robustness of networks: corruption errors, accuracies on other distributions, and the paper's Table 8."""

from __future__ import annotations

import statistics
import warnings
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import pandas as pd

from analysis.options import RunsWarning
from analysis.published import Robustness, alexnet_errors, published_robustness
from analysis.results import Result
from analysis.statistics.samples import Sample
from analysis.tables.ladder import spread
from roadmap.data.robustness import (
    CORRUPTIONS,
    EXTRA,
    SEVERITIES,
    SHIFTS,
    Evaluation,
    Shift,
    Shifted,
    read_evaluations,
)
from roadmap.files import InvalidFile
from roadmap.record.metrics import TOP1
from roadmap.serialization.plain_data import to_data

COLUMNS = {"imagenet-c": "C (mCE)", "imagenet-a": "A", "imagenet-r": "R", "imagenet-sketch": "Sketch"}


def errors_by_corruption(evaluations: Iterable[Evaluation]) -> dict[str, dict[str, float]]:
    """Top-1 errors in percent, by corruption and severity, in order."""
    by_part = {evaluation.part: 100 - evaluation.top1 for evaluation in evaluations}
    errors = {
        name: {severity: by_part[part] for severity in SEVERITIES if (part := f"{name}/{severity}") in by_part}
        for name in (*CORRUPTIONS, *EXTRA)
    }
    return {name: by_severity for name, by_severity in errors.items() if by_severity}


def corruption_error(name: str, errors: Mapping[str, float]) -> float | None:
    """CE, percent: the mean error over AlexNet's, as Hendrycks and Dietterich (2019) define it.

    None if one of the five severities is missing, or AlexNet's error is not published (extra corruptions).
    """
    alexnet = alexnet_errors().get(name)
    if alexnet is None or set(errors) != set(SEVERITIES):
        return None
    return statistics.fmean(errors.values()) / alexnet


def mean_corruption_error(errors: Mapping[str, Mapping[str, float]]) -> float | None:
    """mCE, percent: the mean CE of the fifteen corruptions; None if one is missing."""
    ratios = [corruption_error(name, errors.get(name, {})) for name in CORRUPTIONS]
    return None if None in ratios else statistics.fmean(ratio for ratio in ratios if ratio is not None)


@dataclass(frozen=True)
class CorruptionRow:
    """Top-1 errors on one corruption, percent."""

    corruption: str
    errors: Mapping[str, float]  # by severity, measured ones only
    mean: float
    alexnet: float | None  # AlexNet's mean; None where it is not published
    ce: float | None


def corruption_rows(evaluations: Iterable[Evaluation]) -> list[CorruptionRow]:
    """A row for each corruption that was measured, in the order of the authors' code."""
    alexnet = alexnet_errors()
    return [
        CorruptionRow(
            name,
            errors,
            statistics.fmean(errors.values()),
            100 * alexnet[name] if name in alexnet else None,
            corruption_error(name, errors),
        )
        for name, errors in errors_by_corruption(evaluations).items()
    ]


def corruption_table(evaluations: Iterable[Evaluation]) -> tuple[list[str], list[list[str]]]:
    """The header, and a line of text for each corruption."""

    def cell(value: float | None) -> str:
        return "-" if value is None else f"{value:.1f}"

    lines = []
    for row in corruption_rows(evaluations):
        errors = [row.errors.get(severity) for severity in SEVERITIES]
        lines.append([row.corruption, *map(cell, (*errors, row.mean, row.alexnet, row.ce))])
    return ["corruption", *SEVERITIES, "mean", "AlexNet", "CE"], lines


def published_table(name: str, shift: Shift) -> tuple[list[str], list[list[str]]]:
    """The paper's Table 8 for one data set: the header, and a line of text for each model with a value."""
    lines = [
        [row.model, row.pretraining or "-", str(row.image_size), f"{row.scores['clean']:.1f}", f"{score:.1f}"]
        for row in published_robustness()
        if (score := row.scores[name]) is not None
    ]
    unit = "mCE" if shift.corrupted else "top-1"
    return ["model", "pretrained on", "pixels", "clean top-1", f"{shift.title} {unit}"], lines


def incomplete_corruptions(evaluations: Iterable[Evaluation]) -> list[str]:
    """Those of the fifteen corruptions that lack a severity. With any of them there is no mCE."""
    errors = errors_by_corruption(evaluations)
    return [name for name in CORRUPTIONS if set(errors.get(name, ())) != set(SEVERITIES)]


def evaluation_record(run: str, shifted: Shifted, evaluations: Sequence[Evaluation]) -> dict[str, Any]:
    """One network's results on shifted images as plain data, with the rows of the paper's Table 8."""
    record: dict[str, Any] = {
        "run": run,
        "data": shifted.name,
        "parts": [to_data(evaluation) for evaluation in evaluations],
    }
    if shifted.shift and shifted.shift.corrupted:
        record["corruption_errors"] = {row.corruption: row.ce for row in corruption_rows(evaluations)}
        record["mce"] = mean_corruption_error(errors_by_corruption(evaluations))
    if shifted.shift:
        record["published"] = [
            {"model": row.model, "pretraining": row.pretraining, "image_size": row.image_size}
            | {"clean": row.scores["clean"], shifted.name: row.scores[shifted.name]}
            for row in published_robustness()
        ]
    return record


def evaluation_rows(run: str, shifted: Shifted, evaluations: Sequence[Evaluation]) -> list[dict[str, Any]]:
    """A row for each part; for ImageNet-C with the mean corruption error of all parts."""
    mean_error = {}
    if shifted.shift and shifted.shift.corrupted:
        mean_error = {"mce": mean_corruption_error(errors_by_corruption(evaluations))}
    names = ("data", "part", "classes", "images", "top1", "top5")
    return [
        {
            "run": run,
            **{name: getattr(evaluation, name) for name in names},
            "skipped_images": evaluation.skipped,
            **mean_error,
        }
        for evaluation in evaluations
    ]


def score_of(evaluations: Sequence[Evaluation], data: str) -> float | None:
    """A network's score on a data set, percent: mCE for ImageNet-C, else top-1. None if it is incomplete."""
    of_data = [evaluation for evaluation in evaluations if evaluation.data == data]
    if not of_data:
        return None
    return mean_corruption_error(errors_by_corruption(of_data)) if SHIFTS[data].corrupted else of_data[-1].top1


def best_evaluations(folder: Path, epochs: int) -> list[Evaluation]:
    """The evaluations of a finished run's raw weights: for each published set the evaluation of the most images.

    Parts of several evaluations are not mixed, for example of two folders. Of equal ones the newest is returned.
    """
    wholes: dict[str, dict[str, dict[str, Evaluation]]] = {}
    try:
        evaluations = read_evaluations(folder)
    except (InvalidFile, OSError) as error:
        warnings.warn(f"evaluations that can't be read are left out: {error}", RunsWarning, stacklevel=2)
        return []
    for evaluation in evaluations:
        if evaluation.data in SHIFTS and evaluation.weights == "raw" and evaluation.trained[0] >= epochs:
            of_set = wholes.setdefault(evaluation.data, {})
            parts = of_set.pop(evaluation.whole, {})
            of_set[evaluation.whole] = {**parts, evaluation.part: evaluation}  # the latest measurement stands last
    largest = [max(reversed(of_set.values()), key=_images) for of_set in wholes.values()]
    return [evaluation for parts in largest for evaluation in parts.values()]


def _images(parts: Mapping[str, Evaluation]) -> int:
    return sum(part.images - part.skipped for part in parts.values())


def robustness_table(results: Sequence[Result], out: Path) -> pd.DataFrame:
    """A row for each rung with evaluated runs below `out`, then the rows of the paper's Table 8.

    Percent, means over the seeds: top-1 accuracies, and the mean corruption error for ImageNet-C.
    """
    rows = [row for result in results if (row := _row(result, out))]
    return pd.DataFrame(rows + [_published_row(published_row) for published_row in published_robustness()])


def _row(result: Result, out: Path) -> dict[str, object] | None:
    epochs = result.run.experiment.recipe.epochs
    runs = {seed: best_evaluations(out / row["folder"], epochs) for seed, row in result.seeds.items()}
    runs = {seed: evaluations for seed, evaluations in runs.items() if evaluations}
    if not runs:
        return None
    row: dict[str, object] = {"model": result.rung.name, "trained": result.run.data, "runs": len(runs)}
    row |= _sampled("clean", [float(result.seeds[seed][TOP1.key]) for seed in runs])
    for data in COLUMNS:
        values = [value for evaluations in runs.values() if (value := score_of(evaluations, data)) is not None]
        row |= _sampled(data, values)
        images = [
            _images({evaluation.part: evaluation for evaluation in evaluations if evaluation.data == data})
            for evaluations in runs.values()
        ]
        row[f"{data}_images"] = max(images) if values else None
    return row


def remarks(table: pd.DataFrame) -> list[str]:
    """The number of images that each rung was evaluated on."""
    sentences = []
    for row in table[table["runs"] > 0].to_dict("records"):
        images = {SHIFTS[data].title: row[f"{data}_images"] for data in COLUMNS}
        counts = [f"{int(count):,} of {title}" for title, count in images.items() if count > 0]
        sentences += [f"{row['model']}: on {', '.join(counts)}."] if counts else []
    return sentences


def _sampled(name: str, values: Sequence[float]) -> dict[str, object]:
    sample = Sample.of(values) if values else None
    return {name: sample.mean if sample else None, f"{name}_std": sample.std if sample else None}


def _published_row(row: Robustness) -> dict[str, object]:
    trained = f"{row.pretraining or 'imagenet'}, {row.image_size} pixels"
    return {"model": row.model, "trained": f"{trained}, as published", "runs": 0, **row.scores}


def rendered(table: pd.DataFrame) -> pd.DataFrame:
    """The table as text with rounded numbers; - for missing values."""
    columns: dict[str, list[str]] = {"model": list(table["model"]), "trained on": list(table["trained"])}
    columns["runs"] = [str(runs) if runs else "" for runs in table["runs"]]
    rows = table.to_dict("records")
    for name, title in {"clean": "clean", **COLUMNS}.items():
        columns[title] = [spread(row[name], row.get(f"{name}_std"), 2 if row["runs"] else 1) or "-" for row in rows]
    return pd.DataFrame(columns)
