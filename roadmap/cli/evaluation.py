"""evaluate: a trained network, or a peer's weights, held against images: held out, or of another distribution."""

from __future__ import annotations

import argparse
import json
import sys
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.networks import add_weights, find_run, tell_unfinished
from roadmap.cli.options import add_study_options, choose, study_options
from roadmap.data.robustness import (
    CORRUPTIONS,
    FILE,
    SEVERITIES,
    Evaluation,
    Shifted,
    append_evaluation,
    find_shifted,
    imagenet_classes,
    read_evaluations,
)
from roadmap.record.metrics import METRICS
from roadmap.text import many, table

if TYPE_CHECKING:
    from roadmap.record.run import Run
    from roadmap.study.execution import Execution
    from runner.measure.export import Trained


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("evaluate", help="a trained network, or a peer's weights, on held-out images")
    parser.add_argument(
        "runs",
        metavar="RUN",
        nargs="+",
        help="runs, as export takes them; with --state-dict a rung, such as layer-scale",
    )
    add_weights(parser)
    parser.add_argument("--state-dict", type=Path, metavar="FILE", help="weights of the same network of a peer's")
    parser.add_argument("--of", metavar="LIBRARY/NAME", help="whose they are: torchvision/convnext_tiny, timm/resnet50")
    add_study_options(parser)
    parser.add_argument("--json", action="store_true", help="as JSON")
    parser.set_defaults(function=evaluate_network)


def evaluate_network(options: argparse.Namespace) -> int:
    shifted = None if options.data is None else find_shifted(options.data, study_options(options).study().data)
    if shifted:
        options.data = None  # the network is of the data that it was trained on
    if options.state_dict and len(options.runs) > 1:
        raise ValueError(f"--state-dict is the weights of one rung, not of {len(options.runs)}")
    told = [_evaluated(argparse.Namespace(**vars(options) | {"run": run}), shifted) for run in options.runs]
    if options.json:
        print(json.dumps(told if len(told) > 1 else told[0], indent=2))
    return 0


def _evaluated(options: argparse.Namespace, shifted: Shifted | None) -> dict[str, Any]:
    """Prints what one network is worth, and gives it as data."""
    network, execution, folder = _loaded(options) if options.state_dict else _trained(options)
    tell_unfinished(network)
    if shifted:
        return _on_shifted(options, network, execution, folder, shifted)
    return _on_held_out(options, network, execution)


def _trained(options: argparse.Namespace) -> tuple[Trained, Execution, Path]:
    """A run's, on its own data, or on other data of as many classes."""
    from runner.measure.export import read_trained

    ignored = {"--of": options.of, "--regime": options.regime, "--fidelity": options.fidelity}
    ignored["--set"] = [each for each in options.settings if not each.startswith("execution.")]
    for name, value in ignored.items():
        if value:
            raise ValueError(f"{name} has no say in evaluating a run, which is as it was trained")
    study_options(options).study()  # with the plugins that its network may be of
    folder = find_run(options.run, options.out)
    found = read_trained(folder, averaged=options.weights == "ema")
    run = found.run
    options.regime = run.regime
    choice = choose(options)
    if options.data is not None:
        told = replace(choice.dataset, mean=run.dataset.mean, std=run.dataset.std)  # what its images were scaled by
        if told.classes != run.dataset.classes:
            raise ValueError(f"--data {options.data} has {told.classes} classes, {run.name} {run.dataset.classes}")
        other = replace(run, data=choice.context.data, dataset=told)
        _check_classes(options.data, found, other, choice.execution)
        found = replace(found, run=other)
        return found, choice.execution, folder
    return found, replace(choice.execution, data_path=found.data_path), folder


def _check_classes(written: str, trained: Trained, other: Run, execution: Execution) -> None:
    """Raises ValueError where other data have not the classes that the network's outputs are, in their order."""
    from runner.data.datasets import class_names

    theirs, ours = class_names(other, execution.data_path), _class_names(trained)
    if theirs != ours:
        first = next(pair for pair in zip(theirs, ours, strict=True) if pair[0] != pair[1])
        raise ValueError(f"--data {written}: class {first[0]!r} stands where {trained.run.name} has {first[1]!r}")
    numbered = [run for run in (trained.run, other) if run.dataset.content is None and run.data != "imagenet"]
    if len(numbered) == 2 and trained.run.data != other.data:
        raise ValueError(f"--data {written}: its classes are not those of {trained.run.data}, as far as anything tells")


def _loaded(options: argparse.Namespace) -> tuple[Trained, Execution, None]:
    """A rung's network with the weights of a peer's."""
    from roadmap.network.weights import load_peer, read_state_dict
    from runner.measure.export import Trained, untrained

    if options.weights == "ema":
        raise ValueError("--weights ema is of a run: --state-dict is whatever the file holds")
    if options.of is None:
        raise ValueError("--state-dict needs --of LIBRARY/NAME, such as torchvision/convnext_tiny")
    choice = choose(options)
    run = choice.run(choice.rung(options.run))
    network = untrained(run)
    load_peer(network, run.experiment.design, options.of, read_state_dict(options.state_dict))
    return Trained(run, network, "raw", (run.experiment.recipe.epochs, 0), ()), choice.execution, None


def _on_held_out(options: argparse.Namespace, network: Trained, execution: Execution) -> dict[str, Any]:
    from roadmap.progress import counting
    from runner.train.evaluation import evaluate_alone

    run = network.run
    with counting("evaluating", "images") as report:
        scores = evaluate_alone(run, network.network, execution, report)
    if not options.json:
        values = ", ".join(metric.text(scores.value(metric)) for metric in METRICS.values())
        print(f"{run.name} on {many(run.dataset.test_images, 'held-out image')} of {run.data}: {values}")
    return {"run": run.name, "data": run.data, **scores.values, "skipped_images": scores.skipped_images}


