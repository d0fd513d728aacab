"""What the errors of drawn designs say: distributions, the best value and its interval, the surface, the command."""

from __future__ import annotations

import numpy as np
import pytest
from scipy import stats

import roadmap
from analysis.options import RunsOptions
from analysis.spaces.figure import draw_spaces
from analysis.spaces.study import space_study
from analysis.spaces.table import space_text
from analysis.statistics.spaces import best_value, differences, distribution, surface
from roadmap.cli import main
from roadmap.study.rungs import StudyContext
from roadmap.study.spaces import SpaceOfRungs
from tests.helpers.records import begin, finish, study_run


def test_the_distribution_steps_at_each_error_with_a_band_for_the_whole_curve():
    own = distribution([3.0, 1.0, 2.0, 2.0])
    assert own.errors.tolist() == [1, 2, 2, 3] and own.shares.tolist() == [0.25, 0.5, 0.75, 1]
    draw, inside = np.random.default_rng(0), 0
    for _ in range(300):
        own = distribution(draw.normal(size=50).tolist())
        truth = stats.norm.cdf(own.errors)
        inside += bool(max((own.shares - truth).max(), (truth - own.shares + 1 / 50).max()) <= own.half_width)
    assert inside / 300 >= 0.95 - 2.6 * np.sqrt(0.95 * 0.05 / 300)


def test_spaces_are_compared_in_pairs_with_corrected_p_values():
    draw = np.random.default_rng(0)
    first, same, worse = draw.normal(10, 1, 60), draw.normal(10, 1, 60), draw.normal(12, 1, 60)
    found = {own.spaces: own for own in differences({"a": first, "b": same, "c": worse})}
    assert found["a", "b"].corrected_p > 0.05 > found["a", "c"].corrected_p
    assert all(own.corrected_p >= own.p for own in found.values())
    assert found["a", "c"].distance == pytest.approx(stats.ks_2samp(first, worse).statistic)


@pytest.mark.slow
@pytest.mark.parametrize("noise", [0.1, 0.5])
def test_a_planted_best_value_is_in_the_interval_as_often_as_it_says(noise):
    draw, covered, studies = np.random.default_rng(1), 0, 150
    for _ in range(studies):
        planted = np.exp(draw.uniform(0.8, 2.2))
        values, other = np.exp(draw.uniform(0, 3, (2, 60)))
        errors = (np.log(values / planted)) ** 2 + 0.3 * (np.log(other) - 1) ** 2 + draw.normal(0, noise, 60)
        low, high = best_value(values.tolist(), errors.tolist()).interval
        covered += low <= planted <= high
    assert covered / studies >= 0.95 - 2.6 * np.sqrt(0.95 * 0.05 / studies)
    assert best_value([1.0] * 5, [1.0] * 5) is None


def test_the_interval_is_that_of_ten_thousand_draws_of_a_quarter():
    draw = np.random.default_rng(3)
    values, errors = draw.permutation(40) + 1.0, draw.normal(size=40)
    drawn = draw.integers(40, size=(10_000, 10))
    best = values[drawn[np.arange(10_000), errors[drawn].argmin(1)]]
    found = best_value(values.tolist(), errors.tolist())
    for share, value in zip((0.025, 0.5, 0.975), (found.interval[0], found.value, found.interval[1]), strict=True):
        assert (best < value).mean() - 0.015 <= share <= (best <= value).mean() + 0.015


def test_the_surface_knows_which_parameter_matters():
    draw = np.random.default_rng(0)
    values = {name: np.exp(draw.uniform(0, 3, 100)).tolist() for name in ("matters", "does not")}
    errors = (np.log(values["matters"]) - 1.5) ** 2 + draw.normal(0, 0.1, 100)
    found = surface(values, errors.tolist())
    assert found is not None and found.explained > 0.9
    assert found.of_parameter["matters"] > 0.8 and abs(found.of_parameter["does not"]) < 0.05
    grid, means = found.dependence["matters"]
    assert np.log(grid[means.argmin()]) == pytest.approx(1.5, abs=0.3)
    noise = surface(values, draw.normal(0, 1, 100).tolist())
    assert noise is not None and noise.explained < 0.1
    assert surface(values, [1.0] * 100) is None and surface({"a": [1.0, 2.0]}, [1.0, 2.0]) is None


@pytest.fixture
def runs(tmp_path):
    """Thirty designs, better the more blocks the third stage has; three of them with a second seed."""
    space = SpaceOfRungs(StudyContext.of("pico"), "stage-ratio")
    finish(study_run(space.base), tmp_path, 80.0)
    for number, sample in enumerate(space.samples(30)):
        top1 = 70.0 + 2 * sample.values["depths"][2] + 0.01 * number
        finish(study_run(sample.rung), tmp_path, top1)
        if number < 3:
            finish(study_run(sample.rung, 1), tmp_path, top1 - 1.0)
    begin(study_run(next(iter(space.samples(1, seed=5))).rung), tmp_path, 1)
    return tmp_path


def test_a_study_of_a_space_has_its_finished_designs(runs):
    study = space_study(RunsOptions(out=runs), "stage-ratio")
    assert len(study.designs) == 30 and study.unfinished == 1
    assert study.base_error == pytest.approx(20.0)
    assert study.best["depths 3"].value >= 5 and study.marked["recipe"]["depths 3"] == 2
    assert study.shrinkage == pytest.approx(1.0) and study.seed_noise == pytest.approx(np.sqrt(0.5))
    text = space_text([study])
    assert "30 designs" in text and "depths 3" in text and "1 design not finished and left out" in text
    assert "worse by +1.00 points in the mean" in text


