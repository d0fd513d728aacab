"""Shared by all figures: layouts, type, colours, and writing to files."""

from __future__ import annotations

import contextlib
import io
import re
import warnings
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import AbstractContextManager
from dataclasses import dataclass
from functools import cache
from pathlib import Path
from typing import Any, Protocol

from matplotlib import font_manager, style
from matplotlib.colors import to_rgb
from matplotlib.figure import Figure
from matplotlib.font_manager import FontProperties
from matplotlib.legend import Legend
from matplotlib.lines import Line2D
from matplotlib.text import Text
from matplotlib.transforms import Bbox

from analysis.options import RunsWarning
from analysis.results import SPREAD_OF_RUNS
from roadmap.files import fitting_name, make_parent, write_atomic
from roadmap.record.metrics import Metric
from roadmap.study.references import REFERENCE

FORMATS = (".png", ".svg", ".pdf")
FURTHER_BYTES = 8  # of a figure's suffix, and of the temporary file that it is written to
DPI = 300
# Text that is too wide becomes smaller by this factor until it fits or has so many points; then its end is cut off.
SHRINK, SMALLEST = 0.95, 5.5
CUT, CUT_LETTERS = "…", 3

# Okabe and Ito's colours, which the colour-blind tell apart; one for each group, in the study's order.
# Dark and light ones alternate, so neighbours differ in grey too. The start and references are grey.
COLOURS = ("#999999", "#0072B2", "#E69F00", "#D55E00", "#56B4E9", "#009E73", "#CC79A7")
BEHIND, BEHIND_EDGE = "#d5d5d5", "#aaaaaa"  # the second regime's
HATCH = "/////"
DARK, FAINT, DIVERGED = "#222222", "#666666", "#b00020"

STYLE: Any = {
    "font.size": 8.5,
    "svg.fonttype": "path",  # so that the figure looks the same without our fonts
    "pdf.fonttype": 42,  # embedded, as publishers want them
    "hatch.linewidth": 0.6,
    "svg.hashsalt": "roadmap",  # so that the same bars give the same file
    "text.parse_math": False,  # $ in names of data sets and rungs is a letter
}


@dataclass(frozen=True)
class Layout:
    """The measures of a figure: inches, but points for type."""

    width: float
    row: float  # height of a bar's row
    group: float  # width of the groups' names left of the titles; 0: they stand above their rungs
    letter: float  # width of a title's letter
    macs: float  # width of one regime's multiply-adds
    type: float
    small: float

    @property
    def style(self) -> Any:
        thin = {"axes.linewidth": 0.08 * self.type, "xtick.major.size": 0.4 * self.type}
        return STYLE | thin | {"font.size": self.type, "legend.fontsize": self.type, "xtick.major.pad": 0.3 * self.type}


LAYOUTS = {
    1: Layout(width=3.5, row=0.165, group=0.0, letter=0.049, macs=0.32, type=6.5, small=5.5),
    2: Layout(width=7.2, row=0.27, group=0.9, letter=0.064, macs=0.5, type=8.5, small=7.0),
}


def drawing(settings: dict[str, Any]) -> AbstractContextManager[None]:
    """A context in which matplotlib has its defaults and these settings, whatever the user's matplotlibrc says."""
    return style.context(["default", settings])


def colours_of(groups: Sequence[str], others: Iterable[str] = ()) -> dict[str, str]:
    """Colours of all groups of the study, drawn or not, then of `others`."""
    named = list(dict.fromkeys(["", *groups, *others]))
    coloured = {group: COLOURS[i % len(COLOURS)] for i, group in enumerate(named)}
    return coloured | {"": COLOURS[0], REFERENCE: COLOURS[0]}


def luminance(colour: str) -> float:
    red, green, blue = to_rgb(colour)
    return 0.299 * red + 0.587 * green + 0.114 * blue


def readable_on(colour: str) -> str:
    """Dark or white, whichever has more contrast."""
    return DARK if luminance(colour) > 0.5 else "white"


def number(value: float, metric: Metric, sign: str = "") -> str:
    """Rounds halves up, as the paper does: 80.35, which is not exact as a float, becomes 80.4."""
    return f"{value + 1e-9:{sign}.{metric.decimals}f}"


def axis_title(metric: Metric) -> str:
    return metric.title if metric.higher_is_better else f"{metric.title} (lower is better)"


class NotebookFigure(Figure):
    """A figure that notebooks show. Those of pyplot they show by themselves; this one was made without it."""

    def _repr_png_(self) -> tuple[bytes, dict[str, float]]:
        """The picture, and its width and height in pixels of CSS, of which an inch has 96."""
        width, height = self.get_size_inches()
        return _written(self, ".png"), {"width": 96 * float(width), "height": 96 * float(height)}


class Spread(Protocol):
    @property
    def std(self) -> float | None: ...
    @property
    def runs(self) -> int: ...


def spread_key(*panels: Iterable[Spread], meaning: str = SPREAD_OF_RUNS) -> tuple[Line2D, str] | None:
    """The legend of the panels' error bars; None if there are none."""
    counts = [sorted({bar.runs for bar in panel if bar.std is not None}) for panel in panels]
    numbers_of_runs = [str(runs[0]) if len(runs) == 1 else f"{runs[0]} to {runs[-1]}" for runs in counts if runs]
    return (error_mark(), meaning.format(" and of ".join(dict.fromkeys(numbers_of_runs)))) if numbers_of_runs else None


def error_mark() -> Line2D:
    return Line2D([], [], color=DARK, linewidth=0.8, marker="|", markersize=4)


