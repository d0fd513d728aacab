"""The command as a user meets it: output, exit status, and one sentence where something is wrong."""

from __future__ import annotations

import argparse
import json
from pathlib import Path

import pytest

import roadmap
from roadmap.cli import VERBS, main, make_parser
from roadmap.options import Selection, StudyOptions
from roadmap.study.load import load_study, study_path
from roadmap.study.selection import ladder
from tests.helpers.command import run_here
from tests.helpers.images import make_folder

QUICK = ["--set", "recipe.epochs=2", "--set", "recipe.warmup_epochs=0", "--set", "recipe.batch_size=256"]
QUICK += ["--set", "design.width=8"]


@pytest.fixture(autouse=True)
def elsewhere(tmp_path, monkeypatch):
    monkeypatch.chdir(tmp_path)


@pytest.mark.parametrize("regime", ["pico", "resnet-50", "resnet-200"])
def test_list(capsys, regime):
    assert main(["list", "--regime", regime]) == 0
    lines = capsys.readouterr().out.splitlines()
    assert [line.split()[0].strip("()") for line in lines[2:20]] == [rung.name for rung in ladder(regime)]


def test_list_json(capsys):
    assert main(["list", "--regime", "resnet-50", "--json"]) == 0
    rows = {row["name"]: row for row in json.loads(capsys.readouterr().out)}
    assert len(rows) == 18
    assert rows["layer-scale"]["parameters"] == 28589128 and rows["layer-scale"]["published"] is None
    misprint = rows["layer-norm"]
    assert (round(misprint["gmacs"], 2), misprint["published"]["gmacs"]) == (4.15, 4.46)
    assert rows["recipe"]["published"] == {
        "group": "Training",
        "adopted": True,
        "top1_mean": 78.82,
        "top1_std": 0.07,
        "gmacs": 4.09,
        "test_size": 224,
    }


def test_list_marks_the_misprints(capsys):
    main(["list", "--regime", "resnet-50"])
    assert [line.split()[0] for line in capsys.readouterr().out.splitlines() if line.endswith("*")] == [
        "layer-norm",
        "separate-downsampling",
    ]


def test_show_draws_the_block_and_says_what_changed(capsys):
    assert main(["show", "layer-scale", "--regime", "resnet-50"]) == 0
    text = capsys.readouterr().out
    for part in ("d7x7, 96", "1x1, 384", "GELU", "LN", "layer scale 1e-06", "96 channels", "3,3,9,3"):
        assert part in text.replace("[3, 3, 9, 3]", "3,3,9,3"), part
    assert "design.block.layer_scale: none -> 1e-06" in text
    assert main(["show", "kernel-size=9", "--json"]) == 0
    assert json.loads(capsys.readouterr().out)["design"]["block"]["convs"][0]["kernel"] == 9


def test_diff_is_exact_as_text_and_as_data(capsys):
    assert main(["diff", "kernel-size-7", "gelu"]) == 0
    changes, _, drawing = capsys.readouterr().out.partition("\n\n")
    assert changes.splitlines() == [
        "design.block.convs[0].act: relu -> gelu",
        "design.block.convs[1].act: relu -> gelu",
        "design.block.act: relu -> gelu",
    ]
    marked = [line for line in drawing.splitlines() if line.startswith(("+", "-"))]
    assert [" ".join(line.split()) for line in marked] == ["- ReLU", "+ GELU"] * 3
    assert main(["diff", "layer-norm", "separate-downsampling"]) == 0
    drawing = capsys.readouterr().out.partition("\n\n")[2]
    assert "+ downsampling: LN → 2x2, stride 2 +bias" in drawing and "- head: global average pool → linear" in drawing
    main(["diff", "recipe", "stage-ratio", "--json"])
    assert json.loads(capsys.readouterr().out) == [
        {"path": "design.depths", "before": [1, 2, 2, 1], "after": [1, 1, 3, 1]}
    ]
    main(["diff", "gelu", "gelu"])
    assert "the same experiment" in capsys.readouterr().out


