"""The running code: its version, and a copy of it that later edits do not change."""

from __future__ import annotations

import hashlib
import itertools
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roadmap.files import read_json, write_json
from roadmap.plugins import sources
from roadmap.study.load import study_path

ROOT = Path(__file__).parent.parent.parent  # the folder of the packages
DISTRIBUTION = "roadmap-convnext"
PACKAGES = ("roadmap", "runner", "analysis")
STATE_FILE = "code.json"  # beside the packages in a copy


def version() -> str | None:
    """The version of this package; None if it runs from a folder that was never installed."""
    import importlib.metadata  # imported late to keep `run --dry-run` fast

    try:
        return importlib.metadata.version(DISTRIBUTION)
    except importlib.metadata.PackageNotFoundError:
        return None


def code_state() -> dict[str, Any]:
    """A hash of the sources; in a git checkout also the commit, and whether the sources differ from it."""
    stored_state = read_json(ROOT / STATE_FILE)
    return stored_state if stored_state is not None else {"sources": _hash_of(_sources()), **_git_state()}


def _sources() -> list[Path]:
    files = (path for package in PACKAGES for path in (ROOT / package).rglob("*"))
    return sorted(path for path in files if path.is_file() and "__pycache__" not in path.parts)


def _hash_of(files: Sequence[Path], *more: str) -> str:
    digest = hashlib.sha256()
    for path in files:
        name = path.relative_to(ROOT) if path.is_relative_to(ROOT) else path
        digest.update(f"{name}\0".encode() + path.read_bytes() + b"\0")
    digest.update("\0".join(more).encode())
    return digest.hexdigest()[:12]


def _git_state() -> dict[str, Any]:
    def git(*arguments: str) -> str:
        command = ["git", "-C", str(ROOT), *arguments]
        return subprocess.run(command, capture_output=True, text=True, timeout=30, check=True).stdout.strip()

    try:
        # The folder of an installation may be inside another project's checkout.
        git("ls-files", "--error-unmatch", "runner/machine/snapshot.py")
        changed = git("status", "--porcelain", "--", *PACKAGES)
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "modified": None}


def snapshot(folder: Path, plugins: Sequence[Path] = ()) -> tuple[Path, tuple[Path, ...]]:
    """Copies the packages, the study and the plugins into a subfolder of `folder`; the same code is copied only once.

    A plugin is copied with the modules of its folder that it imports. Returns the subfolder, which is for PYTHONPATH,
    and the copies of the plugins.
    """
    state = code_state()
    plugin_sources = [sources(path) for path in plugins]
    target = folder / _hash_of([*_sources(), study_path(), *itertools.chain(*plugin_sources)], str(state))
    copies = tuple(target / "plugins" / str(i) / path.name for i, path in enumerate(plugins))
    if not target.exists():
        temporary = folder / f"new-{os.getpid()}"
        shutil.rmtree(temporary, ignore_errors=True)  # left by a killed process with the same number
        for package in PACKAGES:
            shutil.copytree(ROOT / package, temporary / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(study_path(), temporary / "roadmap" / study_path().name)
        for path, copy, files in zip(plugins, copies, plugin_sources, strict=True):
            for file in files:
                place = (temporary / copy.relative_to(target)).parent / file.relative_to(path.resolve().parent)
                place.parent.mkdir(parents=True, exist_ok=True)
                shutil.copy(file, place)
        write_json(temporary / STATE_FILE, state)
        temporary.rename(target)
    return target, copies
