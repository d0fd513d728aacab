"""What a transfer can begin with and on: averaged weights, a file, a part that is frozen, another library's network."""

from __future__ import annotations

import copy
from dataclasses import replace

import pytest
import torch

from roadmap.cli import main
from roadmap.design import NamedModel
from roadmap.files import read_json
from roadmap.options import StudyOptions
from roadmap.record.folder import read_result
from roadmap.record.results import scalar
from roadmap.record.run import find_run
from roadmap.record.transfers import TransferOptions, Transfers
from runner.launch.transfer_plan import transfer_plan
from runner.train import checkpoint
from runner.train.initial_weights import initial_weights
from runner.train.tasks.backbone import build_backbone
from runner.train.tasks.registry import task_of
from tests.helpers.training import train, weights
from tests.helpers.transfers import few_scenes, source_of, transfer_of

RECIPE = source_of("pico").experiment.recipe


@pytest.fixture(autouse=True)
def few(monkeypatch):
    few_scenes(monkeypatch)


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    """A run with averaged weights."""
    folder = tmp_path_factory.mktemp("runs")
    options = ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0", "--set", "recipe.ema=0.5"]
    assert main(["run", "--steps", "layer-scale", "--seeds", "1", "--out", str(folder), *options]) == 0
    return folder


def stem(state):
    return next(value for name, value in state.items() if "stem" in name and name.endswith("weight"))


@pytest.mark.slow
def test_averaged_weights_of_a_frozen_stem_are_kept(runs):
    source = find_run("layer-scale-s0", runs)
    run = transfer_of("layer-scale", "segmentation", begin="ema", frozen="stem")
    identity = read_json(source / "manifest.json")["identity"]
    run = replace(run, transfer=replace(run.transfer, weights=f"ema-{identity}", origin=identity))
    folder = run.folder(runs)
    train(run, folder)
    saved = checkpoint.load(source, identity)
    raw, averaged = saved["model"], {key.removeprefix("module."): value for key, value in saved["ema"].items()}
    kept = stem(weights(folder))
    assert torch.equal(kept, stem(averaged)) and not torch.equal(kept, stem(raw))
    assert folder.name.startswith("layer-scale-segmentation-ema-frozen-stem-s0-")


@pytest.mark.slow
def test_several_scales_are_a_metric_of_their_own(tmp_path):
    options = {"transfer.multi_scale": True, "transfer.test_scales": (0.5, 1.0)}
    run = transfer_of("pico", "segmentation", begin="scratch", options=options)
    train(run, tmp_path)
    result = read_result(tmp_path, run)
    assert result is not None and scalar(result.values["miou"]) and scalar(result.values["miou_ms"])


def test_a_file_that_does_not_fit_is_refused_before_training(tmp_path, capsys, monkeypatch):
    from torchvision import models

    monkeypatch.chdir(tmp_path)
    torch.save(models.resnet18().state_dict(), tmp_path / "other.pth")
    begin = ["--state-dict", "other.pth", "--of", "torchvision/convnext_tiny"]
    chosen = ["transfer", "layer-scale", "--regime", "resnet-50", "--to", "detection", "--data", "scenes"]
    assert main([*chosen, *begin, "--dry-run"]) == 2
    assert "other.pth" in capsys.readouterr().err
    assert main(["transfer", "--to", "detection", *begin]) == 2
    assert "--state-dict requires the rung whose network the file is of" in capsys.readouterr().err
    assert main([*chosen, "--state-dict", "absent.pth", "--of", "torchvision/convnext_tiny"]) == 2


def test_a_file_of_torchvision_is_loaded_into_its_rung(tmp_path, capsys, monkeypatch):
    from torchvision import models

    monkeypatch.chdir(tmp_path)
    torch.manual_seed(0)
    theirs = models.convnext_tiny()
    torch.save(theirs.state_dict(), tmp_path / "tiny.pth")
    begin = ["--state-dict", "tiny.pth", "--of", "torchvision/convnext_tiny"]
    chosen = ["transfer", "layer-scale", "--regime", "resnet-50", "--to", "detection", "--data", "scenes"]
    assert main([*chosen, *begin, "--dry-run"]) == 0
    assert "layer-scale-detection-file-s0-" in capsys.readouterr().out
    options = TransferOptions("detection", state_dict=tmp_path / "tiny.pth", of="torchvision/convnext_tiny")
    transfers = Transfers.of(options, StudyOptions(regime="resnet-50", data="scenes"))
    (planned,) = transfer_plan(["layer-scale"], transfers, tmp_path).runs
    initial = initial_weights(planned.run, planned.folder, transfers.selection.execution)
    assert initial is not None and torch.equal(stem(initial.weights), theirs.features[0][0].weight)


def test_rungs_need_no_run_for_new_weights(tmp_path, capsys):
    assert main(["transfer", "gelu", "pico-s2", "--to", "segmentation", "--from", "scratch", "--dry-run"]) == 0
    printed = capsys.readouterr().out
    assert "gelu-segmentation-scratch-s0-" in printed and "pico-segmentation-scratch-s2-" in printed
    assert main(["transfer", "gelu", "--to", "segmentation", "--out", str(tmp_path)]) == 2
    assert "no run is called 'gelu'" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("name", "channels"), [("resnet18", (64, 128, 256, 512)), ("convnext_atto", (40, 80, 160, 320))]
)
def test_networks_of_timm_give_the_maps_of_their_stages(name, channels):
    backbone = build_backbone(NamedModel("timm", name), RECIPE)
    maps = backbone.eval()(torch.zeros(1, 3, 64, 64))
    assert backbone.channels == channels and backbone.strides == (4, 8, 16, 32)
    assert [tuple(own.shape[1:]) for own in maps] == [(width, 16 >> i, 16 >> i) for i, width in enumerate(channels)]


def test_networks_without_maps_are_refused():
    with pytest.raises(ValueError, match="gives no maps of"):
        build_backbone(NamedModel("torchvision", "resnet18"), RECIPE)
    with pytest.raises(ValueError, match=r"strides .16, 16, 16, 16.; each must be twice"):
        build_backbone(NamedModel("timm", "vit_tiny_patch16_224"), replace(RECIPE, image_size=224))


@pytest.mark.parametrize("rung", ["pico", "layer-scale"])
def test_a_frozen_classifier_trains_its_last_layer_alone(rung):
    network = task_of(transfer_of(rung, "classification", frozen="all")).network()
    trained = [name for name, value in network.named_parameters() if value.requires_grad]
    assert trained == ["head.weight", "head.bias"]
    before = {name: value.clone() for name, value in network.state_dict().items()}
    copied = copy.deepcopy(network).train()  # as the averaged weights are
    copied(torch.randn(4, 3, 32, 32))
    assert all(torch.equal(value, before[name]) for name, value in copied.state_dict().items())
    stem = task_of(transfer_of(rung, "classification", frozen="stem")).network()
    assert {name.split(".")[0] for name, value in stem.named_parameters() if not value.requires_grad} == {"stem"}


def test_a_frozen_stem_keeps_its_statistics():
    """Segmentation trains batch norms by default."""
    network = task_of(transfer_of("pico", "segmentation", frozen="stem")).network().train()
    backbone = network.backbone.network
    before = {name: value.clone() for name, value in backbone.stem.state_dict().items()}
    network(torch.randn(2, 3, 64, 64))
    assert all(torch.equal(value, before[name]) for name, value in backbone.stem.state_dict().items())
    assert any(module.training for module in backbone.stages.modules())
