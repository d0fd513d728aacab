"""Every kind of figure: its picture compared with tests/analysis/figures/baseline/, and its data.

After an intended change, look at the pictures that this writes:
`pytest tests/analysis/figures/test_figure_kinds.py --mpl-generate-path=tests/analysis/figures/baseline`
"""

from __future__ import annotations

import inspect
import math
import re
from dataclasses import replace
from itertools import pairwise
from typing import get_args

import matplotlib
import numpy as np
import pytest
from matplotlib.backends.backend_agg import FigureCanvasAgg
from matplotlib.colors import to_rgb
from matplotlib.legend import Legend
from matplotlib.patches import Rectangle
from matplotlib.testing.compare import compare_images
from matplotlib.text import Text
from packaging.version import Version

import roadmap
from analysis.attribution import Attribution, Interaction, StepEffect
from analysis.comparison import compare, published_series_for, table_against
from analysis.curves import curves_of_runs
from analysis.figures import (
    draw_curves,
    draw_difference,
    draw_effects,
    draw_interactions,
    draw_roadmap,
    draw_side_by_side,
    draw_tradeoff,
    save_figure,
)
from analysis.figures.kinds import DRAW
from analysis.figures.parts.labels import overlap
from analysis.figures.parts.style import COLOURS, luminance
from analysis.options import FIGURE_KINDS, FigureKind
from analysis.published import published_models
from analysis.report.summary import summarize
from analysis.results import Result, published_series, series_of_runs, with_throughput
from analysis.tradeoff import published_tradeoff, tradeoff_of_runs
from roadmap.cli import main
from roadmap.network.cost import cost
from roadmap.options import Selection, StudyOptions
from roadmap.record.benchmarks import Conditions, Measured, workload_of
from roadmap.record.folder import write_divergences
from roadmap.record.metrics import find_metric
from roadmap.record.results import Divergence
from roadmap.study.load import load_study
from tests.helpers import ROOT
from tests.helpers.images import make_folder
from tests.helpers.records import append_row, begin, epoch_row, finish, study_run

STUDY = load_study()
DPI, TOLERANCE = 60, 0.5  # root mean square of 0 to 255
# matplotlib 3.10 rounds some edges to another pixel than 3.11, which drew the baseline.
PIXELS = TOLERANCE if Version(matplotlib.__version__) >= Version("3.11") else 8


def bare(figure):
    """Without letters, and the legends that are as wide as they: each version of matplotlib draws them otherwise.

    They are tested as data.
    """
    for artist in [*figure.findobj(Text), *figure.findobj(Legend)]:
        artist.set_visible(False)
    return figure


# Of each rung of a made-up study: the accuracies by seed.
ACCURACIES = {
    "pico": {0: 97.6, 1: 97.9, 2: 97.8},
    "recipe": {0: 97.1, 1: 97.4, 2: 97.3},
    "stage-ratio": {0: 97.0, 1: 97.3, 2: 96.9},
    "patchify-stem": {0: 96.4, 1: 97.0, 2: 96.8},
    "depthwise": {0: 96.1},
    "width": {},
    "inverted-bottleneck": {0: 97.2, 2: 97.6},
    "kernel-size-7": {0: 96.9, 1: 96.0, 2: 96.3},
    "kernel-size-9": {0: 95.7, 1: 96.4, 2: 95.9},
    "layer-scale": {0: 95.1, 1: 94.6, 2: 95.0},
}
DIVERGED = {"width": (0, 1), "inverted-bottleneck": (1,)}


def result(rung, values, regime="pico", diverged=()):
    run = study_run(rung, regime=regime)
    model_cost = cost(rung.experiment.design, rung.experiment.recipe.image_size, run.dataset.classes)
    rows = {
        seed: {
            "seed": seed,
            "state": "finished",
            "top1": value,
            "test_loss": (100 - value) / 10,
            "images_per_second": 2e9 / model_cost.macs + 10 * seed,
            "peak_memory_bytes": 2**29 + model_cost.parameters * 16,
            "folder": f"{regime}/{rung.name}-s{seed}-made",
        }
        for seed, value in values.items()
    }
    folders = {
        seed: {"seed": seed, "state": "diverged", "folder": f"{regime}/{rung.name}-s{seed}-made"} for seed in diverged
    }
    return Result(rung, run, model_cost, rows, tuple(diverged), folders)


