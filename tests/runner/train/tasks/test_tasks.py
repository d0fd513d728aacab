"""Detection and segmentation in the engine: resuming, initial weights, freezing, learning rates, images of any size."""

from __future__ import annotations

from dataclasses import replace

import numpy as np
import pytest
import torch

import roadmap
from roadmap.estimates import Speed
from roadmap.files import read_json, write_json
from roadmap.options import StudyOptions
from roadmap.record.folder import read_result
from roadmap.record.predictions import read_predictions
from roadmap.record.results import scalar
from roadmap.record.run import find_run
from roadmap.serialization.plain_data import changed
from roadmap.tasks.heads import DetectorOptions, SegmenterOptions
from runner.data.dense.objects import ObjectSplit
from runner.data.dense.samples import DenseTestBatches, scaled_size
from runner.data.dense.transforms import test_objects as held_out_objects
from runner.launch.slurm.plan import _device_hours
from runner.train.layer_decay import backbone_layers
from runner.train.optimizer import parameter_groups
from runner.train.tasks.backbone import build_backbone
from runner.train.tasks.counts import count_transfers
from runner.train.tasks.detector import Detector
from runner.train.tasks.registry import task_of
from runner.train.tasks.segmentation import Segmentation
from runner.train.training import Stopped
from tests.helpers.training import assert_same, setup_of, start, train, weights
from tests.helpers.transfers import few_scenes, source_of, transfer_of

TASKS = ("detection", "segmentation")


@pytest.fixture(autouse=True)
def few(monkeypatch):
    few_scenes(monkeypatch)


def train_source(rung, out):
    """A run whose weights are transferred: one epoch of the recipe."""
    run = source_of(rung)
    short = changed(run.experiment, {"recipe": {**vars(run.experiment.recipe), "epochs": 1, "warmup_epochs": 0}}, "")
    run = replace(run, experiment=short)
    train(run, run.folder(out))
    return run


def begun_with(source, run):
    """The transfer, of this source."""
    transfer = replace(run.transfer, weights=f"run-{source.identity}", origin=source.identity)
    return replace(run, transfer=transfer)


@pytest.mark.slow
@pytest.mark.parametrize("task", TASKS)
def test_stopping_anywhere_and_resuming_changes_nothing(task, tmp_path):
    run = transfer_of("layer-scale", task, begin="scratch", options={"recipe.drop_path": 0.2})
    train(run, tmp_path / "whole")
    for step in (1, 4, 6):  # in the first epoch, at its end, in the second
        steps = iter(range(1, 100))
        with pytest.raises(Stopped):
            train(run, tmp_path / f"{step}", should_stop=lambda s=steps, n=step: next(s) == n)
        train(run, tmp_path / f"{step}")
        assert_same(tmp_path / "whole", tmp_path / f"{step}")


@pytest.mark.slow
@pytest.mark.parametrize(("task", "metric"), [("detection", "box_ap"), ("segmentation", "miou")])
def test_a_transfer_begins_with_the_weights_of_its_run(task, metric, tmp_path):
    source = train_source("pico", tmp_path)
    run = begun_with(source, transfer_of("pico", task))
    folder = run.folder(tmp_path)
    assert (
        folder.name.startswith(f"pico-{task}-s0-") and find_run(f"pico-{task}-s0", tmp_path) if folder.exists() else 1
    )
    training = start(run, folder)
    assert training.model  # without the source's weights: `start` gives none
    train(run, folder)
    result = read_result(folder, run)
    assert result is not None and scalar(result.values[metric]) is not None and "top1" not in result.values
    assert result.parameters == task_of(run).cost().parameters and len(read_predictions(folder)) > 0
    manifest = read_json(folder / "manifest.json")
    assert len(manifest["weights"]) == 16 and manifest["weights_of"] == str(source.folder(tmp_path))


@pytest.mark.slow
def test_other_weights_than_a_run_began_with_are_refused(tmp_path):

    source = train_source("pico", tmp_path)
    run = begun_with(source, transfer_of("pico", "detection"))
    with pytest.raises(Stopped):
        train(run, run.folder(tmp_path), should_stop=lambda: True)
    path = run.folder(tmp_path) / "manifest.json"
    write_json(path, read_json(path) | {"weights": "0" * 16})
    with pytest.raises(ValueError, match=r"began with the weights 0000000000000000, but .* now has "):
        train(run, run.folder(tmp_path))


def test_a_transfer_without_its_source_says_what_is_missing(tmp_path):
    run = transfer_of("pico", "detection")
    with pytest.raises(
        ValueError, match=f"has no run {source_of('pico').identity}, whose weights are to be transferred"
    ):
        train(run, run.folder(tmp_path))


@pytest.mark.slow
def test_a_frozen_backbone_keeps_every_value(tmp_path):
    source = train_source("pico", tmp_path)
    run = begun_with(source, transfer_of("pico", "segmentation", frozen="all"))
    train(run, run.folder(tmp_path))
    before, after = weights(source.folder(tmp_path)), weights(run.folder(tmp_path))
    kept = {name: value for name, value in before.items() if not name.startswith(("head", "norm"))}
    assert kept and all(torch.equal(after[f"backbone.network.{name}"], value) for name, value in kept.items())