def test_cost_is_macs_times_images_over_speed(capsys):
    assert (
        main(
            [
                "cost",
                "--regime",
                "resnet-50",
                "--steps",
                "layer-scale",
                "--throughput",
                "1e13",
                "--json",
                "--seeds",
                "1",
            ]
        )
        == 0
    )
    found = json.loads(capsys.readouterr().out)["device_hours"]["layer-scale"]
    expected = 4455531264 * 300 * (3 * 1281167 + 50000) / 1e13 / 3600
    assert found == pytest.approx(expected)
    main(["cost", "--regime", "resnet-50", "--steps", "layer-scale", "--throughput", "1e13", "--seeds", "3", "--json"])
    assert json.loads(capsys.readouterr().out)["total_device_hours"] == pytest.approx(3 * expected)
    assert main(["cost", "--gpus", "2"]) == 0
    assert "time on 2" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        (["list", "--regime", "resnet50"], "did you mean 'resnet-50'"),
        (["list", "--fidelity", "x"], "unknown fidelity 'x'; valid: paper, authors, released"),
        (["list", "--data", "mnist"], "--data mnist: no such folder, and no data set of that name"),
        (["show", "gelo"], "did you mean 'gelu'"),
        (["diff", "gelu", "nothing"], "unknown rung 'nothing'"),
        (["cost", "--device", "h900"], "unknown device 'h900'"),
        (["cost", "--throughput", "-1"], "--throughput must be between 1 and 1e+21 (got -1)"),
        (["cost", "--gpus", "0"], "--gpus must be at least 1 (got 0)"),
        (["run", "--steps", "nonsense"], "unknown rung 'nonsense'"),
        (["run", "--processes", "0"], "--processes must be at least 1 (got 0)"),
        (["run", "--workers", "many"], "--workers must be a whole number (got 'many')"),
        (["run", "--wandb", ""], "--wandb must be a project's name"),
        (["run", "--seeds", "0"], "--seeds must be between 1 and 10000 (got 0)"),
        (["run", "--seeds", "9" * 400], "--seeds"),
        (["run", "--set", "recipe.betas=[0.9, 1.5]"], "recipe.betas[1] must be at least 0 and below 1 (got 1.5)"),
        (["run", "--set", "recipe.learning_rate=.inf"], "inf is not a finite number"),
        (["run", "--set", "recipe.crop_scale=[0.1, 1]"], "no selected rung uses crop_scale"),
        (["list", "--set", "design.stem.stride=0"], "design.stem.stride must be at least 1 (got 0)"),
        (["list", "--set", "design.depths=[1000000,1,1,1]"], "design.depths must be at most 10000 blocks in all"),
        (["list", "--set", "design.block.convs=[{kernel: 3, width: .inf}]"], "not"),
        (["list", "--set", "design.downsampling.kernel=-3"], "design.downsampling.kernel must be at least 1 (got -3)"),
        (["cost", "--throughput", "1e-320"], "--throughput must be between 1 and 1e+21 (got 1e-320)"),
        (["figure", "--published", "--fidelity", "authors"], "--fidelity does not apply to --published"),
        (["list", "--ablation", "leave-two-out"], "unknown ablation"),
        (["show", "kernel-size=["], "is not a value in YAML"),
        (["run", "--set", "recipe.epoch=3"], "unknown key 'epoch'; did you mean 'epochs'"),
        (["run", "--set", "recipe.epochs"], "--set must be KEY=VALUE"),
        (["run", "--set", "recipe.epochs=many"], "recipe.epochs: 'many' is not a whole number"),
        (["run", "--set", "recipe.epochs=0"], "recipe.epochs must be at least 1 (got 0)"),
        (["run", "--set", "design.width.x=3"], "its parent has no keys"),
        (["run", "--regime", "resnet-50"], "imagenet: no such folder; it must have train/CLASS/IMAGE"),
        (
            ["run", "--set", "recipe.batch_size=2000"],
            "batch_size must be at most 1287, the training images of digits (got 2000)",
        ),
        (["figure"], "runs: no such folder of runs (`roadmap run` creates it)"),
        (["figure", "--published", "-o", "x.bmp"], "a figure must end in .png, .svg, .pdf"),
        (["figure", "--published", "--regime", "pico"], "the paper has no table of regime 'pico'"),
        (["figure", "--published", "--data", "digits"], "--data does not apply to --published"),
        (["figure", "--published", "--compare", "difference"], "--compare does not apply to --published"),
        (
            ["figure", "--compare", "difference", "--kind", "curves"],
            "--compare applies to --kind roadmap only (got",
        ),
        (["figure", "--published", "--references"], "--references does not apply to --published"),
        (["cost", "--throughput", "1e9", "--device", "v100"], "--device does not apply to --throughput (got v100)"),
        (["figure", "--against", "resnet-50"], "--against requires --compare"),
        (["figure", "--x", "memory"], "--x requires --kind tradeoff"),
        (
            ["figure", "--published", "--kind", "curves"],
            "--published applies to --kind roadmap, tradeoff only",
        ),
        (["figure", "--published", "--kind", "tradeoff", "--x", "memory"], "the paper has no measured memory"),
    ],
)
def test_bad_usage_gets_one_sentence_and_status_2(capsys, arguments, message):
    assert main(arguments) == 2
    captured = capsys.readouterr()
    assert message in captured.err and len(captured.err.strip().splitlines()) == 1
    assert not list(Path().rglob("*.json"))


