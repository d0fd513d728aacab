"""The functions that timm's factory calls, by the names of the models, and the models' default configurations."""

from __future__ import annotations

import inspect
import itertools
import operator
from collections.abc import Callable, Mapping
from typing import Any

from timm.models import build_model_with_cfg, generate_default_cfgs, register_model
from timm.models._features import feature_take_indices
from torch import Tensor, nn

from roadmap.data.dataset import Dataset
from roadmap.design import Design
from roadmap.network.cost import map_size
from roadmap.network.weights import own_names
from roadmap.recipe import Initialization, Recipe
from roadmap.serialization.plain_data import from_data
from roadmap.study.load import load_study
from roadmap.study.references import is_reference, reference
from roadmap.study.rungs import StudyContext
from roadmap.study.schema import Study
from roadmap.study.selection import find_rung, ladder
from roadmap.timm.network import CLASSIFIER, FIRST_CONVOLUTION, TimmNetwork

NETWORK_ARGUMENTS = tuple(inspect.signature(TimmNetwork).parameters)[2:]
BUILD_ARGUMENTS = (
    "features_only",
    "out_indices",
    "feature_cls",
    "feature_cfg",
    "pretrained_cfg",
    "pretrained_cfg_overlay",
    "pretrained_strict",
    "pretrained_model_args",
    "cache_dir",
)
# What programs pass to other models, and why these have no use for it.
REASONS = dict.fromkeys(("img_size", "dynamic_img_size", "strict_img_size"), "the network takes images of any size")
REASONS |= dict.fromkeys(("act_layer", "norm_layer", "depths", "dims", "kernel_sizes"), "it is a part of the design")


def model_name(regime: str, rung: str) -> str:
    names = [regime.replace("-", "")] + ([rung.replace("-", "_")] if rung != regime else [])
    return "_".join(["roadmap", *names])


def build_model(
    name: str, design: Design, initialization: Initialization, pretrained: bool, arguments: dict[str, Any]
) -> nn.Module:
    """A model by timm's own builder. Raises TypeError for an argument that the network does not have."""
    _check_arguments(name, arguments)
    if arguments.get("features_only"):
        feature_cfg = {**(arguments.pop("feature_cfg", None) or {})}
        for key in {"feature_cls", "out_indices"} & arguments.keys():
            feature_cfg[key] = arguments.pop(key)
        feature_cfg["out_indices"] = _stage_indices(len(design.depths), feature_cfg.get("out_indices"))
        if feature_cfg.get("feature_cls", "list") in ("list", "dict"):
            feature_cfg["flatten_sequential"] = True  # the stages are inside a Sequential
        arguments |= {"feature_cfg": feature_cfg, "num_classes": 0}
    model: nn.Module = build_model_with_cfg(
        TimmNetwork,
        name,
        pretrained,
        pretrained_filter_fn=checkpoint_filter_fn,
        design=design,
        initialization=initialization,
        **arguments,
    )
    return model


def _check_arguments(name: str, arguments: Mapping[str, Any]) -> None:
    unknown = sorted(arguments.keys() - {*NETWORK_ARGUMENTS, *BUILD_ARGUMENTS})
    if unknown:
        why = REASONS.get(unknown[0], f"valid: {', '.join(NETWORK_ARGUMENTS + BUILD_ARGUMENTS)}")
        raise TypeError(f"{name} takes no {unknown[0]}: {why}")


def _stage_indices(stages: int, indices: Any) -> tuple[int, ...]:
    """The chosen stages, counted from the first; all for None. Raises ValueError for others than there are.

    timm's classes return maps in the order of the stages, whatever the order of the indices.
    """
    try:
        taken = tuple(map(operator.index, feature_take_indices(stages, indices)[0]))
    except (AssertionError, TypeError, ValueError):
        taken = ()
    if not taken or any(late <= early for early, late in itertools.pairwise(taken)):
        valid = f"a number from 1 to {stages} of last stages, or indices in ascending order from 0 to {stages - 1}"
        raise ValueError(f"out_indices must be {valid} (got {indices})")
    return taken


def checkpoint_filter_fn(state_dict: Mapping[str, Any], model: nn.Module) -> dict[str, Tensor]:
    """Weights of torchvision, timm or ConvNeXt's authors with the names and shapes of `model`."""
    tensors = own_names(state_dict.get("model", state_dict))
    shapes = {key: tensor.shape for key, tensor in model.state_dict().items()}
    return {
        key: tensor.view(shapes[key]) if key in shapes and tensor.numel() == shapes[key].numel() else tensor
        for key, tensor in tensors.items()
    }


def configuration(design: Design, recipe: Recipe, dataset: Dataset) -> dict[str, Any]:
    """A model's default configuration: what it takes, and how timm's transforms prepare images for evaluation."""
    return {
        "num_classes": dataset.classes,
        "input_size": (3, recipe.image_size, recipe.image_size),
        "pool_size": (map_size(design, recipe.image_size),) * 2,
        "interpolation": recipe.interpolation,
        "crop_pct": recipe.evaluation_crop,
        "mean": dataset.mean,
        "std": dataset.std,
        "first_conv": FIRST_CONVOLUTION,
        "classifier": CLASSIFIER,
    }


def _creator(name: str, design: Design, initialization: Initialization) -> Callable[..., nn.Module]:
    def create(pretrained: bool = False, **arguments: Any) -> nn.Module:
        return build_model(name, design, initialization, pretrained, arguments)

    create.__name__, create.__module__ = name, __name__
    return create


def roadmap_rung(pretrained: bool = False, *, rung: str, regime: str = "resnet-50", **arguments: Any) -> nn.Module:
    """Any rung, variant, composition, or ConvNeXt of the study, by its name for `roadmap show`.

    Raises ValueError with the valid names.
    """
    context = StudyContext.of(regime)
    selected = (reference if is_reference(context.study, rung) else find_rung)(context, rung)
    design, recipe = selected.experiment.design, selected.experiment.recipe
    if not isinstance(design, Design):
        raise ValueError(f"{rung} is a model of {design.library} itself: {design}")
    if not arguments.get("pretrained_cfg"):
        arguments["pretrained_cfg"] = configuration(design, recipe, context.study.dataset(context.data))
    return build_model("roadmap_rung", design, recipe.initialization, pretrained, arguments)


def roadmap_design(pretrained: bool = False, *, design: Mapping[str, Any], **arguments: Any) -> nn.Module:
    """A design as plain data, as the manifest of a run has it. Raises ValueError for data that are no design."""
    return build_model("roadmap_design", from_data(Design, design, "design"), "torchvision", pretrained, arguments)


default_cfgs: dict[str, Any] = {}  # timm looks for it in the module of a function that it registers


def register(study: Study) -> list[str]:
    """Registers every rung of every regime and returns the names of the models."""
    names = []
    for regime in study.regimes:
        dataset = study.dataset(study.regime(regime).data)
        for rung in ladder(regime, study=study):
            name, design, recipe = model_name(regime, rung.name), rung.experiment.design, rung.experiment.recipe
            assert isinstance(design, Design)  # true for all rungs
            names.append(name)
            default_cfgs.update(generate_default_cfgs({name: configuration(design, recipe, dataset)}))
            register_model(_creator(name, design, recipe.initialization))
    return names


default_cfgs.update(
    generate_default_cfgs({"roadmap_design": {"first_conv": FIRST_CONVOLUTION, "classifier": CLASSIFIER}})
)
register_model(roadmap_design)
register_model(roadmap_rung)
NAMES = register(load_study())
