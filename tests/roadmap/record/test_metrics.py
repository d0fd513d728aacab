"""Metrics: their values against direct computations, and that one declaration is enough for all that uses them."""

from __future__ import annotations

import json
import math
from dataclasses import replace

import numpy as np
import pytest
import torch

from analysis.collection import COLUMNS, collect
from roadmap.cli import make_parser
from roadmap.record.folder import last_metrics, read_metrics, read_result
from roadmap.record.metrics import METRICS, TOP1, averaged, evaluated_metrics, find_metric, metric, primaries
from roadmap.record.outcomes import NOT_READ, read_outcomes
from roadmap.record.results import RESERVED, EpochMetrics, RunResult, scalar, values_of
from tests.helpers.command import LIGHT, run_here
from tests.helpers.records import append_row, begin, epoch_row, finish, study_run
from tests.helpers.training import FORKSERVER, execution, start, train, warm_fork_server

CLASSES = 10
QUICK = ["--steps", "recipe", *LIGHT, "--set", "recipe.epochs=2", "--set", "recipe.warmup_epochs=0"]
PLUGIN = """
import roadmap

@roadmap.metric("confidence", "mean confidence", unit="%", short="confidence")
def confidence(logits, labels):
    return 100 * logits.softmax(1).amax(1).sum()
"""


def outputs(images=1000, classes=CLASSES, dtype=torch.float32):
    """Logits of every confidence, and labels that they fit more often than by chance; none of the last class."""
    draws = torch.Generator().manual_seed(0)
    logits = torch.randn(images, classes, generator=draws) * torch.linspace(0.1, 8, images)[:, None]
    labels = torch.where(torch.rand(images, generator=draws) < 0.6, logits.argmax(1), torch.arange(images) % classes)
    return logits.to(dtype), labels.clamp(max=classes - 2)


def computed(name, logits, labels, batch=64):
    chosen = METRICS[name]
    batches = zip(logits.split(batch), labels.split(batch), strict=True)
    return chosen.final(sum(chosen.sums(*each).double() for each in batches), len(labels))


def direct(logits, labels):
    """All by NumPy, an image or a bin at a time, as the papers define them."""
    x, y = logits.double().numpy(), labels.numpy()
    p = np.exp(x - x.max(1, keepdims=True))
    p /= p.sum(1, keepdims=True)
    ranking = np.argsort(-x, axis=1, kind="stable")
    hit, confidence = ranking[:, 0] == y, p.max(1)
    ece = 0.0
    for m in range(15):
        inside = (confidence > m / 15) & (confidence <= (m + 1) / 15)
        if inside.any():
            ece += inside.mean() * abs(hit[inside].mean() - confidence[inside].mean())
    per_class = [100 * hit[y == c].mean() if (y == c).any() else math.nan for c in range(x.shape[1])]
    return {
        "top1": 100 * hit.mean(),
        "top5": 100 * np.mean([y[i] in ranking[i, :5] for i in range(len(y))]),
        "loss": -np.log(p[np.arange(len(y)), y]).mean(),
        "ece": 100 * ece,
        "per_class_accuracy": per_class,
    }


@pytest.mark.parametrize("batch", [1, 64, 1000])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_metrics_are_what_a_direct_computation_gives(dtype, batch):
    logits, labels = outputs(dtype=dtype)
    if dtype == torch.bfloat16:  # without ties, whose order is nobody's
        values = logits.float().sort(dim=1).values
        keep = (values.diff(dim=1) > 0).all(1)
        logits, labels = logits[keep], labels[keep]
    expected = direct(logits, labels)
    assert expected.keys() == {metric.name for metric in evaluated_metrics()}
    for name, value in expected.items():
        tolerance = 2e-2 if name == "loss" and dtype == torch.bfloat16 else 1e-5
        found = computed(name, logits, labels, batch).numpy()
        np.testing.assert_allclose(found, value, rtol=tolerance, err_msg=name)


