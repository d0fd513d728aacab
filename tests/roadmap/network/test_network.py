"""The model of a design is the network that it claims to be, and costs what arithmetic says."""

from __future__ import annotations

import argparse
import copy
import json
import os
import re
import weakref
from collections.abc import Callable
from dataclasses import replace
from decimal import Decimal

import pytest
import timm
import torch
import torchvision
from hypothesis import example, given, settings

import roadmap
from analysis.published import published_rungs
from roadmap.network.modules import DepthwiseConvolution, Residual, StridedPointwise, recompute_activations
from roadmap.network.weights import _torchvision_convnext_name, load_renamed, peer_design, read_state_dict
from roadmap.study.convnext import convnext
from roadmap.study.load import load_study
from tests.helpers import ROOT
from tests.helpers.designs import compositions, counted_by_torch

GOLDENS = ROOT / "tests" / "goldens"


@pytest.mark.parametrize("fidelity", ["paper", "authors", "released"])
@pytest.mark.parametrize("regime", ["pico", "nano", "resnet-50", "resnet-200"])
def test_costs_are_the_golden_ones(regime, fidelity):
    golden = json.loads((GOLDENS / "costs.json").read_text())[f"{regime} {fidelity}"]
    size, classes = (32, 10) if regime in ("pico", "nano") else (224, 1000)
    found = {}
    for rung in roadmap.ladder(regime, fidelity=fidelity):
        counted = roadmap.cost(rung.experiment.design, size, classes)
        found[rung.name] = [counted.parameters, counted.macs]
    assert found == golden


def test_costs_are_those_of_the_design_table():
    """The parameters that the study's authors' networks have, and GMACs to the printed digits."""
    table = """
        resnet-50 25557032 4.09; recipe 25557032 4.09; stage-ratio 28628520 4.53; patchify-stem 28622120 4.42;
        depthwise 15722600 2.35; width 33760936 5.27; inverted-bottleneck 25851400 4.64;
        move-up-depthwise 25625416 4.07; kernel-size-7 25863496 4.15; gelu 25863496 4.15;
        fewer-activations 25863496 4.15; fewer-norms 25797256 4.15; layer-norm 25836328 4.15;
        separate-downsampling 28582504 4.46; layer-scale 28589128 4.46"""
    rungs = {rung.name: rung for rung in roadmap.ladder("resnet-50")}
    for row in table.split(";"):
        name, parameters, gmacs = row.split()
        counted = roadmap.cost(rungs[name].experiment.design)
        assert (counted.parameters, round(counted.macs / 1e9, 2)) == (int(parameters), float(gmacs)), name


@pytest.mark.parametrize("regime", ["resnet-50", "resnet-200"])
def test_macs_are_the_published_ones_but_for_two_misprints(regime):
    misprints = {("resnet-50", "layer-norm"): 4.15, ("resnet-50", "separate-downsampling"): 4.46}
    published = published_rungs(load_study().regime(regime).published)
    rungs = [rung for rung in roadmap.ladder(regime) if rung.name in published]
    assert len(rungs) == 17
    for rung in rungs:
        expected = misprints.get((regime, rung.name), published[rung.name].gmacs)
        assert roadmap.cost(rung.experiment.design).macs / 1e9 == pytest.approx(expected, abs=0.0101), rung.name


@pytest.mark.slow
@pytest.mark.parametrize(("regime", "size"), [("pico", 32), ("resnet-50", 64)])
def test_cost_is_what_torch_counts_on_every_rung(regime, size):
    rungs = [rung for fidelity in ("paper", "authors") for rung in roadmap.ladder(regime, fidelity=fidelity)]
    for design in {rung.experiment.design for rung in rungs}:
        counted = roadmap.cost(design, size, 10)
        assert (counted.parameters, counted.macs) == counted_by_torch(design, size), design


