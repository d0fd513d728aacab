"""data pack, data check and data scenes: packed image folders, and the embedded scenes as files."""

from __future__ import annotations

import argparse
import sys
from pathlib import Path
from typing import Any

from roadmap.cli.options import FAILED, add_number, add_verb
from roadmap.data.image_folders import describe_content
from roadmap.data.packed_format import Damaged, PackOptions, open_packed
from roadmap.files import InvalidFile
from roadmap.progress import counting
from roadmap.serialization.ranges import Range, range_of
from roadmap.text import many


def add_verbs(verbs: Any) -> None:
    parser = add_verb(
        verbs, "data", "pack an image folder into a few large files, check them, or write the scenes", "check flowers"
    )
    actions = parser.add_subparsers(dest="action", metavar="ACTION", required=True)

    parser = add_verb(
        actions, "pack", "pack an image folder into a memory-mapped data set", "imagenet imagenet.packed --resize 256"
    )
    parser.add_argument(
        "source", metavar="SOURCE", help="an image folder, NAME=PATH, or a name below $ROADMAP_DATA such as imagenet"
    )
    parser.add_argument(
        "destination",
        metavar="DESTINATION",
        type=Path,
        help="a new folder, or one that an earlier call began: it is resumed",
    )
    add_number(
        parser,
        "--resize PIXELS",
        range_of(PackOptions, "resize"),
        "longest shorter side of the images (default: the bytes of the files are kept)",
    )
    add_number(
        parser, "--quality 1-100", range_of(PackOptions, "quality"), "JPEG quality of resized images (default: 90)"
    )
    parser.add_argument(
        "--bad-images",
        choices=("stop", "skip"),
        default="stop",
        help="at an image that can't be read, stop (default), or skip it and count it",
    )
    add_number(
        parser,
        "--shard-megabytes MB",
        range_of(PackOptions, "shard_megabytes"),
        "megabytes of source files in each packed file (default: 256)",
        default=256,
    )
    add_number(parser, "--jobs N", Range(1), "number of processes (default: one for each core)")
    parser.set_defaults(function=pack_folder)

    parser = add_verb(actions, "check", "read a packed data set back: counts and checksums", "imagenet.packed")
    parser.add_argument("packed", metavar="PACKED", type=Path, help="a folder that `roadmap data pack` wrote")
    parser.set_defaults(function=check_packed)

    parser = add_verb(
        actions, "scenes", "write the scenes of digits in COCO's format and as ADE20K's folders", "digit-scenes"
    )
    parser.add_argument("folder", metavar="DIR", type=Path, help="a new folder, which gets objects/ and regions/")
    parser.set_defaults(function=write_scenes)


def pack_folder(options: argparse.Namespace) -> int:
    from runner.data.packed_writer import pack, pack_options, source_folder

    if options.quality is not None and options.resize is None:
        raise ValueError("--quality requires --resize: without it the bytes of the images are kept")
    packing = pack_options(options.resize, options.quality, options.shard_megabytes, options.bad_images)
    source, folder = source_folder(options.source), options.destination
    print(describe_content(source), flush=True)
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


def write_scenes(options: argparse.Namespace) -> int:
    from runner.data.dense.exported import export_scenes

    with counting("writing", "images") as report:
        written = export_scenes(options.folder, report)
    for task, data in zip(("detection", "segmentation"), written, strict=True):
        images = f"{data.images[0]} and {many(data.images[1], 'image')}"
        print(f"{data.folder}: {images}; `roadmap transfer --to {task} --data {data.folder}` trains on it")
    return 0