def finish(figure: Figure) -> None:
    """Draws a figure once, with fonts that have its letters: names of data sets may be in any script.

    Text that reaches beyond the figure, such as a title of many settings, is made to fit. Warns of letters that no
    installed font has.
    """
    missing: set[str] = set()
    for text in figure.findobj(Text):
        letters = {letter for letter in text.get_text() if letter.isprintable() and not letter.isspace()}
        path = font_manager.findfont(text.get_fontproperties())
        if lacking := letters - _letters_in(path):
            families, unknown = _families_with(frozenset(lacking))
            text.set_fontfamily([*text.get_fontfamily(), *families])
            missing |= unknown
    if missing:
        letters_shown = "".join(sorted(missing)[:20])
        message = f"no installed font has {letters_shown}: the figure shows boxes; install one, such as Noto Sans CJK"
        warnings.warn(message, RunsWarning, stacklevel=3)
    with _without_glyph_warnings():
        figure.canvas.draw()
        for texts, extent in _lines_of_text(figure):
            while not _is_inside(extent(), figure) and _made_smaller(texts):
                figure.canvas.draw()


def _lines_of_text(figure: Figure) -> Iterator[tuple[list[Text], Callable[[], Bbox]]]:
    """The texts that have one size, each with a function that measures them: legends, titles and names of axes."""
    for legend in figure.findobj(Legend):
        yield legend.get_texts(), legend.get_window_extent
    for axes in figure.axes:
        for text in (axes.title, axes._left_title, axes.xaxis.label):  # type: ignore[attr-defined]
            yield [text], text.get_window_extent
    if label := figure._supxlabel:  # type: ignore[attr-defined]
        yield [label], label.get_window_extent


def _made_smaller(texts: Sequence[Text]) -> bool:
    """Sets the texts smaller, or if they are small cuts off the end of the longest one. False if there is none left."""
    if _points(texts[0]) > SMALLEST:
        for text in texts:
            text.set_fontsize(max(SMALLEST, SHRINK * _points(text)))
        return True
    longest = max(texts, key=lambda text: len(text.get_text()))
    kept = longest.get_text().removesuffix(CUT)
    longest.set_text(kept[:-CUT_LETTERS] + CUT)
    return len(kept) > CUT_LETTERS


def _points(text: Text) -> float:
    return float(text.get_fontproperties().get_size_in_points())


def _is_inside(box: Bbox, figure: Figure) -> bool:
    """Whether it is in the figure's width. Empty text is."""
    return not box.width or (box.x0 >= 0 and box.x1 <= figure.bbox.width)


@cache
def _letters_in(path: str) -> frozenset[str]:
    return frozenset(map(chr, font_manager.get_font(path).get_charmap()))


@cache
def _families_with(letters: frozenset[str]) -> tuple[list[str], set[str]]:
    """Installed families that together have these letters, those with the most first; and letters that none has."""
    missing, letters_of = set(letters), dict[str, frozenset[str]]()
    for family in sorted({font.name for font in font_manager.fontManager.ttflist}):
        if not family.lstrip(".").startswith("Last"):  # Last Resort has a box for everything
            with contextlib.suppress(OSError, RuntimeError):  # such as one of colour bitmaps
                letters_of[family] = _letters_in(font_manager.findfont(FontProperties(family=family))) & letters
    families = []
    while missing and letters_of:
        family = max(letters_of, key=lambda name: len(letters_of[name] & missing))
        if not letters_of[family] & missing:
            break
        families.append(family)
        missing -= letters_of.pop(family)
    return families, missing


@contextlib.contextmanager
def _without_glyph_warnings() -> Iterator[None]:
    """`finish` has warned of all letters at once."""
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Glyph .* missing from")
        yield


def prepare_files(paths: Iterable[Path]) -> None:
    """Creates the folders of figures that are drawn later. Raises ValueError or OSError for unusable paths."""
    paths = list(paths)
    check_suffixes(paths)
    for path in paths:
        make_parent(path)


def check_suffixes(paths: Iterable[Path]) -> None:
    """Raises ValueError for a folder, or a suffix that is not in FORMATS."""
    for path in paths:
        if path.is_dir():
            raise ValueError(f"{path} is a folder; a file is expected")
        if path.suffix.lower() not in FORMATS:
            raise ValueError(f"{path}: a figure must end in {', '.join(FORMATS)}")


def figure_paths(out: Path, kind: str, regime: str, *texts: str) -> list[Path]:
    """A PNG and an SVG in a folder, named after the kind, the regime, and the words of the texts."""
    words = [word for text in texts for word in re.findall(r"[\w.]+", text)]
    name = fitting_name("-".join([kind, regime, *words]), FURTHER_BYTES)
    return [out / f"{name}{suffix}" for suffix in (".png", ".svg")]


def save_figure(figure: Figure, paths: Sequence[Path]) -> list[Path]:
    """Writes the figure to each path, in the format of its suffix; returns the paths. Raises ValueError for others."""
    prepare_files(paths)
    for path in paths:
        write_atomic(path, _written(figure, path.suffix.lower()))
    return list(paths)


def png(figure: Figure) -> bytes:
    """The figure as a PNG."""
    return _written(figure, ".png")


def _written(figure: Figure, suffix: str) -> bytes:
    buffer, metadata = io.BytesIO(), {".svg": {"Date": None}, ".pdf": {"CreationDate": None}}.get(suffix)
    with drawing(STYLE), _without_glyph_warnings():
        figure.savefig(buffer, format=suffix[1:], dpi=DPI, metadata=metadata)
    return buffer.getvalue()
