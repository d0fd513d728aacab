"""The model of a design: a generic residual network, built from the resolved plan."""

# Without `from __future__ import annotations`: torch.fx copies the types of `forward` into its graph as they are.

from collections.abc import Callable
from contextlib import AbstractContextManager, nullcontext
from functools import partial
from typing import Any, overload

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.graph import saved_tensors_hooks
from torch.fx import Proxy
from torch.jit import is_scripting, is_tracing  # type: ignore[attr-defined]
from torch.utils.checkpoint import checkpoint

from roadmap.design import Activation, Design, NamedModel, Norm
from roadmap.network.library_models import build_named
from roadmap.network.mixers import find_mixer
from roadmap.network.plan import BlockPlan, Layer, NetworkPlan, StagePlan, plan
from roadmap.recipe import Initialization


class LayerNorm(nn.LayerNorm):
    """LN over the channels of N x C x H x W."""

    def forward(self, x: Tensor) -> Tensor:  # TorchScript knows no super()
        x = x.permute(0, 2, 3, 1)
        return F.layer_norm(x, self.normalized_shape, self.weight, self.bias, self.eps).permute(0, 3, 1, 2)


NORMS: dict[Norm, Callable[[int], nn.Module]] = {"bn": nn.BatchNorm2d, "ln": partial(LayerNorm, eps=1e-6)}
ACTIVATIONS: dict[Activation, Callable[[], nn.Module]] = {"relu": nn.ReLU, "gelu": nn.GELU}


def _is_recorded(x: Tensor) -> bool:
    """Is `x` the stand-in of a tracer or script compiler, which records operations and has neither dtype nor device?"""
    if is_scripting():
        return True
    else:  # TorchScript compiles what follows a `return`, but not this branch
        return is_tracing() or isinstance(x, Proxy)


def _activation(name: Activation | None, *, in_place: bool) -> nn.Module:
    """`in_place`: nothing else uses its input, also not for a gradient. The gradient of ReLU uses its output."""
    if name == "relu":
        return nn.ReLU(inplace=in_place)
    return ACTIVATIONS[name]() if name else nn.Identity()


MOST_PADDING = 4  # pixels; benchmarks/layers.py


class _Depthwise(torch.autograd.Function):
    """A depthwise convolution whose gradients are depthwise convolutions; its odd kernel is padded to keep the size.

    For the gradient of the weight, each channel of each image is convolved with the gradient of its output as kernel.
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
        bias_gradient = gradient.sum((0, 2, 3)) if ctx.has_bias else None
        if ctx.stride > 1:  # a stride takes every n-th pixel of the output of stride 1
            strided, gradient = gradient, torch.zeros_like(x)
            gradient[..., :: ctx.stride, :: ctx.stride] = strided
        x_gradient = F.conv2d(gradient, weight.flip(2, 3), padding=kernel // 2, groups=channels)
        images, filters = x.reshape(1, -1, height, width), gradient.reshape(-1, 1, height, width)
        # oneDNN has fast kernels for little padding, which is less than the filter: more of it is added before.
        padding = min(kernel // 2, MOST_PADDING, height - 1, width - 1)
        images = F.pad(images, (kernel // 2 - padding,) * 4) if padding < kernel // 2 else images
        weight_gradient = F.conv2d(images, filters, padding=padding, groups=len(filters))
        weight_gradient = weight_gradient.view(-1, channels, kernel, kernel).sum(0).unsqueeze(1)
        # The gradient gets the strides of the weight, because DDP warns about others.
        return x_gradient, torch.empty_like(weight).copy_(weight_gradient), bias_gradient, None


class DepthwiseConvolution(nn.Conv2d):
    """Trains faster on a CPU, where torch's weight gradient takes ten forward passes for kernels above 3."""

    def forward(self, x: Tensor) -> Tensor:
        if _is_recorded(x) or not self.has_fast_gradient(x):
            y: Tensor = self._conv_forward(x, self.weight, self.bias)
            return y
        return self.forward_with_gradient(x)

    @torch.jit.unused
    def has_fast_gradient(self, x: Tensor) -> bool:
        if torch.compiler.is_compiling():  # compilers have other kernels, and can't trace custom gradients
            return False
        if not torch.is_grad_enabled():  # no gradient to speed up
            return False
        # oneDNN has no fast kernel for images of one pixel, and torch loops over the channels of single images.
        return x.device.type == "cpu" and min(x.shape[2:]) >= 2 and torch.backends.mkldnn.is_available()

    @torch.jit.unused
    def forward_with_gradient(self, x: Tensor) -> Tensor:
        weight, bias = self.weight, self.bias
        if torch.is_autocast_enabled("cpu"):
            dtype = torch.get_autocast_dtype("cpu")
            x, weight, bias = x.to(dtype), weight.to(dtype), bias if bias is None else bias.to(dtype)
        y: Tensor = _Depthwise.apply(x, weight, bias, self.stride[0])
        return y


