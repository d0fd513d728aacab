"""JSON files: atomic writing, files with a record per line, and hashes of data."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from roadmap.serialization.plain_data import from_data, to_data

T = TypeVar("T")

TAIL_BYTES = 4096
MOST_NAME_BYTES = 255  # of the name of a file or folder, on the usual file systems


class InvalidFile(ValueError):
    """A file, or its run folder, has invalid content."""


def digest(data: Any) -> str:
    """A hash of plain data, which does not depend on the order of keys."""
    import hashlib  # imported late to keep `roadmap list` fast

    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def parse_json(text: str) -> Any:
    """The value of a text in JSON. Raises ValueError if it is not valid."""
    try:
        return json.loads(text)
    except RecursionError:
        raise ValueError("nested too deeply") from None


def fitting_name(name: str, room: int = 0) -> str:
    """The name for a file or folder; one that is too long with `room` bytes after it is cut, and ends with its hash."""
    encoded, most = os.fsencode(name), MOST_NAME_BYTES - room
    if len(encoded) <= most:
        return name
    suffix = f"-{digest(name)}"
    return encoded[: most - len(suffix)].decode(errors="ignore") + suffix


def read_json(path: Path) -> dict[str, Any] | None:
    """The content of a JSON file; None if it does not exist. Raises InvalidFile if it is not an object."""
    try:
        content = parse_json(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except IsADirectoryError:
        raise InvalidFile(f"{path} is a folder, not a file; move the folder away") from None
    except ValueError as error:
        raise InvalidFile(f"{path} is not valid JSON: {error}; move the folder away") from None
    if not isinstance(content, dict):
        raise InvalidFile(f"{path} does not hold a JSON object")
    return content


def file_on_the_way(folder: Path) -> Path | None:
    """The file that stands where the folder, or a folder above it, would be; None if there is none."""
    nearest = next((path for path in (folder, *folder.parents) if path.exists()), folder)
    return nearest if nearest.exists() and not nearest.is_dir() else None


def make_parent(path: Path) -> None:
    """Creates the folder of a file. Raises ValueError if a file stands in its place."""
    if file := file_on_the_way(path.parent):
        raise ValueError(f"{path}: {file} is not a folder")
    path.parent.mkdir(parents=True, exist_ok=True)


def write_json(path: Path, content: Any) -> None:
    """Writes a JSON file with `write_atomic`."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def write_atomic(path: Path, content: bytes) -> None:
    """Writes a file under a temporary name, to the disk, and renames it. So the file is complete or unchanged.

    Raises OSError with the path if it can't be written.
    """
    temporary = path.with_name(path.name + ".tmp")
    try:
        with temporary.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(temporary, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            temporary.unlink()  # frees space on a full disk
        raise OSError(error.errno, error.strerror, str(path)) from None


def append_json_line(path: Path, row: dict[str, Any]) -> None:
    """Adds a line of JSON to a file. Raises OSError with the path if it can't be written."""
    try:
        with path.open("ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":  # the last line was cut off
                file.write(b"\n")
            file.write((json.dumps(row) + "\n").encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def fsync(path: Path) -> None:
    """Waits until a file is on the disk. Raises OSError with the path if it can't be written."""
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_json_lines(path: Path) -> list[Any]:
    """The values of a file of JSON lines; None for an invalid line. A last line without its end is left out.

    Raises InvalidFile for a folder.
    """
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    except IsADirectoryError:
        raise InvalidFile(f"{path} is a folder, not a file; move the folder away") from None
    return [_parsed(line) for line in lines if line.endswith("\n")]


def read_tail(path: Path) -> list[str]:
    """Complete, non-blank lines from the end of a text file: at least one if it has any. Empty if there is no file."""
    try:
        with path.open("rb") as file:
            start = end = file.seek(0, os.SEEK_END)
            text, lines = b"", list[str]()
            while start and not lines:  # a line may be long
                file.seek(start := max(0, start - max(TAIL_BYTES, end - start)))
                text = file.read(end - start)
                whole = text.split(b"\n")[1 if start else 0 : -1]  # without incomplete lines at either end
                lines = [line for part in whole if (line := part.decode("utf-8", "replace").strip())]
            return lines
    except OSError:
        return []


def append_record(path: Path, value: Any, version: int) -> None:
    """Adds a dataclass as a line with its format version. Raises OSError with the path if it can't be written."""
    append_json_line(path, {"format": version, **to_data(value)})


def read_records(path: Path, kind: type[T], version: int) -> list[T]:
    """The dataclasses of a file, in order. Lines that are invalid or have another format version are left out."""
    records = []
    for row in read_json_lines(path):
        if isinstance(row, dict) and row.pop("format", None) == version:
            with contextlib.suppress(ValueError):
                records.append(from_data(kind, row))
    return records


def _parsed(line: str) -> Any:
    try:
        return parse_json(line)
    except ValueError:
        return None