@pytest.fixture(scope="module")
def own():
    rungs = {rung.name: rung for rung in roadmap.ladder("pico")}
    return [result(rungs[name], values, diverged=DIVERGED.get(name, ())) for name, values in ACCURACIES.items()]


@pytest.fixture(scope="module")
def reproduced():
    """The paper's table, each rung half a point better, with three seeds."""
    rows = published_series(STUDY, "resnet-50").bars
    rungs = {rung.name: rung for rung in roadmap.ladder("resnet-50")}
    return [
        result(rungs[bar.rung], dict(enumerate((bar.value + 0.3, bar.value + 0.5, bar.value + 0.7))), "resnet-50")
        for bar in rows
        if bar.rung in rungs
    ]


@pytest.fixture(scope="module")
def published():
    return [published_series(STUDY, regime) for regime in ("resnet-50", "resnet-200")]


@pytest.fixture
def recorded(own, tmp_path):
    """The folder of the made-up study's epochs."""
    for rung_result in own:
        for seed, row in (rung_result.seeds | rung_result.unfinished).items():
            folder = tmp_path / row["folder"]
            folder.mkdir(parents=True)
            last = row.get("top1", 60.0)
            for epoch in range(1, 11 if row["state"] == "finished" else 4):
                top1 = last - 80 * math.exp(-epoch / 2) - seed
                losses = {"test_loss": (100 - top1) / 20, "train_loss": (100 - top1) / 15}
                append_row(folder, {"epoch": epoch, "top1": top1, **losses})
            if row["state"] == "diverged":
                write_divergences(folder, [Divergence(4, 2, 0.004, "nan", "stages.1")])
    return tmp_path


def texts(axes):
    return [text.get_text() for text in axes.texts]


def lengths(axes):
    """The length of each bar, from top to bottom."""
    patches = [patch for patch in axes.patches if isinstance(patch, Rectangle)]
    return [round(patch.get_width(), 3) for patch in sorted(patches, key=lambda patch: patch.get_y())]


def side_by_side(results, columns=2):
    series = series_of_runs(STUDY, results)
    published_bars = published_series_for(STUDY, series, table_against(STUDY, results[0], None))
    return draw_side_by_side([series], [published_bars], columns)


# As pictures.


@pytest.fixture(scope="module")
def benchmarked(published):
    """The published bars with images/s that fall with the multiply-adds; one rung has none."""
    conditions = Conditions("cpu", "a processor", "bf16", 2, 16, True, None, False, "2.14.1")
    measured_series = []
    for series in published:
        rungs = {bar.rung: bar.rung for bar in series.bars if bar.group != "Reference"}
        speeds = {bar.rung: 5e10 / bar.macs for bar in series.bars if bar.rung != "gelu"}
        measured_series.append(with_throughput(series, rungs, Measured(conditions, speeds)))
    return measured_series


def effect(step, shapley, half, *, alone=None, path=None, left_out=None):
    interval = (shapley - half, shapley + half) if half else None
    return StepEffect(step, step.upper(), shapley, interval, 8, path, alone, left_out)


ATTRIBUTION = Attribution(
    ("gelu", "fewer-norms", "layer-norm"),
    {"gelu": "GELU", "fewer-norms": "FEWER-NORMS", "layer-norm": "LAYER-NORM"},
    (
        effect("gelu", 0.4, 0.3, alone=0.1, path=0.5, left_out=0.7),
        effect("fewer-norms", -0.2, 0.5, alone=0.3, path=-0.4),
        effect("layer-norm", -1.5, 0.9, alone=-86.0, path=0.1, left_out=0.2),
    ),
    (
        Interaction("gelu", "fewer-norms", 0.8, (0.5, 1.1), 0.001, "help"),
        Interaction("gelu", "layer-norm", -0.3, (-0.9, 0.3), 0.6, "within noise"),
        Interaction("fewer-norms", "layer-norm", -1.4, (-2.0, -0.8), 0.001, "hinder"),
    ),
    -1.3,
)


