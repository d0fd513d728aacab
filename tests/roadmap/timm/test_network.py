"""What timm, and programs built on it, require of a registered model."""

from __future__ import annotations

import copy
import functools
import os
import warnings
from dataclasses import replace

import pytest
import segmentation_models_pytorch as smp
import timm
import torch
from packaging.version import Version
from timm.models import get_pretrained_cfg_value
from timm.optim import create_optimizer_v2
from torchvision.models.feature_extraction import create_feature_extractor

import roadmap
from roadmap.serialization.plain_data import to_data
from roadmap.timm import NAMES
from runner.measure.export import ONNX_TORCH

RESNETS = ["roadmap_resnet50", *(f"roadmap_resnet50_{rung}" for rung in ("depthwise", "kernel_size_7", "layer_scale"))]
PICOS = [name for name in NAMES if name.startswith("roadmap_pico")]
# One for each kind of stem, block, norm and downsampling; the others are slow together.
FEW = ["roadmap_pico", "roadmap_pico_move_up_depthwise", "roadmap_pico_layer_scale"]
EVERY = [pytest.param(name, marks=[] if name in FEW else pytest.mark.slow) for name in [*PICOS, *RESNETS]]
IMAGES = torch.rand(2, 3, 64, 64, generator=torch.Generator().manual_seed(0))


@functools.cache
def network(name):
    torch.manual_seed(0)
    return with_statistics(timm.create_model(name, num_classes=5))


