"""Requirements of values, as annotations of fields: ranges of numbers, and texts. Every check of them is here."""

from __future__ import annotations

import dataclasses
import typing
from collections.abc import Callable
from functools import cache
from typing import Annotated, Any, ClassVar, Literal

MAX_NUMBER = 1e15  # far above any number of a study; beyond it arithmetic is slow or inexact


@dataclasses.dataclass(frozen=True)
class Range:
    """Numbers within bounds: the values of a field `epochs: Annotated[int, Range(1)]` are at least 1.

    If other types are valid, too, annotate their union: `Annotated[int | None, Range(1)]`.
    """

    minimum: float | None = None
    maximum: float | None = None
    above: float | None = None  # exclusive minimum
    below: float | None = None  # exclusive maximum
    odd: bool = False
    other_than: float | None = None

    kinds: ClassVar[tuple[type, ...]] = (int, float)

    def __contains__(self, value: Any) -> bool:
        lowest = -MAX_NUMBER if self.minimum is None else self.minimum
        highest = MAX_NUMBER if self.maximum is None else self.maximum
        if not lowest <= value <= highest:  # also for NaN
            return False
        if (self.above is not None and value <= self.above) or (self.below is not None and value >= self.below):
            return False
        return not (self.odd and value % 2 == 0) and bool(value != self.other_than)

    def __str__(self) -> str:
        """The requirement in words: "between 1 and 10000", "above 0", "odd and at least 3"."""
        if self.minimum is not None and self.maximum is not None:
            parts = [f"between {self.minimum} and {self.maximum}"]
        else:
            bounds = {"at least": self.minimum, "above": self.above, "at most": self.maximum}
            bounds |= {"below": self.below, "other than": self.other_than}
            parts = [f"{words} {bound}" for words, bound in bounds.items() if bound is not None]
        return " and ".join(["odd"] * self.odd + parts)


@dataclasses.dataclass(frozen=True)
class Text:
    """Texts that a function accepts: `Annotated[str | None, Text("timm's notation", is_randaugment)]`."""

    description: str  # what a value must be
    accepts: Callable[[str], object]

    kinds: ClassVar[tuple[type, ...]] = (str,)

    def __contains__(self, value: Any) -> bool:
        return bool(self.accepts(value))

    def __str__(self) -> str:
        return self.description


def _is_time(text: str) -> bool:
    from datetime import datetime

    try:
        datetime.fromisoformat(text).timestamp()
    except (ValueError, OverflowError):
        return False
    return True


PROBABILITY = Range(0, 1)
TIME = Text("a time in ISO 8601", _is_time)


class InvalidField(ValueError):
    """A value in a dataclass is not valid. The message starts with the key path of the field."""


def check(value: Any, allowed: Range | Text, name: str) -> None:
    """Raises InvalidField, "NAME must be between 1 and 10000 (got 0)", unless `value` is allowed.

    In a tuple each item must be allowed. Values of other types pass, such as "auto" or None beside numbers.
    """
    if isinstance(value, tuple | list):
        for i, item in enumerate(value):
            check(item, allowed, f"{name}[{i}]")
    elif isinstance(value, allowed.kinds) and value not in allowed:
        raise InvalidField(f"{name} must be {reason(value, allowed)} (got {value!r})")


def reason(value: object, allowed: Range | Text) -> str:
    """What a value that is not allowed should be: within the range, or not so large."""
    is_open = isinstance(allowed, Range) and allowed.maximum is None and allowed.below is None
    if is_open and isinstance(value, int | float) and value > MAX_NUMBER:
        return f"a number of at most {MAX_NUMBER:g}"
    return str(allowed)


def check_fields(value: Any) -> None:
    """Raises InvalidField for the first field of a dataclass whose value its annotation does not allow."""
    kind: Any = type(value)
    for name, allowed, takes_text in _checked_fields(kind):
        item = getattr(value, name)
        if isinstance(item, str) and not takes_text:  # a step may have set it
            raise InvalidField(f"{name} must be {allowed} (got {item!r})")
        check(item, allowed, name)


@cache
def _checked_fields(kind: Any) -> list[tuple[str, Range | Text, bool]]:
    """Each field with a requirement: its name, the requirement, and whether texts such as "auto" are valid."""
    annotated = [(name, hint, allowed) for name, hint in field_types(kind).items() if (allowed := allowed_by(hint))]
    return [(name, allowed, _takes_text(hint.__origin__)) for name, hint, allowed in annotated]


def _takes_text(kind: Any) -> bool:
    return kind is str or typing.get_origin(kind) is Literal or any(map(_takes_text, typing.get_args(kind)))


def allowed_by(kind: Any) -> Range | Text | None:
    """The requirement of an annotated type; None for other types."""
    metadata = kind.__metadata__ if typing.get_origin(kind) is Annotated else ()
    return next((item for item in metadata if isinstance(item, Range | Text)), None)


def range_of(kind: type, name: str) -> Range:
    """The range of a field of a dataclass, which must have one."""
    allowed = allowed_by(field_types(kind)[name])
    assert isinstance(allowed, Range), f"{kind.__name__}.{name} has no range"
    return allowed


@cache
def field_types(kind: type) -> dict[str, Any]:
    """The type of each field, or of each parameter of a function, with its annotations."""
    return typing.get_type_hints(kind, include_extras=True)
