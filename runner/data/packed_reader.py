"""Reading packed data sets (roadmap/data/packed_format.py): memory-mapped Arrow files."""

from __future__ import annotations

import hashlib
import mmap
from bisect import bisect_right
from collections.abc import Callable, Iterator, Sequence
from functools import lru_cache
from itertools import accumulate
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.data.image_folders import content_line, content_of
from roadmap.data.packed_format import Index, ShardEntry, SplitName, read_index
from runner.data.image import BadImage
from runner.data.splits import Encoded

if TYPE_CHECKING:
    import pyarrow

MOST_MAPPED = 128  # files of a process at a time: each takes one of the 1,024 handles that it usually has
HINT = "`roadmap data check` says what else"


class DamagedShard(OSError):
    """A file of a packed data set that is not what was written."""


def arrow() -> Any:
    """Arrow's library. Raises ValueError where what packed data needs is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
        import xxhash  # noqa: F401
    except ImportError as error:
        raise ValueError(f"packed data needs {error.name}: pip install 'roadmap-convnext[packed]'") from None
    return pyarrow


def checksum(data: bytes | memoryview) -> int:
    """XXH3 of 64 bits, which takes a fifth of CRC-32's time: little beside the reading."""
    import xxhash

    found: int = xxhash.xxh3_64_intdigest(data)
    return found


class Packed(Encoded):
    """A split of a packed data set. Its files are opened when they are wanted, by each process for itself."""

    def __init__(self, folder: Path, name: SplitName) -> None:
        import torch

        arrow()  # before processes are forked, so that each has it
        split = read_index(folder).splits[name]
        self.folder, self.entries = folder, split.shards
        self.labels = torch.arange(len(split.images_of_class)).repeat_interleave(torch.tensor(split.images_of_class))
        self.ends = list(accumulate(entry.images for entry in split.shards))
        self.shards: dict[int, Shard] = {}

    def encoded(self, index: int) -> memoryview:
        """In the file's own pages. Raises BadImage where they are no longer what was written."""
        shard, row = self._find(index)
        found = shard.image(row)
        if checksum(found) != shard.checksums.item(row):
            raise BadImage(f"{self.where(index)} is damaged: its checksum is another; {HINT}")
        return found

    def where(self, index: int) -> str:
        shard, row = self._find(index)
        return f"{shard.path}: {shard.names()[row].decode(errors='surrogateescape')}"

    def _find(self, index: int) -> tuple[Shard, int]:
        number = bisect_right(self.ends, index)
        if number not in self.shards:
            self.shards[number] = Shard(self.folder, self.entries[number])
        return self.shards[number], index - (self.ends[number - 1] if number else 0)


class Shard:
    """A file: its columns in memory, but for the images and their names.

    Raises DamagedShard where it is not what the index says.
    """

    def __init__(self, folder: Path, entry: ShardEntry) -> None:
        import numpy as np

        self.path, self.entry = folder / entry.file, entry
        table, address = self._table()
        images = table.column("image").chunks
        offsets = [np.frombuffer(batch.buffers()[1], np.int64, len(batch) + 1) for batch in images]
        data = [batch.buffers()[2].address - address for batch in images]
        self.starts = np.concatenate([[0], *(at + each[:-1] for at, each in zip(data, offsets, strict=True))])[1:]
        self.sizes = np.concatenate([[0], *map(np.diff, offsets)])[1:]
        # Copies, so that the file is held by nothing but its map.
        self.checksums, self.labels, self.reencoded = (
            np.array(table.column(name).to_numpy()) for name in ("checksum", "label", "reencoded")
        )

    def _table(self) -> tuple[pyarrow.Table, int]:
        """The file as a table, and the address in memory that it begins at."""
        library, size = arrow(), self.path.stat().st_size
        if size != self.entry.bytes:
            raise DamagedShard(f"{self.path} has {size} bytes, not {self.entry.bytes}; {HINT}")
        buffer = library.py_buffer(_mapped(self))
        try:
            table = library.ipc.open_file(buffer).read_all()
            table.validate(full=True)  # else damaged offsets would lead anywhere in memory
            if table.schema != schema() or len(table) != self.entry.images:
                raise library.ArrowInvalid("its columns, or their length, are others than the index says")
        except (library.ArrowException, OSError, ValueError) as error:  # a column's name may be no text any more
            raise DamagedShard(f"{self.path} can't be read: {error}; {HINT}") from None
        return table, buffer.address

    def image(self, row: int) -> memoryview:
        mapped, start, size = _mapped(self), self.starts.item(row), self.sizes.item(row)
        # The disk brings the image whole, not page by page, which takes eight times as long (benchmarks/NOTEBOOK.md).
        lead = start % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, start - lead, size + lead)
        return memoryview(mapped)[start : start + size]

    def names(self) -> list[bytes]:
        names: list[bytes] = self._table()[0].column("name").to_pylist()
        return names