def parsers(parser):
    """The parsers of a parser's verbs, by name, and of theirs."""
    for action in parser._actions:
        for name, child in (action.choices if isinstance(action.choices, dict) else {}).items():
            yield name, child
            yield from parsers(child)


def test_every_verb_has_a_description_and_an_example_and_every_argument_a_help_text():
    verbs = dict(parsers(make_parser()))
    assert verbs.keys() >= {verb for names in VERBS.values() for verb in names} | {"pack", "check"}
    for name, parser in verbs.items():
        first = parser.description.split()[0].lower()
        assert parser.description.endswith(".") and not first.endswith("s"), name
        assert parser.epilog % {"prog": parser.prog} in " ".join(parser.format_help().split()), name
        for action in parser._actions:
            assert action.help or isinstance(action, argparse._SubParsersAction), (name, action.dest)


@pytest.mark.parametrize("verb", [verb for names in VERBS.values() for verb in names if verb != "data"])
def test_the_example_in_a_verbs_help_is_valid(verb):
    parser = make_parser(verb)
    example = dict(parsers(parser))[verb].epilog.removeprefix("example: %(prog)s ")
    assert parser.parse_args([verb, *example.split()]).verb == verb


@pytest.mark.slow
def test_cost_is_a_range_unless_the_network_was_measured(capsys):
    """DeiT-B at its own rate of the paper's Table 1; a rung between the slowest and the fastest network there."""
    selected = ["cost", "--seeds", "1", "--regime", "resnet-50", "--steps", "gelu", "--references", "deit-b,convnext-t"]
    assert main([*selected, "--out", "nowhere", "--json"]) == 0
    estimated = json.loads(capsys.readouterr().out)
    hours, ranges = estimated["device_hours"], estimated["device_hours_range"]
    images = 300 * (3 * 1_281_167 + 50_000)
    assert hours["deit-b"] == pytest.approx(images / 302.1 / 3600)
    assert ranges["deit-b"] == pytest.approx([hours["deit-b"]] * 2)
    assert hours["convnext-t"] == pytest.approx(images / 774.7 / 3600)
    dense, moved = 4_046_960_640, 4 * 4_421_760 / 9e11  # multiply-adds, and seconds of the depthwise convolutions
    expected = [images * (dense / rate + moved) / 3600 for rate in (5.36e12, 2.04e12)]
    assert ranges["gelu"] == pytest.approx(expected)
    larger = [
        *selected,
        "--out",
        "nowhere",
        "--device",
        "v100-fp16",
        "--json",
        "--steps",
        "kernel-size-7,kernel-size-11",
    ]
    assert main(larger) == 0
    hours = json.loads(capsys.readouterr().out)["device_hours"]
    assert hours["kernel-size-7"] == pytest.approx(images * (dense / 1.33e13 + moved / 2) / 3600)
    assert hours["kernel-size-11"] == pytest.approx(hours["kernel-size-7"])  # it moves no more values
    assert main([*selected, "--out", "nowhere", "--device", "h100"]) == 0
    assert "least to most" in capsys.readouterr().out


@pytest.mark.parametrize("arguments", [[], ["nonsense"], ["list", "--nonsense"], ["cost", "--gpus", "x"]])
def test_what_the_parser_refuses_gets_one_sentence_too(capsys, arguments):
    assert main(arguments) == 2
    assert len(capsys.readouterr().err.strip().splitlines()) == 1


def test_an_ablations_yaml_that_is_wrong_is_named(tmp_path):
    (tmp_path / "ablations.yaml").write_text("format: 1\nregime: {}\n")
    done = run_here("list")
    assert done.status == 2 and "ablations.yaml: regime: unknown key; did you mean 'regimes'" in done.err


