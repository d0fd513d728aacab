"""Converts manifests of earlier formats to the current one: a function for each format converts it to the next.

docs/design.md, "Changing the schema", lists the changes that need a new format. Format 1 was never released.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any

from roadmap.files import InvalidFile
from roadmap.record.run import FORMAT

Manifest = dict[str, Any]
# By the format that each function reads; it returns the next format. The identity of the run stays the same.
UPGRADES: Mapping[int, Callable[[Manifest], Manifest]] = {}


def upgraded(
    manifest: Manifest, folder: Path, upgrades: Mapping[int, Callable[[Manifest], Manifest]] = UPGRADES
) -> Manifest:
    """A manifest in the current format. Raises InvalidFile for a format that can't be converted."""
    version = oldest = manifest.get("format")
    while isinstance(version, int) and version in upgrades:
        manifest, version = upgrades[version](manifest), version + 1
    if version != FORMAT:
        raise InvalidFile(
            f"{folder}/manifest.json has format {oldest!r}; this version reads {FORMAT}"
            + "".join(f" and {older}" for older in upgrades)
        )
    return {**manifest, "format": FORMAT}
