"""Measured ratios of each ConvNeXt to the system of its size, which test the paper's claim that they match.

"A ConvNet for the 2020s" claims it for Swin, in parameters, FLOPs, throughput and memory. For isotropic ConvNeXts it
compares with ViT.
"""

from __future__ import annotations

import statistics
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Literal

from analysis.published import Model, published_model
from roadmap.design import Design, NamedModel, simplest
from roadmap.record.benchmarks import Conditions, Round, workload_of
from roadmap.record.run import Run
from roadmap.study.references import as_published, reference_network
from roadmap.study.rungs import StudyContext


@dataclass(frozen=True)
class Quantity:
    """A quantity that both systems of a pair have."""

    title: str
    better: Literal["higher", "lower", "neither"]
    published: str  # the field of a published model


QUANTITIES: dict[str, Quantity] = {
    "parameters": Quantity("parameters", "neither", "parameters"),
    "macs": Quantity("multiply-adds", "neither", "gmacs"),
    "inference_images_per_second": Quantity("images/s in inference", "higher", "throughput"),
    "training_images_per_second": Quantity("images/s in training", "higher", ""),
    "inference_peak_bytes": Quantity("memory in inference", "lower", ""),
    "training_peak_bytes": Quantity("memory in training", "lower", "training_memory"),
}


@dataclass(frozen=True)
class Ratio:
    """The quantity of the ConvNeXt divided by that of the other system."""

    value: float  # the median of the rounds
    low: float  # smallest of the rounds
    high: float  # largest of the rounds


@dataclass(frozen=True)
class Pair:
    """A ConvNeXt and the system of its size."""

    one: str
    other: str
    titles: tuple[str, str]
    conditions: Conditions  # of both measurements
    ratios: dict[str, Ratio]  # by the names of QUANTITIES
    published: dict[str, float]


def pairs_of(context: StudyContext, networks: Mapping[str, Run], rounds: Sequence[Round]) -> list[Pair]:
    """The pairs of a reference and its counterpart in the study that one command has measured together.

    `networks` are runs by the name of their rung or reference. A rung with the network of a ConvNeXt is used for it,
    such as the last rung of resnet-50.
    """
    pairs = []
    by_network = {name: networks[key] for key, name in reversed(names_of_networks(context, networks).items())}
    by_network |= networks
    for name, known_reference in context.study.references.items():
        run, counterpart_run = by_network.get(name), networks.get(known_reference.counterpart or "")
        if known_reference.counterpart and run and counterpart_run:
            rounds_of_both = _of_one_command(rounds, workload_of(run), workload_of(counterpart_run))
            if rounds_of_both:
                image_size = run.experiment.recipe.image_size
                published = [
                    published_model(key, image_size) if as_published(context.study, context.regime, key) else None
                    for key in (name, known_reference.counterpart)
                ]
                titles = (known_reference.title, context.study.references[known_reference.counterpart].title)
                conditions = rounds_of_both[0][0].conditions
                ratios = {key: ratio for key in QUANTITIES if (ratio := _ratio(key, rounds_of_both))}
                pairs.append(Pair(name, known_reference.counterpart, titles, conditions, ratios, _published(published)))
    return pairs


def names_of_networks(context: StudyContext, networks: Mapping[str, Run]) -> dict[str, str]:
    """The study's reference with the same network, by the run's name: the last rung of resnet-50 is ConvNeXt-T."""
    designs = {
        name: _simplified(reference_network(context, name))
        for name, known_reference in context.study.references.items()
        if known_reference.form_in(context.regime)
    }
    run_designs = {key: _simplified(run.experiment.design) for key, run in networks.items()}
    return {key: name for key, design in run_designs.items() for name in designs if designs[name] == design}


def _simplified(design: Design | NamedModel) -> Design | NamedModel:
    return simplest(design) if isinstance(design, Design) else design


def _of_one_command(rounds: Sequence[Round], one: str, other: str) -> list[tuple[Round, Round]]:
    """The rounds of the newest command that measured both. The speed of a machine drifts between commands."""
    by_command: dict[tuple[str, Conditions], tuple[list[Round], list[Round]]] = {}
    for measured_round in rounds:
        if measured_round.workload in (one, other):
            measured = by_command.setdefault((measured_round.started, measured_round.conditions), ([], []))
            measured[measured_round.workload == other].append(measured_round)
    complete = [rounds_of_both for rounds_of_both in by_command.values() if all(rounds_of_both)]
    return list(zip(*complete[-1], strict=False)) if complete else []


def _ratio(quantity: str, rounds: Sequence[tuple[Round, Round]]) -> Ratio | None:
    """None if the quantity was not measured."""
    values = [(getattr(one, quantity), getattr(other, quantity)) for one, other in rounds]
    ratios = [one / other for one, other in values if one and other]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def _published(models: Sequence[Model | None]) -> dict[str, float]:
    one, other = models
    if one is None or other is None:
        return {}
    ratios = {}
    for name, quantity in QUANTITIES.items():
        value, other_value = (getattr(model, quantity.published, None) for model in (one, other))
        if value and other_value:
            ratios[name] = value / other_value
    return ratios
