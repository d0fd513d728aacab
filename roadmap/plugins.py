"""The registry class for everything that plug-ins can add: steps, mixers, models, data sets, metrics, optimizers.

A decorator of each kind adds to its `Registry`. The code that uses the decorator is a Python file that the command line
or the study names, or a module that an installed package names in the entry point group `roadmap.steps`.
"""

from __future__ import annotations

import contextlib
import importlib.util
import inspect
import sys
import weakref
from collections.abc import Iterator, Mapping
from functools import cache, partial
from pathlib import Path
from typing import Any, TypeVar

from roadmap.text import suggest

T = TypeVar("T")

GROUP = "roadmap.steps"
LOADED: dict[Path, str] = {}  # the hash of each file, in order; training processes load them, too
LOAD_HINT = " (--plugin loads the file that defines it)"


class Registry(dict[str, T]):
    """The values of one kind by name. Installed packages are loaded only if a name is not found."""

    def __init__(self, kind: str, *, shown: str = "{!r}", hint: str = LOAD_HINT) -> None:
        """`kind` and the format `shown` are for messages about a value, `hint` for those about an unknown name."""
        super().__init__()
        self.kind, self.shown, self.hint = kind, shown, hint
        _REGISTRIES.append(weakref.ref(self))

    def check_name(self, name: object) -> None:
        """Raises ValueError for what can't be a name, such as the function below a decorator without parentheses."""
        if not isinstance(name, str) or not name:
            given = getattr(name, "__name__", repr(name))
            raise ValueError(f"a {self.kind}'s name must be a text, the first argument of the decorator (got {given})")

    def add(self, name: str, value: T) -> T:
        """Adds a value and returns it. Raises ValueError if the name is taken."""
        if name in self:
            raise ValueError(f"{self.kind} {name!r} exists already")
        self[name] = value
        return value

    def find(self, name: str) -> T:
        """The value of that name. Loads installed packages if needed. Raises ValueError with the valid names."""
        if name not in self:
            load_installed()
        if name not in self:
            valid = suggest(self, name) if self else "none is registered"
            raise ValueError(f"unknown {self.kind} {self.shown.format(name)}; {valid}{self.hint}")
        return self[name]


_REGISTRIES: list[weakref.ref[Registry[Any]]] = []


def load_file(path: Path) -> None:
    """Runs a file, once, so that its decorators register. Raises ValueError with the file and the error.

    Also for a file that changed since it was run: other processes would run the new code. The file may import modules
    of its folder, which is searched after all others.
    """
    path = path.resolve()
    if not path.is_file():
        raise ValueError(f"plugin {path}: no such file")
    code = _code_hash(path)
    if path in LOADED:
        _check_unchanged(path, code, LOADED[path])
        return
    # Two files of the same name need two module names.
    name = f"roadmap_plugin_{path.stem}_{_hash(str(path).encode())[:8]}"
    spec = importlib.util.spec_from_file_location(name, path)
    if spec is None or spec.loader is None:
        raise ValueError(f"plugin {path}: not a Python file")
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module  # typing and inspect look here for the definitions of the file
    if str(path.parent) not in sys.path:
        sys.path.append(str(path.parent))
    LOADED[path] = code  # already now: what the file registers may be hashed at once
    try:
        with _all_or_nothing():
            spec.loader.exec_module(module)
    except (Exception, SystemExit) as error:
        del sys.modules[name], LOADED[path]
        raise ValueError(f"plugin {path}: {type(error).__name__}: {error}") from error


def sources(path: Path) -> list[Path]:
    """A plug-in's file, and the modules of its folder that it imports, directly or not, sorted.

    Raises ValueError if it would get a module of another plug-in's folder instead, which its hash would miss.
    """
    from modulefinder import ModuleFinder

    path = path.resolve()
    names = {file.stem for file in path.parent.iterdir() if file.suffix == ".py" or file.is_dir()}
    elsewhere = {name: _place_elsewhere(name, path.parent) for name in names if name.isidentifier()}
    excludes = ["roadmap", "runner", "analysis", *(name for name, place in elsewhere.items() if place)]
    finder = ModuleFinder([str(path.parent)], excludes=excludes)
    try:
        finder.run_script(str(path))
    except (SyntaxError, ImportError, AttributeError):  # the last: of a folder without __init__.py
        return [path]  # running it says what is wrong
    for name in {name.partition(".")[0] for name in finder.badmodules}:
        if (place := elsewhere.get(name)) and any(_is_beside(place, other) for other in LOADED):
            raise ValueError(
                f"plugin {path} imports {name}, and would get {place}, which another plugin's folder has: one of the "
                "two modules needs another name"
            )
    files = {Path(file) for module in finder.modules.values() if (file := getattr(module, "__file__", None))}
    return sorted(files)


def _is_beside(module: Path, plugin: Path) -> bool:
    """Whether a plug-in's import finds the module in its folder: a file there, or the package of a folder there."""
    return plugin.parent == (module.parent.parent if module.name == "__init__.py" else module.parent)


def _place_elsewhere(name: str, folder: Path) -> Path | None:
    """Where a module of this name comes from, if not from the folder, which is searched last."""
    try:
        spec = importlib.util.find_spec(name)
    except (ImportError, ValueError):
        return None
    if spec is None or Path(spec.origin or folder).is_relative_to(folder):
        return None
    return Path(spec.origin or folder)


def _code_hash(path: Path) -> str:
    """The hash of a plug-in's sources, wherever its folder is; of one without other modules that of its file."""
    files = sources(path)
    if len(files) == 1:
        return file_hash(path)
    return _hash("\n".join(f"{file.relative_to(path.parent)} {file_hash(file)}" for file in files).encode())[:12]


def loaded() -> dict[Path, str]:
    """The files that were loaded, for another process. Raises ValueError if one changed since."""
    for path in LOADED:
        load_file(path)
    return dict(LOADED)


def load_files(files: Mapping[Path, str]) -> None:
    """Loads the files that another process has loaded. Raises ValueError if one changed since."""
    for path, code in files.items():
        load_file(path)
        _check_unchanged(path, LOADED[path.resolve()], code)


def _check_unchanged(path: Path, code: str, before: str) -> None:
    if code != before:
        raise ValueError(f"plugin {path} changed after it was loaded; restart Python, which loads it again")


@contextlib.contextmanager
def _all_or_nothing() -> Iterator[None]:
    """Removes what was registered if an error is raised, so that the corrected code can be loaded."""
    registries = [registry for reference in _REGISTRIES if (registry := reference()) is not None]
    before = [dict(registry) for registry in registries]
    try:
        yield
    except BaseException:
        for registry, values in zip(registries, before, strict=True):
            registry.clear()
            registry.update(values)
        raise


@cache
def load_installed() -> None:
    """Loads every installed package's entry points of the group, once."""
    from importlib.metadata import entry_points

    for entry in entry_points(group=GROUP):
        try:
            with _all_or_nothing():
                entry.load()
        except (Exception, SystemExit) as error:
            raise ValueError(f"entry point {entry.name} of {GROUP}: {type(error).__name__}: {error}") from error


def code_of(function: Any) -> str:
    """A hash of the file that defines a function or a class."""
    while isinstance(function, partial):
        function = function.func
    path = Path(inspect.getfile(function))
    return LOADED.get(path.resolve()) or file_hash(path)  # of the code that runs, even if the file changed


def file_hash(path: Path) -> str:
    return _hash(path.read_bytes())[:12]


def _hash(content: bytes) -> str:
    import hashlib  # imported late to keep `roadmap list` fast

    return hashlib.sha256(content).hexdigest()