@pytest.mark.parametrize("frozen", ["none", "stem", "all"])
def test_frozen_parts_are_not_trained(frozen):
    run = transfer_of("layer-scale", "detection", frozen=frozen, options={"transfer.batch_norm": "trained"})
    network = task_of(run).network()
    fixed = {name for name, value in network.named_parameters() if not value.requires_grad}
    prefix = {"none": "nothing", "stem": "backbone.network.stem.", "all": "backbone.network."}[frozen]
    assert fixed == {name for name, _ in network.named_parameters() if name.startswith(prefix)}


@pytest.mark.parametrize(("begin", "trained"), [("run", False), ("scratch", True)])
def test_batch_norms_keep_the_statistics_of_pre_training_alone(begin, trained):
    network = task_of(transfer_of("pico", "detection", begin=begin)).network().train()
    norms = [module for module in network.backbone.modules() if isinstance(module, torch.nn.BatchNorm2d)]
    assert norms and all(norm.training == trained and norm.weight.requires_grad == trained for norm in norms)


def test_every_parameter_gets_a_gradient():
    """So that processes that share a run's gradients wait for none that never comes."""
    cases = [(task, {}) for task in TASKS] + [("detection", {"transfer.cascade": True})]
    for rung in ("pico", "depthwise", "separate-downsampling", "layer-scale"):
        for task, options in cases:
            run = transfer_of(rung, task, begin="scratch", options=options | {"transfer.batch_norm": "trained"})
            training = start(run, None)
            images, targets = next(training.batches.stream(0, 0))
            training.train_state.backward(images, targets)
            without = [name for name, value in training.model.named_parameters() if value.grad is None]
            assert without == [], (rung, task)


def test_layers_follow_from_the_design():
    """ConvNeXt-T by the rule of the authors' code: the stem 0, stages 1 and 2, blocks by threes, then 6; the head 7."""
    design = roadmap.ladder("resnet-50", "layer-scale")[0].experiment.design
    network = roadmap.build(design, 10)
    layers, last = backbone_layers(network, by_stage=False)
    numbers = {id(module): layer for module, layer in layers}
    assert last == 6 and numbers[id(network.stem)] == 0
    found = [[numbers[id(block)] for block in stage.blocks] for stage in network.stages]
    assert found == [[1] * 3, [2] * 3, [3, 3, 3, 4, 4, 4, 5, 5, 5], [6] * 3]
    assert [numbers[id(stage.downsampling)] for stage in network.stages] == [1, 2, 3, 6]
    by_stage = {id(module): layer for module, layer in backbone_layers(network, by_stage=True)[0]}
    assert [by_stage[id(stage.downsampling)] for stage in network.stages] == [0] * 4
    assert [by_stage[id(stage.blocks)] for stage in network.stages] == [1, 2, 3, 4]


@pytest.mark.parametrize("rung", ["pico", "stage-ratio", "depthwise", "layer-scale", "kernel-size-11"])
@pytest.mark.parametrize("by", ["layer", "stage"])
def test_layer_decay_reaches_every_parameter_of_every_rung_once(rung, by):
    settings = {"recipe.layer_decay": 0.5, "recipe.layer_decay_by": by}
    run = transfer_of(rung, "detection", begin="scratch", options=settings | {"transfer.batch_norm": "trained"})
    network = task_of(run).network()
    groups = parameter_groups(network, run.experiment.recipe)
    listed = [id(parameter) for group in groups for parameter in group["params"]]
    assert sorted(listed) == sorted(map(id, network.parameters()))
    scales = {id(p): group.get("scale", 1.0) for group in groups for p in group["params"]}
    heads = [p for name, p in network.named_parameters() if not name.startswith("backbone.")]
    assert {scales[id(p)] for p in heads} == {1.0}
    lowest = {scales[id(p)] for p in network.backbone.network.stem.parameters()}
    assert lowest == {min(scales.values())} and min(scales.values()) < 0.1


def test_what_is_found_does_not_depend_on_the_other_images():
    """Two images of other sizes, alone and with others of their padded size."""
    draw = np.random.default_rng(0)
    pixels = [
        draw.integers(0, 255, (*size, 3), np.uint8) for size in [(64, 64), (50, 64), (64, 40), (33, 33), (90, 64)]
    ]
    sizes = [(image.shape[0], image.shape[1]) for image in pixels]
    split = ObjectSplit.of(pixels.__getitem__, sizes, range(len(pixels)), [[] for _ in pixels])
    run = transfer_of("layer-scale", "detection", begin="scratch", options={"transfer.score_threshold": 0.0})
    task, setup = task_of(run), setup_of(run)
    torch.manual_seed(0)
    network = task.network().eval()

    def detections(images):
        own = ObjectSplit.of(
            lambda i: pixels[images[i]], [sizes[i] for i in images], range(len(images)), [[] for _ in images]
        )
        found = {}
        with torch.no_grad():
            for batch, targets, indices in task.test_batches(own, setup, 0, False, lambda seconds: None):
                for index, one in zip(indices, network(batch, [t["size"] for t in targets]), strict=True):
                    found[images[index]] = one["boxes"]
        return found

    together = detections(range(len(split)))
    for index in range(len(split)):
        alone = detections([index])[index]
        assert len(alone) and torch.allclose(alone, together[index], atol=1e-3)