def test_calibration_errors_of_simple_networks():
    certain = torch.full((8, CLASSES), -1e4)
    certain[:, 0] = 1e4
    right, wrong = torch.zeros(8, dtype=torch.int64), torch.ones(8, dtype=torch.int64)
    assert computed("ece", certain, right).item() == 0
    assert computed("ece", certain, wrong).item() == 100
    assert computed("ece", certain, torch.cat((right[:6], wrong[:2]))).item() == 25
    # One bin each: 0.2 in (2/15, 3/15], which holds its upper edge, and 0.9.
    logits = torch.tensor([[0.2] * 5, [0.9, 0.025, 0.025, 0.025, 0.025]], dtype=torch.float64).log()
    assert computed("ece", logits, torch.tensor([4, 0])).item() == pytest.approx(100 * (0.2 + 0.1) / 2)


def test_a_list_is_shown_as_its_mean_over_the_classes_that_have_images(tiny_run, tmp_path):
    assert scalar((50.0, None, 100.0)) == 75.0 and scalar((None, None)) is None and scalar(3.0) == 3.0
    result = train(tiny_run("recipe", ema=0.9), tmp_path)
    first, last = read_metrics(tmp_path)
    assert isinstance(first.values["per_class_accuracy"], float)  # lists are kept once
    written = json.loads((tmp_path / "result.json").read_text())
    for prefix in ("", "ema_"):
        accuracies = written[f"{prefix}per_class_accuracy"]
        assert len(accuracies) == CLASSES and all(0 <= each <= 100 for each in accuracies)
        assert last.values[f"{prefix}per_class_accuracy"] == tuple(accuracies)
    assert result.value(find_metric("per_class_accuracy")) == pytest.approx(np.mean(written["per_class_accuracy"]))


def test_an_evaluation_counts_each_image_of_each_class_once(tiny_run, tmp_path):
    """A network that says 3 of everything, the held-out images of which are known."""
    from runner.train.evaluation import evaluate

    class Says3(torch.nn.Module):
        def forward(self, images):
            return 20 * torch.nn.functional.one_hot(torch.full((len(images),), 3), CLASSES).float()

    training = start(tiny_run(batch_size=32), tmp_path)
    labels = torch.cat([labels for _, labels, _ in training.test_batches])
    scores = evaluate(Says3(), training.test_batches, training.setup, training.world, lambda: None)
    share = 100 * (labels == 3).double().mean().item()
    assert scores.values["per_class_accuracy"] == tuple(100.0 * (i == 3) for i in range(CLASSES))
    assert scores.values["top1"] == pytest.approx(share)
    assert scores.values["ece"] == pytest.approx(100 - share, abs=1e-4)


def train_one(run, folder, world):
    from runner.train import engine

    torch.set_num_threads(1)
    with world.joined("cpu"):
        engine.train(run, folder, execution(), 1, world)


@pytest.mark.slow
def test_two_processes_have_the_metrics_of_one(tiny_run, tmp_path):
    """With an untrained network, as far as training goes: its rate is 0."""
    from runner.machine.distributed import World

    run = tiny_run("layer-scale", epochs=1, learning_rate=1e-12, min_learning_rate=0.0, precision="fp32")
    warm_fork_server()
    started = [
        FORKSERVER.Process(
            target=train_one, args=(run, tmp_path / "two", World(rank, 2, rank, f"file://{tmp_path}/meeting"))
        )
        for rank in range(2)
    ]
    for process in started:
        process.start()
    for process in started:
        process.join()
        assert process.exitcode == 0
    one, two = train(run, tmp_path / "one"), read_result(tmp_path / "two", run)
    assert two.values.keys() == one.values.keys()
    for key, value in one.values.items():
        assert two.values[key] == pytest.approx(value, rel=1e-4), key
    of_one, of_two = (read_outcomes(tmp_path / name) for name in ("one", "two"))
    assert (of_two.predicted != NOT_READ).all() and (of_two.predicted == of_one.predicted).mean() > 0.99
    assert of_two.confidence == pytest.approx(of_one.confidence, abs=0.01)