def check_composition(steps, regime):
    """Builds, counts as torch does, and gives every parameter a gradient."""
    design = roadmap.compose(regime, steps).design
    for size in (64, 75):  # patches of 8 and three halvings need 64
        assert counted_by_torch(design, size) == tuple(vars(roadmap.cost(design, size, 10)).values())
    # A dense 11x11 convolution in the hidden width of ResNet-200 has gigabytes of weights: those networks go forward
    # and backward without numbers.
    device = torch.device("cpu" if roadmap.cost(design, 64, 10).parameters < 1e8 else "meta")
    with device:
        model, images = roadmap.build(design, num_classes=10), torch.randn(2, 3, 64, 64)
    logits = model.train()(images)
    assert logits.shape == (2, 10)
    # Nothing but the draw of the weights keeps dozens of blocks without norms from growing beyond all floats.
    assert regime != "pico" or logits.is_meta or logits.isfinite().all()
    logits.sum().backward()
    assert all(parameter.grad is not None for parameter in model.parameters())


# The number of draws: ROADMAP_DRAWS=10000 for the long run.
DRAWS = int(os.environ.get("ROADMAP_DRAWS", "25"))


@pytest.mark.slow
@settings(deadline=None, max_examples=DRAWS)
@given(compositions())
@example(["inverted-bottleneck=6", "recipe", "kernel-size=11"])  # 10^8 weights in pico too
def test_any_composition_of_pico_trains_and_costs_what_torch_counts(steps):
    check_composition(steps, "pico")


