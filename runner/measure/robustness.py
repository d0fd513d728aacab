"""What a network is worth on images of its classes from elsewhere (roadmap/data/robustness.py)."""

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
from runner.measure.trained import Trained
from runner.train.evaluation import RestrictedClasses, evaluate_in_process


def list_parts(shifted: Shifted, classes: tuple[str, ...]) -> list[Listing]:
    """The images of each part, labelled as a run's classes.

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
    """Part by part, and whether the `known` have it as it is; what they have is not measured again.

    `report` gets how many images are done, and of how many. Raises ValueError for a class that the network does not
    have.
    """
    classes = network.class_names
    listings = list_parts(shifted, classes)
    chosen = chosen_classes(shifted, _present(listings), classes)
    among = RestrictedClasses(network.network, [classes.index(name) for name in chosen], len(classes))
    run = _of_whole_images(network.run) if shifted.shift and shifted.shift.corrupted else network.run
    whole = content_of(
        [[f"{part.name} {each.content}".encode()] for part, each in zip(shifted.parts, listings, strict=True)]
    )
    total, before = sum(len(listing.names) for listing in listings), 0
    for part, listing in zip(shifted.parts, listings, strict=True):
        images = len(listing.names)
        made = Evaluation(
            shifted.name, part.name, listing.content, whole, network.weights, network.trained, len(chosen), images
        )
        found = _known(made, known, skips=execution.bad_images == "skip")
        if found:
            yield replace(found, whole=whole), found.whole == whole
        else:
            told = partial(_report_behind, report, before, total)
            scores = evaluate_in_process(run, among, execution, told, ImageFiles(listing))
            top1, top5 = (scores.value(METRICS[name]) or 0.0 for name in ("top1", "top5"))  # all that the file has
            yield replace(made, skipped=scores.skipped_images, top1=top1, top5=top5), False
        before += images
        report(before, total)


def _known(made: Evaluation, known: Sequence[Evaluation], skips: bool) -> Evaluation | None:
    """What is known of the same images and weights, as a part of the same whole before others."""
    blank = replace(made, skipped=0, top1=0.0, top5=0.0)
    same = [
        each
        for each in known
        if replace(each, whole=made.whole, skipped=0, top1=0.0, top5=0.0) == blank and (skips or not each.skipped)
    ]
    return next((each for each in same if each.whole == made.whole), same[-1] if same else None)


def _report_behind(report: Callable[[int, int], None], before: int, total: int, done: int, of: int) -> None:
    """How far a part is, as how far all are."""
    report(before + done, total)


def _of_whole_images(run: Run) -> Run:
    """Without the crop in evaluation: the images are what one left."""
    recipe = replace(run.experiment.recipe, evaluation_crop=1.0)
    return replace(run, experiment=replace(run.experiment, recipe=recipe))


def _present(listings: Iterable[Listing]) -> set[str]:
    """The classes that have images."""
    return {listing.classes[label] for listing in listings for label in set(listing.labels)}