# By the names of their files. The names of the parameters are fixtures.
PICTURES = {
    "published_in_two_columns": lambda published: draw_roadmap(published),
    "published_in_one_column": lambda published: draw_roadmap(published, columns=1),
    "own_study_with_missing_and_diverged_rungs": lambda own: draw_roadmap([series_of_runs(STUDY, own)]),
    "loss_in_one_column": lambda own: draw_roadmap([series_of_runs(STUDY, own, metric=find_metric("loss"))], columns=1),
    "throughput_right_of_the_bars": lambda benchmarked: draw_roadmap(benchmarked[:1]),
    "throughput_of_two_regimes_in_one_column": lambda benchmarked: draw_roadmap(benchmarked, columns=1),
    "side_by_side": lambda own: side_by_side(own),
    "side_by_side_in_one_column": lambda own: side_by_side(own, columns=1),
    "difference_of_changes": lambda own: draw_difference(compare(STUDY, own)),
    "difference_of_accuracies_in_one_column": lambda reproduced: draw_difference(compare(STUDY, reproduced), columns=1),
    "tradeoff_of_runs": lambda own: draw_tradeoff(
        tradeoff_of_runs(STUDY, [("ResNet-pico on digits", own)], "throughput")
    ),
    "published_tradeoff": lambda: draw_tradeoff(published_tradeoff(STUDY, ["resnet-50", "resnet-200"], "macs")),
    "published_tradeoff_in_one_column": lambda: draw_tradeoff(
        published_tradeoff(STUDY, ["resnet-50", "resnet-200"], "parameters"), columns=1
    ),
    "curves": lambda own, recorded: draw_curves(curves_of_runs(STUDY, "ResNet-pico on digits", own, recorded)),
    "loss_curves_in_one_column": lambda own, recorded: draw_curves(
        curves_of_runs(STUDY, "ResNet-pico on digits", own, recorded, find_metric("loss")), columns=1
    ),
    "effects": lambda: draw_effects(ATTRIBUTION, find_metric("top1")),
    "effects_in_one_column": lambda: draw_effects(ATTRIBUTION, find_metric("top1"), "a title", columns=1),
    "interactions": lambda: draw_interactions(ATTRIBUTION, find_metric("top1")),
    "interactions_in_one_column": lambda: draw_interactions(ATTRIBUTION, find_metric("top1"), columns=1),
}


def test_every_kind_is_drawn():
    assert set(DRAW) == set(FIGURE_KINDS) == set(get_args(FigureKind))


@pytest.mark.parametrize("name", PICTURES)
@pytest.mark.mpl_image_compare(baseline_dir="baseline", tolerance=PIXELS, savefig_kwargs={"dpi": DPI}, style="default")
def test_picture(name, request):
    draw = PICTURES[name]
    return bare(draw(**{fixture: request.getfixturevalue(fixture) for fixture in inspect.signature(draw).parameters}))


@pytest.mark.parametrize("change", ["value", "std", "adopted", "group", "missing", "macs"])
def test_a_changed_bar_changes_the_picture(published, tmp_path, change):
    """A change exceeds the tolerance of the pictures above."""
    series = published[0]
    bars = list(series.bars)
    changes = {
        "value": {"value": bars[13].value - 0.5},
        "std": {"std": 0.4},
        "adopted": {"adopted": False},
        "group": {"group": "Large Kernel"},
        "missing": {"value": None, "std": None},
        "macs": {"macs": 9.99e9},
    }
    bars[13] = replace(bars[13], **changes[change])
    changed = draw_roadmap([replace(series, bars=tuple(bars)), published[1]])
    bare(changed).savefig(tmp_path / "changed.png", dpi=DPI)
    baseline = ROOT / "tests/analysis/figures/baseline/test_picture_published_in_two_columns.png"
    difference = compare_images(str(baseline), str(tmp_path / "changed.png"), TOLERANCE)
    assert (difference is None) == (change == "macs"), difference  # four small digits, which the tests of data check


# As data.


