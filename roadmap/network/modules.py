"""The model of a design: one generic residual network, built from the resolved plan."""

from __future__ import annotations

from collections.abc import Callable
from functools import partial
from typing import Any, Literal, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from roadmap.design import Activation, Design, NamedModel, Norm
from roadmap.network.library_models import build_named
from roadmap.network.mixers import find_mixer
from roadmap.network.plan import BlockPlan, Layer, NetworkPlan, StagePlan, plan


class LayerNorm(nn.LayerNorm):
    """LN over the channels of N x C x H x W."""

    def forward(self, x: Tensor) -> Tensor:
        return super().forward(x.permute(0, 2, 3, 1)).permute(0, 3, 1, 2)


NORMS: dict[Norm, Callable[[int], nn.Module]] = {"bn": nn.BatchNorm2d, "ln": partial(LayerNorm, eps=1e-6)}
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def _activation(name: Activation | None, *, in_place: bool) -> nn.Module:
    """`in_place`: nothing else takes its input, nor a gradient; ReLU's own takes what comes out."""
    if name == "relu":
        return nn.ReLU(inplace=in_place)
    return ACTIVATIONS[name]() if name else nn.Identity()


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose gradients are depthwise convolutions; its odd kernel is padded to keep the size.

    The weight's: each channel of each image is a channel of its own, which its output's gradient is the kernel of.
    """

    @staticmethod
    def forward(ctx: Any, x: Tensor, weight: Tensor, bias: Tensor | None, stride: int) -> Tensor:
        ctx.save_for_backward(x, weight)
        ctx.stride, ctx.has_bias = stride, bias is not None
        return F.conv2d(x, weight, bias, stride, weight.shape[-1] // 2, groups=len(weight))

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor | None, ...]:
        (gradient,) = gradients
        x, weight = ctx.saved_tensors
        (_, channels, height, width), kernel = x.shape, weight.shape[-1]
        of_bias = gradient.sum((0, 2, 3)) if ctx.has_bias else None
        if ctx.stride > 1:  # which takes every so many pixels of what stride 1 gives
            taken, gradient = gradient, torch.zeros_like(x)
            gradient[..., :: ctx.stride, :: ctx.stride] = taken
        of_x = F.conv2d(gradient, weight.flip(2, 3), padding=kernel // 2, groups=channels)
        images, filters = x.reshape(1, -1, height, width), gradient.reshape(-1, 1, height, width)
        of_weight = F.conv2d(images, filters, padding=kernel // 2, groups=len(filters))
        of_weight = of_weight.view(-1, channels, kernel, kernel).sum(0).unsqueeze(1)
        return of_x, torch.empty_like(weight).copy_(of_weight), of_bias, None  # of its strides, which DDP warns of else


class DepthwiseConvolution(nn.Conv2d):
    """Trains faster on a CPU, where torch's gradient of the weight takes ten times a forward for kernels above 3."""

    def forward(self, x: Tensor) -> Tensor:
        if torch.compiler.is_compiling():  # a compiler has kernels of its own, and would stop at what follows
            return super().forward(x)
        if not torch.is_grad_enabled():  # no gradient to save time in, and none that a tracer would stumble over
            return super().forward(x)
        # oneDNN has no fast kernel for images of few pixels, and torch loops over the channels of single ones.
        if x.device.type != "cpu" or min(x.shape[2:]) < 4 or not torch.backends.mkldnn.is_available():
            return super().forward(x)
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), bias if bias is None else bias.to(dtype)
        y: Tensor = _Depthwise.apply(x, weight, bias, self.stride[0])
        return y


def _convolution(layer: Layer) -> nn.Conv2d:
    is_depthwise = 1 < layer.groups == layer.inputs == layer.outputs
    # Kernels of 3 have fast gradients of their own in oneDNN.
    is_large = layer.kernel > 3 and layer.kernel % 2 == 1 and layer.kernel != layer.stride
    return (DepthwiseConvolution if is_depthwise and is_large else nn.Conv2d)(
        layer.inputs,
        layer.outputs,
        layer.kernel,
        layer.stride,
        layer.padding,
        groups=layer.groups,
        bias=layer.bias,
    )


