"""What `roadmap run --space` and `roadmap space` print and draw."""

from __future__ import annotations

import sys
from collections.abc import Sequence
from pathlib import Path

from analysis.collection import collect
from analysis.figures.parts.style import figure_paths, save_figure
from analysis.spaces.drawn import space_of
from analysis.spaces.figure import draw_spaces
from analysis.spaces.study import SpaceStudy, study_of
from analysis.spaces.table import space_text
from roadmap.options import Selection


def conclude_space(selection: Selection, out: Path) -> None:
    """Prints what the finished designs of the selected space say, and saves the figure in `out`."""
    try:
        study = study_of(selection, space_of(selection).name, out, collect(out))
    except ValueError as error:
        print(f"no table and no figure: {error}", file=sys.stderr)
        return
    print(f"\n{space_text([study])}\n", flush=True)  # before anything is drawn, which may fail
    for path in save_spaces([study], out):
        print(f"figure: {path}")


def save_spaces(studies: Sequence[SpaceStudy], out: Path, paths: Sequence[Path] = ()) -> list[Path]:
    """Draws spaces into `paths`, by default a PNG and an SVG in `out` that are named after the study."""
    texts = [*(study.space.name for study in studies), *studies[0].settings]
    return save_figure(draw_spaces(studies), list(paths) or figure_paths(out, "space", studies[0].run.regime, *texts))
