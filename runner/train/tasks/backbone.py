"""A classifier's stages as the backbone of another task: the map of each stage, without the classifier."""

from __future__ import annotations

from itertools import pairwise
from typing import Any, Generic, TypeVar

from torch import Tensor, nn

from roadmap.design import Design, NamedModel
from roadmap.network.library_models import build_named
from roadmap.network.modules import Network, build
from roadmap.network.plan import plan
from roadmap.recipe import Recipe
from roadmap.record.run import Run
from roadmap.serialization.plain_data import from_data
from roadmap.tasks.heads import DetectorOptions, SegmenterOptions
from roadmap.tasks.transfer import SCRATCH, Frozen
from runner.train.freezing import keep_fixed, stem_of
from runner.train.tasks.task import Weights

MAPS = 4  # that the heads take
# Parts of a classifier behind its stages, in this project and in timm.
CLASSIFIERS = frozenset({"head", "norm", "fc", "classifier", "fc_norm", "norm_pre", "final_conv"})


class Backbone(nn.Module):
    """Images N x 3 x H x W to the maps of the stages, N x channels x height x width.

    `network` is the classifier without its classifying layers, so that every parameter receives a gradient. `channels`
    and `strides` are those of the maps.
    """

    def __init__(self, network: nn.Module, channels: tuple[int, ...], strides: tuple[int, ...]) -> None:
        super().__init__()
        self.network, self.channels, self.strides = network, channels, strides

    def forward(self, images: Tensor) -> list[Tensor]:
        if isinstance(self.network, Network):
            return list(self.network.maps(images))
        network: Any = self.network  # of timm
        maps: list[Tensor] = network.forward_intermediates(images, intermediates_only=True, output_fmt="NCHW")
        return maps[-MAPS:]

    def freeze(self, frozen: Frozen, *, fixed_statistics: bool) -> None:
        """Excludes the stem, or all of it, from training. Frozen batch norms keep their statistics and weights."""
        if frozen == "stem":
            keep_fixed(stem_of(self.network))
        elif frozen == "all":
            keep_fixed(self.network)
        if fixed_statistics:
            for module in self.network.modules():
                if isinstance(module, nn.modules.batchnorm._BatchNorm):
                    keep_fixed(module)


def build_backbone(design: Design | NamedModel, recipe: Recipe) -> Backbone:
    """The backbone with initial weights from torch's global generator.

    Raises ValueError for a network without four maps.
    """
    if isinstance(design, NamedModel):
        return _named_backbone(design, recipe)
    network = build(design, 1, drop_path=recipe.drop_path, initialization=recipe.initialization)
    layers = plan(design)
    if len(layers.stages) < MAPS:
        raise ValueError(f"detection and segmentation need {MAPS} stages (got {len(layers.stages)})")
    network.norm, network.head = nn.Identity(), nn.Identity()  # type: ignore[assignment]
    channels = tuple(stage.outputs for stage in layers.stages)
    return Backbone(network, channels, layers.strides)


def _named_backbone(named: NamedModel, recipe: Recipe) -> Backbone:
    if named.library != "timm":
        raise ValueError(f"{named} gives no maps of its stages; use a rung, or a model of timm")
    network: Any = build_named(named, 1, recipe.image_size, recipe.drop_path)
    info = getattr(network, "feature_info", [])
    if not hasattr(network, "forward_intermediates") or len(info) < MAPS:
        raise ValueError(f"{named} gives no maps of {MAPS} stages, which detection and segmentation need")
    strides = [stage["reduction"] for stage in info][-MAPS:]
    if any(second != 2 * first for first, second in pairwise(strides)):
        raise ValueError(f"{named}: its maps have strides {strides}; each must be twice the one before")
    network.prune_intermediate_layers(list(range(len(info)))[-MAPS:], prune_norm=True, prune_head=True)
    maps = list(info)[-MAPS:]
    return Backbone(network, tuple(stage["num_chs"] for stage in maps), tuple(strides))


Options = TypeVar("Options", DetectorOptions, SegmenterOptions)


class BackboneTask(Generic[Options]):
    """What the tasks with heads on a backbone share."""

    def __init__(self, run: Run, kind: type[Options]) -> None:
        assert run.transfer is not None
        self.run, self.recipe, self.transfer = run, run.experiment.recipe, run.transfer
        self.options: Options = from_data(kind, self.transfer.options, "transfer.options")

    def backbone(self) -> Backbone:
        """With initial weights. Without pre-training there are no statistics of batch norms to keep."""
        backbone = build_backbone(self.run.experiment.design, self.recipe)
        is_frozen = self.options.batch_norm == "frozen" and self.transfer.weights != SCRATCH
        backbone.freeze(self.transfer.frozen, fixed_statistics=is_frozen)
        return backbone

    def load(self, network: nn.Module, weights: Weights) -> None:
        load_backbone(network, weights, self.run.name)

    def check(self) -> None:
        """Nothing can fail later: the options are checked when the task is made."""


def load_backbone(network: nn.Module, weights: Weights, name: str) -> None:
    """Puts a classifier's weights into the backbone of a network, without those of the classifier.

    Raises ValueError, with the run's name, if they are of another network.
    """
    backbone = next(module for module in network.modules() if isinstance(module, Backbone)).network
    own = backbone.state_dict()
    surplus = {key.partition(".")[0] for key in weights.keys() - own.keys()}
    wrong = [*sorted(own.keys() - weights.keys()), *sorted(surplus - CLASSIFIERS)]
    wrong += [key for key in own if key in weights and weights[key].shape != own[key].shape]
    if wrong:
        raise ValueError(f"the weights are of another network than {name}: {wrong[0]} does not fit")
    backbone.load_state_dict({key: weights[key] for key in own})