def test_dry_run_names_every_run_and_makes_nothing(capsys, tmp_path):
    assert main(["run", "--dry-run", "--seeds", "2"]) == 0
    text = capsys.readouterr().out
    assert text.count("to train") == 36 + 1 and "Nothing was started" in text
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_run_trains_draws_and_then_trains_nothing(tmp_path):
    first = run_here("run", "--seeds", "1", "--steps", "recipe,gelu", *QUICK)
    assert first.status == 0, first.err
    assert "2 runs, 0 finished already" in first.out
    assert "figure: runs/roadmap-pico-recipe.epochs-2" in first.out and ".svg" in first.out
    (figure,) = tmp_path.glob("runs/*.png")
    assert figure.read_bytes().startswith(b"\x89PNG")
    results = {path: path.read_bytes() for path in tmp_path.glob("runs/pico/*/result.json")}
    assert len(results) == 2
    figure.unlink()

    again = run_here("run", "--seeds", "1", "--steps", "recipe,gelu", *QUICK)
    assert again.status == 0 and "nothing to train" in again.out
    assert figure.exists()
    assert {path: path.read_bytes() for path in results} == results

    # One value changed is another run beside them.
    other = run_here("run", "--seeds", "1", "--steps", "gelu", *QUICK, "--set", "recipe.drop_path=0.2")
    assert other.status == 0 and "1 run, 0 finished already" in other.out
    assert len(list(tmp_path.glob("runs/pico/*/result.json"))) == 3

    # The figure is of the study as it is set, and says so where there is none.
    assert run_here("figure", *QUICK).status == 0
    none = run_here("figure")
    assert none.status == 2 and "no finished run" in none.err


@pytest.mark.slow
def test_a_result_that_is_not_the_runs_is_not_believed(tmp_path):
    assert run_here("run", "--seeds", "1", "--steps", "recipe", *QUICK).status == 0
    (path,) = tmp_path.rglob("result.json")
    for wrong in ({}, {"identity": "0"}, json.loads(path.read_text()) | {"top1": "high"}):
        path.write_text(json.dumps(wrong))
        for verb in (["run", "--seeds", "1", "--steps", "recipe"], ["figure"]):
            done = run_here(*verb, *QUICK)
            assert done.status == 2 and "result.json" in done.err and "Traceback" not in done.err


@pytest.mark.slow
def test_a_part_of_the_study_leaves_the_other_bars_in_the_figure(tmp_path):
    assert run_here("run", "--seeds", "1", "--steps", "recipe,gelu", *QUICK).status == 0
    (figure,) = tmp_path.rglob("*.svg")
    assert "epochs" in figure.name  # settings of one's own have a figure of their own
    whole = figure.read_bytes()
    assert run_here("run", "--seeds", "1", "--steps", "gelu", *QUICK).status == 0
    assert figure.read_bytes() == whole


@pytest.mark.slow
def test_figure_draws_what_run_set(tmp_path):
    settings = ["--set", "recipe.epochs=3", *QUICK[4:]]  # too few epochs for resnet-50's warm-up
    assert run_here("run", "--seeds", "1", "--steps", "gelu", *settings).status == 0
    assert run_here("figure", *settings).status == 0


@pytest.mark.slow
def test_a_run_that_fails_leaves_the_others_alone(tmp_path):
    assert run_here("run", "--steps", "gelu", *QUICK, "--dry-run").status == 0
    listed = run_here("run", "--steps", "gelu", *QUICK, "--dry-run").out
    folder = Path(listed.splitlines()[2].split()[-1])
    (folder / "log.txt").mkdir(parents=True)  # where the log is to be written
    done = run_here("run", "--seeds", "1", "--steps", "recipe,gelu", *QUICK)
    assert done.status == 1
    assert "failed: pico/gelu-s0" in done.err and "Is a directory" in done.out
    assert "Traceback" not in done.out + done.err
    assert len(list(tmp_path.rglob("result.json"))) == 1
    assert "figure: " in done.out


