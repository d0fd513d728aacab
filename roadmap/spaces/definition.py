"""A space of designs, and how its values are drawn."""

from __future__ import annotations

import math
from dataclasses import dataclass, field
from typing import TYPE_CHECKING, Annotated, Literal

from roadmap.serialization.ranges import InvalidField, Range, check_fields
from roadmap.text import suggest

if TYPE_CHECKING:
    from random import Random

Value = int | float | str
SAMPLES = Range(1, 1_000_000)  # number of designs
NONE = "none"  # the empty subset
Quantity = Literal["macs", "parameters", "activations"]


@dataclass(frozen=True)
class Values:
    """How one value is drawn: from a list, or evenly from a range, on a logarithmic scale if `log`.

    A number of a range is rounded to a multiple of `multiple`. Each end has as long a piece of the line as the numbers
    between them, also on the logarithmic scale.
    """

    values: tuple[Value, ...] = ()
    range: tuple[float, float] | None = None
    log: bool = False
    multiple: Annotated[float, Range(above=0)] = 1.0
    subset: bool = False  # of texts: each is in or out, drawn as A+C, or none

    def __post_init__(self) -> None:
        check_fields(self)
        if bool(self.values) == (self.range is not None):
            raise InvalidField("must have either values or a range, such as {range: [1, 24], log: true}")
        if self.subset and not all(isinstance(value, str) for value in self.values):
            raise InvalidField("subset needs texts as values, such as the names of steps")
        if len({isinstance(value, str) for value in self.values}) > 1:
            raise InvalidField(f"values must be numbers or texts, not both (got {list(self.values)})")
        if self.range and not all(_is_multiple(end, self.multiple) for end in self.range):
            raise InvalidField(f"range must end at multiples of {self.multiple:g} (got {list(self.range)})")
        if self.range and not (self.range[0] <= self.range[1] and (self.range[0] > 0 or not self.log)):
            rule = "must begin above 0 and end above that" if self.log else "must end above its beginning"
            raise InvalidField(f"range {rule} (got {list(self.range)})")

    def draw(self, random: Random) -> Value:
        if self.subset:
            return "+".join(str(value) for value in self.values if random.random() < 0.5) or NONE
        if not self.range:
            return self.values[random.randrange(len(self.values))]
        low, high = self.range
        half = self.multiple / 2
        if self.log:
            lowest = max(low - half, low / 2)
            drawn = math.exp(random.uniform(math.log(lowest), math.log(high + half)))
        else:
            drawn = random.uniform(low - half, high + half)
        number = round(min(max(drawn, low), high) / self.multiple) * self.multiple
        return int(number) if self.multiple == int(self.multiple) else round(number, 9)

    @property
    def is_text(self) -> bool:
        return bool(self.values) and isinstance(self.values[0], str)

    def has(self, value: Value) -> bool:
        """Whether it may be drawn."""
        if self.subset:
            chosen = str(value).split("+")
            return value == NONE or chosen == [own for own in self.values if own in chosen]
        if not self.range:
            return value in self.values
        low, high = self.range
        return not isinstance(value, str) and low <= value <= high and _is_multiple(value, self.multiple)


def _is_multiple(value: float, multiple: float) -> bool:
    return math.isclose(value, round(value / multiple) * multiple, rel_tol=1e-9, abs_tol=1e-9)


@dataclass(frozen=True)
class Space:
    """Designs that differ from a rung's in some parameters."""

    rung: str  # the rung whose design varies
    vary: dict[str, Values]  # by parameter (roadmap/spaces/parameters.py)
    match: str | None = None  # the rung whose multiply-adds the width is solved for, within 1 %; null: no width is
    marked: str | None = None  # another rung whose values tables and figures mark, such as that with the paper's
    bands: dict[Quantity, tuple[float, float]] = field(default_factory=dict)  # least and most, over those of the rung
    regimes: dict[str, dict[str, Values]] = field(default_factory=dict)  # other values, by regime

    def __post_init__(self) -> None:
        if not self.vary:
            raise InvalidField("vary must name at least one parameter (got {})")
        for regime, values in self.regimes.items():
            if unknown := sorted(values.keys() - self.vary.keys()):
                raise InvalidField(
                    f"regimes.{regime} has {unknown[0]!r}, which does not vary; {suggest(self.vary, unknown[0])}"
                )
        for quantity, (low, high) in self.bands.items():
            if not 0 < low <= high:
                raise InvalidField(f"bands.{quantity} must be the least and the most (got {[low, high]})")

    def values(self, regime: str) -> dict[str, Values]:
        """How each parameter varies in a regime."""
        return {name: self.regimes.get(regime, {}).get(name, values) for name, values in self.vary.items()}
