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

MOST_MAPPED = 128  # files per process at a time: each takes one of its file handles, usually 1,024
HINT = "`roadmap data check` lists all damage"


class DamagedShard(OSError):
    """A file of a packed data set differs from what was written."""


def arrow() -> Any:
    """The pyarrow library. Raises ValueError if it or xxhash is not installed."""
    try:
        import pyarrow
        import pyarrow.ipc
        import xxhash  # noqa: F401
    except ImportError as error:
        raise ValueError(f"packed data requires {error.name}: pip install 'roadmap-convnext[packed]'") from None
    return pyarrow


def checksum(data: bytes | memoryview) -> int:
    """XXH3, 64 bits. It takes a fifth of CRC-32's time, which is little beside the reading."""
    import xxhash

    digest: int = xxhash.xxh3_64_intdigest(data)
    return digest


class Packed(Encoded):
    """A split of a packed data set. Each process opens its files when it needs them."""

    def __init__(self, folder: Path, name: SplitName) -> None:
        import torch

        arrow()  # imported before processes are forked
        split = read_index(folder).splits[name]
        self.folder, self.entries = folder, split.shards
        self.labels = torch.arange(len(split.images_of_class)).repeat_interleave(torch.tensor(split.images_of_class))
        self.ends = list(accumulate(entry.images for entry in split.shards))
        self.shards: dict[int, Shard] = {}

    def encoded(self, index: int) -> memoryview:
        """A view of the mapped file. Raises BadImage if the checksum differs from the recorded one."""
        shard, row = self._find(index)
        image = shard.image(row)
        if checksum(image) != shard.checksums.item(row):
            raise BadImage(f"{self.where(index)} is damaged: its checksum differs; {HINT}")
        return image

    def where(self, index: int) -> str:
        shard, row = self._find(index)
        return f"{shard.path}: {shard.names()[row].decode(errors='surrogateescape')}"

    def _find(self, index: int) -> tuple[Shard, int]:
        number = bisect_right(self.ends, index)
        if number not in self.shards:
            self.shards[number] = Shard(self.folder, self.entries[number])
        return self.shards[number], index - (self.ends[number - 1] if number else 0)


class Shard:
    """A file. Its columns are in memory, except the images and their names.

    Raises DamagedShard if it differs from its entry in the index.
    """

    def __init__(self, folder: Path, entry: ShardEntry) -> None:
        import numpy as np

        self.path, self.entry = folder / entry.file, entry
        table, address = self._table()
        images = table.column("image").chunks
        offsets = [np.frombuffer(batch.buffers()[1], np.int64, len(batch) + 1) for batch in images]
        data = [batch.buffers()[2].address - address for batch in images]
        self.starts = np.concatenate([[0], *(at + part[:-1] for at, part in zip(data, offsets, strict=True))])[1:]
        self.sizes = np.concatenate([[0], *map(np.diff, offsets)])[1:]
        # Copies, so that only the memory map keeps the file open.
        self.checksums, self.labels, self.reencoded = (
            np.array(table.column(name).to_numpy()) for name in ("checksum", "label", "reencoded")
        )

    def _table(self) -> tuple[pyarrow.Table, int]:
        """The file as a table, and its address in memory."""
        library, size = arrow(), self.path.stat().st_size
        if size != self.entry.bytes:
            raise DamagedShard(f"{self.path} must have {self.entry.bytes} bytes (got {size}); {HINT}")
        buffer = library.py_buffer(_mapped(self))
        try:
            table = library.ipc.open_file(buffer).read_all()
            table.validate(full=True)  # otherwise damaged offsets could point anywhere in memory
            if table.schema != schema() or len(table) != self.entry.images:
                raise library.ArrowInvalid("its columns, or their length, differ from the index")
        except (library.ArrowException, OSError, ValueError) as error:  # a damaged column name may not be UTF-8
            raise DamagedShard(f"{self.path} can't be read: {error}; {HINT}") from None
        return table, buffer.address

    def image(self, row: int) -> memoryview:
        mapped, start, size = _mapped(self), self.starts.item(row), self.sizes.item(row)
        # Has the image read at once: page by page takes eight times as long (benchmarks/NOTEBOOK.md).
        lead = start % mmap.PAGESIZE
        mapped.madvise(mmap.MADV_WILLNEED, start - lead, size + lead)
        return memoryview(mapped)[start : start + size]

    def names(self) -> list[bytes]:
        names: list[bytes] = self._table()[0].column("name").to_pylist()
        return names


@lru_cache(maxsize=MOST_MAPPED)
def _mapped(shard: Shard) -> mmap.mmap:
    with shard.path.open("rb") as file:
        mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
    # Otherwise the system reads ahead at each missing page: ten times what is needed (benchmarks/NOTEBOOK.md).
    mapped.madvise(mmap.MADV_RANDOM)
    return mapped


def schema() -> pyarrow.Schema:
    """The columns of a file, which Arrow's tools can read too."""
    library = arrow()
    return library.schema(
        {
            "name": library.binary(),  # of the image's file, relative to the split's folder
            "label": library.int32(),  # index into the classes
            "image": library.large_binary(),  # its bytes
            "checksum": library.uint64(),  # XXH3 of the bytes
            "reencoded": library.bool_(),  # whether the bytes differ from the original file
        }
    )


def content_of_shards(splits: Sequence[Sequence[Shard]]) -> str:
    """The hash of the contents, computed as for an image folder."""
    return content_of(_lines(shards) for shards in splits)


def _lines(shards: Sequence[Shard]) -> Iterator[bytes]:
    for shard in shards:
        columns = zip(
            shard.names(), shard.sizes.tolist(), shard.checksums.tolist(), shard.reencoded.tolist(), strict=True
        )
        for name, size, image_checksum, reencoded in columns:
            yield content_line(name, size, image_checksum if reencoded else None)


def damage(folder: Path, index: Index, report: Callable[[int, int], None]) -> Iterator[str]:
    """Reads all of a packed data set, and yields a message for each damage. `report` gets the images done, and all."""
    splits: list[list[Shard]] = []
    seen = 0
    for name, split in index.splits.items():
        shards, labels = [], [0] * len(split.images_of_class)
        for entry in split.shards:
            try:
                shard = Shard(folder, entry)
            except OSError as error:
                yield str(error).removesuffix(f"; {HINT}")
            else:
                is_same = _sha256(shard.path) == entry.sha256  # reads the whole file, which is in memory afterwards
                bad = _bad_images(shard)
                yield from bad
                if not is_same and not bad:
                    yield f"{shard.path} is damaged, although its images are intact: its SHA-256 differs"
                shards.append(shard)
                for label in shard.labels.tolist():
                    if 0 <= label < len(labels):
                        labels[label] += 1
            seen += entry.images
            report(seen, index.images)
        if len(shards) == len(split.shards) and tuple(labels) != split.images_of_class:
            yield f"{folder}: {name}: the numbers of images of the classes differ from the index"
        splits.append(shards)
    is_complete = sum(map(len, splits)) == sum(len(split.shards) for split in index.splits.values())
    if is_complete and content_of_shards(splits) != index.content:
        yield f"{folder}: its content differs from the index"


def _bad_images(shard: Shard) -> list[str]:
    rows = range(len(shard.sizes))
    bad_rows = [row for row in rows if checksum(shard.image(row)) != shard.checksums[row]]
    names = shard.names() if bad_rows else []
    return [f"{shard.path}: {names[row].decode(errors='surrogateescape')} is damaged" for row in bad_rows]


def _sha256(path: Path) -> str:
    with path.open("rb") as file:
        return hashlib.file_digest(file, "sha256").hexdigest()
