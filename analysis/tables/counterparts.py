"""Each ConvNeXt beside the system of its size: the claim that they match, as ratios that were measured here.

"A ConvNet for the 2020s" claims it of Swin, in parameters, FLOPs, throughput and memory, and of ViT for isotropic ones.
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
from roadmap.study.references import as_published, reference
from roadmap.study.rungs import StudyContext


@dataclass(frozen=True)
class Quantity:
    """A quantity that both have."""

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
    """Of one's quantity over the other's."""

    value: float  # the median of the rounds
    low: float  # the least and the most of them
    high: float


@dataclass(frozen=True)
class Pair:
    """A ConvNeXt and the system of its size."""

    one: str
    other: str
    titles: tuple[str, str]
    conditions: Conditions  # that both were measured under
    ratios: dict[str, Ratio]  # by the names of QUANTITIES
    published: dict[str, float]


def pairs_of(context: StudyContext, networks: Mapping[str, Run], rounds: Sequence[Round]) -> list[Pair]:
    """Of the references that have a counterpart in the study, those where both were measured by one command.

    `networks` are runs by the name of their rung or reference. A rung that is the ConvNeXt stands for it, as the
    closing one of resnet-50 does.
    """
    found = []
    by_network = {name: networks[key] for key, name in reversed(names_of_networks(context, networks).items())}
    by_network |= networks
    for name, its in context.study.references.items():
        one, other = by_network.get(name), networks.get(its.counterpart or "")
        if its.counterpart and one and other:
            rounds_of_both = _of_one_command(rounds, workload_of(one), workload_of(other))
            if rounds_of_both:
                size = one.experiment.recipe.image_size
                published = [
                    published_model(each, size) if as_published(context.study, context.regime, each) else None
                    for each in (name, its.counterpart)
                ]
                titles = (its.title, context.study.references[its.counterpart].title)
                conditions = rounds_of_both[0][0].conditions
                ratios = {each: ratio for each in QUANTITIES if (ratio := _ratio(each, rounds_of_both))}
                found.append(Pair(name, its.counterpart, titles, conditions, ratios, _published(published)))
    return found


def names_of_networks(context: StudyContext, networks: Mapping[str, Run]) -> dict[str, str]:
    """By each run's name the study's reference that its network is: resnet-50's closing rung is ConvNeXt-T."""
    designs = {
        name: _plain(reference(context, name).experiment.design)
        for name, its in context.study.references.items()
        if its.form_in(context.regime)
    }
    plain = {key: _plain(run.experiment.design) for key, run in networks.items()}
    return {key: name for key, design in plain.items() for name in designs if designs[name] == design}


def _plain(design: Design | NamedModel) -> Design | NamedModel:
    return simplest(design) if isinstance(design, Design) else design


def _of_one_command(rounds: Sequence[Round], one: str, other: str) -> list[tuple[Round, Round]]:
    """Of the newest command that measured both, round by round: a machine drifts between commands."""
    by_command: dict[tuple[str, Conditions], tuple[list[Round], list[Round]]] = {}
    for each in rounds:
        if each.workload in (one, other):
            of_it = by_command.setdefault((each.started, each.conditions), ([], []))
            of_it[each.workload == other].append(each)
    whole = [both for both in by_command.values() if all(both)]
    return list(zip(*whole[-1], strict=False)) if whole else []


def _ratio(quantity: str, rounds: Sequence[tuple[Round, Round]]) -> Ratio | None:
    """None where it was not measured."""
    values = [(getattr(one, quantity), getattr(other, quantity)) for one, other in rounds]
    ratios = [one / other for one, other in values if one and other]
    return Ratio(statistics.median(ratios), min(ratios), max(ratios)) if ratios else None


def _published(models: Sequence[Model | None]) -> dict[str, float]:
    one, other = models
    if one is None or other is None:
        return {}
    found = {}
    for name, what in QUANTITIES.items():
        mine, theirs = (getattr(model, what.published, None) for model in (one, other))
        if mine and theirs:
            found[name] = mine / theirs
    return found
