"""The roadmap figure shows the values of the tables and of the runs."""

from __future__ import annotations

from dataclasses import replace

import matplotlib
import pytest
from matplotlib.font_manager import findfont, fontManager, get_font
from matplotlib.patches import Rectangle
from matplotlib.text import Text

import roadmap
from analysis.collection import collect
from analysis.figures import draw_roadmap, save_figure
from analysis.options import RunsWarning
from analysis.report import summary
from analysis.results import Bar, Series, published_series, results_of, series_of_runs
from analysis.statistics.samples import Sample
from roadmap.options import Selection, StudyOptions
from roadmap.record.folder import write_divergences
from roadmap.record.results import Divergence
from roadmap.study.load import load_study
from tests.helpers.command import run_apart
from tests.helpers.records import begin, finish, study_run


@pytest.fixture(scope="module")
def published():
    return [published_series(load_study(), regime) for regime in ("resnet-50", "resnet-200")]


def texts(figure):
    (axes,) = figure.axes
    return [text.get_text() for text in axes.texts]


def bars(figure):
    """Every bar as (row, right end, hatched), from top to bottom."""
    (axes,) = figure.axes
    rows = [
        (
            round(patch.get_y() + patch.get_height() / 2),
            round(patch.get_x() + patch.get_width(), 2),
            bool(patch.get_hatch()),
        )
        for patch in axes.patches
        if isinstance(patch, Rectangle)
    ]
    return sorted(rows)


def test_the_published_figure_has_the_papers_bars(published):
    rows_of_bars = bars(draw_roadmap(published))
    assert len(rows_of_bars) == 36  # 17 rungs and the reference, in both regimes
    assert [end for row, end, _ in rows_of_bars if row == 0] == [76.13, 78.2]
    assert [end for row, end, _ in rows_of_bars if row == 17] == [81.3, 83.5]
    assert {row for row, _, hatched in rows_of_bars if hatched} == {10, 11}  # kernel sizes 9 and 11


def test_the_published_figure_is_labelled(published):
    figure = draw_roadmap(published)
    shown = texts(figure)
    for group in ("Macro\nDesign", "ResNeXt", "Inverted\nBottleneck", "Large\nKernel", "Micro\nDesign"):
        assert shown.count(group) == 1
    titles = ["ResNet-50/200", "training recipe", "stage ratio", "“patchify” stem", "depth conv", "width ↑"]
    titles += ["inverting dims", "move ↑ d. conv", "kernel sz. → 5", "kernel sz. → 7", "kernel sz. → 9"]
    titles += ["kernel sz. → 11", "ReLU → GELU", "fewer activations", "fewer norms", "BN → LN", "sep. d.s. conv"]
    titles += ["Swin-T/B"]
    assert [text for text in shown if text in titles] == titles
    assert {"76.1", "80.4", "81.9", "82.0", "83.6", "81.3"} <= set(shown)  # rounded half up, as the paper prints them
    assert "4.15 / 14.81" in shown and "4.46 / 15.35" in shown and "4.50 / 15.43" in shown
    (legend,) = [axes.get_legend() for axes in figure.axes]
    assert [text.get_text() for text in legend.get_texts()] == [
        "ResNet-50 / Swin-T",
        "ResNet-200 / Swin-B",
        "not adopted",
        "one standard deviation of 3 runs",
    ]


def test_printed_deviations_are_drawn(published):
    (axes,) = draw_roadmap(published).axes
    assert len(axes.containers) - len([c for c in axes.containers if type(c).__name__ == "BarContainer"]) == 16


def test_files_are_written_in_every_format(published, tmp_path):
    figure = draw_roadmap(published)
    paths = [tmp_path / f"deep/figure.{suffix}" for suffix in ("png", "svg", "pdf")]
    assert save_figure(figure, paths) == paths
    starts = [path.read_bytes()[:5] for path in paths]
    assert starts[0].startswith(b"\x89PNG") and starts[1].startswith(b"<?xml") and starts[2].startswith(b"%PDF")
    again = save_figure(draw_roadmap(published), [tmp_path / "again.svg"])[0]
    assert again.read_bytes() == paths[1].read_bytes()
    with pytest.raises(ValueError, match=r"a figure must end in \.png, \.svg, \.pdf"):
        save_figure(figure, [tmp_path / "figure.jpg"])


def make_rung(run):
    title = roadmap.ladder("pico", run.rung)[0].title
    return roadmap.Rung(run.rung, title, "Micro Design", True, run.experiment, None)


