"""Prepares a release: version, changelog, and the files for PyPI, built and checked. Publishes nothing.

    python scripts/release.py 0.2.0     writes the version and the changelog's heading, then builds and checks
    python scripts/release.py           builds and checks the current version

It needs `pip install -e '.[test]'`. Before it, `scripts/test-versions` tests the oldest and the newest libraries.
"""

from __future__ import annotations

import argparse
import datetime
import re
import subprocess
import sys
import tarfile
import tempfile
import tomllib
import venv
import zipfile
from pathlib import Path

from packaging.version import InvalidVersion, Version

ROOT = Path(__file__).parent.parent
PROJECT, CHANGELOG = ROOT / "pyproject.toml", ROOT / "CHANGELOG.md"
UNRELEASED = "## Unreleased"
PACKAGES = ("roadmap", "runner", "analysis")
SOURCES = (*PACKAGES, "tests", "benchmarks", "docs", "scripts")


def write_version(version: str, project: Path = PROJECT, changelog: Path = CHANGELOG) -> None:
    """Writes the version and the heading of its changes. Raises ValueError if there are none, or for another order."""
    text, changes = project.read_text(encoding="utf-8"), changelog.read_text(encoding="utf-8")
    current = tomllib.loads(text)["project"]["version"]
    released = re.findall(r"^## (\d\S*)", changes, flags=re.MULTILINE)
    try:
        new = Version(version)
        is_later = new >= Version(current) and all(new > Version(earlier) for earlier in released)
    except InvalidVersion:
        raise ValueError(f"the version must be like 1.2.0 (got {version!r})") from None
    if not is_later:
        raise ValueError(f"the version must be later than {', '.join({current, *released})} (got {version})")
    if not re.search(rf"^{UNRELEASED}\n\n- ", changes, flags=re.MULTILINE):
        raise ValueError(f"{changelog}: must have the changes of {version} below {UNRELEASED!r}")
    heading = f"{UNRELEASED}\n\n## {version} ({datetime.date.today().isoformat()})"
    changelog.write_text(changes.replace(UNRELEASED, heading, 1), encoding="utf-8")
    project.write_text(text.replace(f'\nversion = "{current}"', f'\nversion = "{version}"', 1), encoding="utf-8")


def build(folder: Path) -> tuple[Path, Path]:
    """Builds the sdist, and the wheel from it; returns both."""
    _python("-m", "build", "--outdir", str(folder), str(ROOT))
    (sdist,), (wheel,) = folder.glob("*.tar.gz"), folder.glob("*.whl")
    _python("-m", "twine", "check", "--strict", str(sdist), str(wheel))
    return sdist, wheel


def check_content(sdist: Path, wheel: Path) -> None:
    """Raises ValueError if a file is missing, or is there and should not be."""
    with tarfile.open(sdist) as archive:
        in_sdist = {name.partition("/")[2] for name in archive.getnames()}
    with zipfile.ZipFile(wheel) as archive:
        in_wheel = {name for name in archive.namelist() if ".dist-info/" not in name}
    tracked = set(_output("git", "-C", str(ROOT), "ls-files").splitlines())
    packaged = {name for name in tracked if name.startswith(tuple(f"{package}/" for package in PACKAGES))}
    _compare(wheel, in_wheel, packaged | {"roadmap/ablations.yaml"}, "in the wheel")
    folders = tuple(f"{folder}/" for folder in SOURCES)
    sources = {name for name in tracked if name.startswith(folders) or "/" not in name} - {".gitattributes"}
    _compare(sdist, in_sdist, sources | {"PKG-INFO"}, "in the sdist")


def _compare(archive: Path, found: set[str], expected: set[str], where: str) -> None:
    if lacking := sorted(expected - found):
        raise ValueError(f"{archive}: {lacking[0]} must be {where} ({len(lacking)} files are missing)")
    if more := sorted(found - expected):
        raise ValueError(f"{archive}: {more[0]} must not be {where} ({len(more)} files too many)")


def check_installed(sdist: Path, libraries: Path | None) -> None:
    """Installs the sdist in a new environment and uses it outside of the checkout.

    `libraries` is a folder of installed packages that it uses; by default pip installs what it needs, gigabytes.
    """
    with tempfile.TemporaryDirectory() as scratch:
        environment = Path(scratch) / "environment"
        venv.create(environment, with_pip=True)
        python = str(environment / "bin" / "python")
        alone = ["--no-deps"] if libraries else []
        subprocess.run([python, "-m", "pip", "install", "--quiet", *alone, str(sdist)], check=True)
        if libraries:
            (site,) = environment.glob("lib/python*/site-packages")
            (site / "libraries.pth").write_text(f"{libraries}\n")
        command = str(environment / "bin" / "roadmap")
        short = "--steps pico --seeds 1 --set recipe.epochs=1 --set recipe.warmup_epochs=0"
        for words in ("--version", "list", "figure --published -o figure.pdf", f"run {short}", "report"):
            subprocess.run([command, *words.split()], cwd=scratch, check=True)


def _python(*arguments: str) -> None:
    subprocess.run([sys.executable, *arguments], check=True)


def _output(*command: str) -> str:
    return subprocess.run(command, capture_output=True, text=True, check=True).stdout


def main() -> int:
    parser = argparse.ArgumentParser(description="Prepares a release, and publishes nothing.")
    parser.add_argument("version", nargs="?", help="the new version (default: the current one is built again)")
    parser.add_argument("--folder", type=Path, default=ROOT / "dist", help="for the built files (default: dist)")
    parser.add_argument("--libraries", type=Path, help="installed packages to check with, instead of new ones")
    options = parser.parse_args()
    try:
        if options.folder.exists() and any(options.folder.iterdir()):
            raise ValueError(f"--folder must be empty or new (got {options.folder})")
        if options.version:
            if _output("git", "-C", str(ROOT), "status", "--porcelain"):
                raise ValueError("the checkout must have no uncommitted changes")
            write_version(options.version)
        sdist, wheel = build(options.folder)
        check_content(sdist, wheel)
        check_installed(sdist, options.libraries)
    except (ValueError, subprocess.CalledProcessError) as error:
        print(f"scripts/release.py: {error}", file=sys.stderr)
        return 2 if isinstance(error, ValueError) else 1
    print(f"{sdist} and {wheel} are ready. Next: git commit, git tag, python -m twine upload {options.folder}/*")
    return 0


if __name__ == "__main__":
    sys.exit(main())
