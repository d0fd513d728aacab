"""Numbers and tables as text for people."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from typing import Any


def count(number: float) -> str:
    """A number to about three digits: 4.15 G for 4149000000."""
    for limit, unit in ((1e8, 1e9), (1e5, 1e6)):
        if number >= limit:
            return f"{number / unit:.2f} {'G' if unit == 1e9 else 'M'}"
    return f"{number:g}"


def many(number: int, noun: str) -> str:
    """A number with its noun: 1 run, 2 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def number_ranges(numbers: Iterable[int]) -> str:
    """Whole numbers in ascending order, neighbours together: 0 to 2, 5."""
    ranges: list[list[int]] = []
    for number in numbers:
        if ranges and ranges[-1][-1] == number - 1:
            ranges[-1].append(number)
        else:
            ranges.append([number])
    return ", ".join(f"{part[0]} to {part[-1]}" if len(part) > 1 else str(part[0]) for part in ranges)


def duration(seconds: float) -> str:
    """A time as text: 1h02m for 3725 seconds."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A text table. Columns whose cells all start like numbers are aligned to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell[:1] in "0123456789+-." for cell in column[1:]) and any(column[1:]) for column in columns]
    lines = [
        "  ".join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in (header, *rows)
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)


def outline(data: Mapping[str, Any], depth: int = 0) -> list[str]:
    """Nested plain data as indented lines, like YAML. The innermost mappings and lists are on one line."""
    lines, indent = [], "  " * depth
    for key, value in data.items():
        nested = value.values() if isinstance(value, dict) else value if isinstance(value, list) else ()
        if isinstance(value, dict) and (depth == 0 or any(isinstance(item, list | dict) for item in nested)):
            lines += [f"{indent}{key}:", *outline(value, depth + 1)]
        elif isinstance(value, list) and any(isinstance(item, dict) for item in nested):
            lines += [f"{indent}{key}:", *(f"{indent}  - {show(item)}" for item in value)]
        else:
            lines.append(f"{indent}{key}: {show(value)}")
    return lines


def suggest(valid: Iterable[object], given: object) -> str:
    """The end of an error message: the valid name that is most similar to `given`, and all valid names."""
    import difflib  # imported late to keep `roadmap list` fast

    names = [str(name) for name in valid]
    near = difflib.get_close_matches(str(given), names, n=1)
    return (f"did you mean {near[0]!r}? " if near else "") + "valid: " + ", ".join(names)


def show(value: Any) -> str:
    """Plain data as short text, similar to YAML."""
    if isinstance(value, dict):
        return "{" + ", ".join(f"{key}: {show(item)}" for key, item in value.items()) + "}"
    if isinstance(value, list | tuple):
        return "[" + ", ".join(show(item) for item in value) + "]"
    if isinstance(value, float):
        return f"{value:g}"
    if value is None:
        return "none"
    return str(value).lower() if isinstance(value, bool) else str(value)


def three_digits(value: float) -> str:
    """A measured number as text: 7.31, 68.9, 1234."""
    return f"{value:.0f}" if value >= 100 else f"{value:.1f}" if value >= 10 else f"{value:.2f}"
