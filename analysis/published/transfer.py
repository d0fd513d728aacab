"""The paper's results on COCO (Table 3) and ADE20K (Table 4); README.md has the sources."""

from __future__ import annotations

import csv
from dataclasses import dataclass
from functools import cache

from analysis.published import FOLDER, published_models

# The systems at the end of each regime's roadmap, by their names in the tables and for people.
SYSTEMS = {
    "resnet-50": {"convnext-t": "ConvNeXt-T", "swin-t": "Swin-T"},
    "resnet-200": {"convnext-b": "ConvNeXt-B", "swin-b": "Swin-B"},
}
DATA = {"coco": "coco.csv", "ade20k": "ade20k.csv"}


@dataclass(frozen=True)
class Transferred:
    """A row of the tables: a backbone pre-trained on ImageNet-1K."""

    backbone: str
    method: str  # the name of the transfer recipe, too
    gmacs: float
    parameters: float | None  # with heads; None: not stated
    metrics: dict[str, float]  # percent, by the keys of our metrics


@dataclass(frozen=True)
class EndPoint:
    """A published system in both metrics."""

    title: str
    top1: float
    value: float


@cache
def transferred(data: str) -> tuple[Transferred, ...]:
    """The rows of a data set, pre-trained on ImageNet-1K. Raises KeyError for a data set without a table."""
    names = {"miou_single_scale": "miou", "miou_multi_scale": "miou_ms"}
    with (FOLDER / DATA[data]).open(encoding="utf-8", newline="") as table:
        return tuple(
            Transferred(
                row["backbone"],
                row["method"],
                float(row["gflops"]),
                float(row["params_millions"]) * 1e6 if row["params_millions"] else None,
                {names.get(key, key): float(row[key]) for key in row if _is_metric(key) and row[key]},
            )
            for row in csv.DictReader(table)
            if row["pretraining"] == "imagenet-1k"
        )


def _is_metric(column: str) -> bool:
    return column.startswith(("box_", "mask_", "miou_"))


def published_transfer(data: str, method: str, backbone: str) -> Transferred | None:
    """The row of a backbone by its name in the tables; None if there is none."""
    rows = transferred(data) if data in DATA else ()
    return next((row for row in rows if (row.method, row.backbone) == (method, backbone)), None)


def end_rows(regime: str, data: str, method: str) -> list[tuple[str, Transferred]]:
    """The published systems at the end of a regime's roadmap with a method's heads, by their titles."""
    rows = {title: published_transfer(data, method, name) for name, title in SYSTEMS.get(regime, {}).items()}
    return [(title, row) for title, row in rows.items() if row]


def end_points(regime: str, data: str, method: str, metric: str) -> list[EndPoint]:
    """The published systems of a regime, by a metric's key; none for data that the paper does not have."""
    top1 = {model.name: model.top1 for model in published_models() if model.image_size == 224}
    found = []
    for name, title in SYSTEMS.get(regime, {}).items():
        row = published_transfer(data, method, name)
        if row and metric in row.metrics and name in top1:
            found.append(EndPoint(title, top1[name], row.metrics[metric]))
    return found
