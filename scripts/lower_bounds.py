"""Prints the lower bound of each requirement in pyproject.toml as a constraint for pip: NAME==VERSION.

The tools of the tests (pytest, linters) are left out: `scripts/test-versions` is about the libraries that runs use.
"""

from __future__ import annotations

import re
import tomllib
from pathlib import Path

PROJECT = tomllib.loads((Path(__file__).parent.parent / "pyproject.toml").read_text(encoding="utf-8"))["project"]


def lower_bounds() -> list[str]:
    """One for each library. Raises ValueError for a requirement without a lower bound."""
    extras = PROJECT["optional-dependencies"]
    requirements = [*PROJECT["dependencies"], *(line for name in extras if name != "test" for line in extras[name])]
    constraints = []
    for requirement in requirements:
        bound = re.fullmatch(r"([\w-]+)>=([\w.]+)(,.*)?", requirement)
        if bound is None:
            raise ValueError(f"pyproject.toml: a requirement must be NAME>=VERSION (got {requirement!r})")
        constraints.append(f"{bound[1]}=={bound[2]}")
    return sorted(set(constraints))


if __name__ == "__main__":
    print(*lower_bounds(), sep="\n")
