"""The rungs of a study: the steps applied one after the other, or any of them in any order."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from typing import Any

import yaml

from roadmap.plain import choices
from roadmap.recipe import Experiment
from roadmap.steps import find_step
from roadmap.study import Study, load_study


@dataclass(frozen=True)
class Rung:
    """One bar of the roadmap figure."""

    name: str
    title: str
    group: str
    adopted: bool  # False where the paper's Figure 2 hatches the bar
    experiment: Experiment
    parent: str | None  # the rung that its step was applied to


def ladder(
    regime: str,
    steps: str | Sequence[str] = "all",
    fidelity: str = "paper",
    *,
    data: str | None = None,
    study: Study | None = None,
) -> tuple[Rung, ...]:
    """The rungs of a regime in the study's order, each with all steps before it.

    `steps` chooses among them: "all", names, or a stretch such as "recipe..gelu"; commas part several.
    Raises ValueError for an unknown name, with the valid ones, and NoEffect for a step that changes nothing.
    """
    study = study or load_study()
    return select(tuple(_rungs(study, regime, fidelity, data or study.regime(regime).data)), steps)


def _rungs(study: Study, regime: str, fidelity: str, data: str) -> Iterable[Rung]:
    study.fidelity(fidelity)
    experiment = study.start(regime, fidelity, data)
    parent = regime
    yield Rung(regime, study.regime(regime).title, "", True, experiment, None)
    for entry in study.ladder:
        if entry.fidelities and fidelity not in entry.fidelities:
            continue
        step, parameters = find_step(entry.step), study.parameters(entry.step, regime, fidelity, data)
        before, carried = experiment, entry.step
        if not entry.variants:
            experiment = step(before, **parameters)
            yield Rung(entry.step, entry.title, entry.group, True, experiment, parent)
        for value in entry.variants:
            varied = step(before, **parameters | step.variant(value, entry.step))
            name = f"{entry.step}-{value}"
            yield Rung(name, entry.title.format(value), entry.group, value not in entry.rejected, varied, parent)
            if value == entry.adopted:
                experiment, carried = varied, name
        parent = carried


def select(rungs: tuple[Rung, ...], steps: str | Sequence[str]) -> tuple[Rung, ...]:
    """The chosen rungs in the ladder's order. Raises ValueError for a name that is not among them."""
    wanted = steps.split(",") if isinstance(steps, str) else list(steps)
    names = [rung.name for rung in rungs]

    def position(name: str) -> int:
        written = name.strip().replace("=", "-")
        if written not in names:
            raise ValueError(f"unknown rung {name.strip()!r}; {choices(names, written)}")
        return names.index(written)

    chosen: set[int] = set()
    for item in wanted:
        first, dots, last = item.partition("..")
        if item.strip() == "all":
            chosen |= set(range(len(rungs)))
        elif dots:
            ends = position(first or names[0]), position(last or names[-1])
            if ends[0] > ends[1]:
                raise ValueError(f"{item!r} runs backwards: {first} comes after {last}")
            chosen |= set(range(ends[0], ends[1] + 1))
        else:
            chosen.add(position(item))
    return tuple(rungs[i] for i in sorted(chosen))


def compose(
    regime: str, steps: Sequence[str], fidelity: str = "paper", *, data: str | None = None, study: Study | None = None
) -> Experiment:
    """These steps alone, in this order, on the regime's start; a variant is written `kernel-size=9`.

    Raises ValueError for an unknown step or value, and NoEffect for a step that changes nothing where it stands.
    """
    study = study or load_study()
    data = data or study.regime(regime).data
    experiment = study.start(regime, fidelity, data)
    for written in steps:
        name, _, value = written.partition("=")
        step = find_step(name)
        variant = _written_value(value) if value else _adopted(study, name)
        given = {} if variant is None else step.variant(variant, written)
        parameters = study.parameters(name, regime, fidelity, data) | given
        missing = [each for each in step.required if each not in parameters]
        if missing:
            raise ValueError(f"step {name!r} needs a value for {missing[0]!r}: {name}=...")
        experiment = step(experiment, **parameters)
    return experiment


def _written_value(text: str) -> Any:
    """`9` as a number, `2:2:6:2` as a list."""
    items = [yaml.safe_load(item) for item in text.split(":")]
    return items if len(items) > 1 else items[0]


def _adopted(study: Study, step: str) -> Any:
    """The adopted variant, where a step with variants is named alone."""
    return next((entry.adopted for entry in study.ladder if entry.step == step), None)