def test_runs_are_collected_by_their_identity(make_run, tmp_path):
    for seed, top1 in ((0, 90.0), (1, 92.0), (2, 94.0)):
        finish(make_run("gelu", seed=seed), tmp_path, top1)
    finish(make_run("gelu", epochs=5), tmp_path, 50.0)  # the same rung with other settings
    begin(make_run("recipe"), tmp_path)  # begun alone
    (tmp_path / "pico" / "foreign").mkdir()
    (tmp_path / "pico" / "foreign" / "manifest.json").write_text("[]")
    runs = [make_run("gelu"), make_run("recipe")]
    gelu, recipe = results_of([(make_rung(run), run) for run in runs], collect(tmp_path))
    assert gelu.sample() == Sample(3, 92.0, 2.0) and sorted(gelu.seeds) == [0, 1, 2]
    assert recipe.sample() is None and recipe.seeds == {}


def test_the_figure_of_runs_shows_spread_and_missing_rungs(make_run, tmp_path):
    for seed, top1 in ((0, 90.0), (1, 92.0)):
        finish(make_run("gelu", seed=seed), tmp_path, top1)
    runs = [make_run("recipe"), make_run("gelu")]
    series = series_of_runs(
        load_study(), results_of([(make_rung(run), run) for run in runs], collect(tmp_path)), "quick"
    )
    assert series.title == "ResNet-pico on digits, quick"
    figure = draw_roadmap([series])
    assert bars(figure) == [(1, 91.0, False)]
    assert "  no finished run" in texts(figure) and "91.0" in texts(figure) and "MFLOPs" in texts(figure)
    (axes,) = figure.axes
    assert any(type(container).__name__ == "ErrorbarContainer" for container in axes.containers)
    low, high = axes.get_xlim()
    assert low < 91 - 2**0.5 and 91 + 2**0.5 < high  # the whole spread


def test_a_group_keeps_its_colour_whatever_else_is_drawn(published):
    whole = draw_roadmap(published[:1])
    micro = [bar for bar in published[0].bars if bar.group == "Micro Design"]
    part = draw_roadmap([Series("resnet-50", "part", (micro[0],), published[0].groups)])
    (alone,) = (patch.get_facecolor() for patch in part.axes[0].patches)
    assert alone in [patch.get_facecolor() for patch in whole.axes[0].patches[-6:]]
    assert alone != whole.axes[0].patches[0].get_facecolor()


def test_published_references_stand_at_the_end_of_a_papers_regime(make_run, tmp_path):
    from dataclasses import replace

    run = replace(make_run("gelu"), regime="resnet-50", data="imagenet")
    finish(run, tmp_path, 80.0)
    series = series_of_runs(load_study(), results_of([(make_rung(run), run)], collect(tmp_path)))
    assert [bar.title for bar in series.bars] == ["ReLU → GELU", "Swin-T"]
    digits = replace(run, data="digits")
    finish(digits, tmp_path, 80.0)
    series = series_of_runs(load_study(), results_of([(make_rung(digits), digits)], collect(tmp_path)))
    assert [bar.title for bar in series.bars] == ["ReLU → GELU"]


def test_impossible_figures_are_refused(published):
    with pytest.raises(ValueError, match="one or two regimes"):
        draw_roadmap([*published, published[0]])
    with pytest.raises(ValueError, match="no finished run"):
        draw_roadmap([Series("pico", "pico", (Bar("gelu", "GELU", "Micro Design", True, None, None, 1e6),), ())])


def test_diverged_runs_are_shown_as_such(make_run, tmp_path):
    """A rung whose only run diverged, and one with a diverged and a finished run."""
    rungs = roadmap.ladder("pico", "pico..recipe")
    for rung, seed, diverged in ((rungs[0], 0, True), (rungs[1], 0, False), (rungs[1], 1, True)):
        run = replace(make_run(rung.name, seed=seed), experiment=rung.experiment)
        if diverged:
            write_divergences(begin(run, tmp_path), [Divergence(2, 3, 0.004, "nan", "stages.1")])
        else:
            finish(run, tmp_path, 91.0)
    runs = [replace(make_run(rung.name), experiment=rung.experiment) for rung in rungs]
    results = results_of(list(zip(rungs, runs, strict=True)), collect(tmp_path))
    assert [result.diverged_seeds for result in results] == [(0,), (1,)]
    figure = draw_roadmap([series_of_runs(load_study(), results)])
    shown = texts(figure)
    assert "  diverged" in shown and "1 diverged" in shown and "91.0" in shown
    assert len(bars(figure)) == 1


def test_a_study_with_only_diverged_runs_has_a_figure():
    bar = Bar("pico", "ResNet", "", True, None, None, 3e6, diverged=2)
    assert "  diverged" in texts(draw_roadmap([Series("pico", "ResNet", (bar,), ())]))


def titled(published, title):
    first, *others = published
    return [replace(first, bars=(replace(first.bars[0], title=title), *first.bars[1:])), *others]