@pytest.mark.slow
@settings(deadline=None, max_examples=max(2, DRAWS * 3 // 100))
@given(compositions())
@pytest.mark.parametrize("regime", ["resnet-50", "resnet-200"])
def test_any_composition_of_the_papers_regimes_does_too(regime, steps):
    check_composition(steps, regime)


# Elements, after which the weights of a large tensor come again: a sine of each would take a minute.
PERIOD = 1_000_003


def fill(model: torch.nn.Module) -> None:
    """Weights that follow from their place alone, whatever the library's random numbers."""
    for i, tensor in enumerate(model.state_dict().values()):
        if tensor.is_floating_point():
            count = tensor.numel()
            wave = torch.sin(torch.arange(min(count, PERIOD), dtype=torch.float64) * (0.7 + 0.01 * i) + i)
            wave = 0.25 * wave if tensor.ndim > 1 else 1 + 0.3 * wave
            for start in range(0, count, PERIOD):
                part = tensor.view(-1)[start : start + PERIOD]
                part.copy_(wave[: len(part)])


def empty(make: Callable[[], torch.nn.Module]) -> torch.nn.Module:
    """What is built, in double precision, without the random numbers that it would begin with."""
    with torch.device("meta"):
        model = make().double()
    return model.to_empty(device="cpu")


def test_forward_outputs_are_the_golden_ones():
    golden = json.loads((GOLDENS / "outputs.json").read_text())
    image = torch.sin(torch.arange(3 * 32 * 32, dtype=torch.float64)).view(1, 3, 32, 32)
    assert set(golden) == {rung.name for rung in roadmap.ladder("pico")}
    for rung in roadmap.ladder("pico"):
        model = roadmap.build(rung.experiment.design, 10).double().eval()
        fill(model)
        with torch.no_grad():
            output = model(image)[0]
        expected = torch.tensor(golden[rung.name], dtype=torch.float64)
        assert torch.allclose(output, expected, rtol=1e-9, atol=1e-9 * expected.abs().max().item()), rung.name


def assert_same_outputs(model, peer):
    """In double precision, largest difference at most 1e-9 of the largest output."""
    large = sum(parameter.numel() for parameter in model.parameters()) > 5e7
    size = 32 if large else 64
    image = torch.randn(1, 3, size, size, dtype=torch.float64)
    with torch.no_grad():
        ours, theirs = model.eval()(image), peer.eval()(image)
    assert theirs.abs().max() > 0
    assert ((ours - theirs).abs().max() / theirs.abs().max()).item() <= 1e-9


@pytest.mark.slow
@pytest.mark.parametrize(
    "name",
    ["resnet50", "resnet101", "resnet152", "convnext_tiny", "convnext_small", "convnext_base", "convnext_large"],
)
def test_torchvisions_weights_give_torchvisions_outputs(name):
    peer = empty(getattr(torchvision.models, name))
    fill(peer)
    model = empty(lambda: roadmap.build(peer_design(name)))
    roadmap.load_torchvision(model, name, peer.state_dict())
    assert_same_outputs(model, peer)


@pytest.mark.slow
@pytest.mark.parametrize("name", ["resnet50", "resnet200", "convnext_tiny", "convnext_xlarge"])
def test_timms_weights_give_timms_outputs(name):
    peer = empty(lambda: timm.create_model(name))
    fill(peer)
    model = empty(lambda: roadmap.build(peer_design(name)))
    roadmap.load_timm(model, name, peer.state_dict())
    assert_same_outputs(model, peer)


@pytest.mark.slow
@pytest.mark.parametrize("size", ["s", "b", "l"])
def test_isotropic_convnexts_are_torchvisions_blocks_behind_patches_of_16(size):
    design = convnext(f"convnext-iso-{size}")
    assert roadmap.cost(design).parameters / 1e6 == pytest.approx({"s": 22, "b": 87, "l": 306}[size], abs=0.5)
    assert roadmap.cost(design).macs / 1e9 == pytest.approx({"s": 4.3, "b": 16.9, "l": 59.7}[size], abs=0.051)

    def make():
        config = [torchvision.models.convnext.CNBlockConfig(design.width, None, design.depths[0])]
        peer = torchvision.models.ConvNeXt(config)
        peer.features[0] = torch.nn.Sequential(torch.nn.Conv2d(3, design.width, 16, 16))
        return peer

    peer = empty(make)
    fill(peer)
    weights = peer.state_dict()
    if design.block.layer_scale is None:
        for name, tensor in weights.items():
            if name.endswith("layer_scale"):
                tensor.fill_(1)  # in place, in the peer too
        weights = {name: tensor for name, tensor in weights.items() if not name.endswith("layer_scale")}
    model = empty(lambda: roadmap.build(design))
    # By the private names of `load_torchvision`, which knows no isotropic network: torchvision has none by name.
    load_renamed(model, design, {_torchvision_convnext_name(key): each for key, each in weights.items()}, "isotropic")
    assert_same_outputs(model, peer)


def test_the_family_has_the_published_sizes():
    published = {"convnext-t": (29, 4.5), "convnext-s": (50, 8.7), "convnext-b": (89, 15.4), "convnext-l": (198, 34.4)}
    published["convnext-xl"] = (350, 60.9)
    for name, (millions, gmacs) in published.items():
        counted = roadmap.cost(convnext(name))
        assert (round(counted.parameters / 1e6), round(counted.macs / 1e9, 1)) == (millions, gmacs), name
    with pytest.raises(ValueError, match="did you mean 'convnext-xl'"):
        convnext("convnext-xxl")


def test_the_ends_of_the_ladders_are_the_peers_designs():
    assert roadmap.ladder("resnet-50")[0].experiment.design == peer_design("resnet50")
    assert roadmap.ladder("resnet-50")[-1].experiment.design == peer_design("convnext_tiny")
    assert roadmap.ladder("resnet-200")[0].experiment.design == peer_design("resnet200")
    assert roadmap.ladder("resnet-200")[-1].experiment.design == peer_design("convnext_base")


def test_another_networks_weights_are_refused_with_the_first_difference():
    weights = torchvision.models.resnet50().state_dict()
    gelu = roadmap.build(roadmap.compose("resnet-50", ["gelu"]).design)  # the same shapes, another network
    with pytest.raises(ValueError, match=r"stem\.act: relu -> gelu"):
        roadmap.load_torchvision(gelu, "resnet50", weights)
    start = roadmap.build(roadmap.compose("resnet-50", []).design)
    with pytest.raises(ValueError, match=r"no tensor for stem\.0\.conv\.weight"):
        roadmap.load_torchvision(start, "resnet50", {})
    with pytest.raises(ValueError, match=r"head\.weight is \[1000, 2048\] here, \[10, 2048\]"):
        roadmap.load_torchvision(start, "resnet50", weights | {"fc.weight": torch.zeros(10, 2048)})
    older = {name: tensor for name, tensor in weights.items() if not name.endswith("num_batches_tracked")}
    roadmap.load_torchvision(start, "resnet50", older)
    four = replace(start.design, block=start.design.blocks, width=start.design.widths)  # the same in other words
    roadmap.load_timm(roadmap.build(four), "resnet50.a1_in1k", older)
    with pytest.raises(ValueError, match="torchvision has no model 'resnet200'"):
        roadmap.load_torchvision(start, "resnet200", weights)
    with pytest.raises(ValueError, match="has extra"):
        roadmap.load_torchvision(start, "resnet50", weights | {"extra": torch.zeros(1)})
    with pytest.raises(ValueError, match="unknown model 'resnet55'; did you mean"):
        roadmap.load_torchvision(start, "resnet55", weights)
    with pytest.raises(ValueError, match=r"by roadmap\.build"):
        roadmap.load_torchvision(torch.nn.Linear(1, 1), "resnet50", weights)
    with pytest.raises(ValueError, match="not the network of convnext_tiny: width: 96 -> 64"):
        roadmap.load_timm(start, "convnext_tiny", weights)


def test_initializations():
    design = roadmap.ladder("resnet-50", "layer-scale")[0].experiment.design
    model = roadmap.build(design, 10, initialization="truncated-normal")
    weights = torch.cat([p.flatten() for n, p in model.named_parameters() if "conv" in n and p.ndim > 1])
    assert weights.std().item() == pytest.approx(0.02, rel=0.02)
    biases = [m.bias for m in model.modules() if isinstance(m, torch.nn.Conv2d | torch.nn.Linear)]
    assert all(bias.abs().max() == 0 for bias in biases)
    scales = [p for n, p in model.named_parameters() if n.endswith("scale")]
    assert scales and all(torch.all(scale == 1e-6) for scale in scales)


def test_the_ablation_code_leaves_convolutions_as_pytorch_makes_them():
    """Standard deviations as measured on the authors' ablation code; only its classifier is truncated normal."""
    design = roadmap.ladder("resnet-50", "separate-downsampling", "authors")[0].experiment.design
    model = roadmap.build(design, 1000, initialization="pytorch")
    convolutions = [module for module in model.modules() if isinstance(module, torch.nn.Conv2d)]
    stem, depthwise = convolutions[0], next(module for module in convolutions if module.groups > 1)
    expanding = next(module for module in convolutions if module.weight.shape[:2] == (384, 96))
    measured = [module.weight.std().item() for module in (stem, depthwise, expanding)]
    assert measured == pytest.approx([0.084, 0.083, 0.059], rel=0.05)
    assert all(module.bias.abs().max() > 0 for module in convolutions if module.bias is not None)
    assert model.head.weight.std().item() == pytest.approx(0.02, rel=0.02) and model.head.bias.abs().max() == 0


def test_drop_path_grows_linearly_and_keeps_the_mean():
    from roadmap.network.modules import DropPath

    model = roadmap.build(roadmap.compose("resnet-50", []).design, 10, drop_path=0.3)
    rates = [module.probability for module in model.modules() if isinstance(module, DropPath)]
    assert len(rates) == 15 and rates == sorted(rates) and rates[-1] == pytest.approx(0.3)  # the first of 16 is 0
    dropped = DropPath(0.25).train()(torch.ones(20000, 1, 1, 1))
    assert dropped.unique().tolist() == pytest.approx([0.0, 1 / 0.75])
    assert dropped.mean().item() == pytest.approx(1, abs=0.02)
    assert torch.equal(DropPath(0.25).eval()(torch.ones(2, 1, 1, 1)), torch.ones(2, 1, 1, 1))


@pytest.mark.parametrize(
    ("change", "message"),
    [
        ({"width": 0}, r"width must be at least 1 \(got 0\)"),
        ({"depths": ()}, "depths must have at least one stage"),
    ],
)
def test_designs_that_can_not_be_are_refused(change, message):
    from dataclasses import replace

    with pytest.raises(ValueError, match=message):
        replace(roadmap.compose("pico", []).design, **change)


def test_images_that_are_too_small_are_refused():
    design = roadmap.ladder("pico", "separate-downsampling")[0].experiment.design
    with pytest.raises(ValueError, match="images of 15 pixels are too small"):
        roadmap.cost(design, input_size=15)


def test_blocks_that_can_not_be_are_refused():
    with pytest.raises(ValueError, match="odd"):
        roadmap.Conv(2, width=1.0)
    with pytest.raises(ValueError, match="depthwise"):
        roadmap.Conv(3, width=1.0, depthwise=True)
    with pytest.raises(ValueError, match="for the output of the block"):
        roadmap.Block((roadmap.Conv(3, width="same"),))


@pytest.mark.parametrize("layout", [torch.contiguous_format, torch.channels_last])
@pytest.mark.parametrize("size", [(1, 4), (2, 2), (3, 5), (4, 4), (9, 14)])
@pytest.mark.parametrize("stride", [1, 2])
@pytest.mark.parametrize("kernel", [5, 7, 11, 13])
def test_large_depthwise_kernels_have_torchs_gradients(kernel, stride, size, layout):
    torch.manual_seed(0)
    ours = DepthwiseConvolution(6, 6, kernel, stride, kernel // 2, groups=6)
    theirs = torch.nn.Conv2d(6, 6, kernel, stride, kernel // 2, groups=6)
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(2, 6, *size).to(memory_format=layout)
    found = []
    for convolution in (ours.to(memory_format=layout), theirs):
        x = images.clone().requires_grad_()
        y = convolution(x)
        (y * torch.arange(y.numel()).view_as(y).cos()).sum().backward()
        found.append([y, x.grad, convolution.weight.grad, convolution.bias.grad])
    for mine, other in zip(*found, strict=True):
        assert torch.allclose(mine, other, atol=1e-4)
    assert ours.weight.grad.stride() == ours.weight.stride()  # processes that average gradients warn where it differs


@pytest.mark.parametrize("stride", [1, 2])
def test_large_depthwise_gradients_are_those_of_small_differences(stride):
    convolution = DepthwiseConvolution(3, 3, 5, stride, 2, groups=3).double()
    images = torch.randn(2, 3, 6, 7, dtype=torch.double, requires_grad=True)
    assert torch.autograd.gradcheck(convolution, (images,))


def test_large_depthwise_kernels_in_bf16_are_as_near_as_torchs():
    """To the gradients in fp32: what autocast gives torch's own convolution."""
    torch.manual_seed(0)
    ours, theirs = (cls(32, 32, 7, padding=3, groups=32) for cls in (DepthwiseConvolution, torch.nn.Conv2d))
    theirs.load_state_dict(ours.state_dict())
    images = torch.randn(8, 32, 28, 28)

    def gradient(convolution, autocast):
        convolution.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            y = convolution(images)
        assert y.dtype == (torch.bfloat16 if autocast else torch.float32)
        y.float().square().mean().backward()
        return convolution.weight.grad

    exact = gradient(theirs, autocast=False)
    errors = [(gradient(each, autocast=True) - exact).abs().mean() for each in (ours, theirs)]
    assert errors[0] < 1.5 * errors[1]
    assert errors[0] < 0.02 * exact.abs().mean()


def test_large_depthwise_kernels_are_where_the_design_has_them():
    def kinds(rung):
        model = roadmap.build(roadmap.ladder("pico", rung)[0].experiment.design, 10)
        return {type(module) for module in model.modules() if isinstance(module, torch.nn.Conv2d) and module.groups > 1}

    assert kinds("layer-scale") == {DepthwiseConvolution}
    assert kinds("width") == {torch.nn.Conv2d}  # of kernel 3


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("rung", ["pico", "depthwise", "gelu"])
def test_what_is_done_in_place_is_what_takes_memory(rung, autocast):
    """It leaves a block's input as it was, and has the outputs, gradients and types of sums and activations apart."""
    torch.manual_seed(0)
    model = roadmap.build(roadmap.ladder("pico", rung)[0].experiment.design, 10)
    for block in model.stages[1].blocks:
        apart = copy.deepcopy(block)
        apart.ends_with_norm = False
        for module in apart.modules():
            if isinstance(module, torch.nn.ReLU):
                module.inplace = False
        assert block.ends_with_norm
        found = []
        x = torch.randn(2, block.convs[0].conv.in_channels, 8, 8)  # fp32, also where convolutions give bf16
        for each in (block, apart):
            taken = x.clone().requires_grad_()
            with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
                y = each(taken)
            y.square().mean().backward()
            assert torch.equal(taken, x)
            found.append([y, taken.grad, *(parameter.grad for parameter in each.parameters())])
        for mine, other in zip(*found, strict=True):
            assert mine.dtype == other.dtype and torch.equal(mine, other)


def test_resnets_sums_and_activations_take_no_memory_of_their_own():
    def is_in_place(rung):
        block = roadmap.build(roadmap.ladder("pico", rung)[0].experiment.design, 10).stages[0].blocks[0].train()
        held = []
        block.convs[-1].register_forward_hook(lambda module, taken, given: held.append(given))
        return block(torch.randn(2, block.convs[0].conv.in_channels, 8, 8)).data_ptr() == held[0].data_ptr()

    assert is_in_place("pico")
    assert not is_in_place("fewer-norms")  # whose last convolution's output may be a mixer's, and its own


@pytest.mark.parametrize("autocast", [False, True])
@pytest.mark.parametrize("rung", ["pico", "gelu", "layer-norm", "layer-scale"])
def test_outputs_of_gelu_that_are_computed_again_are_not_kept(rung, autocast):
    torch.manual_seed(0)
    model = roadmap.build(roadmap.ladder("pico", rung)[0].experiment.design, 10)
    again = copy.deepcopy(model)
    recompute_activations(again)
    images, found = torch.randn(2, 3, 32, 32), []
    for network in (model, again):
        given = []
        for block in (module for module in network.modules() if isinstance(module, Residual)):
            for layer in block.convs[:-1]:
                layer.act.register_forward_hook(lambda *call, given=given: given.append(weakref.ref(call[-1])))
        with torch.autocast("cpu", torch.bfloat16, enabled=autocast):
            logits = network(images)
        kept = sum(output() is not None for output in given)
        logits.square().mean().backward()
        found.append((kept, [logits, *(parameter.grad for parameter in network.parameters())]))
    (kept, tensors), (kept_again, same) = found
    assert all(torch.equal(mine, other) for mine, other in zip(tensors, same, strict=True))
    if rung == "pico":
        assert kept_again == kept > 0
    else:
        assert kept_again < kept


class Halved(torch.nn.Conv2d):
    def forward(self, x):
        return super().forward(x.mul_(0.5))


class Turned(torch.nn.Conv2d):
    def forward(self, x):
        return super().forward(x) + super().forward(x.transpose(2, 3))


@pytest.mark.parametrize("kind", [torch.nn.Conv2d, Halved, Turned])
def test_what_a_convolution_does_to_its_input_changes_no_gradient(kind):
    """The kinds change the output of GELU in place, and keep a view of it with the same size and start."""
    torch.manual_seed(0)
    model = roadmap.build(roadmap.compose("pico", ["gelu"]).design, 10)
    blocks = [module for module in model.modules() if isinstance(module, Residual)]
    spatial = [layer for block in blocks for layer in block.convs[1:] if layer.conv.kernel_size == (3, 3)]
    for layer in spatial:
        conv = layer.conv
        layer.conv = kind(conv.in_channels, conv.out_channels, 3, conv.stride, 1, bias=False)
    again = copy.deepcopy(model)
    recompute_activations(again)
    images, gradients = torch.randn(2, 3, 32, 32), []
    for network in (model, again):
        network(images).square().mean().backward()
        gradients.append([parameter.grad for parameter in network.parameters()])
    assert spatial and all(torch.equal(*pair) for pair in zip(*gradients, strict=True))


def test_a_weight_that_changed_before_its_gradient_is_noticed():
    model = roadmap.build(roadmap.ladder("pico", "layer-scale")[0].experiment.design, 10)
    recompute_activations(model)
    loss = model(torch.randn(2, 3, 32, 32)).sum()
    with torch.no_grad():
        model.stages[0].blocks[0].convs[2].conv.weight.mul_(2)
    with pytest.raises(RuntimeError, match="modified by an inplace operation"):
        loss.backward()


@pytest.mark.slow
@pytest.mark.parametrize("rung", ["pico", "layer-scale"])
def test_a_network_is_compiled_in_one_piece(rung):
    model = roadmap.build(roadmap.ladder("pico", rung)[0].experiment.design, 10)
    images = torch.randn(2, 3, 32, 32)
    recompute_activations(model)
    compiled = torch.compile(model, backend="eager", fullgraph=True)  # raises where it would have to stop
    assert torch.allclose(compiled(images), model(images), atol=1e-5)


@pytest.mark.parametrize("width", [3, 4, 5])
def test_networks_of_few_channels_train_in_channels_last(width):
    """Where torch's own strided 1 x 1 convolution damages the memory of the process."""
    design = replace(roadmap.show("gelu").experiment.design, width=width)
    for memory_format in (torch.contiguous_format, torch.channels_last):
        torch.manual_seed(0)
        network = roadmap.build(design, 10).to(memory_format=memory_format)
        for _ in range(3):
            network(torch.rand(16, 3, 32, 32).to(memory_format=memory_format)).sum().backward()
        assert any(isinstance(module, StridedPointwise) for module in network.modules())
    peer = torch.nn.Conv2d(width, 7, 1, 2, bias=False)
    ours = StridedPointwise(width, 7, 1, 2, bias=False)
    ours.load_state_dict(peer.state_dict())
    images = torch.rand(2, width, 9, 9)
    assert torch.allclose(ours(images), peer(images), atol=1e-6)


def authors_name(key):
    """The name of a tensor of timm's ConvNeXt in facebookresearch/ConvNeXt."""
    key = re.sub(r"^stem\.", "downsample_layers.0.", key)
    key = re.sub(r"^stages\.(\d)\.downsample\.", r"downsample_layers.\1.", key)
    key = re.sub(r"^stages\.(\d)\.blocks\.", r"stages.\1.", key)
    for theirs, ours in {"conv_dw": "dwconv", "mlp.fc": "pwconv", "head.norm": "norm", "head.fc": "head"}.items():
        key = key.replace(theirs, ours)
    return key


@pytest.mark.parametrize("load", [roadmap.load_timm, roadmap.load_torchvision])
def test_checkpoints_of_the_authors_and_of_timms_training_are_read(tmp_path, load):
    torch.manual_seed(0)
    peer = timm.create_model("convnext_tiny").eval()
    weights = {f"module._orig_mod.{authors_name(key)}": tensor for key, tensor in peer.state_dict().items()}
    assert "module._orig_mod.downsample_layers.1.0.weight" in weights
    torch.save({"state_dict": weights, "epoch": 3, "args": argparse.Namespace(lr=0.1)}, tmp_path / "a.pth.tar")
    (rung,) = roadmap.ladder("resnet-50", "layer-scale")
    model = roadmap.build(rung.experiment.design).eval()
    load(model, "convnext_tiny", read_state_dict(tmp_path / "a.pth.tar"))
    images = torch.rand(1, 3, 64, 64)
    with torch.no_grad():
        torch.testing.assert_close(model(images), peer(images))


@pytest.mark.parametrize(
    ("content", "message"),
    [
        (torch.nn.Linear(1, 1), "holds torch.nn.modules.linear.Linear, which can run code; save the state dict alone"),
        ({"state_dict": {}, "loss": Decimal(1)}, "holds decimal.Decimal, which can run code"),
        ({"weights": {}, "epoch": 1}, "must have a tensor for each name (got dict for 'weights')"),
        ({"model": [1]}, "'model' must be a state dict (got list)"),
        (None, "is damaged, or has another format"),
    ],
)
def test_what_keeps_a_file_from_being_read_as_weights_is_named(tmp_path, content, message):
    torch.save(content, tmp_path / "a.pth") if content else (tmp_path / "a.pth").write_bytes(b"PK\3\4")
    with pytest.raises(ValueError, match=re.escape(message)):
        read_state_dict(tmp_path / "a.pth")
