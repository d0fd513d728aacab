"""The rungs as models of timm, once this is imported: `timm.create_model("roadmap_resnet50_gelu", num_classes=10)`.

Their names are the regime's and the rung's, `roadmap_resnet200_kernel_size_7`; a regime's start is `roadmap_resnet50`.
Any other composition is `timm.create_model("roadmap_rung", regime="resnet-50", rung="gelu+layer-norm")`.
With `features_only=True` they give what their stages do, for the necks of detection and segmentation.
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
    """A network with what timm's programs ask of a model."""

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
        self.head = head  # type: ignore[assignment]  # without classes it gives features, as timm's own models do


class Maps(nn.Module):
    """What chosen stages give, in order; `feature_info` has their channels and strides."""

    def __init__(self, network: Network, out_indices: Sequence[int] | None) -> None:
        super().__init__()
        self.stem, self.stages = network.stem, network.stages
        count = len(self.stages)
        self.out_indices = tuple(range(count)) if out_indices is None else tuple(i % count for i in out_indices)
        self.feature_info = FeatureInfo(_information(network), self.out_indices)

    def forward(self, images: Tensor) -> list[Tensor]:
        x, found = self.stem(images), []
        for i, stage in enumerate(self.stages):
            x = stage(x)
            found += [x] if i in self.out_indices else []
        return found


def _information(network: Network) -> list[dict[str, Any]]:
    """Of every stage, as timm tells it."""
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
    assert isinstance(design, Design)  # as all rungs are

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
            raise ValueError(f"there are no weights to download of {rung.name}; `roadmap run` trains it")
        if unknown:
            raise TypeError(f"{rung.name} takes no {min(unknown)}")
        network = TimmNetwork(design, num_classes or 1, drop_path_rate)
        initialize(network, recipe.initialization)
        if not num_classes:  # then it gives pooled features
            network.reset_classifier(0)
        network.pretrained_cfg = _configuration(rung, recipe, dataset, num_classes)
        return Maps(network, out_indices) if features_only else network

    return create


def _configuration(rung: Rung, recipe: Recipe, dataset: Dataset, num_classes: int) -> dict[str, Any]:
    """What timm makes its evaluation's transform of."""
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
    """Any rung, variant, composition, or ConvNeXt of the study's family by its name, as `roadmap show` takes it.

    Raises ValueError with the valid names.
    """
    context = StudyContext.of(regime)
    found = (reference if is_reference(context.study, rung) else find_rung)(context, rung)
    if not isinstance(found.experiment.design, Design):
        raise ValueError(f"{rung} is a model of {found.experiment.design.library} itself: {found.experiment.design}")
    return _creator(found, context.study.dataset(context.data))(pretrained=pretrained, **others)


def register(study: Study) -> list[str]:
    """Every rung of every regime; returns their names."""
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
