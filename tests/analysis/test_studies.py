"""The published studies of docs/studies: their tables and figures, made again from their results."""

from __future__ import annotations

import re
import shlex
import tarfile

import matplotlib
import pytest
from matplotlib.testing.compare import compare_images
from packaging.version import Version

from tests.helpers import ROOT
from tests.helpers.command import run_here

STUDIES = ROOT / "docs" / "studies"
PAGES = {archive.name.removesuffix(".tar.xz"): archive for archive in sorted(STUDIES.glob("*.tar.xz"))}
# Root mean square of 0 to 255. Other versions of matplotlib than the one that drew the figures set text otherwise.
PIXELS = 0.5 if Version(matplotlib.__version__).release[:2] == (3, 11) else 8


def text_of(name: str) -> str:
    return (STUDIES / f"{name}.md").read_text(encoding="utf-8")


def printed(text: str) -> list[tuple[str, str]]:
    """The commands behind a `$` in the page's blocks, each with what it prints."""
    blocks = re.findall(r"(?:^    .*\n|^\n(?=    ))+", text, flags=re.MULTILINE)
    found = []
    for block in blocks:
        lines = "".join(line.removeprefix("    ") for line in block.splitlines(keepends=True))
        found += re.findall(r"^\$ (roadmap .*)\n([^$]*)", lines, flags=re.MULTILINE)
    return found


@pytest.fixture(scope="module", params=PAGES)
def study(request, tmp_path_factory):
    """The name of a study, and a folder with its runs."""
    folder = tmp_path_factory.mktemp(request.param)
    with tarfile.open(PAGES[request.param]) as packed:
        packed.extractall(folder, filter="data")
    return request.param, folder


def test_every_archive_has_a_page_with_a_table_and_a_figure():
    assert PAGES
    for name in PAGES:
        text = text_of(name)
        assert any(command.startswith("roadmap table") for command, _ in printed(text)), name
        assert f"({name}.png)" in text.replace("\n", ""), name


@pytest.mark.slow
def test_commands_print_what_the_page_shows(study):
    name, folder = study
    for command, output in printed(text_of(name)):
        done = run_here(*shlex.split(command)[1:], cwd=folder)
        assert done.status == 0, done.err
        assert done.out.rstrip() == output.rstrip(), command


@pytest.mark.slow
def test_figures_are_those_of_the_page(study):
    name, folder = study
    commands = re.findall(r"`(roadmap [^`]* -o ([\w-]+\.png))`", text_of(name))
    assert commands
    for command, file in commands:
        done = run_here(*shlex.split(command)[1:], cwd=folder)
        assert done.status == 0, done.err
        assert compare_images(STUDIES / file, folder / file, PIXELS) is None
