"""Packing an image folder (roadmap/data/packed_format.py), in processes that write a file each."""

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
from roadmap.serialization import Range, check, differences, from_data, to_data
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
TOLD = 0.2  # seconds between two reports

Report = Callable[[int], None]  # of images that are done


@dataclass(frozen=True)
class Part:
    """The images of a file that is to be written."""

    path: Path
    root: Path
    names: tuple[str, ...]  # relative to the root
    labels: tuple[int, ...]
    sizes: tuple[int, ...]


@dataclass(frozen=True)
class Written:
    """A file that was written: a line of the journal."""

    shard: ShardEntry
    reencoded: int
    skipped: tuple[str, ...]


def pack_options(
    resize: int | None = None,
    quality: int | None = None,
    shard_megabytes: int = 256,
    bad_images: Literal["stop", "skip"] = "stop",
) -> PackOptions:
    """With the default quality where images are resized. Raises ValueError for numbers out of range."""
    quality = DEFAULT_QUALITY if resize is not None and quality is None else quality
    return PackOptions(resize, quality, shard_megabytes, bad_images)


def source_folder(written: str) -> Path:
    """The folder that a path, NAME=PATH, or a name below $ROADMAP_DATA means. `pack` checks that it has images."""
    name, equals, path = written.partition("=")
    if equals and os.sep not in name:
        return Path(os.path.expanduser(path))
    folder = Path(os.path.expanduser(written))
    return folder if os.sep in written or folder.is_dir() else downloads() / written


def pack(
    source: Path, folder: Path, options: PackOptions, jobs: int | None, report: Callable[[int, int], None]
) -> Index:
    """Packs an image folder into another, or resumes that, by so many processes: by default one for each core.

    `report` gets how many images are done, and of how many. What was finished stays where an error is raised:
    ValueError where the source is no image folder or has changed, where the destination holds something else, or for a
    number of processes below 1; BadImage for an image that can't be read; OSError where the disk fails or is full.
    """
    arrow()
    jobs = available_cores() if jobs is None else jobs
    check(jobs, Range(1), "jobs")
    if is_packed(source):
        raise ValueError(f"{source} is packed already; an image folder is expected")
    if folder.resolve().is_relative_to(source.resolve()):
        raise ValueError(
            f"{folder} lies in {source}, whose images it would be taken for one of; a folder elsewhere is expected"
        )
    content = describe_folder(source).content
    splits = dict(zip(("train", "val"), list_images(source), strict=True))
    asked = {"format": FORMAT, "source": content, "options": to_data(options)}
    _check_destination(folder, asked)
    if (folder / INDEX).is_file():
        (folder / JOURNAL).unlink(missing_ok=True)  # who wrote the index may have been killed before
        return _whole(folder, read_index(folder))
    parts = [
        part
        for name, listing in splits.items()
        for part in _parts(folder, name, listing, options.shard_megabytes * 10**6)  # type: ignore[arg-type]
    ]
    images = sum(len(part.names) for part in parts)
    with folder_lock(folder, "being packed"):
        done = _resume(folder, asked, parts)
        before = sum(len(part.names) for part in parts if part.path.name in done)
        left = [part for part in parts if part.path.name not in done]
        all_written = _write_all(left, options, jobs, lambda now: report(before + now, images))
        with contextlib.closing(all_written):
            for written in all_written:
                append_json_line(folder / JOURNAL, to_data(written))
                done[written.shard.file] = written
        index = _conclude(folder, asked, splits["train"].classes, [done[part.path.name] for part in parts])
        (folder / JOURNAL).unlink()
    return index


def _whole(folder: Path, index: Index) -> Index:
    """The index, once its files are seen to be there. Raises ValueError for one that is not, or of another size."""
    for shard in (shard for split in index.splits.values() for shard in split.shards):
        path = folder / shard.file
        if not path.is_file() or path.stat().st_size != shard.bytes:
            raise ValueError(f"{path} is not there as it was written; remove {folder} and pack it again")
    return index