class ConvNormAct(nn.Module):
    """A convolution, or what stands in its place, then the norm and the activation of its layer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.conv = find_mixer(layer.mixer).build(layer) if layer.mixer else _convolution(layer)
        self.norm = NORMS[layer.norm](layer.outputs) if layer.norm else nn.Identity()
        self.act = _activation(layer.act, in_place=layer.norm is not None)  # the gradient of a norm takes its input

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): drops a residual branch, image by image."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = 1 - self.probability
        return x * x.new_empty(len(x), 1, 1, 1).bernoulli_(keep).div_(keep)


class Residual(nn.Module):
    """A residual block: its convolutions, the scale per channel, drop path, the sum with the shortcut."""

    def __init__(self, block: BlockPlan, drop_path: float) -> None:
        super().__init__()
        self.convs = nn.Sequential(*map(ConvNormAct, block.layers))
        self.scale = (
            nn.Parameter(torch.full((block.outputs,), block.layer_scale)) if block.layer_scale is not None else None
        )
        self.drop_path = DropPath(drop_path) if drop_path else nn.Identity()
        self.shortcut = ConvNormAct(block.shortcut) if block.shortcut else nn.Identity()
        self.act = _activation(block.act, in_place=True)
        self.ends_with_norm = block.layers[-1].norm is not None and block.layers[-1].act is None

    def forward(self, x: Tensor) -> Tensor:
        branch = self.convs(x)
        if self.scale is not None:
            branch = branch * self.scale.view(-1, 1, 1)
        branch, shortcut = self.drop_path(branch), self.shortcut(x)
        # What a norm gave no gradient takes: the sum needs no memory of its own.
        if self.ends_with_norm and branch.dtype == shortcut.dtype:
            branch += shortcut
        else:
            branch = shortcut + branch
        y: Tensor = self.act(branch)
        return y


class Stage(nn.Module):
    def __init__(self, stage: StagePlan, drop_paths: list[float]) -> None:
        super().__init__()
        self.downsampling = nn.Sequential()
        if stage.downsampling:
            if stage.downsampling_norm:
                self.downsampling.add_module("norm", NORMS[stage.downsampling_norm](stage.downsampling.inputs))
            self.downsampling.add_module("conv", ConvNormAct(stage.downsampling))
        self.blocks = nn.Sequential(*map(Residual, stage.blocks, drop_paths))

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.blocks(self.downsampling(x))
        return y


class Network(nn.Module):
    """The network of a design: images N x 3 x H x W, normalized, to logits N x classes."""

    def __init__(self, design: Design, num_classes: int, drop_path: float) -> None:
        super().__init__()
        self.design = design
        network: NetworkPlan = plan(design)
        self.stem = nn.Sequential(ConvNormAct(network.stem))
        if network.pool:
            self.stem.add_module("pool", nn.MaxPool2d(3, stride=2, padding=1))
        if network.stem_norm:
            self.stem.add_module("norm", NORMS[network.stem_norm](network.stem.outputs))
        last = max(1, sum(design.depths) - 1)
        rates = (drop_path * i / last for i in range(last + 1))
        self.stages = nn.Sequential(*(Stage(stage, [next(rates) for _ in stage.blocks]) for stage in network.stages))
        self.pool = nn.AdaptiveAvgPool2d(1)
        self.norm = NORMS[network.head_norm](network.features) if network.head_norm else nn.Identity()
        self.head = nn.Linear(network.features, num_classes)

    def maps(self, images: Tensor) -> tuple[Tensor, ...]:
        """What each stage gives, N x channels x height x width; of the rungs at strides 4, 8, 16 and 32."""
        x, found = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            found.append(x)
        return tuple(found)

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(self.pool(self.stages(self.stem(images)))).flatten(1))
        return y


Initialization = Literal["torchvision", "truncated-normal"]


@overload
def build(
    design: Design,
    num_classes: int = ...,
    *,
    drop_path: float = ...,
    initialization: Initialization = ...,
    image_size: int = ...,
) -> Network: ...
@overload
def build(
    design: Design | NamedModel,
    num_classes: int = ...,
    *,
    drop_path: float = ...,
    initialization: Initialization = ...,
    image_size: int = ...,
) -> nn.Module: ...
def build(
    design: Design | NamedModel,
    num_classes: int = 1000,
    *,
    drop_path: float = 0.0,
    initialization: Initialization = "torchvision",
    image_size: int = 224,
) -> nn.Module:
    """The model of a design; its forward takes N x 3 x H x W.

    `drop_path` is the last block's rate, growing linearly from 0 at the first. Weights are drawn from torch's
    global generator. Of another library's model its weights are as that draws them, and some are for images of
    `image_size` pixels alone. Raises ValueError for a design that leaves no channels, or a model that can't be built.
    """
    if isinstance(design, NamedModel):
        return build_named(design, num_classes, image_size, drop_path)
    network = Network(design, num_classes, drop_path)
    initialize(network, initialization)
    return network


def initialize(model: nn.Module, scheme: Initialization) -> None:
    """Draws the weights anew: as torchvision's ResNet, or truncated normal of std 0.02 with biases 0 (ConvNeXt).

    Norms and layer scales keep the start that their layers gave them.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if scheme == "truncated-normal":
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
