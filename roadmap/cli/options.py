"""Options that several verbs share, and the selection that they make."""

from __future__ import annotations

import argparse
import contextlib
import sys
import warnings
from collections.abc import Callable, Iterator
from dataclasses import fields
from pathlib import Path
from typing import Any, TypeVar, cast

from roadmap.options import OF_SPACES, Selection, StudyKeywords, StudyOptions
from roadmap.serialization.ranges import Range, reason
from roadmap.spaces.definition import SAMPLES
from roadmap.study.schema import SEEDS

Number = TypeVar("Number", int, float)
FAILED, BAD_USAGE, INTERRUPTED = 1, 2, 130  # exit statuses


def add_verb(verbs: Any, name: str, summary: str, example: str) -> Any:
    """The parser of a verb. `summary` is its line in `roadmap --help`, and the first sentence of its own help.

    `example` are arguments that make a useful call.
    """
    description, epilog = f"{summary[0].upper()}{summary[1:]}.", f"example: %(prog)s {example}"
    return verbs.add_parser(name, help=summary, description=description, epilog=epilog)


def add_number(
    parser: Any, option: str, allowed: Range, text: str, kind: type[float] = int, *, auto: bool = False, **more: Any
) -> None:
    """An option that takes a number. `option` is as in the help, `--seeds N`. `auto`: it takes auto too."""
    (name, metavar), parse = option.split(), number(allowed, kind)
    convert = (lambda written: written if written == "auto" else parse(written)) if auto else parse
    parser.add_argument(name, type=convert, metavar=metavar, help=text, **more)


def add_seeds(parser: Any) -> None:
    add_number(parser, "--seeds N", SEEDS, "runs of each rung, with seeds 0 to N - 1 (default: as ablations.yaml says)")


def add_output(parser: Any, text: str, *, several: bool = False) -> None:
    action = "append" if several else "store"
    parser.add_argument("-o", "--output", type=Path, action=action, metavar="FILE", help=text)


def add_out(parser: Any, folder: str = "folder of the runs") -> None:
    """The option --out. `folder` says what the verb uses it for."""
    parser.add_argument(
        "--out", type=Path, metavar="FOLDER", help=f"{folder} (default: runs, or as ablations.yaml says)"
    )


def add_run_options(parser: argparse.ArgumentParser) -> None:
    """The options of verbs that show finished runs: which runs, and the metric that compares them."""
    from roadmap.record.metrics import TOP1, metric_names  # imported late to keep `roadmap list` fast

    parser.add_argument(
        "--metric", default=TOP1.name, metavar="NAME", help=f"metric that compares runs: {metric_names()}"
    )
    add_study_options(parser, ablation=True)
    add_out(parser)


def number(allowed: Range, kind: type[Number]) -> Callable[[str], Number]:
    """The `type` of an option's number: `add_argument("--seeds", type=number(SEEDS, int))`."""

    def parse(text: str) -> Number:
        try:
            value = kind(text)
        except ValueError:
            name = "a whole number" if kind is int else "a number"
            raise argparse.ArgumentTypeError(f"must be {name} (got {text!r})") from None
        if value not in allowed:
            raise argparse.ArgumentTypeError(f"must be {reason(value, allowed)} (got {text})")
        return value

    return parse


def add_study_options(parser: argparse.ArgumentParser, *, ablation: bool = False) -> None:
    """The options that select a part of the study. `ablation` adds those of verbs that take several rungs."""
    parser.add_argument(
        "--regime", help="part of the study: pico (default), nano, resnet-50, resnet-200 or another of ablations.yaml"
    )
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
        parser.add_argument(
            "--training-recipe",
            metavar="NAME",
            help="recipe of ablations.yaml that the step `recipe` applies, such as pretrain-22k (default: modern)",
        )
        parser.add_argument(
            "--steps",
            default="all",
            help="rungs, separated by commas: all (default), names, slices such as recipe..gelu, variants such as "
            "kernel-size=13, or combinations of steps such as gelu+layer-norm",
        )
        parser.add_argument(
            "--ablation",
            default="cumulative",
            help="how the steps are combined: cumulative (default: each on the one before), leave-one-out, add-one, "
            "orders:N (N random orders), variants or space:NAME:N",
        )
        parser.add_argument("--space", metavar="NAME", help="designs of this space (`roadmap sample`) instead of steps")
        add_number(parser, "--samples N", SAMPLES, "with --space: number of designs (default: 20)")
        add_number(parser, "--sample-seed N", Range(0), "with --space: draw other designs (default: 0)")
        parser.add_argument(
            "--references",
            nargs="?",
            const="all",
            metavar="NAMES",
            help="add reference systems, with the same recipe: without a value all of the regime, or names such as "
            "swin-t,deit-s (default: none)",
        )
        parser.add_argument(
            "--base",
            metavar="STEPS",
            help="steps that every rung has, including the start: recipe, or recipe..kernel-size-7 (default: none)",
        )


def add_cluster_options(parser: argparse.ArgumentParser) -> None:
    """Where runs are trained, and how jobs are submitted."""
    parser.add_argument(
        "--on", choices=("local", "slurm"), default="local", help="where to train: this machine (default), or Slurm"
    )
    parser.add_argument(
        "--cluster", metavar="NAME", help="with --on slurm: a cluster profile of ablations.yaml (default: the regime's)"
    )
    add_number(parser, "--pack N", Range(1), "runs in one Slurm job, for small runs (default: 1)")
    add_number(parser, "--max-running N", Range(1), "jobs that Slurm runs at a time (default: no limit)")


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
    names |= {name for name in OF_SPACES if getattr(options, name, None) is not None}
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

        def show(message: Warning | str, category: type[Warning], *place: Any, **named: Any) -> None:
            if category is RunsWarning:
                print(message, file=sys.stderr)
            else:
                show_others(message, category, *place, **named)

        warnings.simplefilter("always", RunsWarning)
        warnings.showwarning = show
        yield
