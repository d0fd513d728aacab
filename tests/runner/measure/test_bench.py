"""What `roadmap bench` measures, keeps and prints; how fast that is, no test asks."""

from __future__ import annotations

import json
import re
import signal
from dataclasses import replace

import pytest

from roadmap.cli import main
from roadmap.record.benchmarks import (
    FILE,
    Conditions,
    Round,
    append_round,
    measured,
    rates_of,
    read_rounds,
    workload_of,
)
from roadmap.study.selection import ladder
from tests.helpers.command import start_apart
from tests.helpers.records import finish, study_run
from tests.helpers.training import execution
from tests.helpers.waiting import until

QUICK = ["--rounds", "1", "--warm-up", "0", "--seconds", "0.001", "--batch", "4"]
CONDITIONS = Conditions("cpu", "a processor", "fp32", 2, 64, True, None, False, "2.14.1")
ROUND = Round("2026-01-01", "pico", "gelu", "a", 32, 10**6, 2 * 10**6, CONDITIONS, 100.0, 400.0, 2**30, 2**28, 4.0)


@pytest.fixture
def here(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)
    return tmp_path


def test_every_rung_is_measured_printed_and_kept(here, capsys):
    assert main(["bench", *QUICK, "--steps", "recipe,layer-scale", "-o", "speeds.svg"]) == 0
    out, err = capsys.readouterr()
    rows = {line.split()[0]: line for line in out.splitlines() if line[:1].isalpha()}
    assert "training images/s" in rows["rung"] and "inference images/s" in rows["rung"]
    assert {"recipe", "layer-scale"} <= rows.keys() and rows["layer-scale"].count("%") == 2
    assert re.search(r"batch 4, .*: matmul \d+", out)
    assert "roadmap figure --throughput --regime pico" in out and (here / "speeds.svg").exists()
    assert "[2/2] layer-scale, round 1 of 1: " in err
    kept = read_rounds(here / "runs")
    assert [each.rung for each in kept] == ["recipe", "layer-scale"]
    for each in kept:
        assert each.training_images_per_second > 0 and each.inference_images_per_second > 0
        assert each.training_peak_bytes > each.inference_peak_bytes > 0
        assert each.conditions.batch == 4 and each.matrix_gmacs_per_second > 0
    assert kept[0].workload == workload_of(study_run(ladder("pico", "recipe")[0]))


