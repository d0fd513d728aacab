"""Evaluating a network on shifted images of its classes (roadmap/data/robustness.py)."""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Sequence
from dataclasses import replace
from functools import partial

from roadmap.data.image_folders import Listing, content_of, list_classes
from roadmap.data.robustness import Evaluation, Shifted, chosen_classes
from roadmap.record.metrics import METRICS
from roadmap.record.run import Run
from roadmap.study.execution import Execution
from runner.data.splits import ImageFiles
from runner.measure.held_out import evaluate_in_process
from runner.measure.trained import Trained
from runner.train.evaluation import RestrictedClasses


def list_parts(shifted: Shifted, classes: tuple[str, ...]) -> list[Listing]:
    """The images of each part, labelled with the indices of a run's classes.

    Raises ValueError for a class that the run does not have, before any image is read.
    """
    return [list_classes(part.root).as_of(classes, "what the network was trained on") for part in shifted.parts]


def evaluate_shifted(
    network: Trained,
    execution: Execution,
    shifted: Shifted,
    known: Sequence[Evaluation],
    report: Callable[[int, int], None],
) -> Iterator[tuple[Evaluation, bool]]:
    """Yields the evaluation of each part, and whether `known` contains it; a known one is not measured again.

    `report` gets the number of images done, and of all. Raises ValueError for a class that the network does not have.
    """
    classes = network.class_names
    listings = list_parts(shifted, classes)
    chosen = chosen_classes(shifted, _present(listings), classes)
    restricted = RestrictedClasses(network.network, [classes.index(name) for name in chosen], len(classes))
    run = _without_crop(network.run) if shifted.shift and shifted.shift.corrupted else network.run
    whole = content_of(
        [[f"{part.name} {listing.content}".encode()] for part, listing in zip(shifted.parts, listings, strict=True)]
    )
    total, images_before = sum(len(listing.names) for listing in listings), 0
    for part, listing in zip(shifted.parts, listings, strict=True):
        images = len(listing.names)
        evaluation = Evaluation(
            shifted.name, part.name, listing.content, whole, network.weights, network.trained, len(chosen), images
        )
        stored = _find_known(evaluation, known, skips=execution.bad_images == "skip")
        if stored:
            yield replace(stored, whole=whole), stored.whole == whole
        else:
            report_part = partial(_report_of_all, report, images_before, total)
            scores = evaluate_in_process(run, restricted, execution, report_part, ImageFiles(listing))
            top1, top5 = (scores.value(METRICS[name]) or 0.0 for name in ("top1", "top5"))  # the file has no others
            yield replace(evaluation, skipped=scores.skipped_images, top1=top1, top5=top5), False
        images_before += images
        report(images_before, total)


def _find_known(wanted: Evaluation, known: Sequence[Evaluation], skips: bool) -> Evaluation | None:
    """A known evaluation of the same images and weights, preferably as a part of the same whole."""
    blank = replace(wanted, skipped=0, top1=0.0, top5=0.0)
    same = [
        evaluation
        for evaluation in known
        if replace(evaluation, whole=wanted.whole, skipped=0, top1=0.0, top5=0.0) == blank
        and (skips or not evaluation.skipped)
    ]
    return next((match for match in same if match.whole == wanted.whole), same[-1] if same else None)


def _report_of_all(report: Callable[[int, int], None], before: int, total: int, done: int, of: int) -> None:
    """Reports the progress within a part as that over all parts."""
    report(before + done, total)


def _without_crop(run: Run) -> Run:
    """The run without the crop in evaluation: corrupted images are cropped already."""
    recipe = replace(run.experiment.recipe, evaluation_crop=1.0)
    return replace(run, experiment=replace(run.experiment, recipe=recipe))


def _present(listings: Iterable[Listing]) -> set[str]:
    """The classes that have images."""
    return {listing.classes[label] for listing in listings for label in set(listing.labels)}
