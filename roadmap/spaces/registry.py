"""Design spaces that plug-ins define.

    @roadmap.design_space("narrow")
    def narrow():
        return roadmap.Space(rung="recipe", match="recipe", vary={"depths": roadmap.Values(range=(1, 4))})

Those of the study are in `ablations.yaml`, and take precedence.
"""

from __future__ import annotations

import re
from collections.abc import Callable

from roadmap.plugins import Registry
from roadmap.spaces.definition import Space

SPACE_NAME = r"\w[\w.-]*"
SPACES: Registry[Space] = Registry("design space")


def design_space(name: str) -> Callable[[Callable[[], Space]], Callable[[], Space]]:
    """Registers what the decorated function returns as the design space `name`. Raises ValueError if it is taken."""
    SPACES.check_name(name)
    if not re.fullmatch(SPACE_NAME, name):
        raise ValueError(f"a design space's name must have only letters, digits, '.', '_' and '-' (got {name!r})")

    def register(function: Callable[[], Space]) -> Callable[[], Space]:
        SPACES.add(name, function())
        return function

    return register
