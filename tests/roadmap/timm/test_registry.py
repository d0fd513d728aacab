"""The rungs by timm's own factory, and trained runs as its checkpoints."""

from __future__ import annotations

import json
import subprocess
import sys

import pytest
import timm
import torch

import roadmap
from roadmap.cli import main
from roadmap.timm import NAMES, model_name
from runner.measure.trained import read_trained


def test_every_rung_of_every_regime_is_a_model_of_timm():
    assert set(NAMES) <= set(timm.list_models("roadmap_*"))
    wanted = {model_name(regime, rung.name) for regime in ("pico", "resnet-200") for rung in roadmap.ladder(regime)}
    assert wanted <= set(NAMES)
    assert {"roadmap_resnet50", "roadmap_resnet50_gelu", "roadmap_resnet200_kernel_size_7"} <= set(NAMES)


def test_it_is_the_rungs_network():
    model = timm.create_model("roadmap_resnet50_layer_norm", num_classes=10, drop_path_rate=0.1).eval()
    (rung,) = roadmap.ladder("resnet-50", "layer-norm")
    network = roadmap.build(rung.experiment.design, 10).eval()
    network.load_state_dict(model.state_dict())
    images = torch.rand(2, 3, 64, 64)
    with torch.no_grad():
        assert torch.equal(model(images), network(images))
        assert torch.equal(model.forward_head(model.forward_features(images)), network(images))
    assert model.default_cfg["input_size"] == (3, 224, 224)
    model.reset_classifier(7)
    assert model(images).shape == (2, 7)
    features = timm.create_model("roadmap_resnet50_layer_norm", num_classes=0)
    assert features(images).shape == (2, features.num_features)


@pytest.mark.parametrize("rung", ["gelu+layer-norm", "+depthwise", "kernel-size=13", "only-gelu", "convnext-s"])
def test_any_composition_gives_features(rung):
    model = timm.create_model("roadmap_rung", rung=rung, num_classes=10, features_only=True).eval()
    with torch.no_grad():
        found = model(torch.rand(1, 3, 64, 64))
    assert [64 // each.shape[-1] for each in found] == model.feature_info.reduction() == [4, 8, 16, 32]
    assert [each.shape[1] for each in found] == model.feature_info.channels()


def test_a_trained_run_is_a_checkpoint_of_timm(tmp_path):
    """Its weights by the name of the rung, and a folder with all that timm needs to know."""
    short = ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0", "--out", str(tmp_path)]
    assert main(["run", "--seeds", "1", "--steps", "gelu,gelu+layer-norm", *short]) == 0
    images = torch.rand(2, 3, 32, 32)
    for folder in tmp_path.glob("pico/gelu*"):
        trained = read_trained(folder)
        assert main(["export", str(folder), "--to", "timm", "-o", str(tmp_path / "hub")]) == 0
        loaded = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True).eval()
        with torch.no_grad():
            wanted = trained.network(images)
            assert torch.equal(loaded(images), wanted)
            features = timm.create_model(f"local-dir:{tmp_path / 'hub'}", pretrained=True, features_only=True).eval()
            assert torch.equal(features(images)[-1], loaded.forward_features(images))
            if folder.name.startswith("gelu-s0"):
                for file in (tmp_path / "hub" / "model.safetensors", folder / "checkpoint.pt"):
                    model = timm.create_model("roadmap_pico_gelu", checkpoint_path=str(file)).eval()
                    assert torch.equal(model(images), wanted)
        data, recipe = trained.run.dataset, trained.run.experiment.recipe
        prepared = timm.data.resolve_model_data_config(loaded)
        assert (tuple(prepared["mean"]), tuple(prepared["std"])) == (data.mean, data.std)
        assert prepared["interpolation"] == recipe.interpolation
        assert tuple(prepared["input_size"]) == (3, 32, 32)  # timm 1.0.26 leaves the list that JSON has
        described = json.loads((tmp_path / "hub" / "config.json").read_text())
        assert described["label_names"] == list(map(str, range(10))) and described["architecture"] == "roadmap_design"
    assert not list(tmp_path.glob("hub.new"))


def test_weights_of_other_code_are_loaded_as_pretrained_ones(tmp_path):
    """Of torchvision and timm, with another number of classes and of channels."""
    torch.manual_seed(0)
    other = timm.create_model("convnext_tiny").eval()
    torch.save(other.state_dict(), tmp_path / "weights.pth")
    file = {"file": str(tmp_path / "weights.pth")}
    name, images = "roadmap_resnet50_layer_scale", torch.rand(1, 3, 32, 32)
    model = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=file).eval()
    with torch.no_grad():
        torch.testing.assert_close(model(images), other(images))
    adapted = timm.create_model(name, pretrained=True, pretrained_cfg_overlay=file, in_chans=1, num_classes=3)
    assert adapted(images[:, :1]).shape == (1, 3)
    assert torch.equal(adapted.stages[3].blocks[0].scale, model.stages[3].blocks[0].scale)


def test_what_can_not_be_created_is_said_so():
    with pytest.raises(RuntimeError, match="No pretrained weights exist for roadmap_pico_gelu"):  # as timm's own models
        timm.create_model("roadmap_pico_gelu", pretrained=True)
    with pytest.raises(ValueError, match="unknown rung 'geelu'; did you mean 'gelu'"):
        timm.create_model("roadmap_rung", rung="geelu")
    with pytest.raises(ValueError, match="swin-t is a model of timm itself: timm/swin_tiny"):
        timm.create_model("roadmap_rung", rung="swin-t")
    with pytest.raises(ValueError, match=r"design\.width: missing"):
        timm.create_model("roadmap_design", design={"stem": 1})


def test_importing_the_package_alone_stays_light():
    code = "import roadmap, sys; assert not {'timm', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
