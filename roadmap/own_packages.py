"""Imported before anything else by the command, the API and the processes that they start, for its side effect.

`runner` and `analysis` are common names for a file in a research folder. After this import they are the packages beside
`roadmap`, whatever the working directory, PYTHONPATH or another installed distribution holds.
"""

import os
import sys
from importlib.machinery import ModuleSpec, PathFinder

import roadmap

NAMES = ("runner", "analysis")
ROOT = os.path.dirname(roadmap.__path__[0])
MARK = "Part of the distribution roadmap-convnext."  # in the docstrings of both packages


class Conflict(ImportError):
    """Another module has the name of one of the packages."""


class OwnPackages:
    """A finder for `sys.meta_path`."""

    @staticmethod
    def find_spec(name: str, path: object = None, target: object = None) -> ModuleSpec | None:
        """Raises Conflict where another distribution was installed over the package."""
        if name not in NAMES:
            return None
        spec = PathFinder.find_spec(name, [ROOT])
        if spec is None or spec.origin is None or not _is_ours(spec.origin):
            raise Conflict(
                f"{_folder(name)} is not roadmap's package {name}: another distribution has one of that name. "
                "Install roadmap into a virtual environment of its own"
            )
        return spec


def leave_working_directory() -> None:
    """For `python -m roadmap`, which puts the working directory first: its files may have the names of libraries.

    Where the directory is the checkout, it becomes the last place. Processes that are started later leave it out, too.
    """
    try:
        here = os.getcwd()
    except OSError:  # it was removed
        here = ""
    if not sys.flags.safe_path and sys.path[0] in ("", here):
        del sys.path[0]
        if here == os.path.realpath(ROOT):
            sys.path.append(here)
        os.environ["PYTHONSAFEPATH"] = "1"


def _folder(name: str) -> str:
    return os.path.join(ROOT, name)


def _is_ours(file: str) -> bool:
    with open(file, encoding="utf-8", errors="replace") as source:
        return MARK in source.read()


def _claim() -> None:
    for name in NAMES:
        module = sys.modules.get(name)
        if module is not None and list(getattr(module, "__path__", [])) != [_folder(name)]:
            raise Conflict(
                f"{getattr(module, '__file__', None) or name} was imported as {name}, which is the name of a package "
                "of roadmap. Rename it: a Python process can't import both"
            )
    sys.meta_path.insert(0, OwnPackages)


_claim()
