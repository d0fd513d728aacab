"""evaluate: a trained network or published weights, on held-out images or images of another distribution."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.export import add_weights
from roadmap.cli.options import add_study_options, add_verb, study_options
from roadmap.data.robustness import Evaluation, Shifted, imagenet_classes
from roadmap.record.metrics import OF_COCO, measured
from roadmap.text import many, table

if TYPE_CHECKING:
    from runner.measure.evaluate import HeldOut, OnShifted
    from runner.measure.trained import Trained


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs,
        "evaluate",
        "evaluate a trained network, or published weights, on held-out images",
        "gelu-s0 --weights ema",
    )
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="runs by rung, rung-sSEED, identity or folder; with --state-dict one rung, such as layer-scale",
    )
    add_weights(parser)
    parser.add_argument(
        "--state-dict",
        type=Path,
        metavar="FILE",
        help="evaluate weights from timm or torchvision, of the same network (default: those of a run)",
    )
    parser.add_argument(
        "--of",
        metavar="LIBRARY/NAME",
        help="with --state-dict: model that the weights are of, torchvision/convnext_tiny, timm/resnet50",
    )
    add_study_options(parser)
    parser.add_argument("--json", action="store_true", help="print JSON instead of text")
    parser.set_defaults(function=evaluate_networks)


def evaluate_networks(options: argparse.Namespace) -> int:
    from runner.measure.evaluate import EvaluateOptions, HeldOut, evaluate

    chosen = EvaluateOptions(
        tuple(options.runs),
        study_options(options),
        options.out,
        options.weights,
        state_dict=options.state_dict,
        peer=options.of,
    )
    records = []
    try:
        for result in evaluate(chosen):
            for note in result.notes:
                print(note, file=sys.stderr)
            records.append(result.record if isinstance(result, HeldOut) else _record(result))
            if options.json:
                continue
            if isinstance(result, HeldOut):
                _print_held_out(result)
            else:
                _print_on_shifted(result)
    except (KeyboardInterrupt, SystemExit) as stop:
        for note in getattr(stop, "__notes__", ()):
            print(f"stopped: {note}", file=sys.stderr)
        raise
    if options.json:
        print(json.dumps(records if len(records) > 1 else records[0], indent=2))
    return 0


def _record(result: OnShifted) -> dict[str, Any]:
    from analysis.tables.robustness import evaluation_record

    return evaluation_record(result.trained.run.name, result.shifted, result.evaluations)


def _print_held_out(result: HeldOut) -> None:
    scores = result.scores
    # COCO's figures of a size have no value if no object has the size.
    shown = [own for own in measured(scores.values) if own.key not in OF_COCO or scores.value(own) is not None]
    values = ", ".join(metric.text(scores.value(metric)) for metric in shown)
    print(f"{result.run} on {many(result.images, 'held-out image')} of {result.data}: {values}")


def _print_on_shifted(result: OnShifted) -> None:
    trained, shifted, evaluations = result.trained, result.shifted, result.evaluations
    (_print_corruptions if evaluations[0].part else _print_accuracy)(trained, shifted, evaluations)
    _print_published(trained, shifted)


def _print_accuracy(trained: Trained, shifted: Shifted, evaluations: Sequence[Evaluation]) -> None:
    (result,) = evaluations
    classes, images = len(trained.class_names), f"{result.images:,}"
    among = f" among {result.classes} of {classes} classes" if result.classes < classes else ""
    counted = f"{result.images - result.skipped:,} readable of {images}" if result.skipped else images
    accuracy = f"top-1 {result.top1:.2f} %, top-5 {result.top5:.2f} %"
    print(f"{trained.run.name} on {counted} images of {shifted.title}{among}: {accuracy}")


def _print_corruptions(trained: Trained, shifted: Shifted, evaluations: Sequence[Evaluation]) -> None:
    from analysis.tables.robustness import (
        corruption_table,
        errors_by_corruption,
        incomplete_corruptions,
        mean_corruption_error,
    )

    images = sum(result.images for result in evaluations)
    print(f"{trained.run.name} on {images:,} images of {shifted.title}: errors, %\n")
    print(table(*corruption_table(evaluations)) + "\n")
    mce = mean_corruption_error(errors_by_corruption(evaluations))
    if mce is None:
        missing = ", ".join(incomplete_corruptions(evaluations))
        print(f"No mCE: it is computed from fifteen corruptions, five severities each; incomplete: {missing}.")
    else:
        print(f"mCE {mce:.2f} %: the mean CE of the first fifteen corruptions. CE is the mean error over AlexNet's.")


def _print_published(trained: Trained, shifted: Shifted) -> None:
    """Prints the paper's Table 8 for comparison."""
    from analysis.tables.robustness import published_table

    shift, run = shifted.shift, trained.run
    if shift is None:
        return
    print(f"\nAs published (Table 8 of the paper, %; {shift.title}: {shift.source}):\n")
    print(table(*published_table(shifted.name, shift)))
    if run.dataset.classes != len(imagenet_classes()):
        classes = f"1,000 classes of ImageNet; {run.name}: {run.dataset.classes} classes"
        print(f"\nPublished: {classes}. They can't be compared.")
