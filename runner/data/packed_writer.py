"""Packing an image folder (roadmap/data/packed_format.py), with several processes, each of which writes a file."""

from __future__ import annotations

import contextlib
import hashlib
import io
import json
import multiprocessing
import os
import signal
import threading
from collections.abc import Callable, Generator, Iterator, Mapping, Sequence
from concurrent.futures import FIRST_COMPLETED, ProcessPoolExecutor, wait
from concurrent.futures.process import BrokenProcessPool
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any, Literal

from roadmap.data.image_folders import Listing, describe_folder, file_sizes, list_images
from roadmap.data.packed_format import (
    FORMAT,
    INDEX,
    JOURNAL,
    Index,
    PackOptions,
    ShardEntry,
    SplitEntry,
    SplitName,
    is_packed,
    read_index,
)
from roadmap.files import append_json_line, read_json_lines, write_atomic, write_json
from roadmap.serialization.plain_data import differences, from_data, to_data, user_path
from roadmap.serialization.ranges import Range, check
from runner.data.datasets import downloads
from runner.data.image import BadImage, EncodedImage
from runner.data.packed_reader import Shard, arrow, checksum, content_of_shards, schema
from runner.machine.fork_server import fork_server
from runner.machine.lock import folder_lock
from runner.machine.resources import available_cores
from runner.machine.signals import FOR_THE_LAUNCHER

if TYPE_CHECKING:
    import pyarrow
    from PIL.Image import Image

DEFAULT_QUALITY = 90
BATCH_BYTES = 16 * 2**20  # of images that a process holds before it writes them
REPORT_SECONDS = 0.2  # between two reports

Report = Callable[[int], None]  # gets the number of images done


@dataclass(frozen=True)
class Part:
    """The images of a file to write."""

    path: Path
    root: Path
    names: tuple[str, ...]  # relative to the root
    labels: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """A written file: a line of the journal."""

    shard: ShardEntry
    reencoded: int
    skipped: tuple[str, ...]


def pack_options(
    resize: int | None = None,
    quality: int | None = None,
    shard_megabytes: int = 256,
    bad_images: Literal["stop", "skip"] = "stop",
) -> PackOptions:
    """The options, with the default quality if images are resized. Raises ValueError for numbers out of range."""
    quality = DEFAULT_QUALITY if resize is not None and quality is None else quality
    return PackOptions(resize, quality, shard_megabytes, bad_images)


def source_folder(text: str) -> Path:
    """The folder that a path, NAME=PATH, or a name below $ROADMAP_DATA means. `pack` checks that it has images."""
    name, equals, path = text.partition("=")
    if equals and os.sep not in name:
        return user_path(path)
    folder = user_path(text)
    return folder if os.sep in text or folder.is_dir() else downloads() / text


def pack(
    source: Path, folder: Path, options: PackOptions, jobs: int | None, report: Callable[[int, int], None]
) -> Index:
    """Packs an image folder into another folder, or resumes that. `jobs`: processes, by default one for each core.

    `report` gets the number of images done, and of all. Finished files stay if an error is raised: ValueError if the
    source is no image folder or has changed, if the destination contains something else, or if `jobs` is below 1;
    BadImage for an image that can't be read; OSError if the disk fails or is full.
    """
    arrow()
    jobs = available_cores() if jobs is None else jobs
    check(jobs, Range(1), "jobs")
    if is_packed(source):
        raise ValueError(f"{source} must be an image folder (got a packed data set)")
    if folder.resolve().is_relative_to(source.resolve()):
        raise ValueError(f"{folder} must be outside {source}: otherwise it would be taken for a part of the source")
    content = describe_folder(source).content
    splits = dict(zip(("train", "val"), list_images(source), strict=True))
    request = {"format": FORMAT, "source": content, "options": to_data(options)}
    _check_destination(folder, request)
    if (folder / INDEX).is_file():
        (folder / JOURNAL).unlink(missing_ok=True)  # left if the process was killed after it wrote the index
        return _check_files(folder, read_index(folder))
    parts = [
        part
        for name, listing in splits.items()
        for part in _parts(folder, name, listing, options.shard_megabytes * 10**6)  # type: ignore[arg-type]
    ]
    images = sum(len(part.names) for part in parts)
    with folder_lock(folder, "being packed"):
        done = _resume(folder, request, parts)
        images_before = sum(len(part.names) for part in parts if part.path.name in done)
        remaining = [part for part in parts if part.path.name not in done]
        all_written = _write_all(remaining, options, jobs, lambda count: report(images_before + count, images))
        with contextlib.closing(all_written):
            for written in all_written:
                append_json_line(folder / JOURNAL, to_data(written))
                done[written.shard.file] = written
        index = _write_index(folder, request, splits["train"].classes, [done[part.path.name] for part in parts])
        (folder / JOURNAL).unlink()
    return index