@pytest.mark.parametrize(("columns", "width"), [(1, 3.5), (2, 7.2)])
def test_figures_are_as_wide_as_their_columns(own, recorded, published, reproduced, columns, width):
    title = "ResNet-pico on digits"
    figures = [
        draw_roadmap(published, columns),
        side_by_side(own, columns),
        draw_difference(compare(STUDY, reproduced), columns),
        draw_tradeoff(tradeoff_of_runs(STUDY, [(title, own)], "macs"), columns),
        draw_curves(curves_of_runs(STUDY, title, own, recorded), columns),
    ]
    for figure in figures:
        assert figure.get_figwidth() == pytest.approx(width)
        written = [text for axes in figure.axes for text in axes.texts if text.get_text()]
        assert min(text.get_fontsize() for text in written) >= 5.5 if written else True


def test_throughput_is_written_right_of_the_bars(benchmarked, published):
    figure = draw_roadmap(benchmarked)
    (axes,) = figure.axes
    assert {"images/s", "12.2 / 3.33", "2.35 / 7.23"} <= set(texts(axes))
    assert len([text for text in texts(axes) if " / " in text]) == 18 + 16  # none for GELU and the references
    (note,) = [text.get_text() for text in figure.texts]
    assert note == "images/s: inference on a processor, bf16, batch 16, 2 threads"
    (plain,) = draw_roadmap(published).axes
    assert "images/s" not in texts(plain)
    # All text is within the page: next to the bars, on the bars, and in the legend.
    narrow = draw_roadmap(benchmarked, columns=1)
    renderer = FigureCanvasAgg(narrow).get_renderer()
    for artist in [*narrow.findobj(Text), *narrow.findobj(Legend)]:
        if not isinstance(artist, Text) or artist.get_text():
            box = artist.get_window_extent(renderer)
            assert box.x0 >= 0 and box.x1 <= narrow.bbox.x1 + 1, artist


@pytest.mark.parametrize("columns", [1, 2])
def test_a_title_of_many_settings_stays_within_the_page(own, recorded, columns):
    label = "recipe.epochs=2, recipe.decay_epochs=1, recipe.warmup_epochs=1"
    title = f"ResNet-pico on digits, {label}"
    figures = [
        draw_roadmap([series_of_runs(STUDY, own, label)], columns),
        draw_tradeoff(tradeoff_of_runs(STUDY, [(title, own)], "macs"), columns),
        draw_curves(curves_of_runs(STUDY, title, own, recorded), columns),
    ]
    for figure in figures:
        titles = [text.get_text() for text in figure.findobj(Text) if title[:21] in text.get_text()]
        assert titles and (columns == 1 or titles[0].endswith(label))  # in one column its end may be cut off
        renderer = FigureCanvasAgg(figure).get_renderer()
        for artist in [*figure.findobj(Legend), *figure.findobj(Text)]:
            if isinstance(artist, Legend) or artist.get_text() in titles:
                box = artist.get_window_extent(renderer)
                assert box.x0 >= 0 and box.x1 <= figure.bbox.x1 + 1, (artist, box)


def test_measured_throughput_and_memory_are_preferred_to_the_runs_own(own):
    values = {workload_of(rung_result.run): 1000.0 + i for i, rung_result in enumerate(own)}
    conditions = Conditions("cpu", "a processor", "fp32", 2, 64, True, None, False, "2.14.1")
    of_bench = tradeoff_of_runs(STUDY, [("own", own)], "throughput", benchmarked=Measured(conditions, values))
    assert [point.x for point in of_bench.paths[0].points][:4] == [1000, 1001, 1002, 1003]
    assert of_bench.x_title == "images/s in inference on a processor, fp32, batch 64, 2 threads"
    memory = Measured(conditions, {name: 2**20 * value for name, value in values.items()})
    in_memory = tradeoff_of_runs(STUDY, [("own", own)], "memory", benchmarked=memory)
    assert in_memory.paths[0].points[0].x == 1000
    assert in_memory.x_title.startswith("peak memory (MiB) of training on a processor")


def test_side_by_side_shows_the_papers_bars_of_the_same_rungs(own):
    left, right = side_by_side(own).axes
    assert len(lengths(left)) == 9 and len(lengths(right)) == 10  # nine rungs of the paper, and Swin-T
    ends = [round(patch.get_x() + patch.get_width(), 2) for patch in right.patches]
    assert ends == [76.13, 78.82, 79.36, 79.51, 78.28, 80.5, 80.64, 80.57, 80.57, 81.3]
    assert "  diverged" in texts(left) and "1 diverged" in texts(left) and "  not in the paper" in texts(right)
    assert left.get_xlabel().startswith("ResNet-pico on digits\n")
    assert right.get_xlabel().startswith("the paper's ResNet-50\n")