@pytest.mark.slow
def test_a_divergence_is_told_in_a_sentence(tmp_path):
    done = run_here("run", "--seeds", "1", "--steps", "pico", *QUICK, "--set", "recipe.learning_rate=1e14")
    assert done.status == 1
    assert "diverged: the loss is nan in epoch 1, step 2, at a learning rate of 1e+14" in done.out
    assert "--on-nan retry resumes from the last checkpoint" in done.err
    assert "Traceback" not in done.out + done.err
    (log,) = tmp_path.rglob("log.txt")
    assert "Traceback" not in log.read_text()
    again = run_here("run", "--seeds", "1", "--steps", "pico", *QUICK, "--set", "recipe.learning_rate=1e14")
    assert again.status == 1 and "nothing to train" in again.out and "diverged: pico/pico-s0" in again.err
    hopeless = run_here(
        "run", "--seeds", "1", "--steps", "pico", *QUICK, "--set", "recipe.learning_rate=1e14", "--on-nan", "retry"
    )
    assert hopeless.status == 1 and "3 retries did not help" in hopeless.err


def test_a_folder_that_is_no_folder_is_refused(tmp_path):
    (tmp_path / "file").write_text("")
    done = run_here("run", "--seeds", "1", "--steps", "pico", *QUICK, "--out", "file")
    assert done.status == 2 and done.err.count("\n") == 1


@pytest.mark.parametrize("verb", [["power"], ["collect"], ["export", "x"], ["evaluate", "x"], ["run", "--dry-run"]])
def test_a_file_in_place_of_the_folder_of_runs_is_named(capsys, verb):
    Path("file").write_text("")
    assert main([*verb, "--out", "file"]) == 2
    assert "--out must be a folder" in capsys.readouterr().err


def test_a_folder_without_runs_is_told_alike(capsys):
    for verb in ("status", "collect"):
        assert main([verb, "--out", "absent"]) == 2
        assert "absent: no such folder of runs (`roadmap run` creates it)" in capsys.readouterr().err
    Path("runs").mkdir()
    assert main(["logs", "x"]) == 2
    assert capsys.readouterr().err == "roadmap logs: no run is called 'x': the folder has no runs\n"
    assert main(["collect", "-o", "x.foo"]) == 2
    assert capsys.readouterr().out == ""


def test_how_runs_are_computed_is_no_part_of_what_they_are(capsys, tmp_path):
    """And of no figure's name; a wrong key or value is named."""
    plans = []
    for settings in ([], ["--set", "execution.workers=2"], ["--workers", "1"], ["--on-nan", "retry"]):
        assert main(["run", "--steps", "recipe", "--dry-run", *settings]) == 0
        plans.append(capsys.readouterr().out)
    assert len(set(plans)) == 1
    for setting, message in (
        ("execution.worker=2", "unknown key 'worker'; did you mean 'workers'"),
        ("execution.workers=-1", "execution.workers must be at least 0 (got -1)"),
        ("execution.workers=many", "'many' is not valid; expected a whole number or 'auto'"),
        ("execution.bad_images=maybe", "'maybe' is not valid"),
        ("execution.device=tpu", "'tpu' is not valid"),
    ):
        assert main(["run", "--seeds", "1", "--steps", "recipe", "--set", setting]) == 2
        assert message in capsys.readouterr().err
    assert not list(tmp_path.iterdir())


@pytest.mark.parametrize(
    ("setting", "message"),
    [
        ("execution.device=cuda", "execution.device=cuda requires a CUDA device"),
        ("execution.compile=inductr", "execution.compile must be a backend of torch.compile"),
        ("execution.device_batch=7", "execution.device_batch 7 can't make; 1, 2, 4, 8, 16 or 32 can"),
    ],
)
def test_what_can_not_be_had_here_is_one_sentence(tmp_path, setting, message):
    done = run_here("run", "--seeds", "1", "--steps", "recipe", "--set", setting)
    assert done.status == 2 and message in done.err and done.err.count("\n") == 1
    assert not list(tmp_path.iterdir())


@pytest.mark.slow
def test_averaged_weights_are_reported_apart(capsys):
    settings = [*QUICK, "--set", "recipe.ema=0.9"]
    done = run_here("run", "--seeds", "1", "--steps", "recipe", *settings)
    assert done.status == 0 and "EMA top-1 %" in done.out
    plain = run_here("run", "--seeds", "1", "--steps", "recipe", *QUICK)
    assert "EMA" not in plain.out