@pytest.mark.slow
def test_a_plugins_metric_is_in_the_record_the_table_and_the_options(tmp_path):
    (tmp_path / "own.py").write_text(PLUGIN)
    plugin = ("--plugin", "own.py")
    trained = run_here("run", "--seeds", "1", *QUICK, *plugin, cwd=tmp_path)
    assert trained.status == 0, trained.err
    (folder,) = tmp_path.glob("runs/pico/*")
    rows = [json.loads(line) for line in (folder / "metrics.jsonl").read_text().splitlines()]
    result = json.loads((folder / "result.json").read_text())
    assert len(rows) == 2 and all(10 < row["confidence"] <= 100 for row in rows)
    assert result["confidence"] == rows[-1]["confidence"]
    # Without the plug-in too, which the record does not need.
    assert "confidence" not in METRICS
    assert collect(tmp_path / "runs")["confidence"].to_list() == [result["confidence"]]
    assert run_here("run", "--seeds", "1", *QUICK, cwd=tmp_path).status == 0  # finished already
    for name, title in (("confidence", "mean confidence (%)"), ("ece", "expected calibration error (%)")):
        table = run_here("table", *QUICK, *plugin, "--metric", name, cwd=tmp_path)
        assert table.status == 0 and title in table.out, table.err
        value = f"{result[name]:.2f}"
        assert value in table.out
        assert run_here("figure", *QUICK, *plugin, "--metric", name, "-o", "a.svg", cwd=tmp_path).status == 0
        assert title.split(" (")[0] in (tmp_path / "a.svg").read_text()
    unknown = run_here("table", *QUICK, "--metric", "confidence", cwd=tmp_path)
    assert unknown.status == 2 and "unknown metric 'confidence'" in unknown.err and "--plugin" in unknown.err
    evaluated = run_here("evaluate", "recipe-s0", *plugin, cwd=tmp_path)
    assert evaluated.status == 0 and f"confidence {result['confidence']:.2f} %" in evaluated.out, evaluated.err


@pytest.mark.parametrize(
    ("sums", "value", "message"),
    [
        (lambda logits: 1, None, "TypeError"),
        (lambda logits, labels: "text", None, "TypeError|ValueError"),
        (lambda logits, labels: len(labels), lambda sums: sums, "TypeError"),
    ],
)
def test_a_metric_that_fails_is_named(sums, value, message):
    metric("wrong", "a metric", **({"value": value} if value else {}))(sums)
    logits, labels = torch.zeros(2, 3), torch.zeros(2, dtype=torch.int64)
    with pytest.raises(ValueError, match=f"metric 'wrong' fails: ({message})"):
        METRICS["wrong"].of_total(METRICS["wrong"].of_batch(logits, labels), 2)


def test_a_metric_may_give_plain_numbers():
    metric("images", "images", value=lambda sums, images: float(sums) / images)(lambda logits, labels: len(labels))
    chosen = METRICS["images"]
    assert chosen.of_total(chosen.of_batch(torch.zeros(2, 3), torch.zeros(2)), 2) == 1


def test_runs_without_the_newer_metrics_are_shown_as_before(tmp_path, monkeypatch):
    """As version 1 wrote them: no calibration error, no accuracies of classes."""
    from roadmap import ladder

    monkeypatch.chdir(tmp_path)
    (rung,) = ladder("pico", "recipe")
    for seed in range(2):
        finish(study_run(rung, seed), tmp_path / "runs", 90.0 + seed, epochs=2, top5=99.0, test_loss=0.5)
    (row, _) = collect(tmp_path / "runs").to_dict("records")
    assert row["top1"] == 90.0 and math.isnan(row["ece"]) and math.isnan(row["per_class_accuracy"])
    for verb in (["status"], ["collect"], ["table", "--steps", "recipe"], ["figure", "--steps", "recipe"]):
        done = run_here(*verb)
        assert done.status == 0, done.err
    assert "90.50" in run_here("table", "--steps", "recipe").out
    missing = run_here("table", "--steps", "recipe", "--metric", "ece")
    assert missing.status == 0 and "No finished run has this metric." in missing.out