def _parts(folder: Path, split: SplitName, listing: Listing, most: int) -> Iterator[Part]:
    """Images in order, up to so many bytes of their files in each part: the same ones whenever it is asked."""
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


def _check_destination(folder: Path, asked: Mapping[str, Any]) -> None:
    """Raises ValueError where it holds anything but what is asked for, or the beginning of it."""
    if not is_packed(folder):
        if folder.exists() and (not folder.is_dir() or set(os.listdir(folder)) - {"lock"}):
            raise ValueError(f"{folder} is there and no packed data set; a new or an empty folder is expected")
        return
    if (folder / INDEX).is_file():
        index = read_index(folder)
        found: Any = {"format": index.format, "source": index.source, "options": to_data(index.options)}
    else:
        found = next(iter(read_json_lines(folder / JOURNAL)), None) or dict(asked)  # damaged in its first line: as none
    if not isinstance(found, dict) or found.get("format") != FORMAT:
        raise ValueError(f"{folder / JOURNAL} is not of this version; remove {folder} to pack again")
    options = found.get("options")
    other = differences(options, asked["options"])
    if isinstance(options, dict) and options.get("bad_images") == "stop":  # what that finished had no bad image
        other = [each for each in other if each.path != "bad_images"]
    if other:
        told = ", ".join(str(each).replace("_", "-") for each in other)
        raise ValueError(f"{folder} was packed with other options ({told}); choose another folder, or remove this one")
    if found.get("source") != asked["source"]:
        raise ValueError(
            f"{folder} was packed from other images: the source has changed, or is another; "
            "choose another folder, or remove this one"
        )


def _resume(folder: Path, asked: Mapping[str, Any], parts: Sequence[Part]) -> dict[str, Written]:
    """The files that were finished before and still are what was written, as far as size and columns tell."""
    wanted = {part.path.name for part in parts}
    found = {}
    first, *rows = read_json_lines(folder / JOURNAL) or [None]
    for row in rows if first else ():  # by what options they were written is in the first
        with contextlib.suppress(ValueError, OSError):
            written: Written = from_data(Written, row)
            if written.shard.file in wanted:
                Shard(folder, written.shard)
                found[written.shard.file] = written
    # Whole again: its last line may have been cut off.
    rows = [asked, *map(to_data, found.values())]
    write_atomic(folder / JOURNAL, "".join(json.dumps(row) + "\n" for row in rows).encode())
    return found


def _write_all(
    parts: Sequence[Part], options: PackOptions, jobs: int, report: Report
) -> Generator[Written, None, None]:
    """Each file when it is finished, in whatever order."""
    if not parts:
        return
    context = fork_server("runner.data.packed_writer")
    stop, done = context.Event(), context.Value("q", 0)
    pool = ProcessPoolExecutor(min(jobs, len(parts)), context, _begin, (stop, done))
    try:
        left = {pool.submit(write_shard, part, options) for part in parts}
        while left:
            finished, left = wait(left, TOLD, FIRST_COMPLETED)
            for each in finished:
                yield each.result()
            report(done.value)
    except BrokenProcessPool:
        raise ValueError(
            "a process that packed ended without a word, as where memory is short; the same command goes on, "
            "with fewer --jobs"
        ) from None
    finally:
        stop.set()
        pool.shutdown(cancel_futures=True)


_stop: Any = threading.Event()  # a process's: whether it is to stop
_done: Any = None  # and the images of all processes that are done


def _begin(stop: Any, done: Any) -> None:
    """In a process that packs."""
    global _stop, _done
    _stop, _done = stop, done
    for number in FOR_THE_LAUNCHER:
        signal.signal(number, signal.SIG_IGN)
    threading.Thread(target=_end_with, args=(multiprocessing.parent_process(),), daemon=True).start()


def _end_with(starter: Any) -> None:
    """One that was killed tells nobody to stop."""
    starter.join()
    os._exit(1)


class Stopped(Exception):
    """Another process failed, or the user wants no more."""


