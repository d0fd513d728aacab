"""The test images and classes on which two rungs differ."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from analysis.collection import collect
from analysis.options import RunsOptions
from analysis.results import Result, results_of
from analysis.statistics.images import McNemar, mcnemar
from roadmap.options import Selection
from roadmap.record.folder import read_manifest
from roadmap.record.outcomes import NOT_READ, OUTCOMES_FILE, Outcomes
from roadmap.record.run import Run

Array = np.ndarray[Any, Any]


@dataclass(frozen=True)
class Disagreement:
    """Two rungs on the same test images, by equally many runs of each. Images that a run could not read are left out.

    `images` has a row for each image on which the two differ, those on which their runs differ most first: index (in
    the test images), label, first and second (the class that most runs predict), first_correct and second_correct (the
    share of the runs), first_confidence and second_confidence (mean probability of the predicted class). `classes` has
    a row for each class, those that differ most first: class, images, first and second (accuracy, percent, mean of the
    runs), only_first and only_second (the numbers of images on which more runs of that rung are right).
    """

    first: str  # rung
    second: str
    runs: int  # of each rung
    test_images: int  # that all runs could read
    images: pd.DataFrame
    classes: pd.DataFrame
    test: McNemar
    labels: Array  # of all test images
    run: Run  # a run of the first rung, on whose data the images are
    data_path: Path | None  # of these data; None: the usual place


@dataclass(frozen=True, eq=False)
class _Side:
    """A rung's runs on the test images."""

    share: Array  # N: of the runs that are right
    predicted: Array  # N: the class that most runs predict
    confidence: Array  # N: mean over the runs

    @staticmethod
    def of(outcomes: Sequence[Outcomes]) -> _Side:
        predictions = np.array([own.predicted for own in outcomes])  # runs x N
        counts = np.array([(predictions == row).sum(axis=0) for row in predictions])
        predicted = np.take_along_axis(predictions, counts.argmax(axis=0)[None], axis=0)[0]
        share = np.mean([own.correct for own in outcomes], axis=0)
        return _Side(share, predicted, np.mean([own.confidence for own in outcomes], axis=0, dtype=float))


def disagreement_of(options: RunsOptions, first: str, second: str) -> Disagreement:
    """Compares two rungs by the selected runs.

    Raises ValueError for an unknown rung, without finished runs of both, if a run has no record of its test images, and
    if the two were tested on different ones.
    """
    selection, out = Selection.of(options.study), options.folder()
    return compare_images(selection, out, collect(out), first, second)


def compare_images(selection: Selection, out: Path, table: pd.DataFrame, first: str, second: str) -> Disagreement:
    """As `disagreement_of`, for runs in `table` (of `collect(out)`)."""
    rungs = [selection.rung(name) for name in (first, second)]
    if rungs[0].experiment == rungs[1].experiment:
        raise ValueError(f"{first} and {second} are the same experiment")
    results = results_of([(rung, selection.run(rung)) for rung in rungs], table, out)
    outcomes = [_outcomes(result, name, out) for result, name in zip(results, (first, second), strict=True)]
    labels = outcomes[0][0].labels
    if any(not np.array_equal(own.labels, labels) for runs in outcomes for own in runs):
        raise ValueError(f"the runs of {first} and {second} were tested on different images")
    # With unequal numbers of runs, even two equal networks would not be right in more runs equally often.
    count = min(map(len, outcomes))
    sides = [_Side.of(runs[:count]) for runs in outcomes]
    read = np.all([own.predicted != NOT_READ for runs in outcomes for own in runs[:count]], axis=0)
    better = [read & (sides[i].share > sides[1 - i].share) for i in (0, 1)]
    manifest = read_manifest(out / next(iter(results[0].seeds.values()))["folder"])
    names = list(manifest.classes) if manifest else []
    return Disagreement(
        first,
        second,
        count,
        int(read.sum()),
        _images(labels, sides[0], sides[1], better[0] | better[1], names),
        _classes(np.where(read, labels, NOT_READ), sides[0], sides[1], better, names),
        mcnemar(int(better[0].sum()), int(better[1].sum())),
        labels,
        results[0].run,
        selection.execution.data_path or (manifest.data_path if manifest else None),
    )


def _outcomes(result: Result, name: str, out: Path) -> list[Outcomes]:
    if not result.seeds:
        raise ValueError(f"{out}: no finished run of {name} with these settings (`roadmap run` trains it)")
    outcomes = result.outcomes()
    if outcomes is None:
        raise ValueError(
            f"{out}: not every run of {name} has a {OUTCOMES_FILE}, which runs of older versions did not write; "
            "train it again in another folder (--out)"
        )
    return outcomes


def _name(label: int, names: Sequence[str]) -> str:
    """The class, by its name if the run recorded it. Empty for an image that could not be read."""
    return "" if label == NOT_READ else names[label] if label < len(names) else str(label)


def _images(labels: Array, first: _Side, second: _Side, differing: Array, names: Sequence[str]) -> pd.DataFrame:
    def named(classes: Array) -> list[str]:
        return [_name(int(label), names) for label in classes]

    order = np.argsort(-np.abs(second.share - first.share), kind="stable")
    chosen = order[differing[order]]
    return pd.DataFrame(
        {
            "index": chosen,
            "label": named(labels[chosen]),
            "first": named(first.predicted[chosen]),
            "second": named(second.predicted[chosen]),
            "first_correct": first.share[chosen],
            "second_correct": second.share[chosen],
            "first_confidence": first.confidence[chosen],
            "second_confidence": second.confidence[chosen],
        }
    )


def _classes(labels: Array, first: _Side, second: _Side, better: Sequence[Array], names: Sequence[str]) -> pd.DataFrame:
    """`labels` are NOT_READ for images that are left out."""
    rows = []
    for label in np.unique(labels[labels != NOT_READ]):
        of_class = labels == label
        rows.append(
            {
                "class": _name(int(label), names),
                "images": int(of_class.sum()),
                "first": 100 * float(first.share[of_class].mean()),
                "second": 100 * float(second.share[of_class].mean()),
                "only_first": int(better[0][of_class].sum()),
                "only_second": int(better[1][of_class].sum()),
            }
        )
    table = pd.DataFrame(rows, columns=["class", "images", "first", "second", "only_first", "only_second"])
    return table.iloc[(table["second"] - table["first"]).abs().argsort(kind="stable")[::-1]].reset_index(drop=True)
