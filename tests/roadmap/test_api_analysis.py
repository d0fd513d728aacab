"""The functions of the Python API that show runs, on fabricated run folders."""

from __future__ import annotations

import inspect
import threading
from typing import get_args
from urllib.request import urlopen

import pandas as pd
import pytest

import roadmap
from analysis.figures.kinds import DRAW
from analysis.figures.parts.style import NotebookFigure
from analysis.options import FIGURE_KINDS, FigureKind, FigureOptions, RunsWarning
from analysis.selected_runs import regimes_with_runs
from roadmap.cli import main
from roadmap.data.robustness import Evaluation, append_evaluation
from roadmap.options import StudyOptions
from roadmap.study.load import load_study
from tests.helpers.records import begin, finish, study_run

STEPS = "recipe,gelu,layer-norm"


def value(rung, seed):
    return 80 + len(rung.steps) + 3 * ("gelu" in rung.steps) + seed * (1 + (rung.name == "recipe"))


@pytest.fixture
def runs(tmp_path):
    """Two seeds of a few rungs."""
    for seed in (0, 1):
        for rung in roadmap.ladder("pico", "pico,recipe,gelu"):
            finish(study_run(rung, seed), tmp_path / "runs", value(rung, seed), epochs=2)
    return tmp_path / "runs"


def test_collect_gives_a_row_a_run(runs, tmp_path):
    begin(study_run(roadmap.ladder("pico", "gelu")[0], 7), runs, 1)
    table = roadmap.collect(str(runs), output=tmp_path / "all.csv")
    assert table["state"].value_counts().to_dict() == {"finished": 6, "begun": 1}
    assert len(pd.read_csv(tmp_path / "all.csv")) == 7
    with pytest.raises(ValueError, match="no such folder of runs"):
        roadmap.collect(tmp_path / "nowhere")
    with pytest.raises(ValueError, match=r"--out must be a folder.*all\.csv"):
        roadmap.collect(tmp_path / "all.csv")


def test_figure_is_returned_and_written_where_asked(runs, tmp_path):
    figure = roadmap.figure(runs, steps="pico,recipe,gelu", output=[tmp_path / "deep" / "a.png", tmp_path / "a.svg"])
    assert (
        isinstance(figure, NotebookFigure) and (tmp_path / "deep" / "a.png").exists() and (tmp_path / "a.svg").exists()
    )
    picture, size = figure._repr_png_()  # what a notebook shows
    assert picture == (tmp_path / "deep" / "a.png").read_bytes() and 400 < size["width"] < 1000
    assert isinstance(roadmap.figure(published=True, kind="tradeoff"), NotebookFigure)
    assert isinstance(roadmap.figure(runs, kind="curves", metric="loss"), NotebookFigure)
    with pytest.raises(ValueError, match="unknown metric 'top2'"):
        roadmap.figure(runs, metric="top2")


@pytest.mark.parametrize(
    ("keywords", "message"),
    [
        ({"x": "memory"}, "--x requires --kind tradeoff"),
        ({"against": "resnet-50"}, "--against requires --compare"),
        (
            {"kind": "curves", "compare": "difference"},
            r"--compare applies to --kind roadmap only \(got --kind",
        ),
        (
            {"kind": "tradeoff", "throughput": True},
            r"--throughput applies to --kind roadmap only \(got",
        ),
        ({"compare": "difference", "throughput": True}, "--throughput does not apply to --compare"),
        ({"compare": "difference", "published": True}, "--compare does not apply to --published"),
        ({"kind": "curves", "published": True}, r"--published applies to --kind roadmap, tradeoff only"),
        (
            {"kind": "attribution", "ablation": "add-one"},
            "--ablation applies to --kind roadmap, tradeoff, curves",
        ),
        ({"kind": "counterparts", "metric": "loss"}, r"--metric applies to .* only \(got --kind counterparts\)"),
        ({"published": True, "settings": {"recipe.epochs": 3}}, "--set does not apply to --published"),
        ({"published": True, "out": "runs"}, "--out does not apply to --published"),
    ],
)
def test_options_that_a_figure_leaves_unused_are_refused(keywords, message):
    with pytest.raises(ValueError, match=message):
        roadmap.figure(**keywords)


def test_every_kind_of_figure_is_declared_and_drawn():
    assert tuple(FIGURE_KINDS) == get_args(FigureKind) == tuple(DRAW)
    # Each option that some kinds leave unused is one that a figure, or the study, has.
    taken = set().union(*(options for _, options in FIGURE_KINDS.values()))
    assert taken <= set(inspect.signature(FigureOptions).parameters) | set(inspect.signature(StudyOptions).parameters)


def test_table_has_a_row_for_each_rung_of_each_study(runs):
    table = roadmap.table(runs, steps="pico,recipe,gelu")
    assert table["study"].unique().tolist() == [load_study().regime("pico").title + " on digits"]
    assert table["rung"].tolist() == ["pico", "recipe", "gelu"] and table["n"].tolist() == [2, 2, 2]
    assert table["mean"].tolist() == [value(rung, 0.5) for rung in roadmap.ladder("pico", "pico,recipe,gelu")]
    published = roadmap.table(published=True)
    assert published["study"].nunique() == 2 and {"resnet-50", "resnet-200"} <= set(published["rung"])
    with pytest.raises(ValueError, match="--metric does not apply to --robustness"):
        roadmap.table(runs, robustness=True, metric="loss")
    with pytest.raises(ValueError, match="no run was evaluated on other images"):
        roadmap.table(runs, robustness=True)