@lru_cache(maxsize=MOST_MAPPED)
def _mapped(shard: Shard) -> mmap.mmap:
    with shard.path.open("rb") as file:
        found = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Else the system reads around each page that is missed: ten times what is wanted (benchmarks/NOTEBOOK.md).
    found.madvise(mmap.MADV_RANDOM)
    return found


def schema() -> pyarrow.Schema:
    """The columns of a file. Arrow's own tools read them too."""
    library = arrow()
    return library.schema(
        {
            "name": library.binary(),  # of the image's file, relative to the split's folder
            "label": library.int32(),  # index into the classes
            "image": library.large_binary(),  # its bytes
            "checksum": library.uint64(),  # XXH3 of the bytes
            "reencoded": library.bool_(),  # whether they are no longer those of the file
        }
    )


def content_of_shards(splits: Sequence[Sequence[Shard]]) -> str:
    """What they hold, as that of a folder is told."""
    return content_of(_lines(shards) for shards in splits)


def _lines(shards: Sequence[Shard]) -> Iterator[bytes]:
    for shard in shards:
        columns = zip(
            shard.names(), shard.sizes.tolist(), shard.checksums.tolist(), shard.reencoded.tolist(), strict=True
        )
        for name, size, its_checksum, reencoded in columns:
            yield content_line(name, size, its_checksum if reencoded else None)


def damage(folder: Path, index: Index, report: Callable[[int, int], None]) -> Iterator[str]:
    """Reads all of a packed data set back, and tells of what is not as it was written. Reports images done, and all."""
    whole: list[list[Shard]] = []
    seen = 0
    for name, split in index.splits.items():
        shards, labels = [], [0] * len(split.images_of_class)
        for entry in split.shards:
            try:
                shard = Shard(folder, entry)
            except OSError as error:
                yield str(error).removesuffix(f"; {HINT}")
            else:
                same = _sha256(shard.path) == entry.sha256  # read in one go: what follows finds it in memory
                bad = _bad_images(shard)
                yield from bad
                if not same and not bad:
                    yield f"{shard.path} is damaged, though its images are whole: its SHA-256 is another"
                shards.append(shard)
                for label in shard.labels.tolist():
                    if 0 <= label < len(labels):
                        labels[label] += 1
            seen += entry.images
            report(seen, index.images)
        if len(shards) == len(split.shards) and tuple(labels) != split.images_of_class:
            yield f"{folder}: {name}: the images of the classes are not as many as the index says"
        whole.append(shards)
    complete = sum(map(len, whole)) == sum(len(split.shards) for split in index.splits.values())
    if complete and content_of_shards(whole) != index.content:
        yield f"{folder}: what it holds is not what the index says"


def _bad_images(shard: Shard) -> list[str]:
    rows = range(len(shard.sizes))
    bad = [row for row in rows if checksum(shard.image(row)) != shard.checksums[row]]
    names = shard.names() if bad else []
    return [f"{shard.path}: {names[row].decode(errors='surrogateescape')} is damaged" for row in bad]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
