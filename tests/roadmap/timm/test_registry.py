"""The rungs by timm's own factory, and trained runs as its checkpoints."""

from __future__ import annotations

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


def test_a_trained_runs_weights_are_loaded_by_timm(tmp_path):
    short = ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0", "--out", str(tmp_path)]
    assert main(["run", "--steps", "gelu", *short]) == 0
    assert main(["export", "gelu-s0", "--out", str(tmp_path), "-o", str(tmp_path / "gelu.safetensors")]) == 0
    (folder,) = tmp_path.glob("pico/gelu-s0-*")
    trained = read_trained(folder).network
    loaded = timm.create_model("roadmap_pico_gelu", checkpoint_path=str(tmp_path / "gelu.safetensors")).eval()
    images = torch.rand(2, 3, 32, 32)
    with torch.no_grad():
        assert torch.equal(loaded(images), trained(images))


def test_what_can_not_be_created_is_said_so():
    with pytest.raises(RuntimeError, match="No pretrained weights exist for roadmap_pico_gelu"):  # as timm's own models
        timm.create_model("roadmap_pico_gelu", pretrained=True)
    with pytest.raises(ValueError, match="unknown rung 'geelu'; did you mean 'gelu'"):
        timm.create_model("roadmap_rung", rung="geelu")
    with pytest.raises(ValueError, match="swin-t is a model of timm itself: timm/swin_tiny"):
        timm.create_model("roadmap_rung", rung="swin-t")
    with pytest.raises(ValueError, match="design.stem"):
        timm.create_model("roadmap_design", design={"stem": 1})


def test_importing_the_package_alone_stays_light():
    code = "import roadmap, sys; assert not {'timm', 'torch'} & set(sys.modules)"
    subprocess.run([sys.executable, "-c", code], check=True)
