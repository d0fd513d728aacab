"""Registers the rungs as models of timm: `timm.create_model("roadmap_resnet50_gelu", num_classes=10)`.

Names are those of regime and rung, `roadmap_resnet200_kernel_size_7`; the start of a regime is `roadmap_resnet50`.
Other rungs are made by `timm.create_model("roadmap_rung", regime="resnet-50", rung="gelu+layer-norm")`. With
`features_only=True` the models return the outputs of their stages, for detection and segmentation.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

from timm.models import FeatureInfo, register_model
from torch import Tensor, nn

from roadmap.data.dataset import Dataset
from roadmap.design import Design
from roadmap.network.modules import Network, initialize
from roadmap.network.plan import plan
from roadmap.recipe import Recipe
from roadmap.study.load import load_study
from roadmap.study.references import is_reference, reference
from roadmap.study.rungs import Rung, StudyContext
from roadmap.study.schema import Study
from roadmap.study.selection import find_rung, ladder


class TimmNetwork(Network):
    """A network with the interface of timm's models."""

    def __init__(self, design: Design, num_classes: int, drop_path: float) -> None:
        super().__init__(design, num_classes, drop_path)
        self.num_classes, self.num_features = num_classes, self.head.in_features
        self.pretrained_cfg: dict[str, Any] = {}

    @property
    def default_cfg(self) -> dict[str, Any]:
        return self.pretrained_cfg

    def forward_features(self, images: Tensor) -> Tensor:
        return self.maps(images)[-1]

    def forward_head(self, maps: Tensor, pre_logits: bool = False) -> Tensor:
        pooled: Tensor = self.norm(self.pool(maps)).flatten(1)
        return pooled if pre_logits else self.head(pooled)

    def get_classifier(self) -> nn.Module:
        return self.head

    def reset_classifier(self, num_classes: int) -> None:
        self.num_classes = num_classes
        head = nn.Linear(self.num_features, num_classes) if num_classes else nn.Identity()
        self.head = head  # type: ignore[assignment]  # without classes it returns features, as timm's models do


class Maps(nn.Module):
    """The outputs of chosen stages, in order. `feature_info` has their channels and strides."""

    def __init__(self, network: Network, out_indices: Sequence[int] | None) -> None:
        super().__init__()
        self.stem, self.stages = network.stem, network.stages
        count = len(self.stages)
        self.out_indices = tuple(range(count)) if out_indices is None else tuple(i % count for i in out_indices)
        self.feature_info = FeatureInfo(_information(network), self.out_indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, maps = self.stem(images), []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            maps += [x] if i in self.out_indices else []
        return maps


def _information(network: Network) -> list[dict[str, Any]]:
    """The channels, stride and module of every stage, in the format of timm."""
    stem, stages = network.design.stem, plan(network.design).stages
    stride = stem.stride * (2 if stem.pool else 1)
    return [
        {"num_chs": stage.blocks[-1].outputs, "reduction": stride * 2**i, "module": f"stages.{i}"}
        for i, stage in enumerate(stages)
    ]


def model_name(regime: str, rung: str) -> str:
    names = [regime.replace("-", "")] + ([rung.replace("-", "_")] if rung != regime else [])
    return "_".join(["roadmap", *names])


def _creator(rung: Rung, dataset: Dataset) -> Callable[..., nn.Module]:
    design, recipe = rung.experiment.design, rung.experiment.recipe
    assert isinstance(design, Design)  # true for all rungs

    def create(
        pretrained: bool = False,
        num_classes: int = dataset.classes,
        drop_path_rate: float = 0.0,
        features_only: bool = False,
        out_indices: Sequence[int] | None = None,
        **others: Any,
    ) -> nn.Module:
        unknown = others.keys() - {"pretrained_cfg", "pretrained_cfg_overlay", "cache_dir"}
        if pretrained:
            raise ValueError(f"pretrained must be false: there are no weights of {rung.name}; `roadmap run` trains it")
        if unknown:
            raise TypeError(f"{rung.name} takes no {min(unknown)}")
        network = TimmNetwork(design, num_classes or 1, drop_path_rate)
        initialize(network, recipe.initialization)
        if not num_classes:  # the model returns pooled features
            network.reset_classifier(0)
        network.pretrained_cfg = _configuration(rung, recipe, dataset, num_classes)
        return Maps(network, out_indices) if features_only else network

    return create


def _configuration(rung: Rung, recipe: Recipe, dataset: Dataset, num_classes: int) -> dict[str, Any]:
    """The settings that timm derives its transform for evaluation from."""
    return {
        "architecture": rung.name,
        "num_classes": num_classes,
        "input_size": (3, recipe.image_size, recipe.image_size),
        "interpolation": recipe.interpolation,
        "crop_pct": recipe.evaluation_crop,
        "mean": dataset.mean,
        "std": dataset.std,
        "first_conv": "stem.0.conv",
        "classifier": "head",
    }


def roadmap_rung(pretrained: bool = False, *, rung: str, regime: str = "resnet-50", **others: Any) -> nn.Module:
    """Any rung, variant, composition, or ConvNeXt of the study, by its name for `roadmap show`.

    Raises ValueError with the valid names.
    """
    context = StudyContext.of(regime)
    selected = (reference if is_reference(context.study, rung) else find_rung)(context, rung)
    design = selected.experiment.design
    if not isinstance(design, Design):
        raise ValueError(f"{rung} is a model of {design.library} itself: {design}")
    return _creator(selected, context.study.dataset(context.data))(pretrained=pretrained, **others)


def register(study: Study) -> list[str]:
    """Registers every rung of every regime and returns the names of the models."""
    names = []
    for regime in study.regimes:
        dataset = study.dataset(study.regime(regime).data)
        for rung in ladder(regime, study=study):
            create = _creator(rung, dataset)
            create.__name__, create.__module__ = model_name(regime, rung.name), __name__
            register_model(create)
            names.append(create.__name__)
    return names


register_model(roadmap_rung)
NAMES = register(load_study())