def test_the_command_prints_and_draws(runs, tmp_path, capsys):
    path = tmp_path / "space.svg"
    assert main(["space", "stage-ratio", "--out", str(runs), "-o", str(path)]) == 0
    printed = capsys.readouterr().out
    assert "best designs" in printed and "stage-ratio~" in printed and path.stat().st_size > 5000


@pytest.mark.mpl_image_compare(style="default", tolerance=8, savefig_kwargs={"dpi": 60})
def test_picture_of_a_space(runs):
    figure = draw_spaces([space_study(RunsOptions(out=runs), "stage-ratio")])
    for artist in [text for axes in figure.axes for text in axes.findobj() if hasattr(text, "get_text")]:
        artist.set_visible(False)  # fonts differ between machines
    return figure


def test_the_figure_has_what_its_docstring_says(runs):
    study = space_study(RunsOptions(out=runs), "stage-ratio")
    distributions, *panels = draw_spaces([study]).axes
    assert [axes.get_title() for axes in panels] == [f"depths {stage}" for stage in range(1, 5)]
    steps = distributions.lines[0]
    assert steps.get_drawstyle() == "steps-post" and list(steps.get_ydata()) == study.distribution.shares.tolist()
    third = panels[2]
    assert len(third.lines[0].get_xdata()) == 30  # a dot for each design
    dashed = [line.get_xdata()[0] for line in third.lines if line.get_linestyle() == "--"]
    assert dashed == [study.marked["recipe"]["depths 3"]] == [2.0]
    dotted = [line.get_xdata()[0] for line in third.lines if line.get_linestyle() == ":"]
    assert dotted == [study.marked["stage-ratio"]["depths 3"]] == [3.0]
    band = third.patches[0].get_extents().transformed(third.transData.inverted())
    assert (band.x0, band.x1) == pytest.approx(study.best["depths 3"].interval)


def test_the_report_has_a_section_of_each_space(runs):
    assert main(["report", "--out", str(runs)]) == 0
    page = (runs / "report.html").read_text(encoding="utf-8")
    assert "Design spaces" in page and "space stage-ratio: 30 designs" in page and "pico-stage-ratio-2" in page


def test_python_has_what_the_command_has(runs, tmp_path):
    designs = roadmap.sample(space="stage-ratio", samples=4)
    assert list(designs["name"]) == [
        own.rung.name for own in SpaceOfRungs(StudyContext.of("pico"), "stage-ratio").samples(4)
    ]
    assert set(designs["macs"].between(0.99 * 2.58e6, 1.01 * 2.58e6)) == {True}
    study = roadmap.space("stage-ratio", runs, output=tmp_path / "space.png")
    assert len(study.designs) == 30 and (tmp_path / "space.png").exists()
    with pytest.raises(ValueError, match="--space NAME is needed"):
        roadmap.sample()
    with pytest.raises(ValueError, match="unknown design space 'nowhere'"):
        roadmap.space("nowhere", runs)


def test_the_rung_that_varies_is_marked_in_each_parameter():
    """By hand: ConvNeXt's kernels are 7 and its expansions 4; a ResNet has no inverted bottleneck to read."""

    def marked(space):
        return SpaceOfRungs(StudyContext.of("pico"), space).marked

    assert marked("kernel-by-stage") == {"layer-scale": {"kernels": (7, 7, 7, 7)}}
    assert marked("expansion") == {"layer-scale": {"expansions": (4.0, 4.0, 4.0, 4.0)}}
    assert marked("stage-ratio") == {"recipe": {"depths": (1, 2, 2, 1)}, "stage-ratio": {"depths": (1, 1, 3, 1)}}
    assert marked("regnet") == {"layer-scale": {}}


def test_designs_are_judged_by_the_seeds_that_did_not_choose_them(tmp_path):
    """The best of the first seed was lucky: with other seeds it is worse than the rung that varies, and says so."""
    space = SpaceOfRungs(StudyContext.of("pico"), "stage-ratio")
    lucky, good = space.samples(2)
    for seed, noise in enumerate((0.0, 0.1, -0.1, 0.05)):
        finish(study_run(space.base, seed), tmp_path, 80.0 + noise)
        finish(study_run(lucky.rung, seed), tmp_path, 90.0 if seed == 0 else 77.0 - noise)
        finish(study_run(good.rung, seed), tmp_path, 85.0 if seed == 0 else 84.0 + noise)
    study = space_study(RunsOptions(out=tmp_path), "stage-ratio")
    assert [design.name for design in study.designs] == [lucky.rung.name, good.rung.name]
    judged = {name: (own.change.difference, own.verdict) for name, own in study.judged.items() if own.change}
    assert judged[lucky.rung.name] == (pytest.approx(3.0, abs=0.1), "worse")
    assert judged[good.rung.name] == (pytest.approx(-4.0, abs=0.1), "better")
    assert study.shrinkage == pytest.approx((13.0 + 1.0) / 2, abs=0.05)
    text = space_text([study])
    assert "against recipe" in text and "does not count in the verdicts" in text