def test_panels_of_one_regime_have_one_scale(reproduced):
    left, right = side_by_side(reproduced).axes
    assert left.get_xlim() == right.get_xlim()


def test_a_difference_is_of_accuracies_if_the_paper_has_the_regime(reproduced):
    comparison = compare(STUDY, reproduced)
    assert not comparison.of_changes and len(comparison.differences) == 17
    assert [difference.change.difference for difference in comparison.differences] == pytest.approx([0.5] * 17)
    assert comparison.differences[0].change.interval is None  # the paper prints no deviation of its start
    low, high = comparison.differences[1].change.interval
    assert low < 0.5 < high and (low + high) / 2 == pytest.approx(0.5)
    (axes,) = draw_difference(comparison).axes
    assert lengths(axes) == [0.5] * 17 and axes.get_xlabel() == "own − published top-1 accuracy (points)"
    assert texts(axes).count("+0.5") == 1 and len([text for text in texts(axes) if text.startswith("+0.5 ± ")]) == 16


def test_a_difference_is_of_changes_elsewhere(own):
    comparison = compare(STUDY, own)
    assert comparison.of_changes and comparison.title == "ResNet-pico on digits − the paper's ResNet-50"
    by_rung = {difference.bar.rung: difference for difference in comparison.differences}
    assert "pico" not in by_rung  # the start is not a change
    stage_ratio = by_rung["stage-ratio"].change
    own_change = (97.0 + 97.3 + 96.9 - 97.1 - 97.4 - 97.3) / 3
    assert stage_ratio.difference == pytest.approx(own_change - (79.36 - 78.82))
    low, high = stage_ratio.interval
    assert low < stage_ratio.difference < high
    assert by_rung["depthwise"].change.interval is None  # one seed
    assert (by_rung["width"].change, by_rung["width"].why) == (None, "diverged")
    assert by_rung["inverted-bottleneck"].why == "no finished run of the rung before"
    assert by_rung["layer-scale"].why == "not in the paper"
    (axes,) = draw_difference(comparison).axes
    assert "against the rung before (points)" in axes.get_xlabel()
    assert {"diverged", "not in the paper"} <= set(texts(axes))
    other = compare(STUDY, own, against="resnet-200")
    assert other.of_changes and other.title.endswith("ResNet-200")


def test_impossible_comparisons_are_refused(own, reproduced):
    with pytest.raises(ValueError, match="the paper's tables have no loss"):
        compare(STUDY, own, metric=find_metric("loss"))
    with pytest.raises(ValueError, match="the paper has no table of regime 'pico'"):
        compare(STUDY, own, against="pico")
    alone = [replace(own[-1], rung=replace(own[-1].rung, parent="recipe"))]
    with pytest.raises(ValueError, match="none of these rungs is in the paper's table of resnet-50"):
        compare(STUDY, alone)
    with pytest.raises(ValueError, match="none of these rungs"):
        published_series_for(STUDY, series_of_runs(STUDY, alone), "resnet-50")
    with pytest.raises(ValueError, match="no difference to draw"):
        draw_difference(compare(STUDY, own[4:6]))


def test_points_have_counted_measured_and_published_values(own):
    of_runs = {x: tradeoff_of_runs(STUDY, [("own", own)], x).paths[0].points for x in ("macs", "throughput", "memory")}
    assert [point.name for point in of_runs["macs"]] == [name for name, accuracies in ACCURACIES.items() if accuracies]
    first = own[0].cost
    assert (of_runs["macs"][0].x, of_runs["macs"][0].size) == (first.macs, first.parameters)
    assert of_runs["throughput"][0].x == pytest.approx(2e9 / first.macs + 10)  # the median of the seeds
    assert of_runs["memory"][0].x == pytest.approx(512 + first.parameters * 16 / 2**20)
    paper = published_tradeoff(STUDY, ["resnet-50", "resnet-200"], "parameters")
    assert [len(path.points) for path in paper.paths] == [17, 17]
    assert (paper.paths[0].points[0].x, paper.paths[0].points[0].y) == (25557032, 76.13)
    assert sum(len(family.points) for family in paper.families) == len(published_models()) == 15
    (family,) = [family for family in paper.families if [point.title for point in family.points][:1] == ["ConvNeXt-T"]]
    assert [point.title[-1] for point in family.points] == ["T", "S", "B", "L"]
    fast = published_tradeoff(STUDY, ["resnet-50"], "throughput")
    assert fast.paths == () and max(point.x for family in fast.families for point in family.points) == 978.5