def test_what_has_no_say_is_refused(capsys):
    for setting in ("recipe.sync_batch_norm=true", "recipe.decay_norms_and_biases=true"):
        arguments = ["run", "--steps", "layer-norm", "--dry-run", "--set", setting, "--set", "recipe.weight_decay=0"]
        assert main(arguments) == 2
        assert "no selected rung uses" in capsys.readouterr().err
    assert main(["run", "--steps", "recipe", "--dry-run", "--set", "recipe.sync_batch_norm=true"]) == 0
    assert main(["run", "--dry-run", "--set", "execution.data_path=here"]) == 2
    assert "--data NAME=PATH" in capsys.readouterr().err


@pytest.mark.slow
def test_a_run_that_began_by_one_augmentation_is_not_asked_for_by_the_other(tmp_path):
    command = [
        "run",
        "--seeds",
        "1",
        "--steps",
        "pico",
        "--set",
        "recipe.epochs=1",
        "--set",
        "recipe.decay_epochs=1",
        *QUICK[4:],
    ]
    assert run_here(*command, "--augment", "reference")
    (manifest,) = tmp_path.glob("runs/pico/*/manifest.json")
    assert json.loads(manifest.read_text())["execution"]["augment"] == "reference"
    refused = run_here(*command, "--augment", "fast")
    assert refused.status == 2
    message = "began (got fast); --out FOLDER trains it again"
    assert message in refused.err
    assert run_here(*command)


@pytest.mark.slow
@pytest.mark.parametrize(
    "by_image",
    [["--set", "recipe.randaugment=rand-m9-mstd0.5-inc1"], ["--data", "FOLDER", "--set", "recipe.batch_size=2"]],
)
def test_a_run_older_than_the_choice_of_augmentation_goes_on_with_what_there_was(tmp_path, by_image):
    command = ["run", "--seeds", "1", "--steps", "layer-norm", "--set", "recipe.epochs=1", *QUICK[2:4], *QUICK[6:]]
    command += [str(make_folder(tmp_path / "pets")) if each == "FOLDER" else each for each in by_image]
    assert run_here(*command)
    (path,) = tmp_path.glob("runs/pico/*/manifest.json")
    manifest = json.loads(path.read_text())
    assert manifest["execution"].pop("augment") == "fast"
    path.write_text(json.dumps(manifest))
    refused = run_here(*command, "--augment", "fast")
    assert refused.status == 2 and "--augment must be reference, with which" in refused.err
    assert run_here(*command, "--augment", "reference")
    path.write_text(json.dumps(manifest | {"execution": "fast"}))
    refused = run_here(*command, "--augment", "fast")
    assert refused.status == 2 and "manifest.json: execution: 'fast' is not a mapping" in refused.err


@pytest.fixture
def home(tmp_path, monkeypatch):
    folder = tmp_path / "home"
    folder.mkdir()
    monkeypatch.setenv("HOME", str(folder))
    return folder


def test_a_tilde_is_the_home_folder_in_options_in_the_study_and_in_calls(home):
    make_folder(home / "photographs", images=40)
    (home / "step.py").write_text("from roadmap import step\n")
    quick = ["run", "--steps", "layer-scale", "--dry-run", "--set", "recipe.batch_size=32", "--plugin=~/step.py"]
    for data in ("~/photographs", "flowers=~/photographs"):
        done = run_here(*quick, f"--data={data}", "--out=~/runs")
        assert done and f" {home}/runs/pico/" in done.out, done.err
    assert run_here("figure", "--published", "-o=~/figures/f.png", "-o=~/f.svg")
    assert (home / "figures" / "f.png").is_file() and (home / "f.svg").is_file()
    study = load_study()
    Path("ablations.yaml").write_text(study_path().read_text().replace("out: runs", "out: ~/kept", 1))
    assert f" {home}/kept/pico/" in run_here(*quick, "--data=~/photographs").out
    assert load_study().defaults.out == home / "kept" and study.defaults.out == Path("runs")
    roadmap.figure(published=True, output="~/called.png")
    assert (home / "called.png").is_file()
    assert Selection.of(StudyOptions.of({"data": "~/photographs"})).execution.data_path == home / "photographs"
    assert not list(Path().glob("~*"))


def test_every_option_for_a_file_or_a_folder_expands_a_tilde(home):
    """By its type: `Parser` converts all options of that type."""
    for verb, parser in parsers(make_parser()):
        for action in parser._actions:
            if action.metavar in ("FILE", "FOLDER", "DESTINATION", "PACKED"):
                assert action.type is Path, f"{verb} {action.option_strings}"
    assert make_parser().parse_args(["status", "--out=~/runs"]).out == home / "runs"
