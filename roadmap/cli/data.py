"""data pack and data check: pack image folders into a few large files, and check them."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from roadmap.cli.options import FAILED, number
from roadmap.data.packed_format import Damaged, PackOptions, open_packed
from roadmap.files import InvalidFile
from roadmap.progress import counting
from roadmap.serialization import Range, range_of
from roadmap.text import many


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("data", help="pack an image folder into a few large files, and check them")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    parser = actions.add_parser("pack", help="pack an image folder into a memory-mapped data set")
    parser.add_argument(
        "source", metavar="SOURCE", help="an image folder, NAME=PATH, or a name below $ROADMAP_DATA such as imagenet"
    )
    parser.add_argument("destination", metavar="DESTINATION", type=Path, help="a new folder, or one to resume")
    parser.add_argument(
        "--resize",
        type=number(range_of(PackOptions, "resize"), int),
        metavar="PIXELS",
        help="shorten the shorter side of larger images to this (default: keep the bytes of the files)",
    )
    parser.add_argument(
        "--quality",
        type=number(range_of(PackOptions, "quality"), int),
        metavar="1-100",
        help="JPEG quality of resized images (default: 90)",
    )
    parser.add_argument(
        "--bad-images",
        choices=("stop", "skip"),
        default="stop",
        help="stop (default), or skip: leave them out and count them",
    )
    parser.add_argument(
        "--shard-megabytes",
        type=number(range_of(PackOptions, "shard_megabytes"), int),
        default=256,
        metavar="MB",
        help="megabytes of source files in each packed file (default: 256)",
    )
    parser.add_argument(
        "--jobs", type=number(Range(1), int), metavar="N", help="number of processes (default: one for each core)"
    )
    parser.set_defaults(function=pack_folder)

    parser = actions.add_parser("check", help="read a packed data set back: counts and checksums")
    parser.add_argument("packed", metavar="PACKED", type=Path)
    parser.set_defaults(function=check_packed)


def pack_folder(options: argparse.Namespace) -> int:
    from runner.data.packed_writer import pack, pack_options, source_folder

    if options.quality is not None and options.resize is None:
        raise ValueError("--quality requires --resize: without it the bytes of the images are kept")
    packing = pack_options(options.resize, options.quality, options.shard_megabytes, options.bad_images)
    source, folder = source_folder(options.source), options.destination
    with counting("packing", "images") as report:
        try:
            index = pack(source, folder, packing, options.jobs, report)
        except (KeyboardInterrupt, SystemExit):
            print(f"stopped: {folder} keeps the files that are finished; the same command resumes", file=sys.stderr)
            raise
    for message in index.skipped:
        print(f"left out: {message}", file=sys.stderr)
    shards = [shard for split in index.splits.values() for shard in split.shards]
    parts = [f"{index.train.images} and {many(index.val.images, 'image')} in {many(len(shards), 'file')}"]
    parts.append(f"{sum(shard.bytes for shard in shards) / 1e6:.1f} MB")
    parts += [f"{index.reencoded} encoded again"] if index.reencoded else []
    parts += [f"{len(index.skipped)} left out"] if index.skipped else []
    print(f"{folder}: {', '.join(parts)}; --data {folder} trains on it")
    return 0


def check_packed(options: argparse.Namespace) -> int:
    from runner.data.packed_reader import damage

    folder: Path = options.packed
    try:
        index = open_packed(folder)
    except (Damaged, InvalidFile) as error:
        remove = (
            "" if isinstance(error, InvalidFile) else f"; remove {folder}"
        )  # the message of InvalidFile says so already
        print(f"{error}{remove} and pack it again", file=sys.stderr)
        return FAILED
    with counting("checking", "images") as report:
        damages = list(damage(folder, index, report))
    for message in damages:
        print(message)
    if damages:
        print(f"{folder} is damaged; remove it and pack it again", file=sys.stderr)
        return FAILED
    shards = sum(len(split.shards) for split in index.splits.values())
    print(f"{folder}: {many(index.images, 'image')} in {many(shards, 'file')}, all as they were written")
    return 0