def test_the_json_has_what_was_asked_for(here, capsys):
    options = ["--json", "--only", "inference", "--steps", "gelu", "--set", "recipe.image_size=64"]
    assert main(["bench", *QUICK, *options, "--set", "execution.threads=1", "--out", "elsewhere"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert (record["rung"], record["image_size"], record["rounds"]) == ("gelu", 64, 1)
    assert record["training"] is None and record["conditions"]["threads"] == 1
    inference = record["inference"]
    assert inference["macs_per_second"] == pytest.approx(inference["images_per_second"] * record["macs"])
    share = inference["macs_per_second"] / 1e9 / record["matrix_gmacs_per_second"]
    assert inference["share"] == pytest.approx(share)
    assert [each.training_peak_bytes for each in read_rounds(here / "elsewhere")] == [None]


def test_a_network_that_fails_leaves_the_others_alone(here, capsys):
    """Batch norm in training takes more than one value of a channel; layer norm does not mind."""
    assert (
        main(
            [
                "bench",
                *QUICK,
                "--batch",
                "1",
                "--rounds",
                "2",
                "--set",
                "recipe.image_size=16",
                "--steps",
                "pico,layer-norm",
            ]
        )
        == 1
    )
    out, err = capsys.readouterr()
    assert "failed: pico: Expected more than 1 value per channel" in err and "layer-norm" in out
    assert [each.rung for each in read_rounds(here / "runs")] == ["layer-norm"] * 2


@pytest.mark.slow
@pytest.mark.parametrize(("number", "status"), [(signal.SIGINT, 130), (signal.SIGTERM, 128 + signal.SIGTERM)])
def test_what_was_measured_before_an_interruption_is_kept(here, number, status):
    process = start_apart("bench", *QUICK, "--rounds", "500", "--steps", "pico")
    until(lambda: (here / "runs" / FILE).exists() or process.poll() is not None, "a round is measured")
    process.send_signal(number)
    out, err = process.communicate(timeout=300)
    assert process.returncode == status, err
    assert "Traceback" not in err and "measurements are kept in runs/bench.jsonl" in err
    assert read_rounds(here / "runs") and "pico" in out


@pytest.mark.parametrize(
    ("options", "said"),
    [
        (["--cuda-graphs"], "--cuda-graphs requires a CUDA device, and there is none here"),
        (["--rounds", "0"], "--rounds must be at least 1 (got 0)"),
        (["--batch", "0"], "--batch must be at least 1 (got 0)"),
        (["--warm-up", "-1"], "--warm-up must be at least 0 (got -1)"),
        (["--seconds", "0"], "--seconds must be above 0 (got 0)"),
        (["--out", "file"], "--out must be a folder, or a path that does not exist (got the file file)"),
        (["-o", "speeds.txt"], "speeds.txt: a figure must end in .png, .svg, .pdf"),
        (["-o", "folder.png"], "folder.png is a folder; a file is expected"),
        (["-o", "file/speeds.png"], "file is not a folder"),
        (["--set", "execution.data_path=x"], "does not apply to bench networks; --data NAME=PATH does"),
        (["--steps", "gelo"], "did you mean 'gelu'"),
        (["--set", "execution.compile=nonesuch"], "execution.compile must be a backend of torch.compile"),
        (["--set", "execution.device=cuda"], "execution.device=cuda requires a CUDA device"),
    ],
)
def test_what_can_not_be_measured_is_refused_in_a_sentence(here, capsys, options, said):
    (here / "file").write_text("")
    (here / "folder.png").mkdir()
    assert main(["bench", *options]) == 2
    assert said in capsys.readouterr().err and not (here / "runs").exists()


def test_a_batch_is_what_a_device_takes_and_less_on_a_cpu():
    from runner.measure.plan import BenchOptions, make_plan

    small, large = study_run(ladder("pico", "gelu")[0]), study_run(ladder("resnet-50", "gelu")[0], regime="resnet-50")
    assert make_plan([small], execution(device="cpu"), BenchOptions()).batch == 32
    assert make_plan([large], execution(device="cpu"), BenchOptions()).batch == 16
    assert make_plan([large], execution(device="cpu", device_batch=128), BenchOptions()).batch == 128
    assert make_plan([large], execution(device="cpu"), BenchOptions(batch=7)).batch == 7


def test_a_measured_step_is_the_engines_and_changes_no_weight(make_run):
    """With everything that a recipe may add to a step."""
    import torch

    from runner.machine.setup import choose_setup
    from runner.measure import throughput

    mixed = {"mixup": 0.8, "drop_path": 0.1, "ema": 0.9, "clip_gradients": 1.0, "precision": "bf16"}
    run = make_run("recipe", **mixed)
    setup = choose_setup(run.experiment.recipe, execution(compile="aot_eager"), 1, 1)
    setup.prepare()
    made, learn = [], throughput.TrainState
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(throughput, "TrainState", lambda *arguments: made.append(learn(*arguments)) or made[-1])
        # The public function measures in a new process, whose weights are not accessible.
        step = throughput._training(run, setup, torch.randn(4, 3, 32, 32), False)
    (train_state,) = made
    before = [parameter.clone() for parameter in train_state.model.parameters()]
    step()
    step()
    assert all(torch.equal(one, other) for one, other in zip(before, train_state.model.parameters(), strict=True))
    assert all(state["step"] == 2 for state in train_state.optimizer.state.values())
    assert train_state.ema.n_averaged == 2 and train_state.model.training


def test_networks_with_the_same_work_share_a_measurement():
    gelu, recipe, start = (study_run(ladder("pico", name)[0]) for name in ("gelu", "recipe", "pico"))

    def with_recipe(**changes):
        return replace(gelu, experiment=replace(gelu.experiment, recipe=replace(gelu.experiment.recipe, **changes)))

    assert workload_of(with_recipe(epochs=33, learning_rate=1.0)) == workload_of(gelu)
    dropping, dropping_less = with_recipe(drop_path=0.3), with_recipe(drop_path=0.1)
    assert workload_of(dropping) == workload_of(dropping_less)
    more_classes = replace(gelu, dataset=replace(gelu.dataset, classes=11))
    others = [with_recipe(image_size=48), with_recipe(ema=0.9), dropping, recipe, start, more_classes]
    assert len({workload_of(run) for run in [gelu, *others]}) == 7


def test_rates_are_the_medians_of_the_rounds():
    rounds = [replace(ROUND, training_images_per_second=speed) for speed in (90.0, 100.0, 130.0)]
    rates = rates_of(rounds, "training")
    assert (rates.images_per_second, rates.spread, rates.peak_bytes) == (100.0, 20.0, 2**30)
    assert rates.macs_per_second == 3 * 100 * 2e6 and rates.share == pytest.approx(3 * 100 * 2e6 / 4e9)
    assert rates_of(rounds, "inference").macs_per_second == 400 * 2e6
    assert rates_of([replace(ROUND, training_images_per_second=None)], "training") is None


def test_the_newest_command_counts_under_the_conditions_that_most_were_measured_under():
    older = [replace(ROUND, inference_images_per_second=speed) for speed in (10.0, 20.0)]
    newer = [replace(ROUND, started="2026-01-02", inference_images_per_second=speed) for speed in (40.0, 60.0)]
    other = replace(ROUND, workload="b", inference_images_per_second=7.0)
    gpu = replace(
        newer[0], conditions=replace(CONDITIONS, device="cuda", name="a GPU"), inference_images_per_second=9e3
    )
    quantity = "inference_images_per_second"
    assert measured([*older, *newer], quantity, ["a"]).values == {"a": 50.0}
    assert measured([*older, *newer, gpu], quantity, ["a"]).values == {"a": 9e3}
    most = measured([*older, other, gpu], quantity, ["a", "b"])
    assert (most.values, most.conditions.name) == ({"a": 15.0, "b": 7.0}, "a processor")
    assert measured([*older, gpu], quantity, ["c"]) is None


def test_lines_that_are_no_measurement_are_left_out(tmp_path):
    append_round(tmp_path, ROUND)
    with (tmp_path / FILE).open("a") as file:
        file.write('{"format": 0}\n[1]\nnonsense\n{"format": 1, "rung": 3}\n')
    append_round(tmp_path, replace(ROUND, rung="width"))
    with (tmp_path / FILE).open("a") as file:
        file.write('{"format": 1, "cut o')
    assert [each.rung for each in read_rounds(tmp_path)] == ["gelu", "width"]


def test_figures_take_what_was_measured(here, capsys):
    rungs = ladder("pico", "pico..recipe")
    for rung in rungs:
        finish(study_run(rung), here / "runs", epochs=1)
    steps = ["--steps", "pico..recipe"]
    assert main(["figure", *steps, "--throughput"]) == 2
    assert "no throughput of these networks has been measured" in capsys.readouterr().err
    append_round(here / "runs", replace(ROUND, workload=workload_of(study_run(rungs[0]))))
    assert main(["figure", *steps, "--throughput"]) == 0
    assert main(["figure", *steps, "--kind", "tradeoff", "--x", "throughput"]) == 0
    assert "has measured 1 of these 2 networks" in capsys.readouterr().err
    append_round(here / "runs", replace(ROUND, workload=workload_of(study_run(rungs[1]))))
    assert main(["figure", *steps, "--kind", "tradeoff", "--x", "throughput"]) == 0
    assert "has measured" not in capsys.readouterr().err
    append_round(
        here / "runs", replace(ROUND, workload=workload_of(study_run(ladder("resnet-50")[0], regime="resnet-50")))
    )
    published = ["figure", "--published", "--regime", "resnet-50", "--throughput", "--out", "runs"]
    assert main([*published, "-o", "paper.svg"]) == 0
    assert main(["figure", "--published", "--out", "runs"]) == 2
    assert main(["figure", "--throughput", "--compare", "difference"]) == 2
    assert "--throughput does not apply to --compare" in capsys.readouterr().err


def test_a_batch_that_is_too_large_for_the_memory_is_reported(here, capsys):
    assert main(["bench", *QUICK, "--steps", "pico", "--batch", str(10**10)]) == 1
    assert "failed: pico: the memory is too small for a batch of 10000000000" in capsys.readouterr().err