class StridedPointwise(nn.Conv2d):
    """A 1 x 1 convolution with a stride, as one without on every n-th pixel.

    oneDNN's gradient of the first writes past the end of its memory if the images have fewer than 8 channels, stored
    channels last (seen with torch 2.14 on a CPU with AVX2): the process crashes, or other values change.
    """

    def forward(self, x: Tensor) -> Tensor:
        step = self.stride[0]
        return F.conv2d(x[..., ::step, ::step], self.weight, self.bias, groups=self.groups)


class OverlappingPatches(nn.Conv2d):
    """A patch at each pixel, which is its first; keeps the size of the image."""

    def forward(self, x: Tensor) -> Tensor:
        beyond = self.dilation[0] * (self.kernel_size[0] - 1)
        y: Tensor = self._conv_forward(F.pad(x, (0, beyond, 0, beyond)), self.weight, self.bias)
        return y


def _convolution(layer: Layer) -> nn.Conv2d:
    is_depthwise = 1 < layer.groups == layer.inputs == layer.outputs
    # oneDNN has fast gradients for kernels of 3.
    is_large = layer.kernel > 3 and layer.kernel % 2 == 1 and layer.kernel != layer.stride and layer.dilation == 1
    # An even kernel is that of patches, which overlap if dilation replaces their stride.
    overlaps = layer.kernel % 2 == 0 and layer.stride == 1
    kind = DepthwiseConvolution if is_depthwise and is_large else OverlappingPatches if overlaps else nn.Conv2d
    if layer.kernel == 1 and layer.stride > 1 and layer.inputs < 8:
        kind = StridedPointwise
    return kind(
        layer.inputs,
        layer.outputs,
        layer.kernel,
        layer.stride,
        0 if overlaps else layer.padding * layer.dilation,
        layer.dilation,
        groups=layer.groups,
        bias=layer.bias,
    )


class ConvNormAct(nn.Module):
    """A convolution or a mixer, then the norm and the activation of its layer."""

    def __init__(self, layer: Layer) -> None:
        super().__init__()
        self.conv = find_mixer(layer.mixer).build(layer) if layer.mixer else _convolution(layer)
        self.norm = NORMS[layer.norm](layer.outputs) if layer.norm else nn.Identity()
        self.act = _activation(layer.act, in_place=layer.norm is not None)  # a norm's gradient needs only its input

    def forward(self, x: Tensor) -> Tensor:
        y: Tensor = self.act(self.norm(self.conv(x)))
        return y


def _computed_again(tensor: Tensor, compute: Callable[[], Tensor]) -> AbstractContextManager[object]:
    """Within it a convolution does not keep its input `tensor` for its gradient, which computes it again."""

    def identity(kept: Tensor) -> tuple[object, ...]:
        return kept.data_ptr(), kept.shape, kept.stride(), kept.dtype, kept._version

    same = identity(tensor)  # holds no reference to the tensor, which is alive within the context

    def pack(kept: Tensor) -> tuple[Tensor, int] | Callable[[], Tensor]:
        return compute if identity(kept) == same else (kept.detach(), kept._version)

    def unpack(packed: tuple[Tensor, int] | Callable[[], Tensor]) -> Tensor:
        if callable(packed):
            return packed()
        kept, version = packed
        if kept._version != version:  # torch checks this itself only where there are no hooks
            raise RuntimeError("a tensor that the gradient needs was modified by an inplace operation")
        return kept

    return saved_tensors_hooks(pack, unpack)


class DropPath(nn.Module):
    """Stochastic depth (Huang et al., 2016): drops the residual branch of single images."""

    def __init__(self, probability: float) -> None:
        super().__init__()
        self.probability = probability

    def forward(self, x: Tensor) -> Tensor:
        if not self.training:
            return x
        keep = 1 - self.probability
        return x * x.new_empty((x.shape[0], 1, 1, 1)).bernoulli_(keep).div_(keep)