def test_table_of_robustness_has_the_papers_rows_below(tmp_path, capsys):
    (rung,) = roadmap.ladder("pico", "pico")
    run = study_run(rung)
    folder = finish(run, tmp_path, 80.0)
    trained = (run.experiment.recipe.epochs, 0)
    append_evaluation(folder, Evaluation("imagenet-a", "", "x", "x", "raw", trained, 10, 36, top1=25.0))
    table = roadmap.table(tmp_path, robustness=True, steps="pico")
    assert table["model"].iloc[0] == "pico" and "swin-t" in set(table["model"])
    assert table[["clean", "imagenet-a", "imagenet-a_images"]].iloc[0].tolist() == [80.0, 25.0, 36.0]
    assert main(["table", "--robustness", "--steps", "pico", "--out", str(tmp_path)]) == 0
    assert "pico: on 36 of ImageNet-A." in capsys.readouterr().out


def test_settings_select_other_runs(runs):
    with pytest.raises(ValueError, match="no finished run of any regime with these settings"):
        roadmap.table(runs, settings={"recipe.epochs": 77})


def test_folders_that_are_not_counted_are_a_warning(runs, capsys):
    (runs / "pico" / "notes").mkdir()
    with pytest.warns(RunsWarning, match="not counted: 1 folder"):
        roadmap.table(runs)
    assert main(["table", "--out", str(runs)]) == 0
    assert capsys.readouterr().err == "not counted: 1 folder (`roadmap collect` lists them)\n"


def test_regimes_without_runs_are_left_out(runs):
    (runs / "resnet-50").mkdir()
    (selected,) = regimes_with_runs(StudyOptions(), roadmap.collect(runs), runs)
    assert selected.selection.regime == "pico" and sum(len(result.seeds) for result in selected.results) == 6


def test_report_is_written_and_served(runs, tmp_path):
    assert roadmap.report(runs) == runs / "report.html"
    path = roadmap.report(runs, output=tmp_path / "page.html", metric="loss", steps="pico,gelu")
    assert "loss on the held-out images" in path.read_text(encoding="utf-8").lower()
    with pytest.raises(ValueError, match="did you mean 'pico'"):
        roadmap.report_server(runs, regime="picco")
    with roadmap.report_server(runs) as server:
        thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.05})
        thread.start()
        try:
            with urlopen(f"http://127.0.0.1:{server.server_address[1]}/") as answer:
                assert "6 finished" in answer.read().decode()
        finally:
            server.shutdown()
            thread.join()


def test_power_is_by_the_runs_or_as_given(runs):
    power = roadmap.power(runs, steps="pico,recipe,gelu", differences=[2.0])
    assert power.noise.freedom == 3 and power.seeds == 2 and power.steps == 2 and "6 runs of pico" in power.source
    assert power.detectable_one is None and power.detectable_all is None  # a verdict takes three seeds
    given = roadmap.power(runs, noise=1, differences=[0.5, 1e-6])
    seen, unseen = given.needed
    assert abs(seen.one_step - 64) <= 2 and seen.all_steps > seen.one_step and seen.device_hours > 0
    assert (unseen.one_step, unseen.all_steps, unseen.device_hours) == (None, None, None)
    assert [needed.difference for needed in roadmap.power(runs, noise=1).needed] == [0.1, 0.2, 0.5, 1.0]
    with pytest.raises(ValueError, match=r"difference must be other than 0 \(got 0.0\)"):
        roadmap.power(runs, noise=1, differences=[0.0])


def test_attribution_takes_all_ablations(tmp_path):
    for ablation in ("add-one", "leave-one-out"):
        for rung in roadmap.ladder("pico", STEPS, ablation=ablation):
            finish(study_run(rung), tmp_path, value(rung, 0))
    effects = {effect.step: effect for effect in roadmap.attribution(tmp_path, steps=STEPS).effects}
    assert (effects["gelu"].alone, effects["gelu"].left_out) == (4.0, 4.0)
    assert isinstance(roadmap.figure(tmp_path, kind="attribution", steps=STEPS), NotebookFigure)
    with pytest.raises(ValueError, match="--ablation does not apply"):
        roadmap.attribution(tmp_path, ablation="add-one")


def test_proxy_compares_the_order_of_the_steps(tmp_path):
    for i, rung in enumerate(roadmap.ladder("pico")):
        finish(study_run(rung), tmp_path, 60.0 + i**2 / 10)
    proxy = roadmap.proxy(tmp_path, against="resnet-200")
    assert list(proxy.steps) == ["rung", "change_here", "change_there", "rank_here", "rank_there"]
    assert proxy.correlation.n == len(proxy.steps) and sorted(proxy.steps["rank_here"])[0] == 1
    with pytest.raises(ValueError, match="unknown regime 'resnet-5'"):
        roadmap.proxy(tmp_path, against="resnet-5")
