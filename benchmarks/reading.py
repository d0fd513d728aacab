"""Reading an image folder's photographs in shuffled order, against reading them packed (`roadmap data pack`).

    python benchmarks/reading.py [FOLDER] [--images 2000] [--rounds 7]     about 0.25 GB in FOLDER

Warm: all files are in memory. Cold: none is, by /proc/sys/vm/drop_caches if permitted (as root), else by posix_fadvise.
Every measurement is in a new, forked process, and its time includes opening the data set.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import random
import statistics
import tempfile
import time
from pathlib import Path
from typing import Any

import cv2  # noqa: F401  # loaded before processes are forked
import PIL
import pyarrow
from photographs import write_photographs

from roadmap.data.image_folders import list_images
from roadmap.data.packed_format import PackOptions
from runner.data.packed_reader import Packed
from runner.data.packed_writer import pack
from runner.data.splits import Encoded, ImageFiles

CASES = [  # (title, cold, decoded, N: one of N images is read)
    ("read, warm", False, False, 1),
    ("read, cold", True, False, 1),
    ("read a tenth, cold", True, False, 10),  # as if memory can't hold all files: reading ahead is useless
    ("read and decode, warm", False, True, 1),
    ("read and decode, cold", True, True, 1),
]


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("folder", nargs="?", help="where the images are made (default: the system's temporary folder)")
    parser.add_argument("--images", type=int, default=2000)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    with tempfile.TemporaryDirectory(prefix="roadmap-reading-", dir=options.folder) as place:
        source, packed = Path(place) / "folder", Path(place) / "packed"
        write_photographs(source, options.images, classes=100)
        pack(source, packed, PackOptions(), os.cpu_count() or 1, lambda done, total: None)
        files = [path for folder in (source, packed) for path in folder.rglob("*.*")]
        print(
            f"{options.images} JPEGs, Pillow {PIL.__version__}, pyarrow {pyarrow.__version__}; cold: {make_cold(files)}"
        )
        print(f"images/s of one process, medians of {options.rounds} alternating rounds")
        print(f"{'':<24}  folder  packed   ratio   lowest..highest   MB from the disk: folder  packed")
        for title, cold, decode, one_of in CASES:
            rounds = [
                one_round(source, packed, files, number, cold, decode, one_of) for number in range(options.rounds)
            ]
            ratios = [ours[0] / theirs[0] for theirs, ours in rounds]
            rates, read = ([statistics.median(pair[side][i] for pair in rounds) for side in (0, 1)] for i in (0, 1))
            print(
                f"{title:<24}{rates[0]:>8.0f}{rates[1]:>8.0f}"
                f"{statistics.median(ratios):>8.2f}   {min(ratios):.2f}..{max(ratios):.2f}"
                f"{read[0] / 1e6:>31.0f}{read[1] / 1e6:>8.0f}",
                flush=True,
            )


def one_round(
    source: Path, packed: Path, files: list[Path], number: int, cold: bool, decode: bool, one_of: int
) -> list[tuple[float, int]]:
    """For the folder and the packed data set: images/s, and bytes read from the disk. The order alternates by round."""
    results = {}
    for folder in (source, packed) if number % 2 else (packed, source):
        if cold:
            make_cold(files)
        else:
            for path in files:
                path.read_bytes()
        results[folder] = in_a_process(folder, number, decode, one_of)
    return [results[source], results[packed]]


def make_cold(files: list[Path]) -> str:
    """Removes the files from the page cache; returns the method."""
    os.sync()
    try:
        Path("/proc/sys/vm/drop_caches").write_text("3\n")
        return "drop_caches"
    except OSError:
        for path in files:
            with path.open("rb") as file:
                os.posix_fadvise(file.fileno(), 0, 0, os.POSIX_FADV_DONTNEED)
        return "posix_fadvise"


def in_a_process(folder: Path, seed: int, decode: bool, one_of: int) -> tuple[float, int]:
    context = multiprocessing.get_context("fork")
    ours, theirs = context.Pipe()
    process = context.Process(target=measure, args=(theirs, folder, seed, decode, one_of))
    process.start()
    theirs.close()  # so that `recv` raises EOFError if the process ends without a result
    result: tuple[float, int] = ours.recv()
    process.join()
    return result


def measure(connection: Any, folder: Path, seed: int, decode: bool, one_of: int) -> None:
    split: Encoded = ImageFiles(list_images(folder)[0]) if folder.name == "folder" else Packed(folder, "train")
    order = list(range(len(split)))
    random.Random(seed).shuffle(order)
    del order[len(order) // one_of :]
    before, began = bytes_from_disk(), time.perf_counter()
    for index in order:
        if decode:
            split.image(index).pixels()
        else:
            sum(bytes(split.encoded(index)[::4096]))  # one byte of each page: mapping alone reads nothing
    connection.send((len(order) / (time.perf_counter() - began), bytes_from_disk() - before))


def bytes_from_disk() -> int:
    try:
        lines = Path("/proc/self/io").read_text().splitlines()
    except OSError:
        return 0
    return int(next(line.split()[1] for line in lines if line.startswith("read_bytes")))


if __name__ == "__main__":
    main()