class Residual(nn.Module):
    """A residual block: convolutions, scale per channel, drop path, and the sum with the shortcut."""

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
        self.recomputes = False  # the outputs of GELU for the gradient, which keeps only their inputs

    def forward(self, x: Tensor) -> Tensor:
        branch = self.convs(x) if _is_recorded(x) or not self.is_recomputing() else self.recomputing(x)
        if self.scale is not None:
            branch = branch * self.scale.view(-1, 1, 1)
        branch, shortcut = self.drop_path(branch), self.shortcut(x)
        # No gradient uses the output of a norm, so the sum can overwrite it.
        if self.ends_with_norm and not _is_recorded(branch) and branch.dtype == shortcut.dtype:
            branch += shortcut
        else:
            branch = shortcut + branch
        y: Tensor = self.act(branch)
        return y

    @torch.jit.unused
    def is_recomputing(self) -> bool:
        return self.recomputes and torch.is_grad_enabled() and not torch.compiler.is_compiling()

    @torch.jit.unused
    def recomputing(self, x: Tensor) -> Tensor:
        """`self.convs(x)`."""
        again: Callable[[], Tensor] | None = None
        for layer in self.convs:
            assert isinstance(layer, ConvNormAct)
            # A mixer may keep more of its input than a convolution, or change it.
            with _computed_again(x, again) if again and isinstance(layer.conv, nn.Conv2d) else nullcontext():
                x = layer.conv(x)
            x, again = layer.norm(x), None
            if isinstance(layer.act, nn.GELU):
                again = partial(F.gelu, x.detach(), approximate=layer.act.approximate)
            x = layer.act(x)
        return x


class Stage(nn.Module):
    def __init__(self, stage: StagePlan, drop_paths: list[float]) -> None:
        super().__init__()
        self.downsampling = nn.Sequential()
        if stage.downsampling:
            if stage.downsampling_norm:
                self.downsampling.add_module("norm", NORMS[stage.downsampling_norm](stage.downsampling.inputs))
            self.downsampling.add_module("conv", ConvNormAct(stage.downsampling))
        self.blocks = nn.Sequential(*map(Residual, stage.blocks, drop_paths))
        self.checkpoints = False  # keep only the input of each block for the gradient, and compute the rest again

    def forward(self, x: Tensor) -> Tensor:
        x = self.downsampling(x)
        if self.checkpoints and not is_scripting():
            for block in self.blocks:
                x = checkpoint(block, x, use_reentrant=False)
            return x
        y: Tensor = self.blocks(x)
        return y


class Network(nn.Module):
    """The network of a design: images N x 3 x H x W, normalized, to logits N x classes.

    `layers`: those of the design with other input channels or strides.
    """

    def __init__(self, design: Design, num_classes: int, drop_path: float, layers: NetworkPlan | None = None) -> None:
        super().__init__()
        self.design = design
        network = layers or plan(design)
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
        """The output of each stage, N x channels x height x width. The strides of the rungs are 4, 8, 16 and 32."""
        x, maps = self.stem(images), []
        for stage in self.stages:
            x = stage(x)
            maps.append(x)
        return tuple(maps)

    def forward(self, images: Tensor) -> Tensor:
        y: Tensor = self.head(self.norm(self.pool(self.stages(self.stem(images)))).flatten(1))
        return y


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

    `drop_path` is the rate of the last block; it grows linearly from 0 at the first. Weights are drawn from torch's
    global generator, those of a model of another library by that library. Some of these models accept only images of
    `image_size` pixels. Raises ValueError for a design without channels, or a model that can't be built.
    """
    if isinstance(design, NamedModel):
        return build_named(design, num_classes, image_size, drop_path)
    network = Network(design, num_classes, drop_path)
    initialize(network, initialization)
    return network


def recompute_activations(model: nn.Module) -> None:
    """Makes training compute the outputs of GELU again for the gradient, which needs their inputs anyway.

    A block of ConvNeXt then keeps a third less, and a step takes about as long (benchmarks/NOTEBOOK.md). Outputs and
    gradients stay the same. Hooks on `Residual.convs` and on its layers are not called, those on what is in them are.
    Not meant for networks that keep only the inputs of blocks (`Stage.checkpoints`), which would keep more.
    """
    for module in model.modules():
        if isinstance(module, Residual):
            module.recomputes = True


def initialize(model: nn.Module, scheme: Initialization) -> None:
    """Initializes the weights: as torchvision's ResNet; truncated normal of std 0.02 with biases 0 (ConvNeXt); or so
    only linear layers, while convolutions keep what PyTorch gives them (the authors' ablation code).

    Norms and layer scales keep the initial values of their layers.
    """
    for module in model.modules():
        if not isinstance(module, nn.Conv2d | nn.Linear):
            continue
        if scheme == "truncated-normal" or (scheme == "pytorch" and isinstance(module, nn.Linear)):
            nn.init.trunc_normal_(module.weight, std=0.02)
            if module.bias is not None:
                nn.init.zeros_(module.bias)
        elif scheme == "torchvision" and isinstance(module, nn.Conv2d):
            nn.init.kaiming_normal_(module.weight, mode="fan_out", nonlinearity="relu")