def test_each_image_is_evaluated_once_by_all_processes():
    run = transfer_of("pico", "detection", begin="scratch")
    sizes = np.array([(64, 64)] * 21 + [(32, 64)] * 5 + [(96, 64)] * 2, np.int32)
    make = held_out_objects(
        ObjectSplit.of(lambda i: np.zeros((*sizes[i], 3), np.uint8), [tuple(s) for s in sizes], range(28), [[]] * 28),
        replace(DetectorOptions(), test_short_side=10_000, longest_side=10_000),
    )
    setup = replace(setup_of(run), processes=3)
    shares = [DenseTestBatches(run, make, sizes, setup, rank, False, lambda s: None) for rank in range(3)]
    assert len({share.rounds for share in shares}) == 1
    seen = [index for share in shares for indices in share.own for index in indices]
    assert sorted(seen) == list(range(28))


def test_sliding_windows_cover_the_image_and_average():
    run = transfer_of("pico", "segmentation", begin="scratch", options={"transfer.stride": 40})

    class Columns(torch.nn.Module):
        def forward(self, images):
            logits = torch.zeros(len(images), 11, *images.shape[2:])
            logits[:, 0] = images[:, 0]
            return (logits,)

    task = task_of(run)
    assert isinstance(task, Segmentation)
    image = torch.arange(150.0).expand(1, 3, 70, 150)
    assert torch.equal(task.logits(Columns(), image, setup_of(run))[0, 0], image[0, 0])


def test_an_image_is_scaled_by_its_shorter_side_unless_the_other_is_too_long():
    assert scaled_size((480, 640), 800, 1333) == (800, 1067)
    assert scaled_size((400, 1000), 800, 1333) == (533, 1333)


def test_half_precision_gives_finite_losses_and_boxes_in_full_precision():
    run = transfer_of("layer-scale", "detection", begin="scratch")
    training = start(run, None)
    images, targets = next(training.batches.stream(0, 0))
    with torch.autocast("cpu", torch.bfloat16):
        output = training.task.forward(training.model, images * 50, targets)
    assert all(torch.isfinite(loss) and loss.dtype == torch.float32 for loss in output.values())
    training.model.eval()
    with torch.no_grad(), torch.autocast("cpu", torch.bfloat16):
        found = training.model(images * 50, [target["size"] for target in targets])
    assert all(one["boxes"].dtype == torch.float32 and torch.isfinite(one["boxes"]).all() for one in found)


@pytest.mark.parametrize("regime, parameters, gmacs", [("resnet-50", 85.9, 740.2), ("resnet-200", 145.8, 963.6)])
def test_the_counts_of_cascades_are_the_published_ones(regime, parameters, gmacs):
    """Table 3: 86 M and 741 GMACs for ConvNeXt-T, 146 M and 964 for ConvNeXt-B."""
    options = StudyOptions(regime=regime, steps="layer-scale")
    ((_, cost),) = count_transfers(options, "detection", "cascade-mask-rcnn-3x").costs
    assert (round(cost.parameters / 1e6, 1), round(cost.macs / 1e9, 1)) == (parameters, gmacs)


def test_the_counts_are_the_published_ones():
    """Table 3: 48 M parameters (of the released code's table) and 262 GMACs at 1280 x 800. Table 4: 60 M and 939."""
    rung = roadmap.ladder("resnet-50", "layer-scale")[0]
    backbone = build_backbone(rung.experiment.design, rung.experiment.recipe)
    parameters = sum(value.numel() for value in Detector(backbone, 80, DetectorOptions()).parameters())
    assert round(parameters / 1e6, 2) == 48.10
    options = StudyOptions(regime="resnet-50", steps="layer-scale")
    ((_, detector),) = count_transfers(options, "detection").costs
    assert (round(detector.parameters / 1e6, 2), round(detector.macs / 1e9, 1)) == (48.10, 261.9)
    ((_, segmenter),) = count_transfers(options, "segmentation").costs
    assert (round(segmenter.parameters / 1e6), round(segmenter.macs / 1e9, 1)) == (60, 938.5)
    assert SegmenterOptions().channels == 512


def test_device_hours_count_the_heads():
    """Three passes over the training images and one over the others, in each of two epochs."""
    run, speed = transfer_of("pico", "detection", begin="scratch"), Speed(1e9, "given")
    macs = task_of(run).cost().macs
    assert _device_hours(run, speed) == pytest.approx(2 * macs * (3 * 16 + 6) / 1e9 / 3600)
    source = source_of("pico")
    assert _device_hours(source, speed) == speed.device_hours(source.experiment, source.dataset)
