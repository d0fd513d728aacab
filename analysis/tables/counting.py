"""Parameters and multiply-adds of rungs and references, as counted here and as published."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any

from analysis.published import (
    Model,
    Published,
    isotropic_models,
    models_of_torchvision,
    published_models,
    published_rungs,
)
from roadmap.network.cost import Cost, cost
from roadmap.options import Selection
from roadmap.serialization.plain_data import to_data
from roadmap.study.references import REFERENCE, as_published
from roadmap.study.rungs import Rung
from roadmap.text import count

ROUNDING = 0.0101  # GMACs: the largest rounding difference of a number with two decimals


@dataclass(frozen=True)
class CountComparison:
    """A reference's counts, and the published ones at the same image size."""

    name: str
    ours: Cost
    published: Model

    @property
    def off(self) -> float:
        """The difference in percent of the published multiply-adds."""
        return 100 * (self.ours.macs / 1e9 / self.published.gmacs - 1)


def compare_counts(rungs: Sequence[Rung]) -> list[CountComparison]:
    """A row for each reference and each of its published image sizes. Networks have ImageNet's 1,000 classes."""
    models = [*models_of_torchvision(), *published_models(pretrained=True), *isotropic_models()]
    rows = {(model.name, model.image_size): model for model in reversed(models)}
    return [
        CountComparison(rung.name, cost(rung.experiment.design, size), rows[name, size])
        for rung in rungs
        for name, size in sorted(rows)
        if name == rung.name
    ]


@dataclass(frozen=True)
class CountedRung:
    """A rung or a reference with its cost and its published values."""

    rung: Rung
    cost: Cost  # at the recipe's image size, for the classes of the selected data
    published: Published | None
    as_published: tuple[CountComparison, ...] = ()  # of a reference, for each published image size

    @property
    def misprinted(self) -> bool:
        """Whether the paper's multiply-adds differ from the network's (analysis/published/README.md)."""
        return self.published is not None and abs(self.published.gmacs - self.cost.macs / 1e9) > ROUNDING

    @property
    def record(self) -> dict[str, Any]:
        """The counts as plain data."""
        rung, counts = self.rung, self.as_published
        return {
            "name": rung.name,
            "title": rung.title,
            "group": rung.group,
            "adopted": rung.adopted,
            "no_effect": rung.no_effect,
            "parameters": self.cost.parameters,
            "macs": self.cost.macs,
            "gmacs": round(self.cost.macs / 1e9, 4),
            "published": to_data(self.published),
            **({"as_published": [_count_record(count) for count in counts]} if rung.group == REFERENCE else {}),
        }


def count_rungs(selection: Selection) -> list[CountedRung]:
    """The selected rungs, then the references. Raises ValueError for an unknown name or setting."""
    published = published_rungs(selection.study.regime(selection.regime).published)
    return [
        CountedRung(
            rung,
            selection.cost(rung),
            published.get(rung.name),
            tuple(compare_counts([rung])) if as_published(selection.study, selection.regime, rung.name) else (),
        )
        for rung in selection.rungs()
    ]


def _count_record(comparison: CountComparison) -> dict[str, Any]:
    ours, percent_off = comparison.ours, round(comparison.off, 3)
    counts = {"parameters": ours.parameters, "macs": ours.macs, "percent_off": percent_off}
    return counts | {"published": to_data(comparison.published)}


def rung_table(rungs: Sequence[CountedRung], *, published: bool) -> tuple[list[str], list[list[str]]]:
    """The header, and a line of text for each rung; with the paper's columns if `published`."""
    header = ["rung", "group", "parameters", "MACs"]
    header += ["published top-1 %", "published GFLOPs"] if published else []
    return header, [_rung_cells(row, published) for row in rungs]


def _rung_cells(counted_rung: CountedRung, published: bool) -> list[str]:
    rung, row = counted_rung.rung, counted_rung.published
    name = (rung.name if rung.adopted else f"({rung.name})") + (": no effect" if rung.no_effect else "")
    cells = [name, rung.group, f"{counted_rung.cost.parameters / 1e6:.2f} M", count(counted_rung.cost.macs)]
    if not published:
        return cells
    if row is None:
        return [*cells, "", ""]
    spread = "" if row.top1_std is None else f" ±{row.top1_std:.2f}"
    mark = " *" if counted_rung.misprinted else ""
    test = "" if row.is_comparable else f" (at {row.test_size} px)"
    return [*cells, f"{row.top1_mean:.2f}{spread}{test}", f"{row.gmacs:.2f}{mark}"]


def published_count_table(counts: Sequence[CountComparison]) -> tuple[list[str], list[list[str]]]:
    """The header, and a line of text for each reference and image size."""
    header = ["reference", "pixels", "parameters", "published", "GMACs", "published", "difference"]
    header += ["published top-1 %", "images/s of a V100"]
    return header, [_published_cells(comparison) for comparison in counts]


def _published_cells(comparison: CountComparison) -> list[str]:
    ours, published = comparison.ours, comparison.published
    return [
        comparison.name,
        str(published.image_size),
        f"{ours.parameters / 1e6:.2f} M",
        f"{published.parameters / 1e6:.{0 if published.parameters > 1e7 else 1}f} M",
        f"{ours.macs / 1e9:.2f}",
        f"{published.gmacs:.{1 if published.gmacs >= 1 else 2}f}",
        f"{comparison.off:+.1f} %",
        f"{published.top1:.1f}" + (" *" if published.pretraining else " †" if published.stated_by else ""),
        "" if published.throughput is None else f"{published.throughput:.1f}",
    ]
