"""The code that runs: which it is, and a copy of it that no later edit reaches."""

from __future__ import annotations

import hashlib
import os
import shutil
import subprocess
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from roadmap.files import read_json, write_json
from roadmap.study.load import study_path

ROOT = Path(__file__).parent.parent.parent  # the folder of the packages
PACKAGES = ("roadmap", "runner", "analysis")
STATE_FILE = "code.json"  # beside the packages of a copy


def code_state() -> dict[str, Any]:
    """A hash of the sources, and, where they are a git checkout, its commit and whether they differ from it."""
    kept = read_json(ROOT / STATE_FILE)
    return kept if kept is not None else {"sources": _hash_of(_sources()), **_git_state()}


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
        # An environment may lie within another checkout.
        git("ls-files", "--error-unmatch", "runner/machine/snapshot.py")
        changed = git("status", "--porcelain", "--", *PACKAGES)
        return {"commit": git("rev-parse", "HEAD"), "modified": bool(changed)}
    except (OSError, subprocess.SubprocessError):
        return {"commit": None, "modified": None}


def snapshot(folder: Path, plugins: Sequence[Path] = ()) -> tuple[Path, tuple[Path, ...]]:
    """A copy of the packages, the study and the plugins in a folder below this one; the same code is copied once.

    Returns the folder that stands for the packages' own in PYTHONPATH, and the copies of the plugins.
    """
    state = code_state()
    target = folder / _hash_of([*_sources(), study_path(), *plugins], str(state))
    copies = tuple(target / "plugins" / str(i) / path.name for i, path in enumerate(plugins))
    if not target.exists():
        aside = folder / f"new-{os.getpid()}"
        shutil.rmtree(aside, ignore_errors=True)  # of a process of that number that was killed
        for package in PACKAGES:
            shutil.copytree(ROOT / package, aside / package, ignore=shutil.ignore_patterns("__pycache__"))
        shutil.copy(study_path(), aside / "roadmap" / study_path().name)
        for path, copy in zip(plugins, copies, strict=True):
            (aside / copy.relative_to(target)).parent.mkdir(parents=True)
            shutil.copy(path, aside / copy.relative_to(target))
        write_json(aside / STATE_FILE, state)
        aside.rename(target)
    return target, copies
