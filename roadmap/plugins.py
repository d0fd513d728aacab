"""The registries of what users may add: steps, mixers, models, data sets, metrics and optimizers.

Each is a `Registry`, which a decorator adds to. The code that uses the decorator is a Python file named on the command
line or in the study, or a module that an installed package names in the entry point group `roadmap.steps`.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from roadmap.serialization import suggest

T = TypeVar("T")

GROUP = "roadmap.steps"
LOADED: list[Path] = []  # files, in order, for processes that train to load too


class Registry(Mapping[str, T]):
    """What of one kind has a name. Installed packages are loaded only when a name is not found without them."""

    def __init__(self, kind: str, *, shown: str = "{!r}", hint: str = "") -> None:
        """`kind` names one of them in messages, `shown` formats its name there, `hint` is what helps where it fails."""
        self.kind, self.shown, self.hint = kind, shown, hint
        self._values: dict[str, T] = {}

    def __getitem__(self, name: str) -> T:
        return self._values[name]

    def __iter__(self) -> Iterator[str]:
        return iter(self._values)

    def __len__(self) -> int:
        return len(self._values)

    def add(self, name: str, value: T) -> T:
        """Raises ValueError where the name is taken."""
        if name in self._values:
            raise ValueError(f"{self.kind} {name!r} exists already")
        self._values[name] = value
        return value

    def find(self, name: str) -> T:
        """Raises ValueError for an unknown name, with the valid ones."""
        if name not in self._values:
            load_installed()
        if name not in self._values:
            valid = suggest(self._values, name) if self._values else "none is registered"
            raise ValueError(f"unknown {self.kind} {self.shown.format(name)}; {valid}{self.hint}")
        return self._values[name]


def load_file(path: Path) -> None:
    """Runs a file's decorators, once. Raises ValueError with the file and what is wrong in it."""
    path = path.resolve()
    if path in LOADED:
        return
    if not path.is_file():
        raise ValueError(f"plugin {path}: no such file")
    import hashlib  # here, as what answers at once does without

    # Two files of one name are two modules.
    name = f"roadmap_plugin_{path.stem}_{hashlib.sha256(str(path).encode()).hexdigest()[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # where typing and inspect look for what the file defines
    try:
        spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        raise ValueError(f"plugin {path}: {type(error).__name__}: {error}") from error
    LOADED.append(path)


@cache
def load_installed() -> None:
    """Loads every installed package's entry points of the group, once."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP):
        try:
            entry.load()
        except (Exception, SystemExit) as error:
            raise ValueError(f"entry point {entry.name} of {GROUP}: {type(error).__name__}: {error}") from error


def code_of(function: Any) -> str:
    """A hash of the file that defines a function or a class."""
    import hashlib

    while isinstance(function, partial):
        function = function.func
    return hashlib.sha256(Path(inspect.getfile(function)).read_bytes()).hexdigest()[:12]
