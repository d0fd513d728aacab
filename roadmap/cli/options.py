"""Options that several verbs share, and what they choose."""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import dataclass, replace
from typing import Any

import yaml

from roadmap.ladders import Rung, ladder
from roadmap.plain import choices, from_data, to_data
from roadmap.recipe import Experiment
from roadmap.record import Run
from roadmap.study import Study, load_study


@dataclass(frozen=True)
class Choice:
    """What the shared options chose of the study."""

    study: Study
    regime: str
    fidelity: str
    data: str
    settings: tuple[str, ...]  # --set

    def rungs(self, steps: str = "all") -> tuple[Rung, ...]:
        chosen = ladder(self.regime, steps, self.fidelity, data=self.data, study=self.study)
        return tuple(replace(rung, experiment=with_settings(rung.experiment, self.settings)) for rung in chosen)

    def runs(self, steps: str, seeds: int) -> list[Run]:
        """The runs of the rungs with the seeds from 0 on, seed by seed."""
        dataset = self.study.dataset(self.data)
        return [
            Run(self.regime, rung.name, rung.experiment, self.data, dataset, seed, self.fidelity)
            for seed in range(seeds)
            for rung in self.rungs(steps)
        ]


def add_study_options(parser: argparse.ArgumentParser, *, data: bool = True) -> None:
    parser.add_argument("--regime", help="pico, resnet-50, resnet-200 or another of ablations.yaml")
    parser.add_argument("--fidelity", help="whose word is followed: paper (default), authors or released")
    if data:
        parser.add_argument("--data", help="the data set, by name (default: the regime's own)")
        parser.add_argument(
            "--set",
            dest="settings",
            metavar="KEY=VALUE",
            action="append",
            default=[],
            help="change every rung's experiment, such as recipe.epochs=30; may be repeated",
        )


def choose(options: argparse.Namespace) -> Choice:
    """The study as the options have it. Raises ValueError for a name that it does not know."""
    study = load_study()
    regime = options.regime or study.defaults.regime
    fidelity = options.fidelity or study.defaults.fidelity
    data = getattr(options, "data", None) or study.regime(regime).data
    study.fidelity(fidelity)
    study.dataset(data)
    return Choice(study, regime, fidelity, data, tuple(getattr(options, "settings", ())))


def with_settings(experiment: Experiment, settings: Sequence[str]) -> Experiment:
    """An experiment with values set by key path, `recipe.epochs=30`. Raises ValueError for a wrong key or value."""
    data = to_data(experiment)
    for setting in settings:
        path, equals, text = setting.partition("=")
        if not equals:
            raise ValueError(f"--set {setting}: KEY=VALUE is expected, such as recipe.epochs=30")
        *parents, last = path.split(".")
        place = data
        for key in parents:
            place = _inside(place, key, setting)
        _inside(place, last, setting)
        place[last] = _value(text, setting)
    try:
        result: Experiment = from_data(Experiment, data)
    except ValueError as error:
        raise ValueError(f"--set: {error}") from None
    return result


def _inside(place: Any, key: str, setting: str) -> Any:
    if not isinstance(place, dict) or key not in place:
        valid = choices(place, key) if isinstance(place, dict) else "nothing lies below it"
        raise ValueError(f"--set {setting}: unknown key {key!r}; {valid}")
    return place[key]


def _value(text: str, setting: str) -> Any:
    try:
        value = yaml.safe_load(text)
    except yaml.YAMLError:
        raise ValueError(f"--set {setting}: {text!r} is not a value in YAML") from None
    try:  # YAML 1.1 takes 1e-3 for a text
        return float(value) if isinstance(value, str) else value
    except ValueError:
        return value
