"""Numbers and tables as text for people."""

from __future__ import annotations

from collections.abc import Sequence


def count(number: float) -> str:
    """4149000000 as 4.15 G, to three digits or so."""
    for limit, unit in ((1e8, 1e9), (1e5, 1e6)):
        if number >= limit:
            return f"{number / unit:.2f} {'G' if unit == 1e9 else 'M'}"
    return f"{number:g}"


def many(number: int, noun: str) -> str:
    """1 run, 2 runs."""
    return f"{number} {noun}" if number == 1 else f"{number} {noun}s"


def duration(seconds: float) -> str:
    """3725 seconds as 1h02m."""
    seconds = round(seconds)
    if seconds < 60:
        return f"{seconds}s"
    if seconds < 3600:
        return f"{seconds // 60}m{seconds % 60:02d}s"
    return f"{seconds // 3600}h{seconds % 3600 // 60:02d}m"


def table(header: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """Columns two spaces apart; those whose every cell starts like a number are set to the right."""
    columns = list(zip(header, *rows, strict=True))
    widths = [max(map(len, column)) for column in columns]
    right = [all(cell[:1] in "0123456789+-." for cell in column[1:]) and any(column[1:]) for column in columns]
    lines = [
        "  ".join(f"{c:>{w}}" if r else f"{c:<{w}}" for c, w, r in zip(line, widths, right, strict=True)).rstrip()
        for line in (header, *rows)
    ]
    lines.insert(1, "  ".join("─" * width for width in widths))
    return "\n".join(lines)