def write_shard(part: Part, options: PackOptions) -> Written:
    """Writes a file aside, then gives it its name; what the journal keeps. Raises BadImage, Stopped, OSError."""
    library = arrow()
    aside = part.path.with_name(part.path.name + ".tmp")
    skipped: list[str] = []
    images = reencoded = 0
    try:
        with aside.open("w+b") as file:
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
        os.replace(aside, part.path)
    except BaseException as error:
        with contextlib.suppress(OSError):
            aside.unlink()  # a full disk has no room for half a file
        if isinstance(error, OSError) and error.filename is None:
            raise OSError(error.errno, error.strerror, str(part.path)) from None
        raise
    return Written(entry, reencoded, tuple(skipped))


def _batches(part: Part, options: PackOptions, skipped: list[str]) -> Iterator[pyarrow.RecordBatch]:
    """A file's rows, not too many at a time; adds to what is wrong with images that are left out."""
    rows: list[tuple[bytes, int, bytes, int, bool]] = []
    total = 0
    for name, label, size in zip(part.names, part.labels, part.sizes, strict=True):
        if _stop.is_set():
            raise Stopped
        try:
            data, anew = _stored(part.root / name, size, options)
        except BadImage as error:
            if options.bad_images == "stop":
                raise BadImage(f"{error}; --bad-images skip leaves it out") from None
            skipped.append(str(error))
        else:
            rows.append((name.encode(errors="surrogateescape"), label, data, checksum(data), anew))
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


def _stored(path: Path, size: int, options: PackOptions) -> tuple[bytes, bool]:
    """An image's bytes as they are packed, and whether they are no longer the file's.

    Every image is decoded, also where its bytes are kept: a damaged one is found now and not in training.
    """
    data = path.read_bytes()
    if len(data) != size:
        raise ValueError(f"{path} has changed while it was packed")
    image = EncodedImage(data, lambda: str(path)).rgb()
    if options.resize is None or min(image.size) <= options.resize:
        return data, False
    try:
        return _as_jpeg(_shrunk(image, options.resize), options.quality or DEFAULT_QUALITY), True
    except OSError as error:  # a side that JPEG has no number for
        raise BadImage(f"{path} can't be written as JPEG: {error}") from None


def _shrunk(image: Image, shorter: int) -> Image:
    from PIL.Image import Resampling

    width, height = image.size
    scale = shorter / min(width, height)
    return image.resize((max(1, round(width * scale)), max(1, round(height * scale))), Resampling.BICUBIC)


def _as_jpeg(image: Image, quality: int) -> bytes:
    file = io.BytesIO()
    image.info.clear()  # no comments, and no orientation, which training does not follow either
    image.save(file, "JPEG", quality=quality)
    return file.getvalue()


def _conclude(folder: Path, asked: Mapping[str, Any], classes: tuple[str, ...], written: Sequence[Written]) -> Index:
    """Counts what was written, and writes the index."""
    shards = {
        name: [Shard(folder, each.shard) for each in written if each.shard.file.startswith(f"{name}-")]
        for name in ("train", "val")
    }
    splits = {
        name: SplitEntry(_counts(found, len(classes)), tuple(shard.entry for shard in found))
        for name, found in shards.items()
    }
    empty = [name for name, count in zip(classes, splits["train"].images_of_class, strict=True) if not count]
    if empty:
        raise ValueError(f"class {empty[0]!r} has no training image that can be read")
    if not splits["val"].images:
        raise ValueError("no held-out image can be read")
    index = Index(
        format=FORMAT,
        content=content_of_shards(list(shards.values())),
        source=asked["source"],
        options=from_data(PackOptions, asked["options"]),
        reencoded=sum(each.reencoded for each in written),
        skipped=tuple(message for each in written for message in each.skipped),
        classes=classes,
        **splits,
    )
    write_json(folder / INDEX, to_data(index))
    return index


def _counts(shards: Sequence[Shard], classes: int) -> tuple[int, ...]:
    import numpy as np

    labels = [np.zeros(0, np.int32), *(shard.labels for shard in shards)]
    return tuple(np.bincount(np.concatenate(labels), minlength=classes).tolist())