def _check_files(folder: Path, index: Index) -> Index:
    """Returns the index. Raises ValueError if one of its files is missing or has another size."""
    for shard in (shard for split in index.splits.values() for shard in split.shards):
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise ValueError(f"{path} is missing or has another size; remove {folder} and pack it again")
    return index


def _parts(folder: Path, split: SplitName, listing: Listing, most: int) -> Iterator[Part]:
    """The images in order, in parts of at most so many bytes of their files; the same parts at every call."""
    sizes, start, total = file_sizes(listing), 0, 0
    starts = []
    for i, size in enumerate(sizes):
        total += size
        if total > most and i > start:
            starts.append(start)
            start, total = i, size
    starts.append(start)
    for number, (first, last) in enumerate(zip(starts, [*starts[1:], len(sizes)], strict=True)):
        where = slice(first, last)
        path = folder / f"{split}-{number:05d}.arrow"
        yield Part(path, listing.root, listing.names[where], listing.labels[where], sizes[where])


def _check_destination(folder: Path, request: Mapping[str, Any]) -> None:
    """Raises ValueError if the folder contains anything but the requested data set, or its beginning."""
    if not is_packed(folder):
        if folder.exists() and (not folder.is_dir() or set(os.listdir(folder)) - {"lock"}):
            raise ValueError(f"{folder} must be a new or empty folder, or a packed data set")
        return
    if (folder / INDEX).is_file():
        index = read_index(folder)
        recorded: Any = {"format": index.format, "source": index.source, "options": to_data(index.options)}
    else:  # a journal whose first line is damaged counts as none
        recorded = next(iter(read_json_lines(folder / JOURNAL)), None) or dict(request)
    if not isinstance(recorded, dict) or recorded.get("format") != FORMAT:
        raise ValueError(f"{folder / JOURNAL} is not of this version; remove {folder} to pack again")
    options = recorded.get("options")
    changes = differences(options, request["options"])
    if isinstance(options, dict) and options.get("bad_images") == "stop":  # files finished with it have no bad image
        changes = [change for change in changes if change.path != "bad_images"]
    if changes:
        text = ", ".join(str(change).replace("_", "-") for change in changes)
        raise ValueError(f"{folder} was packed with other options ({text}); choose another folder, or remove this one")
    if recorded.get("source") != request["source"]:
        raise ValueError(
            f"{folder} was packed from other images, or the source has changed; "
            "choose another folder, or remove this one"
        )


