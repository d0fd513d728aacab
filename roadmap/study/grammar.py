"""The grammar of steps and rungs in `--steps`, `--base` and Python calls, and its only parser.

    steps       = item { "," item }
    item        = rung | "all" | slice | generated | composition | variant | name
    rung        = a name of the ladder, `kernel-size-9`; "=" may replace its "-"
    slice       = [ rung ] ".." [ rung ]
    generated   = "all-steps" | ( "without-" | "only-" ) name | "order" number "-" position "-" name
    composition = "+" variant | variant "+" variant { "+" variant }
    variant     = name [ "=" value { ":" value } ] [ "@" ( name | variant ) ]

| written | parsed | selects |
| --- | --- | --- |
| `all` | All() | every rung of the ladder |
| `gelu`, `kernel-size-9` | Name("gelu") | that rung; a step that is not on the ladder is applied to the last rung |
| `recipe..gelu`, `..gelu`, `recipe..` | Slice("recipe", "gelu") | these rungs and all rungs between them |
| `kernel-size=9` | StepSpec("kernel-size", 9) | the rung of that name, or a variant on the rung before its step |
| `stage-ratio=2:2:6:2@recipe` | StepSpec("stage-ratio", [2, 2, 6, 2], Name("recipe")) | the same, at its MACs |
| `gelu+layer-norm`, `+gelu` | Composition((StepSpec("gelu"), ...)) | only these steps, applied to the start |
| `without-gelu`, `only-gelu`, `all-steps` | Generated("without", "gelu") | that rung of an ablation |
| `order3-02-gelu` | Generated("order", "gelu", 3, 2) | the second rung of the third random order |

The `str` of a parsed value is its text. A "+" separates steps only if a letter, another "+" or nothing follows it:
`layer-scale=1e+2` is one step.
"""

from __future__ import annotations

import re
from collections.abc import Collection, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from roadmap.recipe import Recipe
from roadmap.serialization.yaml_text import parse_value
from roadmap.steps import find_step

MARK = "~"  # in names of drawn designs: SPACE~VALUE-VALUE~VALUE (roadmap/study/spaces.py)
PLUS = r"\+(?=[a-z+]|\s|$)"
SINGLE = re.compile(r"(without|only)-(.+)")
ORDERED = re.compile(r"order([1-9]\d{0,3})-(0[1-9]|[1-9]\d+)-(.+)")


@dataclass(frozen=True)
class All:
    """Every rung of the ladder."""

    def __str__(self) -> str:
        return "all"


@dataclass(frozen=True)
class Name:
    """A rung of the ladder, or a step."""

    name: str

    def __str__(self) -> str:
        return self.name


@dataclass(frozen=True)
class Slice:
    """Neighbouring rungs of the ladder, the first and the last included."""

    first: str | None  # None: from the start
    last: str | None  # None: to the end

    def __str__(self) -> str:
        return f"{self.first or ''}..{self.last or ''}"


@dataclass(frozen=True)
class StepSpec:
    """A step with an optional value and an optional rung whose MACs it matches."""

    step: str
    value: Any = None  # of the step's first parameter; None: the value of the study
    match: Name | StepSpec | None = None  # the rung whose MACs the width is solved for

    @staticmethod
    def parse(written: str) -> StepSpec:
        """Raises ValueError for an unknown step or an invalid value."""
        body, _, match = written.strip().partition("@")
        name, _, text = body.partition("=")
        step = find_step(name)
        if written.strip()[-1:] in ("=", "@"):
            raise ValueError(f"{written.strip()!r} ends without a value")
        target = _name_or_variant(match) if match else None
        if not text:
            return StepSpec(name, None, target)
        items = [parse_value(item, written) for item in text.split(":")]
        value = items if len(items) > 1 else items[0]
        if Recipe not in list(step.parameters.values())[:1]:  # names of recipes are checked once the regime is known
            step.variant(value, written)
        return StepSpec(name, value, target)

    @property
    def name(self) -> str:
        """The name of its rung, valid as the name of a folder."""
        matching = ["matching", self.match] if self.match else []
        return re.sub(r"[^\w.-]", "-", "-".join(map(str, [self.step, *self._values, *matching])))

    @property
    def _values(self) -> list[Any]:
        return self.value if isinstance(self.value, list) else [] if self.value is None else [self.value]

    def __str__(self) -> str:
        value = "=" + ":".join(map(str, self._values)) if self._values else ""
        return self.step + value + (f"@{self.match}" if self.match else "")


@dataclass(frozen=True)
class Composition:
    """Only these steps, in this order, applied to the start."""

    steps: tuple[StepSpec, ...]

    @property
    def name(self) -> str:
        """The name of its rung."""
        return self._joined([step.name for step in self.steps])

    def __str__(self) -> str:
        return self._joined(list(map(str, self.steps)))

    def _joined(self, steps: Sequence[str]) -> str:
        return ("+" if len(steps) < 2 else "") + "+".join(steps)


@dataclass(frozen=True)
class Generated:
    """A rung of an ablation, by its name."""

    kind: Literal["all-steps", "without", "only", "order"]
    step: str = ""  # by the name of its rung
    order: int = 0  # number of the random order, from 1
    position: int = 0  # in that order, from 1

    def __str__(self) -> str:
        if self.kind == "all-steps":
            return self.kind
        return f"order{self.order}-{self.position:02}-{self.step}" if self.order else f"{self.kind}-{self.step}"


Item = All | Name | Slice | StepSpec | Composition | Generated


def parse_steps(written: str | Sequence[str], rungs: Collection[str] = ()) -> tuple[Item, ...]:
    """The items of a comma-separated text or a sequence, in order. See `parse_item` for `rungs` and errors."""
    items = written.split(",") if isinstance(written, str) else written
    if not all(item.strip() for item in items):
        raise ValueError(f"steps must be names separated by commas, such as recipe,gelu (got {written!r})")
    return tuple(parse_item(item, rungs) for item in items)


def parse_item(written: str, rungs: Collection[str] = ()) -> Item:
    """One item. `rungs` are the names of the ladder; they take precedence, since the name of a regime may contain "+".

    Raises ValueError for an unknown step, or an invalid value, in a variant or composition. Other names are checked
    against the study when rungs are selected.
    """
    written = written.strip()
    if written == "all":
        return All()
    if MARK in written:
        return Name(written)
    if ".." in written:
        first, _, last = (part.strip() for part in written.partition(".."))
        return Slice(_rung_name(first) or None, _rung_name(last) or None)
    if _rung_name(written) in rungs:
        return Name(_rung_name(written))
    if re.search(PLUS, written):
        steps = tuple(StepSpec.parse(step) for step in re.split(PLUS, written) if step.strip())
        if not steps:
            raise ValueError(f"{written!r} names no step; +gelu does")
        return Composition(steps)
    return _generated(written) or _name_or_variant(written)


def _rung_name(written: str) -> str:
    return written.replace("=", "-")


def _generated(written: str) -> Generated | None:
    if written == "all-steps":
        return Generated("all-steps")
    if match := SINGLE.fullmatch(written):
        return Generated("without" if match[1] == "without" else "only", match[2])
    if match := ORDERED.fullmatch(written):
        return Generated("order", match[3], int(match[1]), int(match[2]))
    return None


def _name_or_variant(written: str) -> Name | StepSpec:
    written = written.strip()
    return StepSpec.parse(written) if "=" in written or "@" in written else Name(written)