def test_a_tradeoff_names_each_point_once_and_apart(own):
    for tradeoff in (
        tradeoff_of_runs(STUDY, [("own", own)], "macs"),
        published_tradeoff(STUDY, ["resnet-50", "resnet-200"], "macs"),
    ):
        figure = draw_tradeoff(tradeoff)
        (axes,) = figure.axes
        points = [point for line in (*tradeoff.paths, *tradeoff.families) for point in line.points]
        assert len(axes.texts) == len(points)
        for text in axes.texts:
            text.update_positions(FigureCanvasAgg(figure).get_renderer())
        boxes = [Text.get_window_extent(text) for text in axes.texts]  # without the lines to their points
        boxes = [(box.x0, box.y0, box.x1, box.y1) for box in boxes]
        assert not [1 for i, one in enumerate(boxes) for other in boxes[:i] if overlap(one, other)]


def test_impossible_tradeoffs_are_refused(own):
    unmeasured = [
        replace(rung_result, seeds={seed: row | {"peak_memory_bytes": None} for seed, row in rung_result.seeds.items()})
        for rung_result in own
    ]
    with pytest.raises(ValueError, match="no finished run has measured its peak memory: --x macs needs none"):
        tradeoff_of_runs(STUDY, [("own", unmeasured)], "memory")
    with pytest.raises(ValueError, match="no finished run has a top-1 accuracy"):
        tradeoff_of_runs(STUDY, [("own", [replace(own[0], seeds={})])], "macs")
    with pytest.raises(ValueError, match="the paper has no measured memory"):
        published_tradeoff(STUDY, ["resnet-50"], "memory")


def test_curves_are_the_recorded_epochs(own, recorded):
    curves = curves_of_runs(STUDY, "pico", own, recorded)
    panels = {panel.rung: panel for panel in curves.panels}
    assert [len(curve.values) for curve in panels["pico"].curves] == [10, 10, 10]
    assert panels["recipe"].curves[1].values[9] == pytest.approx(97.4 - 80 * math.exp(-5) - 1)
    assert [curve.diverged_at for curve in panels["inverted-bottleneck"].curves] == [None, None, 4]
    figure = draw_curves(curves)
    titled = {axes.get_title(): axes for axes in figure.axes}
    start, recipe = titled["ResNet-pico"], titled["training recipe"]
    (mean,) = start.lines
    assert mean.get_ydata()[-1] == pytest.approx((97.6 + 97.9 + 97.8) / 3 - 80 * math.exp(-5) - 1)
    assert recipe.lines[0].get_ydata()[-1] == mean.get_ydata()[-1]  # the rung before, behind
    assert "×" in texts(titled["width ↑"])
    with pytest.raises(ValueError, match="no run of these rungs has recorded a top-5 accuracy"):
        curves_of_runs(STUDY, "pico", own, recorded, find_metric("top5"))


def test_files_embed_their_fonts(published, tmp_path):
    """PDF: TrueType, whole enough to be copied from; SVG: outlines."""
    pdf, svg = save_figure(draw_roadmap(published), [tmp_path / "a.pdf", tmp_path / "a.svg"])
    content = pdf.read_bytes()
    assert b"/FontFile2" in content and b"/Type3" not in content
    assert re.search(rb"/Subtype /(TrueType|CIDFontType2)", content)
    assert b"<text" not in svg.read_bytes()


# Machado, Oliveira and Fernandes (2009): colours seen, from linear red, green and blue, at full severity.
DEUTERANOPIA = [[0.367, 0.861, -0.228], [0.280, 0.673, 0.047], [-0.012, 0.043, 0.969]]
PROTANOPIA = [[0.152, 1.053, -0.205], [0.115, 0.786, 0.099], [-0.004, -0.048, 1.052]]


