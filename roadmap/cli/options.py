"""Options that several verbs share, and the selection that they make."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import TextIO, TypeVar, cast

from roadmap.options import Selection, StudyKeywords, StudyOptions
from roadmap.serialization import Range

Number = TypeVar("Number", int, float)
FAILED, BAD_USAGE, INTERRUPTED = 1, 2, 130  # exit statuses


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of verbs that show finished runs: which runs, and the metric that compares them."""
    from roadmap.record.metrics import TOP1, metric_names  # imported late to keep `roadmap list` fast

    parser.add_argument("--metric", default=TOP1.name, help=metric_names())
    add_study_options(parser, ablation=True)
    parser.add_argument("--out", type=Path, help="folder of the runs")


def number(allowed: Range, kind: type[Number]) -> Callable[[str], Number]:
    """The `type` of an option's number: `add_argument("--seeds", type=number(SEEDS, int))`."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {name} (got {text!r})") from None
        if value not in allowed:
            raise argparse.ArgumentTypeError(f"must be {allowed} (got {text})")
        return value

    return parse


def add_study_options(parser: argparse.ArgumentParser, *, ablation: bool = False) -> None:
    """The options that select a part of the study. `ablation` adds those of verbs that take several rungs."""
    parser.add_argument("--regime", help="pico, resnet-50, resnet-200 or another of ablations.yaml")
    parser.add_argument("--fidelity", help="the source that runs follow: paper (default), authors or released")
    parser.add_argument(
        "--data",
        help="name of a data set, path of an image folder (packed or not), or NAME=PATH (default: the regime's data)",
    )
    add_plugins(parser)
    parser.add_argument(
        "--set",
        dest="settings",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        help="change the experiment of every rung, such as recipe.epochs=30, or the execution, such as "
        "execution.workers=4; may be repeated",
    )
    if ablation:
        parser.add_argument("--steps", default="all", help="all (default), names, or a slice such as recipe..gelu")
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
            help="reference systems to train with the same recipe: all of the regime, or names such as swin-t,deit-s",
        )
        parser.add_argument(
            "--base",
            metavar="STEPS",
            help="steps that every rung has, including the start: recipe, or recipe..kernel-size-7",
        )


def add_plugins(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--plugin",
        dest="plugins",
        type=Path,
        action="append",
        default=[],
        metavar="FILE",
        help="a Python file that adds steps, mixers, models, optimizers, data sets or metrics; may be repeated",
    )


def study_keywords(options: argparse.Namespace) -> StudyKeywords:
    """The shared options as keywords of the functions in `roadmap.api`."""
    names = {field.name for field in fields(StudyOptions)}
    return cast("StudyKeywords", {name: value for name, value in vars(options).items() if name in names})


def study_options(options: argparse.Namespace) -> StudyOptions:
    return StudyOptions.of(study_keywords(options))


def choose(options: argparse.Namespace) -> Selection:
    return Selection.of(study_options(options))


@contextlib.contextmanager
def warnings_as_lines() -> Iterator[None]:
    """Prints warnings of class RunsWarning as plain lines on the error output. Works as a decorator, too."""
    from analysis.options import RunsWarning

    with warnings.catch_warnings():
        show_others = warnings.showwarning

        def show(
            message: Warning | str,
            category: type[Warning],
            filename: str,
            lineno: int,
            file: TextIO | None = None,
            line: str | None = None,
        ) -> None:
            if category is RunsWarning:
                print(message, file=sys.stderr)
            else:
                show_others(message, category, filename, lineno, file, line)

        warnings.simplefilter("always", RunsWarning)
        warnings.showwarning = show
        yield
