"""The paper's tables, read from the CSV files in this folder; README.md has their sources.

May import `roadmap`. Only figures that others published belong here.
"""

from __future__ import annotations

import csv
from dataclasses import dataclass, replace
from functools import cache
from pathlib import Path

from roadmap.text import suggest

FOLDER = Path(__file__).parent
TEST_SIZE = 224  # pixels, of the paper's rungs


@dataclass(frozen=True)
class Published:
    """A row of the paper's Tables 10 and 11."""

    group: str
    adopted: bool  # False where Figure 2 hatches the bar
    top1_mean: float  # percent, ImageNet-1K
    top1_std: float | None  # percent, over three seeds
    gmacs: float  # at 224x224
    test_size: int = TEST_SIZE  # pixels of the test images

    @property
    def is_comparable(self) -> bool:
        """Whether it was tested as the other rungs were."""
        return self.test_size == TEST_SIZE


def published_rungs(file: str | None) -> dict[str, Published]:
    """The rows of a table by rung or reference; empty if `file` is None, for a regime without a table.

    Raises ValueError for a file that is not such a table.
    """
    if file is None:
        return {}
    tables = sorted(path.name for path in FOLDER.glob("modernize_*.csv"))
    if file not in tables:
        raise ValueError(f"published: {file!r} is not a table of rungs; {suggest(tables, file)}")
    with (FOLDER / file).open(encoding="utf-8", newline="") as table:
        return {
            row["rung"]: Published(
                row["group"],
                row["adopted"] != "false",
                float(row["top1_mean"]),
                float(row["top1_std"]) if row["top1_std"] else None,
                float(row["gmacs"]),
                int(row["test_size"]),
            )
            for row in csv.DictReader(table)
        }


@dataclass(frozen=True)
class Model:
    """A row of the paper's Tables 1 and 2, or of another source."""

    name: str
    image_size: int
    parameters: float
    gmacs: float
    throughput: float | None  # images/s of inference on one V100
    top1: float  # percent
    pretraining: str = ""  # data set besides ImageNet-1K
    training_memory: float | None = None  # GB, of 32 images on a V100
    stated_by: str = ""  # the source if it is not the paper

    @property
    def family(self) -> str:
        return self.name.rpartition("-")[0]


def published_models(*, pretrained: bool = False) -> list[Model]:
    """The models of Table 1 trained on ImageNet-1K only; with `pretrained` also those trained on more data, last."""
    return [model for model in _models("imagenet_models.csv") if pretrained or not model.pretraining]


def isotropic_models() -> list[Model]:
    """The models of Table 2."""
    return _models("isotropic_models.csv")


def models_of_torchvision() -> list[Model]:
    """Models that the paper does not have, with the values of torchvision."""
    return [replace(model, stated_by="torchvision") for model in _models("torchvision_models.csv")]


def published_model(name: str, image_size: int) -> Model | None:
    """The model of a name, whatever its training data; None if the paper does not have it at that size."""
    known = [*published_models(pretrained=True), *isotropic_models()]
    return next((model for model in known if (model.name, model.image_size) == (name, image_size)), None)


@cache
def _models(file: str) -> list[Model]:
    with (FOLDER / file).open(encoding="utf-8", newline="") as table:
        return [
            Model(
                row["model"],
                int(row["image_size"]),
                float(row["params_millions"]) * 1e6,
                float(row["gmacs"]),
                float(row["throughput_v100_images_per_s"]) if row["throughput_v100_images_per_s"] else None,
                float(row["top1"]),
                row["pretraining"],
                float(row["training_memory_gb"]) if row.get("training_memory_gb") else None,
            )
            for row in csv.DictReader(table)
        ]


@dataclass(frozen=True)
class Robustness:
    """A row of the paper's Table 8."""

    model: str
    image_size: int
    pretraining: str  # data set besides ImageNet-1K
    # Percent, for "clean" and the names of roadmap/data/robustness.py: top-1 accuracy, but mCE for imagenet-c.
    scores: dict[str, float | None]


def published_robustness() -> list[Robustness]:
    names = ("clean", "imagenet-c", "imagenet-a", "imagenet-r", "imagenet-sketch")
    with (FOLDER / "robustness.csv").open(encoding="utf-8", newline="") as table:
        return [
            Robustness(
                row["model"],
                int(row["image_size"]),
                row["pretraining"],
                {name: float(row[name]) if row[name] else None for name in names},
            )
            for row in csv.DictReader(table)
        ]


@cache
def alexnet_errors() -> dict[str, float]:
    """AlexNet's error on each corruption of ImageNet-C, mean over the severities, 0 to 1."""
    with (FOLDER / "alexnet_imagenet_c.csv").open(encoding="utf-8", newline="") as table:
        return {row["corruption"]: float(row["error"]) for row in csv.DictReader(table)}
