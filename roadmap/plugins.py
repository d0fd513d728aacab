"""Users' own steps, mixers and models: Python files named on the command line or in the study, and installed packages.

A package registers modules in the entry point group `roadmap.steps`; loading one runs its decorators.
"""

from __future__ import annotations

import importlib.util
import inspect
import sys
from functools import cache, partial
from pathlib import Path
from typing import Any

GROUP = "roadmap.steps"
LOADED: list[Path] = []  # files, in order, for processes that train to load too


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
