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
    print(f"{result.first} and {result.second}, {many(result.runs, 'run')} each, ", end="")
    print(f"on {many(result.test_images, 'test image')}\n")
    _print_first(options.rows, "images", *_images(result))
    _print_first(options.rows, "classes", *_classes(result))
    test, right = result.test, "is right alone" if result.runs == 1 else "is right in more runs"
    counts = f"{result.first} {right} on {many(test.only_first, 'image')}, {result.second} on {test.only_second}"
    print(f"{counts}. McNemar's exact test: p {test.p:.3g}, for other test images, not for other seeds.")
    for path in paths:
        print(f"written: {path}", file=sys.stderr)
    return 0


def _print_first(count: int, nouns: str, header: list[str], rows: list[list[str]]) -> None:
    shown = rows[:count]
    if shown:
        print(table(header, shown))
    if len(shown) < len(rows):
        print(f"and {len(rows) - len(shown)} more {nouns}")
    print("" if rows else f"They do not differ in any of the {nouns}.\n")


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
