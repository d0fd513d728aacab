"""How a step is written: `gelu`, `kernel-size=9`, `stage-ratio=2:2:6:2@recipe`, `gelu+layer-norm`."""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any

from roadmap.recipe import Recipe
from roadmap.serialization import parse_value
from roadmap.steps import find_step

PLUS = r"\+(?=[a-z+]|\s|$)"  # between steps; that of layer-scale=1e+2 is none


@dataclass(frozen=True)
class StepSpec:
    """A step as it is taken. Written `gelu`, `kernel-size=9`, or `stage-ratio=2:2:6:2@recipe`."""

    step: str
    value: Any = None  # of the step's first parameter; None: as the study has it
    match: str | None = None  # the rung whose MACs the width is solved for

    @staticmethod
    def parse(written: str) -> StepSpec:
        """Raises ValueError for a step that does not exist, or a value that it does not take."""
        body, _, match = written.strip().partition("@")
        name, _, text = body.partition("=")
        step = find_step(name)
        if written.strip()[-1:] in ("=", "@"):
            raise ValueError(f"{written.strip()!r} ends without a value")
        if not text:
            return StepSpec(name, None, match or None)
        items = [parse_value(item, written) for item in text.split(":")]
        value = items if len(items) > 1 else items[0]
        if Recipe not in list(step.parameters.values())[:1]:  # a recipe is named, and found once the regime is known
            step.variant(value, written)
        return StepSpec(name, value, match or None)

    @property
    def name(self) -> str:
        """The name of its rung, fit to be a folder's."""
        values = self.value if isinstance(self.value, list) else [] if self.value is None else [self.value]
        matching = ["matching", self.match] if self.match else []
        return re.sub(r"[^\w.-]", "-", "-".join(map(str, [self.step, *values, *matching])))


def is_move(written: str) -> bool:
    """Whether it names a step, or at least gives one a value: then what is wrong with it is said of the step."""
    if "=" in written or "@" in written:
        return True
    try:
        find_step(written.strip())
    except ValueError:
        return False
    return True


def is_composition(written: str) -> bool:
    return re.search(PLUS, written) is not None