def test_letters_come_from_whatever_font_has_them(published, tmp_path):
    """STIX, which comes with matplotlib, has what the usual font lacks."""
    stix, usual = (get_font(findfont(family)).get_charmap().keys() for family in ("STIXGeneral", "DejaVu Sans"))
    letter = next(letter for letter in map(chr, sorted(stix - usual)) if letter.isalpha())
    figure = draw_roadmap(titled(published, f"stem {letter}"))
    (text,) = (text for text in figure.findobj(Text) if letter in text.get_text())
    assert text.get_fontfamily()[-1] == "STIXGeneral"
    assert save_figure(figure, [tmp_path / "figure.png", tmp_path / "figure.svg"])


def test_letters_that_no_font_has_are_one_warning(published, tmp_path, monkeypatch):
    installed = [font for font in fontManager.ttflist if font.name.startswith("DejaVu Sans")]
    monkeypatch.setattr(fontManager, "ttflist", installed)
    with pytest.warns(RunsWarning, match="no installed font has 犬猫: .* Noto Sans CJK") as warned:
        figure = draw_roadmap(titled(published, "猫 犬"))
        save_figure(figure, [tmp_path / "figure.png"])
    assert len(warned) == 1


MATPLOTLIBRC = "text.usetex: True\nfont.family: serif\nfont.size: 40\naxes.grid: True\nbackend: TkAgg\nsavefig.dpi: 3\n"


@pytest.mark.slow
@pytest.mark.parametrize("backend", ["module://matplotlib_inline.backend_inline", "TkAgg", "nonsense"])
def test_a_users_settings_of_matplotlib_do_not_change_a_figure(tmp_path, backend):
    (tmp_path / "matplotlibrc").write_text(MATPLOTLIBRC)
    done = run_apart("figure", "--published", "-o", "own.png", cwd=tmp_path, env={"MPLBACKEND": backend})
    assert done and not done.err, done.err
    save_figure(
        draw_roadmap([published_series(load_study(), "resnet-50"), published_series(load_study(), "resnet-200")]),
        [tmp_path / "plain.png"],
    )
    assert (tmp_path / "own.png").read_bytes() == (tmp_path / "plain.png").read_bytes()


@pytest.mark.slow
def test_settings_that_matplotlib_cannot_read_are_named(tmp_path):
    """It can't even be imported then."""
    (tmp_path / "matplotlibrc").write_bytes(b"font.size: 12  # caf\xe9\n")
    done = run_apart("figure", "--published", "-o", "own.png", cwd=tmp_path)
    assert done.status == 2 and "matplotlibrc must be UTF-8" in done.err and "Traceback" not in done.err


def test_drawing_leaves_a_users_settings_as_they_are(published, tmp_path):
    with matplotlib.rc_context({"font.size": 31.0, "text.usetex": True, "lines.linewidth": 7.0}):
        before = dict(matplotlib.rcParams)
        save_figure(draw_roadmap(published), [tmp_path / "own.svg"])
        assert dict(matplotlib.rcParams) == before


@pytest.mark.parametrize("name", ["a $b$", "$", "cost in $, $x_{", "50 % \\alpha"])
def test_a_dollar_in_a_title_is_a_dollar(published, tmp_path, name):
    series = published[0]
    bars = tuple(replace(bar, title=name, group=name and bar.group) for bar in series.bars)
    figure = draw_roadmap([replace(series, title=name, bars=bars)])
    (axes,) = figure.axes
    shown = [text for text in axes.findobj(Text) if text.get_text() == name]
    assert len(shown) == len(bars) + 1 and not any(text.get_parse_math() for text in shown)
    save_figure(figure, [tmp_path / "f.png", tmp_path / "f.svg"])


def test_the_table_is_printed_before_the_figure_is_drawn(monkeypatch, tmp_path, capsys):
    def fail(series):
        raise RuntimeError("no drawing here")

    selection = Selection.of(StudyOptions(steps="gelu"))
    finish(study_run(selection.rung("gelu")), tmp_path, 80.0)
    monkeypatch.setattr(summary, "draw_roadmap", fail)
    with pytest.raises(RuntimeError, match="no drawing here"):
        summary.conclude(selection, tmp_path)
    assert "80.00" in capsys.readouterr().out


def test_a_study_with_many_settings_has_a_figure_with_a_name_that_fits(tmp_path):
    names = ["learning_rate", "weight_decay", "label_smoothing", "drop_path", "random_erasing", "mix_probability"]
    settings = [f"recipe.{name}=0.0123456789012345678901" for name in names]
    selections = [
        Selection.of(StudyOptions(steps="gelu", settings=(*settings, f"recipe.batch_size={n}"))) for n in (2, 4)
    ]
    paths = []
    for selection in selections:
        finish(selection.run(selection.rung("gelu")), tmp_path, 80.0)
        paths += summary.summarize(selection, tmp_path).save_figure(tmp_path)
    assert len(set(paths)) == 4 and all(path.is_file() and len(path.name) <= 255 for path in paths)
