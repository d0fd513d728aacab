"""disagree: the test images and classes on which two rungs differ."""

from __future__ import annotations

import argparse
import sys
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import add_number, add_out, add_output, add_study_options, add_verb, study_keywords
from roadmap.serialization.ranges import Range
from roadmap.text import many, table

if TYPE_CHECKING:
    from analysis.disagreement import Disagreement


def add_verbs(verbs: Any) -> None:
    parser = add_verb(verbs, "disagree", "list the test images on which two rungs differ", "recipe gelu -o gelu.png")
    parser.add_argument("first", metavar="A", help="a rung that was trained, as in `roadmap list`")
    parser.add_argument("second", metavar="B", help="the rung to compare with A")
    add_study_options(parser)
    add_out(parser)
    add_number(parser, "--rows N", Range(0), "images and classes to print, of each (default: 12)", default=12)
    add_output(parser, "a contact sheet as .png, .svg or .pdf, or all images as .csv; may be repeated", several=True)
    parser.set_defaults(function=disagree)


def disagree(options: argparse.Namespace) -> int:
    from roadmap.api import disagree as compare

    paths = options.output or []
    result = compare(options.first, options.second, options.out, output=paths, **study_keywords(options))
    runs = [many(count, "run") for count in result.runs]
    print(f"{result.first} ({runs[0]}) and {result.second} ({runs[1]}) on {many(result.test_images, 'test image')}\n")
    _print_first(options.rows, "image", *_images(result))
    _print_first(options.rows, "class", *_classes(result))
    test = result.test
    counts = f"only {result.first} is right on {test.only_first}, only {result.second} on {test.only_second}"
    print(f"Images: {counts}; McNemar's exact test: p {test.p:.3g}.")
    if max(result.runs) > 1:
        print("A rung is right on an image if more than half of its runs are.")
    for path in paths:
        print(f"written: {path}", file=sys.stderr)
    return 0


def _print_first(count: int, noun: str, header: list[str], rows: list[list[str]]) -> None:
    shown = rows[:count]
    if shown:
        print(table(header, shown))
    if len(shown) < len(rows):
        print(f"and {many(len(rows) - len(shown), f'more {noun}')}")
    print()


def _images(result: Disagreement) -> tuple[list[str], list[list[str]]]:
    header = ["image", "class", result.first, "right", result.second, "right"]
    rows = [
        [
            str(row["index"]),
            row["label"],
            *(cell for side in ("first", "second") for cell in (row[side], f"{row[f'{side}_correct']:.0%}")),
        ]
        for row in result.images.to_dict("records")
    ]
    return header, rows


def _classes(result: Disagreement) -> tuple[list[str], list[list[str]]]:
    header = ["class", "images", f"{result.first}, top-1 %", f"{result.second}, top-1 %", "change"]
    rows = [
        [
            row["class"],
            str(row["images"]),
            f"{row['first']:.2f}",
            f"{row['second']:.2f}",
            f"{row['second'] - row['first']:+.2f}",
        ]
        for row in result.classes.to_dict("records")
        if row["first"] != row["second"]
    ]
    return header, rows