def _on_shifted(
    options: argparse.Namespace, network: Trained, execution: Execution, folder: Path | None, shifted: Shifted
) -> dict[str, Any]:
    """What was measured is kept in the run's folder, and not measured again."""
    from roadmap.progress import counting
    from runner.measure.robustness import evaluate_shifted

    network = replace(network, classes=_class_names(network))
    known = read_evaluations(folder) if folder else []
    found: list[Evaluation] = []
    try:
        with counting("evaluating", "images") as report:
            for each, is_known in evaluate_shifted(network, execution, shifted, known, report):
                found.append(each)
                if folder and not is_known:
                    append_evaluation(folder, each)
    except (KeyboardInterrupt, SystemExit):
        if folder and len(shifted.parts) > 1:
            told = f"what was measured is kept in {folder / FILE}, and the same command goes on behind it"
            print(f"stopped: {told}", file=sys.stderr)
        raise
    if not options.json:
        (_print_corruptions if found[0].part else _print_accuracy)(network, shifted, found)
    return _record(network, shifted, found)


def _class_names(network: Trained) -> tuple[str, ...]:
    """Of the network's outputs, in order. Raises ValueError where nothing tells them."""
    run = network.run
    if network.classes:
        return network.classes
    if run.data == "imagenet":
        return imagenet_classes()
    if run.dataset.content is None:
        return tuple(map(str, range(run.dataset.classes)))
    raise ValueError(f"{run.name}: its record, of an older version, does not name its classes; train it anew")


def _print_accuracy(network: Trained, shifted: Shifted, found: Sequence[Evaluation]) -> None:
    (each,) = found
    among = f" among {each.classes} of {len(network.classes)} classes" if each.classes < len(network.classes) else ""
    counted = f"{each.images:,}" if not each.skipped else f"{each.images - each.skipped:,} readable of {each.images:,}"
    what = f"{counted} images of {shifted.title}{among}"
    print(f"{network.run.name} on {what}: top-1 {each.top1:.2f} %, top-5 {each.top5:.2f} %")
    _print_published(network.run, shifted)


def _print_corruptions(network: Trained, shifted: Shifted, found: Sequence[Evaluation]) -> None:
    from analysis.published import alexnet_errors
    from analysis.tables.robustness import corruption_error, errors_of, mean_corruption_error

    errors, alexnet, rows = errors_of(found), alexnet_errors(), []
    for name, each in errors.items():
        ce = corruption_error(name, each)
        told = [f"{each[severity]:.1f}" if severity in each else "-" for severity in SEVERITIES]
        told += [f"{sum(each.values()) / len(each):.1f}", f"{100 * alexnet[name]:.1f}" if name in alexnet else "-"]
        rows.append([name, *told, "-" if ce is None else f"{ce:.1f}"])
    print(f"{network.run.name} on {sum(each.images for each in found):,} images of {shifted.title}: errors, %\n")
    print(table(["corruption", *SEVERITIES, "mean", "AlexNet", "CE"], rows) + "\n")
    mean = mean_corruption_error(errors)
    if mean is None:
        missing = [name for name in CORRUPTIONS if set(errors.get(name, ())) != set(SEVERITIES)]
        print(f"No mCE: it is of fifteen corruptions, five severities each; not whole: {', '.join(missing)}.")
    else:
        print(f"mCE {mean:.2f} %: the mean of the first fifteen's CE, which is the mean error over AlexNet's.")
    _print_published(network.run, shifted)


def _print_published(run: Run, shifted: Shifted) -> None:
    """The paper's Table 8, beside it."""
    from analysis.published import published_robustness

    shift = shifted.shift
    if shift is None:
        return
    rows = [
        [each.model, each.pretraining or "-", str(each.image_size), f"{each.worth['clean']:.1f}", f"{worth:.1f}"]
        for each in published_robustness()
        if (worth := each.worth[shifted.name]) is not None
    ]
    unit = "mCE" if shift.corrupted else "top-1"
    print(f"\nAs published (Table 8 of the paper, %; {shift.title} is of {shift.source}):\n")
    print(table(["model", "trained on, beside ImageNet", "pixels", "clean top-1", f"{shift.title} {unit}"], rows))
    if run.dataset.classes != len(imagenet_classes()):
        print(f"\nTheirs are of ImageNet's 1,000 classes, {run.name} of {run.dataset.classes}: they do not compare.")


def _record(network: Trained, shifted: Shifted, found: Sequence[Evaluation]) -> dict[str, Any]:
    from analysis.published import published_robustness
    from analysis.tables.robustness import corruption_error, errors_of, mean_corruption_error
    from roadmap.serialization import to_data

    told: dict[str, Any] = {"run": network.run.name, "data": shifted.name, "parts": [to_data(each) for each in found]}
    if shifted.shift and shifted.shift.corrupted:
        errors = errors_of(found)
        told["corruption_errors"] = {name: corruption_error(name, each) for name, each in errors.items()}
        told["mce"] = mean_corruption_error(errors)
    if shifted.shift:
        told["published"] = [
            {"model": each.model, "pretraining": each.pretraining, "image_size": each.image_size}
            | {"clean": each.worth["clean"], shifted.name: each.worth[shifted.name]}
            for each in published_robustness()
        ]
    return told
