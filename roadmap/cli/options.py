"""Options that several verbs share, and what they choose."""

from __future__ import annotations

import argparse
from dataclasses import fields
from pathlib import Path

from roadmap.options import Selection, StudyOptions
from roadmap.record.metrics import TOP1, metric_names

FAILED, BAD_USAGE, INTERRUPTED = 1, 2, 130  # exit statuses


def add_study_options(parser: argparse.ArgumentParser, *, ablation: bool = False) -> None:
    """The options that choose the study's part; those of whole ladders too where the verb takes several rungs."""
    parser.add_argument("--regime", help="pico, resnet-50, resnet-200 or another of ablations.yaml")
    parser.add_argument("--fidelity", help="whose word is followed: paper (default), authors or released")
    parser.add_argument(
        "--data",
        help="a data set by name, an image folder, packed or not, by its path, or NAME=PATH (default: the "
        "regime's own data)",
    )
    add_plugins(parser)
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change every rung's experiment, such as recipe.epochs=30, or how runs are computed, such as "
        "execution.workers=4; may be repeated",
    )
    if ablation:
        parser.add_argument("--steps", default="all", help="all (default), names, or a stretch such as recipe..gelu")
        parser.add_argument(
            "--ablation",
            default="cumulative",
            help="cumulative (default: each rung on the one before), leave-one-out, add-one, orders:N or variants",
        )
        parser.add_argument(
            "--references",
            nargs="?",
            const="all",
            metavar="NAMES",
            help="systems beside the rungs, trained alike: all that the regime has, or names such as swin-t,deit-s",
        )
        parser.add_argument(
            "--base", metavar="STEPS", help="that every rung has, the start too: recipe, or recipe..kernel-size-7"
        )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugin",
        dest="plugins",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file with steps, mixers, models or metrics of your own; may be repeated",
    )


def add_metric(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--metric", default=TOP1.name, help=metric_names())


def study_options(options: argparse.Namespace) -> StudyOptions:
    """What the shared options ask of the study."""
    names = {field.name for field in fields(StudyOptions)}
    given = {name: value for name, value in vars(options).items() if name in names}
    given |= {name: tuple(value) for name, value in given.items() if isinstance(value, list)}
    return StudyOptions(**given)


def choose(options: argparse.Namespace) -> Selection:
    return Selection.of(study_options(options))