def with_statistics(model):
    """With statistics of batch norm and layer scales that are not the initial ones, which would hide errors."""
    model.train()(torch.rand(4, 3, 64, 64))
    for key, scale in model.named_parameters():
        if key.endswith("scale"):
            torch.nn.init.constant_(scale, 0.5)
    return model.eval()


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_a_model_has_timms_configuration_and_head(name):
    model, cfg = network(name), network(name).default_cfg
    assert model.default_cfg["architecture"] == name and name in timm.list_models(name, name_matches_cfg=True)
    assert get_pretrained_cfg_value(name, "input_size") == cfg["input_size"]
    assert {f"{cfg['first_conv']}.weight", f"{cfg['classifier']}.weight"} <= model.state_dict().keys()
    last = model.forward_features(torch.rand(1, *cfg["input_size"]))
    assert tuple(last.shape[2:]) == cfg["pool_size"] and last.shape[1] == model.num_features
    features = model.forward_head(last, pre_logits=True)
    assert features.shape == (1, model.head_hidden_size)
    assert torch.equal(model.get_classifier()(features), model.forward_head(last))
    headless = copy.deepcopy(model)
    headless.reset_classifier(0)
    assert torch.equal(headless.forward_head(last), features)
    headless.reset_classifier(0, "")
    assert headless.forward_head(last).shape == last.shape
    headless.reset_classifier(3, "max")
    assert headless.forward_head(last).shape == (1, 3)


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_maps_are_those_of_the_network(name):
    model, images = network(name), IMAGES
    last, maps = model.forward_intermediates(images)
    assert torch.equal(last, model.forward_features(images)) and len(maps) == 4
    assert [64 // each.shape[-1] for each in maps] == [each["reduction"] for each in model.feature_info]
    assert [each.shape[1] for each in maps] == [each["num_chs"] for each in model.feature_info]
    for kind in ("list", "dict", "getter", "hook", "fx"):
        extractor = timm.create_model(name, features_only=True, feature_cls=kind, out_indices=(1, -1)).eval()
        assert extractor.default_cfg["input_size"] == model.default_cfg["input_size"]
        # Each kind has its own names for the same weights, in the same order.
        weights = [weight for key, weight in model.state_dict().items() if key.startswith(("stem", "stages"))]
        keys = [key for key in extractor.state_dict() if "stem" in key or "stages" in key]
        extractor.load_state_dict(dict(zip(keys, weights, strict=True)), strict=False)
        found = extractor(images)
        found = list(found.values()) if isinstance(found, dict) else found
        assert all(map(torch.equal, found, (maps[1], maps[3]))), kind
        assert extractor.feature_info.channels() == [each.shape[1] for each in found]
    for index in range(4):
        pruned = copy.deepcopy(model)
        taken = pruned.prune_intermediate_layers([index])
        assert torch.equal(pruned.forward_intermediates(images, taken, intermediates_only=True)[0], maps[index])
        assert torch.equal(pruned(images), maps[index])
        (early,) = model.forward_intermediates(images, [index], stop_early=True, intermediates_only=True)
        assert torch.equal(early, maps[index])
    kept = copy.deepcopy(model)
    kept.prune_intermediate_layers(1, prune_head=False)
    assert torch.equal(kept(images), model(images))


@pytest.mark.parametrize("name", EVERY)
@pytest.mark.parametrize("output_stride", [8, 16])
@torch.no_grad()
def test_dilation_keeps_every_pixel_of_a_smaller_map(name, output_stride):
    dilated = timm.create_model(name, output_stride=output_stride, num_classes=5).eval()
    dilated.load_state_dict(network(name).state_dict())
    images = torch.rand(1, 3, 96, 64)
    for info, small, large in zip(
        dilated.feature_info,
        network(name).forward_intermediates(images)[1],
        dilated.forward_intermediates(images)[1],
        strict=True,
    ):
        assert large.shape[2:] == (96 // info["reduction"], 64 // info["reduction"])
        every = large.shape[-1] // small.shape[-1]
        torch.testing.assert_close(large[..., ::every, ::every], small, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", EVERY)
@torch.no_grad()
def test_encoders_of_segmentation_models_give_the_networks_maps(name):
    # The library asks for five maps, unless the first has a quarter of the side of the image.
    shape = (
        {} if network(name).feature_info[0]["reduction"] == 4 else {"encoder_depth": 4, "decoder_channels": (32,) * 4}
    )
    unet = smp.Unet(f"tu-{name}", encoder_weights=None, classes=4, **shape).eval()
    weights = [weight for key, weight in network(name).state_dict().items() if key.startswith(("stem", "stages"))]
    unet.encoder.model.load_state_dict(dict(zip(unet.encoder.model.state_dict(), weights, strict=True)))
    *_, first, second, third, last = unet.encoder(IMAGES)
    assert all(map(torch.equal, (first, second, third, last), network(name).forward_intermediates(IMAGES)[1]))
    assert unet(IMAGES).shape == (2, 4, 64, 64)


# The others differ from one of these in sizes alone, and compilers take seconds for each.
SIZES = ("recipe", "ratio", "width", "size_5", "size_9", "size_11")
DISTINCT = [*(name for name in PICOS if not name.endswith(SIZES)), "roadmap_resnet50_layer_scale"]
FEW_EXPORTED = ("roadmap_pico", "roadmap_pico_kernel_size_7", "roadmap_resnet50_layer_scale")
EXPORTED = DISTINCT if os.environ.get("ROADMAP_EXPORTS") == "all" else FEW_EXPORTED

TRACED_SIZES = ((1, 3, 96, 64), (3, 3, 71, 67))  # other batches and sizes than those that were traced


@pytest.mark.slow
@pytest.mark.parametrize("name", DISTINCT)
@pytest.mark.filterwarnings("ignore")  # the tracers' own: TorchScript is deprecated
def test_tracers_compilers_and_exporters_give_the_same_outputs(name, tmp_path):
    """With few blocks a stage: what compilers take time for is their number, not their kind."""
    import onnxruntime

    design = replace(network(name).design, depths=(2, 1, 1, 1))
    model = with_statistics(timm.create_model("roadmap_design", design=to_data(design), num_classes=5))
    others = [torch.rand(*size) for size in TRACED_SIZES]
    dynamic = torch.export.Dim.DYNAMIC
    with torch.no_grad():
        wanted = list(map(model, others))
        traced = torch.fx.symbolic_trace(model)
        makers = {
            "fx": traced,
            "fx, scripted": torch.jit.script(traced),
            "script": torch.jit.script(model),
            "trace": torch.jit.trace(model, IMAGES),
        }
        if name in EXPORTED:
            program = torch.export.export(model, (IMAGES,), dynamic_shapes=({0: dynamic, 2: dynamic, 3: dynamic},))
            makers["export"] = program.module()
            makers["compile"] = torch.compile(model, fullgraph=True, backend="eager", dynamic=True)
        for form, made in makers.items():
            for images, expected in zip(others, wanted, strict=True):
                torch.testing.assert_close(made(images), expected, rtol=1e-4, atol=1e-5, msg=form)
        features = create_feature_extractor(model, {"stages.1": "map", "head": "logits"})(others[0])
        assert (
            torch.equal(features["logits"], wanted[0]) and features["map"].shape[1] == model.feature_info[1]["num_chs"]
        )
    has_batch_norm = any(isinstance(module, torch.nn.BatchNorm2d) for module in model.modules())
    if name not in EXPORTED or (has_batch_norm and Version(torch.__version__) < Version(ONNX_TORCH)):
        return  # docs/versions.md: older exporters can't write batch norms
    torch.onnx.export(program, (IMAGES,), str(tmp_path / "a.onnx"), dynamo=True, optimize=False, verbose=False)
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"), providers=["CPUExecutionProvider"])
    for images, expected in zip(others, wanted, strict=True):
        (found,) = session.run(None, {session.get_inputs()[0].name: images.numpy()})
        torch.testing.assert_close(torch.from_numpy(found), expected, rtol=1e-3, atol=1e-4)


@pytest.mark.parametrize("name", FEW)
def test_a_traced_network_is_trained_as_the_network(name):
    model = copy.deepcopy(network(name)).train()
    traced = torch.fx.symbolic_trace(copy.deepcopy(model))
    for each in (model, traced):
        each(IMAGES).square().mean().backward()
    for (key, one), other in zip(model.named_parameters(), traced.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-3, atol=1e-5, msg=key)


@pytest.mark.parametrize("name", FEW)
def test_checkpointing_gives_the_same_gradients(name):
    plain, checkpointed = copy.deepcopy(network(name)), copy.deepcopy(network(name))
    checkpointed.set_grad_checkpointing()
    for each in (plain, checkpointed):
        each(IMAGES).square().mean().backward()
    for one, other in zip(plain.parameters(), checkpointed.parameters(), strict=True):
        assert torch.equal(one.grad, other.grad)


def test_models_take_what_programs_pass():
    """timm's training script and optimizers, encoders of segmentation, and models on the meta device."""
    given = {"in_chans": 1, "num_classes": 7, "drop_rate": 0.1, "drop_path_rate": 0.1, "global_pool": "avgmax"}
    model = timm.create_model("roadmap_pico_layer_scale", pretrained=False, scriptable=True, exportable=True, **given)
    assert model(torch.rand(2, 1, 32, 32)).shape == (2, 7) and model.drop.p == 0.1 and model.in_chans == 1
    optimizer = create_optimizer_v2(model, opt="adamw", lr=1.0, weight_decay=0.05, layer_decay=0.5)
    parameters = {id(weight): group for group in optimizer.param_groups for weight in group["params"]}
    scales = [parameters[id(weight)]["lr_scale"] for weight in (model.stem[0].conv.weight, model.head.weight)]
    assert scales[0] < scales[1] == 1.0 and len(parameters) == len(list(model.parameters()))
    encoder = timm.create_model(
        "roadmap_pico", in_chans=4, features_only=True, output_stride=8, pretrained=False, out_indices=(0, 1, 2, 3)
    )
    assert [each.shape[-1] for each in encoder(torch.rand(2, 4, 64, 64))] == [32, 16, 8, 8]
    ready = timm.create_model("roadmap_pico", device="meta", dtype=torch.bfloat16)
    ready.eval().reset_classifier(3, "catavgmax")
    assert {(each.device.type, each.dtype) for each in ready.parameters()} == {("meta", torch.bfloat16)}
    assert not any(module.training for module in ready.modules())
    assert ready(torch.empty(1, 3, 32, 32, device="meta", dtype=torch.bfloat16)).shape == (1, 3)


@pytest.mark.parametrize(("indices", "taken"), [(None, [0, 1, 2, 3]), (2, [2, 3]), ((1, -1), [1, 3]), ([0], [0])])
def test_indices_choose_stages_as_in_timm(indices, taken):
    model = timm.create_model("roadmap_resnet50_layer_scale", features_only=True, out_indices=indices, device="meta")
    assert [each.shape[1] for each in model(IMAGES.to("meta"))] == model.feature_info.channels()
    assert model.feature_info.channels() == [(96, 192, 384, 768)[index] for index in taken]


@pytest.mark.parametrize("indices", [(1, 2, 3, 4), (-5, 0), 0, 5, (3, 1), (1, 1), (), "01", (0.5,)])
def test_indices_of_no_stage_are_refused(indices):
    with pytest.raises(ValueError, match="out_indices must be a number from 1 to 4 of last stages, or indices in"):
        timm.create_model("roadmap_pico", features_only=True, out_indices=indices)


@pytest.mark.parametrize(
    ("arguments", "message"),
    [
        ({"img_size": 64}, "roadmap_pico_layer_scale takes no img_size: the network takes images of any size"),
        ({"norm_layer": "x"}, "takes no norm_layer: it is a part of the design"),
        ({"not_an_argument": 1}, "takes no not_an_argument: valid: num_classes, in_chans, global_pool, "),
        ({"global_pool": "mean"}, r"global_pool must be avg, max, avgmax, catavgmax or '' \(got 'mean'\)"),
        ({"global_pool": "catavgmax"}, "global_pool catavgmax requires a design without head norm"),
        ({"output_stride": 5}, r"output_stride must be one of the stages' strides, 2, 4, 8, 16 \(got 5\)"),
    ],
)
def test_arguments_that_have_no_effect_are_refused(arguments, message):
    with pytest.raises((TypeError, ValueError), match=message):
        timm.create_model("roadmap_pico_layer_scale", **arguments)


def test_a_plain_network_is_scripted_too():
    (rung,) = roadmap.ladder("pico", "layer-scale")
    model = roadmap.build(rung.experiment.design, 10).eval()
    with warnings.catch_warnings(), torch.no_grad():
        warnings.simplefilter("ignore")  # deprecated
        assert torch.equal(torch.jit.script(model)(IMAGES), model(IMAGES))