def seen(colour, matrix):
    linear = [part / 12.92 if part <= 0.04045 else ((part + 0.055) / 1.055) ** 2.4 for part in to_rgb(colour)]
    left = np.clip(np.array(matrix) @ linear, 0, 1)
    return np.where(left <= 0.0031308, 12.92 * left, 1.055 * left ** (1 / 2.4) - 0.055)


def test_neighbouring_groups_stay_apart_in_grey_and_for_the_colour_blind():
    for one, other in pairwise(COLOURS):
        assert abs(luminance(one) - luminance(other)) > 0.14, (one, other)
    for matrix in (DEUTERANOPIA, PROTANOPIA):
        apart = [np.linalg.norm(seen(one, matrix) - seen(other, matrix)) for one, other in pairwise(COLOURS)]
        assert min(apart) > 0.2


def test_the_command_draws_every_kind_from_runs(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    for rung in roadmap.ladder("pico", "pico..recipe"):
        for seed in (0, 1):
            folder = begin(study_run(rung, seed), tmp_path / "runs")
            append_row(folder, {key: value for key, value in epoch_row(1).items() if key != "top5"})
            finish(study_run(rung, seed), tmp_path / "runs", 90.0 + seed)
    assert main(["figure", "--columns", "1", "--metric", "top5"]) == 2
    assert "no finished run has a top-5 accuracy" in capsys.readouterr().err
    for options, name in (
        ([], "roadmap"),
        (["--compare", "side-by-side"], "roadmap-side-by-side"),
        (["--compare", "difference", "--against", "resnet-50"], "roadmap-difference"),
        (["--kind", "tradeoff", "--x", "memory"], "tradeoff"),
        (["--kind", "curves", "--metric", "loss"], "curves"),
        (["--kind", "tradeoff", "--published"], "tradeoff-published"),
    ):
        assert main(["figure", *options]) == 0, capsys.readouterr().err
        assert (tmp_path / f"{name}.png").exists() and (tmp_path / f"{name}.svg").exists()
    assert main(["figure", "--compare", "side-by-side", "--metric", "top5"]) == 2


def test_effects_are_drawn_with_their_values():
    (axes,) = draw_effects(ATTRIBUTION, find_metric("top1")).axes
    drawn = [(line.get_marker(), [round(float(x), 2) for x in line.get_xdata()]) for line in axes.lines]
    assert [x for marker, (x, *_) in drawn if marker == "o"] == [0.4, -0.2, -1.5]
    assert [x for marker, (x, *_) in drawn if marker == "D"] == [0.5, -0.4, 0.1]
    assert [round(x, 2) for marker, (x, *_) in drawn if marker == "<"] == [0.7, 0.2]
    assert [label.get_text() for label in axes.get_yticklabels()] == ["GELU", "FEWER-NORMS", "LAYER-NORM"]
    # An outlier does not compress the others: it is an arrow with its number.
    assert "← -86.0" in [text.get_text() for text in axes.texts] and axes.get_xlim()[0] > -86
    assert len(axes.get_legend().get_texts()) == 4


def test_interactions_are_drawn_with_their_values():
    axes = draw_interactions(ATTRIBUTION, find_metric("top1")).axes[0]
    values = axes.images[0].get_array()
    assert values.count() == 3  # half of the square: each pair is shown once
    weights = {text.get_text(): text.get_fontweight() for text in axes.texts}
    assert weights == {"+0.8": "bold", "-0.3": "normal", "-1.4": "bold"}
    with pytest.raises(ValueError, match="too few to separate pairs of steps"):
        draw_interactions(replace(ATTRIBUTION, interactions=()), find_metric("top1"))


def test_folders_of_the_same_name_have_figures_of_their_own(tmp_path):
    paths = set()
    for images in (20, 21):
        folder, out = make_folder(tmp_path / str(images) / "d", images=images), tmp_path / "runs"
        options = StudyOptions(data=str(folder), steps="pico", settings=("recipe.batch_size=32",))
        selection = Selection.of(options)
        finish(selection.run(selection.rungs()[0]), out)
        paths |= set(summarize(selection, out).save_figure(out))
    assert len(paths) == 4 and all(path.name.startswith("roadmap-pico-d-recipe.batch_size-32-") for path in paths)