def test_a_metric_of_the_averaged_weights_is_named_after_it():
    assert find_metric("ema") == find_metric("ema_top1") == averaged(TOP1)
    assert averaged(TOP1).title == "top-1 accuracy of the averaged weights (%)"
    assert find_metric("ema_ece").key == "ema_ece" and not find_metric("ema_loss").higher_is_better
    for name in ("top3", "ema_top3"):
        with pytest.raises(ValueError, match="unknown metric 'top3'; did you mean 'top"):
            find_metric(name)


def test_the_help_names_every_metric():
    help_text = next(
        action.help for action in make_parser("table")._subparsers._group_actions[0].choices["table"]._actions
        if action.dest == "metric"
    )  # fmt: skip
    assert all(metric.name in help_text for metric in evaluated_metrics())
    assert all(name in help_text for name in primaries())


@pytest.mark.parametrize(
    "name", ["top1", "train_loss", "values", "ema", "ema_own", "two words", "test_loss", "rung", "state", "device"]
)
def test_a_name_that_the_record_has_is_refused(name):
    with pytest.raises(ValueError, match=f"metric '{name}'"):
        metric(name, "mine")(lambda logits, labels: logits.sum())
    assert len(evaluated_metrics()) == 5


@pytest.mark.parametrize(
    ("name", "key", "message"),
    [
        ("ema_q", "qq", "the name must .* not be ema or ema_NAME"),
        ("q", "ema_q", "the key must .* not be ema or ema_NAME"),
        ("q", "a b", "the key must have only letters"),
        ("q", "folder", "has a key folder already"),
    ],
)
def test_name_and_key_are_both_checked(name, key, message):
    with pytest.raises(ValueError, match=message):
        metric(name, "mine", key=key)(lambda logits, labels: logits.sum())


def test_every_column_of_a_run_is_reserved():
    assert set(COLUMNS) <= RESERVED


def test_a_value_that_is_not_finite_is_recorded_as_missing(tiny_run, tmp_path):
    metric("nowhere", "undefined everywhere")(lambda logits, labels: logits.sum() * math.nan)
    result = train(tiny_run("recipe", epochs=1), tmp_path)
    assert result.values["nowhere"] is None and json.loads((tmp_path / "result.json").read_text())["nowhere"] is None
    assert result.value(TOP1) is not None


def test_records_are_read_as_they_were_written(tmp_path, make_run):
    metrics = EpochMetrics(1, 2.5, {"top1": 50.0, "own": (1.0, None)}, seconds=1.5, peak_memory_bytes=7)
    assert EpochMetrics.of_row(json.loads(json.dumps(metrics.to_row()))) == metrics
    assert metrics.numbers() == {"train_loss": 2.5, "top1": 50.0, "own": 1.0, "seconds": 1.5, "peak_memory_bytes": 7}
    result = replace(RunResult.of_epochs("abc", [metrics]), epochs=1)
    assert RunResult.of_row(json.loads(json.dumps(result.to_row()))) == result
    old = EpochMetrics.of_row({"epoch": 3, "top1": 1.0, "seconds": 2.0, "test_loss": math.nan})
    assert (old.train_loss, old.learning_rate, old.values) == (None, None, {"top1": 1.0, "test_loss": None})


def test_the_last_line_is_found_however_long_it_is(make_run, tmp_path):
    folder = begin(make_run(), tmp_path, epochs=1)
    assert last_metrics(folder).epoch == 1
    append_row(folder, epoch_row(2, per_class_accuracy=[1 / 3] * 1000))
    assert last_metrics(folder).values["per_class_accuracy"] == (1 / 3,) * 1000
    with (folder / "metrics.jsonl").open("a") as file:
        file.write('{"epoch": 3')
    assert last_metrics(folder).epoch == 2
    assert last_metrics(tmp_path) is None


@pytest.mark.parametrize(("name", "key"), [*((column, None) for column in COLUMNS), ("mine", "a b"), ("ema_q", "qq")])
def test_a_metric_that_would_replace_a_column_or_has_no_name_is_refused(name, key):
    with pytest.raises(ValueError, match="metric '"):
        metric(name, "mine", key=key)


def test_a_column_of_the_collection_is_no_metric_of_a_record():
    assert values_of({"rung": 1.0, "mine": 2.0}) == {"mine": 2.0}
