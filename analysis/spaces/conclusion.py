"""What `roadmap run --space` and `roadmap space` print and draw."""

from __future__ import annotations

import re
import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.figures.parts.style import save_figure
from analysis.spaces.drawn import space_of
from analysis.spaces.figure import draw_spaces
from analysis.spaces.study import SpaceStudy, study_of
from analysis.spaces.table import space_text
from roadmap.files import fitting_name
from roadmap.options import Selection

FURTHER_BYTES = 8  # of a figure's suffix, and of the temporary file that it is written to


def conclude_space(selection: Selection, out: Path) -> None:
    """Prints what the finished designs of the selected space say, and saves the figure in `out`."""
    try:
        study = study_of(selection, space_of(selection).name, out)
    except ValueError as error:
        print(f"no table and no figure: {error}", file=sys.stderr)
        return
    print(f"\n{space_text([study])}\n", flush=True)  # before anything is drawn, which may fail
    for path in save_spaces([study], out):
        print(f"figure: {path}")


def save_spaces(studies: Sequence[SpaceStudy], out: Path, paths: Sequence[Path] = ()) -> list[Path]:
    """Draws spaces into `paths`, by default a PNG and an SVG in `out` that are named after the study."""
    settings = re.findall(r"[\w.]+", ",".join(studies[0].settings))
    words = ["space", studies[0].run.regime, *(study.space.name for study in studies), *settings]
    name = fitting_name("-".join(words), FURTHER_BYTES)
    return save_figure(draw_spaces(studies), list(paths) or [out / f"{name}{suffix}" for suffix in (".png", ".svg")])
