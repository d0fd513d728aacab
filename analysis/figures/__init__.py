"""The figures: each module draws one kind from data, and `kinds` gathers the data for each.

May import `roadmap`, `analysis.tables` and the modules next to this package. Statistics are not computed here.
"""

import analysis.figures.backend  # noqa: F401 before the others, which import matplotlib

# isort: split

from analysis.figures.attribution import draw_effects, draw_interactions
from analysis.figures.contact_sheet import draw_contact_sheet
from analysis.figures.counterparts import draw_counterparts
from analysis.figures.curves import draw_curves
from analysis.figures.difference import draw_difference
from analysis.figures.parts.style import STYLE, check_suffixes, prepare_files, save_figure
from analysis.figures.roadmap import draw_roadmap, draw_side_by_side
from analysis.figures.tradeoff import draw_tradeoff

__all__ = [
    "STYLE",
    "check_suffixes",
    "draw_contact_sheet",
    "draw_counterparts",
    "draw_curves",
    "draw_difference",
    "draw_effects",
    "draw_interactions",
    "draw_roadmap",
    "draw_side_by_side",
    "draw_tradeoff",
    "prepare_files",
    "save_figure",
]
