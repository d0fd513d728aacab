"""Files of JSON: written whole or not at all, or line by line; and a hash of what they hold."""

from __future__ import annotations

import contextlib
import json
import os
from pathlib import Path
from typing import Any, TypeVar

from roadmap.serialization import from_data, to_data

T = TypeVar("T")

TAIL_BYTES = 4096


class InvalidFile(ValueError):
    """A file, or the run folder that it belongs to, does not hold what it should."""


def digest(data: Any) -> str:
    """A hash of plain data, whatever the order of its keys."""
    import hashlib  # imported late to keep `roadmap list` fast

    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file's content; None where there is no such file. Raises InvalidFile where it is not an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise InvalidFile(f"{path} is not valid JSON: {error}; move the folder away") from None
    if not isinstance(content, dict):
        raise InvalidFile(f"{path} does not hold a JSON object")
    return content


def write_json(path: Path, content: Any) -> None:
    """Writes a whole file or none: aside, to the disk, then renamed."""
    write_atomic(path, (json.dumps(content, indent=2) + "\n").encode())


def write_atomic(path: Path, content: bytes) -> None:
    """Raises OSError with the path where the disk does not take it; what stood there before stays."""
    aside = path.with_name(path.name + ".tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()  # a full disk has no room for half a file
        raise OSError(error.errno, error.strerror, str(path)) from None


def append_json_line(path: Path, row: dict[str, Any]) -> None:
    """Adds a line of JSON to a file. Raises OSError with the path where the disk does not take it."""
    try:
        with path.open("ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":  # the last line was cut off
                file.write(b"\n")
            file.write((json.dumps(row) + "\n").encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def fsync(path: Path) -> None:
    """Waits until a file is on the disk itself. Raises OSError with the path where the disk does not take it."""
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_json_lines(path: Path) -> list[Any]:
    """The values of a file of JSON lines, None for what is no JSON; a last line that was cut off is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [_parsed(line) for line in lines if line.endswith("\n")]


def read_tail(path: Path) -> list[str]:
    """The last whole lines of a text file that are not blank, one at least; none where there is no such file."""
    try:
        with path.open("rb") as file:
            start = end = file.seek(0, os.SEEK_END)
            text, lines = b"", list[str]()
            while start and not lines:  # a line may be long
                file.seek(start := max(0, start - max(TAIL_BYTES, end - start)))
                text = file.read(end - start)
                whole = text.split(b"\n")[1 if start else 0 : -1]  # without what is cut off at either end
                lines = [line for part in whole if (line := part.decode("utf-8", "replace").strip())]
            return lines
    except OSError:
        return []


def append_record(path: Path, value: Any, version: int) -> None:
    """Adds a dataclass as a line that tells its format. Raises OSError with the path if the disk does not take it."""
    append_json_line(path, {"format": version, **to_data(value)})


def read_records(path: Path, kind: type[T], version: int) -> list[T]:
    """The dataclasses of a file's lines, in order; lines that are no such, or of another version, are left out."""
    found = []
    for row in read_json_lines(path):
        if isinstance(row, dict) and row.pop("format", None) == version:
            with contextlib.suppress(ValueError):
                found.append(from_data(kind, row))
    return found


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None
