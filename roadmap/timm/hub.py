"""A trained network as the folder of weights and config.json that timm and the Hugging Face hub exchange."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import Any

import timm
from timm.models import save_for_hf
from torch import nn

from roadmap.design import NamedModel
from roadmap.record.run import Run
from roadmap.serialization.plain_data import to_data


def write_folder(run: Run, network: nn.Module, classes: Sequence[str], folder: Path) -> None:
    """Writes a run's network and the names of its classes for `timm.create_model("local-dir:FOLDER")`.

    A rung's name can mean another network where `ablations.yaml` is another, so the design itself is an argument of the
    model. Raises ValueError for a network of another library.
    """
    architecture, arguments = _model(run)
    recipe, data = run.experiment.recipe, run.dataset
    prepared = {"mean": data.mean, "std": data.std, "num_classes": data.classes, "crop_pct": recipe.evaluation_crop}
    prepared |= {"input_size": (3, recipe.image_size, recipe.image_size), "interpolation": recipe.interpolation}
    model = timm.create_model(architecture, num_classes=data.classes, pretrained_cfg_overlay=prepared, **arguments)
    model.load_state_dict(network.state_dict())
    described: dict[str, Any] = {"label_names": list(classes), "run": f"{run.name}-{run.identity}"}
    save_for_hf(model, str(folder), model_config=described, model_args=arguments, safe_serialization=True)


def read_folder(folder: Path) -> nn.Module:
    """The network in evaluation mode."""
    return timm.create_model(f"local-dir:{folder}", pretrained=True).eval()


def _model(run: Run) -> tuple[str, dict[str, Any]]:
    """The name of timm's model and its arguments."""
    design = run.experiment.design
    if not isinstance(design, NamedModel):
        return "roadmap_design", {"design": to_data(design)}
    if design.library != "timm":
        raise ValueError(f"--to timm requires a rung or a model of timm (got {design})")
    return design.name, design.filled(run.experiment.recipe.image_size, 0.0)
