"""Damage done at random to plain data and to files, as disks, editors and other programs do it."""

from __future__ import annotations

import copy
import json
from collections.abc import Iterator
from pathlib import Path
from random import Random
from typing import Any

DEEP: Any = []
for _ in range(300):
    DEEP = [DEEP]
VALUES: list[Any] = [
    *(None, True, False, 0, 1, -1, 0.5, -0.5, 1e300, 10**400, 10**9, float("nan"), float("inf"), -float("inf")),
    *("", "text", "1", "\ud800", "\0", "../..", "x" * 300, "[red]", "<b>", "1e5", "{}", "NaN", "$x$"),
    *([], [1], [None], ["text"], [[]], {}, {"a": 1}, {"": None}, {"format": 1}, DEEP),
]


def mutated(data: Any, draw: Random) -> Any:
    """A copy of plain data with one or two values replaced, removed or added."""
    changed = copy.deepcopy(data)
    for _ in range(draw.choice((1, 1, 2))):
        places = list(_places(changed))
        if not places:
            return copy.deepcopy(draw.choice(VALUES))
        parent, key = draw.choice(places)
        kind = draw.random()
        if kind < 0.75:
            parent[key] = copy.deepcopy(draw.choice(VALUES))
        elif kind < 0.9:
            del parent[key]
        elif isinstance(parent, dict):
            parent[draw.choice(("new", "format", "", "top1"))] = copy.deepcopy(draw.choice(VALUES))
        else:
            parent.append(copy.deepcopy(draw.choice(VALUES)))
    return changed


def _places(data: Any) -> Iterator[tuple[Any, Any]]:
    """Every value within, as what holds it and its key."""
    if isinstance(data, dict | list) and data is not DEEP:
        for key, item in list(data.items() if isinstance(data, dict) else enumerate(data)):
            yield data, key
            yield from _places(item)


def damage(path: Path, draw: Random) -> None:
    """Damages a file: of JSON, or of lines of JSON, mostly a value in it, else its bytes, or that it is a file."""
    content = path.read_bytes()
    kind = draw.random()
    if kind < 0.8 and path.suffix in (".json", ".jsonl"):
        texts = content.decode().splitlines() if path.suffix == ".jsonl" else [content.decode()]
        i = draw.randrange(len(texts))
        texts[i] = json.dumps(mutated(json.loads(texts[i]), draw))
        path.write_text("".join(text + "\n" for text in texts))
        return
    start = draw.randrange(len(content) + 1)
    if kind < 0.95:
        path.write_bytes(
            draw.choice(
                (
                    b"",
                    content[:start],
                    content[:start] + draw.randbytes(8) + content[start:],
                    content + content,
                    b"[" * 10**5,
                )
            )
        )
        return
    path.unlink()
    if kind < 0.97:
        path.mkdir()
    elif kind < 0.99:
        path.symlink_to(draw.choice((path.name, "nothing")))
