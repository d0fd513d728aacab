"""The network of a design with the interface of timm's models."""

# Without `from __future__ import annotations`: torch.fx copies the types of `forward` into its graph as they are.

import functools
from contextlib import nullcontext
from dataclasses import replace
from typing import Any

import torch
from timm.layers.adaptive_avgmax_pool import SelectAdaptivePool2d
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from roadmap.design import Design
from roadmap.network.modules import Network, initialize
from roadmap.network.plan import NetworkPlan, dilated, plan
from roadmap.recipe import Initialization

FIRST_CONVOLUTION, CLASSIFIER = "stem.0.conv", "head"  # names of the modules
POOLS = ("avg", "max", "avgmax", "catavgmax", "")  # of timm; the last returns maps


class TimmNetwork(Network):
    """A network with the interface of timm's models, and their arguments.

    `num_classes` 0 returns pooled features. `global_pool` "" returns a map, of features or of logits. `drop_rate` is
    the dropout before the classifier, `drop_path_rate` that of the last block. An `output_stride` below that of the
    design dilates its last stages. Raises ValueError for values that the design can't have.
    """

    def __init__(
        self,
        design: Design,
        initialization: Initialization = "torchvision",
        num_classes: int = 1000,
        in_chans: int = 3,
        global_pool: str = "avg",
        output_stride: int | None = None,
        drop_rate: float = 0.0,
        drop_path_rate: float = 0.0,
        device: torch.device | str | None = None,
        dtype: torch.dtype | None = None,
    ) -> None:
        layers = plan(design)
        layers = replace(layers, stem=replace(layers.stem, inputs=in_chans))
        if output_stride is not None:
            layers = dilated(layers, output_stride)
        with nullcontext() if device is None else torch.device(device):
            super().__init__(design, num_classes or 1, drop_path_rate, layers)
            self.num_classes, self.in_chans = num_classes, in_chans
            self.num_features = self.head_hidden_size = layers.features
            self.feature_info = feature_info(layers)
            self.flatten, self.drop = nn.Flatten(1), nn.Dropout(drop_rate)
            self.pool = SelectAdaptivePool2d(pool_type="avg")  # type: ignore[assignment]
            self.global_pool = "avg"
            if (num_classes, global_pool) != (self.head.out_features, "avg"):
                self.reset_classifier(num_classes, global_pool)
            initialize(self, initialization)
        self.to(dtype=dtype)

    def forward_features(self, images: Tensor) -> Tensor:
        """The output of the last stage, N x channels x height x width."""
        maps: Tensor = self.stages(self.stem(images))
        return maps

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        """Logits; with `pre_logits` the classifier's input."""
        features: Tensor = self.drop(self.flatten(self.norm(self.pool(maps))))
        return features if pre_logits else self.head(features)

    def forward(self, images: Tensor) -> Tensor:
        return self.forward_head(self.forward_features(images))

    def forward_intermediates(
        self,
        x: Tensor,
        indices: int | list[int] | None = None,
        norm: bool = False,
        stop_early: bool = False,
        output_fmt: str = "NCHW",
        intermediates_only: bool = False,
    ) -> Any:
        """The outputs of the chosen stages: all, the last `indices`, or those of a list; and that of the last stage.

        `norm` is unused: the last norm follows the pooling. `stop_early` leaves out the stages after the chosen ones,
        `intermediates_only` the last output. `output_fmt` must be NCHW.
        """
        assert output_fmt == "NCHW", "output_fmt must be NCHW"  # an assertion, as in timm: TorchScript compiles it
        taken, last = feature_take_indices(len(self.stages), indices)
        maps = []
        x = self.stem(x)
        for i, stage in enumerate(self.stages):
            if i <= last or not stop_early:
                x = stage(x)
                if i in taken:
                    maps.append(x)
        if intermediates_only:
            return maps
        return x, maps

    def prune_intermediate_layers(
        self, indices: int | list[int] = 1, prune_norm: bool = False, prune_head: bool = True
    ) -> list[int]:
        """Removes what follows the chosen stages, and the head; returns the indices of the stages.

        `prune_norm` is unused: the last norm belongs to the head.
        """
        taken, last = feature_take_indices(len(self.stages), indices)
        is_cut = last < len(self.stages) - 1
        self.stages = self.stages[: last + 1]
        if is_cut:
            self.num_features = self.feature_info[last]["num_chs"]
        if is_cut or prune_head:
            self.reset_classifier(0, "", reset_other=True)
        return list(taken)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int, global_pool: str | None = None, reset_other: bool = False) -> None:
        """A new classifier, and another pooling if named; `reset_other` removes the head's norm."""
        if reset_other:
            self.norm = nn.Identity()
        pool = self.global_pool if global_pool is None else global_pool
        if pool not in POOLS:
            raise ValueError(f"global_pool must be {', '.join(POOLS[:-1])} or '' (got {pool!r})")
        pooling = SelectAdaptivePool2d(pool_type=pool)
        self.head_hidden_size = self.num_features * pooling.feat_mult()
        if self.head_hidden_size != self.num_features and not isinstance(self.norm, nn.Identity):
            raise ValueError(f"global_pool {pool} requires a design without head norm, which has a weight per channel")
        weight, self.num_classes, self.global_pool = next(self.parameters()), num_classes, pool
        classifier: Any = nn.Linear if pool else functools.partial(nn.Conv2d, kernel_size=1)  # of pixels
        self.pool = pooling  # type: ignore[assignment]
        self.flatten = nn.Flatten(1) if pool else nn.Identity()  # type: ignore[assignment]
        placed = {"device": weight.device, "dtype": weight.dtype}
        head = classifier(self.head_hidden_size, num_classes, **placed) if num_classes else nn.Identity()
        self.head = head  # type: ignore[assignment]
        self.train(self.training)  # new modules too

    def set_grad_checkpointing(self, enable: bool = True) -> None:
        """Computes the activations of each block again for the gradient, which saves memory."""
        for stage in self.stages:
            stage.checkpoints = enable  # type: ignore[assignment]

    def group_matcher(self, coarse: bool = False) -> dict[str, Any]:
        """The groups of parameters, from the stem to the head, for learning rates that decay by layers."""
        blocks = [(r"^stages\.(\d+)\.downsampling", (0,)), (r"^stages\.(\d+)\.blocks\.(\d+)", None)]
        return {"stem": r"^stem", "blocks": r"^stages\.(\d+)" if coarse else blocks}


def feature_info(layers: NetworkPlan) -> list[dict[str, Any]]:
    """The channels, stride and module of every stage, in the format of timm."""
    return [
        {"num_chs": stage.outputs, "reduction": stride, "module": f"stages.{i}"}
        for i, (stage, stride) in enumerate(zip(layers.stages, layers.strides, strict=True))
    ]
