"""data pack and data check: image folders as a few large files."""

from __future__ import annotations

import argparse
import os
import sys
from pathlib import Path
from typing import Any

from roadmap.cli.options import FAILED, number
from roadmap.data.packed_format import Damaged, Index, PackOptions, is_packed, read_index
from roadmap.files import InvalidFile
from roadmap.progress import counting
from roadmap.serialization import Range, range_of
from roadmap.text import many


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("data", help="pack an image folder into a few large files, and check them")
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    parser = actions.add_parser("pack", help="an image folder into one packed, memory-mapped data set")
    parser.add_argument(
        "source", metavar="SOURCE", help="an image folder, NAME=PATH, or a name below $ROADMAP_DATA such as imagenet"
    )
    parser.add_argument("destination", metavar="DESTINATION", type=Path, help="a new folder, or one to go on with")
    parser.add_argument(
        "--resize",
        type=number(range_of(PackOptions, "resize"), int),
        metavar="PIXELS",
        help="an image's shorter side, at most (default: bytes are kept)",
    )
    parser.add_argument(
        "--quality",
        type=number(range_of(PackOptions, "quality"), int),
        metavar="1-100",
        help="of JPEGs that are resized (default: 90)",
    )
    parser.add_argument(
        "--bad-images", choices=("stop", "skip"), default="stop", help="stop (default); skip: left out, counted"
    )
    parser.add_argument(
        "--shard-megabytes",
        type=number(range_of(PackOptions, "shard_megabytes"), int),
        default=256,
        metavar="MB",
        help="of the source in each file (default: 256)",
    )
    parser.add_argument(
        "--jobs", type=number(Range(1), int), metavar="N", help="processes (default: one for each core)"
    )
    parser.set_defaults(function=pack_folder)

    parser = actions.add_parser("check", help="read a packed data set back: counts and checksums")
    parser.add_argument("packed", metavar="PACKED", type=Path)
    parser.set_defaults(function=check_packed)


def pack_folder(options: argparse.Namespace) -> int:
    from runner.data.packed_writer import DEFAULT_QUALITY, pack
    from runner.machine.resources import available_cores

    jobs = available_cores() if options.jobs is None else options.jobs
    quality = DEFAULT_QUALITY if options.resize is not None and options.quality is None else options.quality
    try:
        how = PackOptions(options.resize, quality, options.shard_megabytes, options.bad_images)
    except ValueError as error:
        raise ValueError(f"--{error}") from None
    source, folder = _source(options.source), options.destination
    with counting("packing", "images") as report:
        try:
            index = pack(source, folder, how, jobs, report)
        except (KeyboardInterrupt, SystemExit):
            print(f"stopped: {folder} keeps the files that are finished; the same command goes on", file=sys.stderr)
            raise
    for message in index.skipped:
        print(f"left out: {message}", file=sys.stderr)
    print(_summary(folder, index))
    return 0


def _source(written: str) -> Path:
    """The folder that is meant. Whether it is one of images is seen later."""
    from runner.data.datasets import downloads

    name, equals, path = written.partition("=")
    if equals and os.sep not in name:
        return Path(os.path.expanduser(path))
    found = Path(os.path.expanduser(written))
    return found if os.sep in written or found.is_dir() else downloads() / written


def _summary(folder: Path, index: Index) -> str:
    shards = [shard for split in index.splits.values() for shard in split.shards]
    size = sum(shard.bytes for shard in shards) / 1e6
    told = f"{folder}: {index.train.images} and {many(index.val.images, 'image')} in {many(len(shards), 'file')}, "
    told += f"{size:.1f} MB"
    told += f", {index.reencoded} encoded anew" if index.reencoded else ""
    told += f", {len(index.skipped)} left out" if index.skipped else ""
    return f"{told}; --data {folder} trains on it"


def check_packed(options: argparse.Namespace) -> int:
    from runner.data.packed_reader import damage

    folder: Path = options.packed
    if not is_packed(folder):
        raise ValueError(f"{folder} is no packed data set; a folder that `roadmap data pack` made is expected")
    try:
        index = read_index(folder)
    except InvalidFile as error:  # no JSON any more
        print(f"{error} and pack it again", file=sys.stderr)
        return FAILED
    except Damaged as error:
        print(f"{error}; remove {folder} and pack it again", file=sys.stderr)
        return FAILED
    with counting("checking", "images") as report:
        found = list(damage(folder, index, report))
    for message in found:
        print(message)
    shards = sum(len(split.shards) for split in index.splits.values())
    if found:
        print(f"{folder} is damaged; remove it and pack it again", file=sys.stderr)
        return FAILED
    print(f"{folder}: {many(index.images, 'image')} in {many(shards, 'file')}, all as they were written")
    return 0
