"""Design spaces that plug-ins define.

    @roadmap.design_space("narrow")
    def narrow():
        return roadmap.Space(rung="recipe", match="recipe", vary={"depths": roadmap.Values(range=(1, 4))})

Those of the study are in `ablations.yaml`, and take precedence.
"""

from __future__ import annotations

from collections.abc import Callable

from roadmap.plugins import Registry
from roadmap.spaces.definition import Space

SPACES: Registry[Space] = Registry("design space")


def design_space(name: str) -> Callable[[Callable[[], Space]], Callable[[], Space]]:
    """Registers what the decorated function returns as the design space `name`. Raises ValueError if it is taken."""
    SPACES.check_name(name)

    def register(function: Callable[[], Space]) -> Callable[[], Space]:
        SPACES.add(name, function())
        return function

    return register