def _resume(folder: Path, request: Mapping[str, Any], parts: Sequence[Part]) -> dict[str, Written]:
    """The files that were finished before, if their size and columns are still as written."""
    part_names = {part.path.name for part in parts}
    finished = {}
    first, *rows = read_json_lines(folder / JOURNAL) or [None]
    for row in rows if first else ():  # the first line has the options that they were written with
        with contextlib.suppress(ValueError, OSError):
            written: Written = from_data(Written, row)
            if written.shard.file in part_names:
                Shard(folder, written.shard)
                finished[written.shard.file] = written
    # Rewritten, because its last line may be incomplete.
    rows = [request, *map(to_data, finished.values())]
    write_atomic(folder / JOURNAL, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return finished


def _write_all(
    parts: Sequence[Part], options: PackOptions, jobs: int, report: Report
) -> Generator[Written, None, None]:
    """Yields each file when it is finished, in any order."""
    if not parts:
        return
    context = fork_server("runner.data.packed_writer")
    stop, done = context.Event(), context.Value("q", 0)
    pool = ProcessPoolExecutor(min(jobs, len(parts)), context, _initialize, (stop, done))
    try:
        pending = {pool.submit(write_shard, part, options) for part in parts}
        while pending:
            finished, pending = wait(pending, REPORT_SECONDS, FIRST_COMPLETED)
            for future in finished:
                yield future.result()
            report(done.value)
    except BrokenProcessPool:
        raise ValueError(
            "a packing process was killed, perhaps for lack of memory; the same command resumes, "
            "and fewer --jobs need less memory"
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


_stop: Any = threading.Event()  # whether this process is to stop
_done: Any = None  # the number of images done by all processes


def _initialize(stop: Any, done: Any) -> None:
    """Called at the start of each packing process."""
    global _stop, _done
    _stop, _done = stop, done
    for number in FOR_THE_LAUNCHER:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_exit_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _exit_with(parent: Any) -> None:
    """Ends this process when its parent ends: a killed parent can't stop it."""
    parent.join()
    os._exit(1)


class Stopped(Exception):
    """Another process failed, or the user interrupted."""


def write_shard(part: Part, options: PackOptions) -> Written:
    """Writes a temporary file and renames it; returns its journal line. Raises BadImage, Stopped, OSError."""
    library = arrow()
    temporary = part.path.with_name(part.path.name + ".tmp")
    skipped: list[str] = []
    images = reencoded = 0
    try:
        with temporary.open("w+b") as file:
            with library.ipc.new_file(file, schema()) as writer:
                for batch in _batches(part, options, skipped):
                    images += len(batch)
                    reencoded += sum(batch.column("reencoded").to_pylist())
                    writer.write_batch(batch)
            file.flush()
            os.fsync(file.fileno())
            file.seek(0)
            digest = hashlib.file_digest(file, "sha256").hexdigest()
            entry = ShardEntry(part.path.name, images, file.tell(), digest)
        os.replace(temporary, part.path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            temporary.unlink()  # the disk may be full
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(part.path)) from None
        raise
    return Written(entry, reencoded, tuple(skipped))


def _batches(part: Part, options: PackOptions, skipped: list[str]) -> Iterator[pyarrow.RecordBatch]:
    """A file's rows in batches of limited size; appends the errors of images that are left out to `skipped`."""
    rows: list[tuple[bytes, int, bytes, int, bool]] = []
    total = 0
    for name, label, size in zip(part.names, part.labels, part.sizes, strict=True):
        if _stop.is_set():
            raise Stopped
        try:
            data, is_reencoded = _packed_bytes(part.root / name, size, options)
        except BadImage as error:
            if options.bad_images == "stop":
                raise BadImage(f"{error}; --bad-images skip leaves it out") from None
            skipped.append(str(error))
        else:
            rows.append((name.encode(errors="surrogateescape"), label, data, checksum(data), is_reencoded))
            total += len(data)
            if total > BATCH_BYTES:
                yield _batch(rows)
                rows, total = [], 0
        if _done is not None:
            with _done.get_lock():
                _done.value += 1
    if rows:
        yield _batch(rows)


def _batch(rows: Sequence[tuple[bytes, int, bytes, int, bool]]) -> pyarrow.RecordBatch:
    library = arrow()
    columns = zip(zip(*rows, strict=True), schema(), strict=True)
    arrays = [library.array(list(column), field.type) for column, field in columns]
    return library.RecordBatch.from_arrays(arrays, schema=schema())


def _packed_bytes(path: Path, size: int, options: PackOptions) -> tuple[bytes, bool]:
    """The bytes that are packed for an image, and whether they differ from the file.

    Every image is decoded, even if its bytes are kept, so that a damaged one is found now and not in training.
    """
    data = path.read_bytes()
    if len(data) != size:
        raise ValueError(f"{path} has changed while it was packed")
    image = EncodedImage(data, lambda: str(path)).rgb()
    if options.resize is None or min(image.size) <= options.resize:
        return data, False
    try:
        return _as_jpeg(_shrunk(image, options.resize), options.quality or DEFAULT_QUALITY), True
    except OSError as error:  # a side too long for JPEG
        raise BadImage(f"{path} can't be written as JPEG: {error}") from None


def _shrunk(image: Image, shorter: int) -> Image:
    from PIL.Image import Resampling

    width, height = image.size
    scale = shorter / min(width, height)
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Resampling.BICUBIC)


def _as_jpeg(image: Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.info.clear()  # without comments, and without orientation, which training ignores too
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _write_index(
    folder: Path, request: Mapping[str, Any], classes: tuple[str, ...], written: Sequence[Written]
) -> Index:
    """Counts the images of each class, and writes the index."""
    shards = {
        name: [Shard(folder, file.shard) for file in written if file.shard.file.startswith(f"{name}-")]
        for name in ("train", "val")
    }
    splits = {
        name: SplitEntry(_counts(of_split, len(classes)), tuple(shard.entry for shard in of_split))
        for name, of_split in shards.items()
    }
    empty = [name for name, count in zip(classes, splits["train"].images_of_class, strict=True) if not count]
    if empty:
        raise ValueError(f"class {empty[0]!r} has no training image that can be read")
    if not splits["val"].images:
        raise ValueError("no held-out image can be read")
    index = Index(
        format=FORMAT,
        content=content_of_shards(list(shards.values())),
        source=request["source"],
        options=from_data(PackOptions, request["options"]),
        reencoded=sum(file.reencoded for file in written),
        skipped=tuple(message for file in written for message in file.skipped),
        classes=classes,
        **splits,
    )
    write_json(folder / INDEX, to_data(index))
    return index


def _counts(shards: Sequence[Shard], classes: int) -> tuple[int, ...]:
    import numpy as np

    labels = [np.zeros(0, np.int32), *(shard.labels for shard in shards)]
    return tuple(np.bincount(np.concatenate(labels), minlength=classes).tolist())
