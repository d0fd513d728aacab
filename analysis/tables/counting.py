"""The references' parameters and multiply-adds, counted here, beside what the paper, or torchvision, has of them."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass

from analysis.published import Model, isotropic_models, models_of_torchvision, published_models
from roadmap.network.cost import Cost, cost
from roadmap.study.rungs import Rung


@dataclass(frozen=True)
class Counted:
    """A model at an image size that is published."""

    name: str
    ours: Cost
    published: Model

    @property
    def off(self) -> float:
        """Percent of the published multiply-adds."""
        return 100 * (self.ours.macs / 1e9 / self.published.gmacs - 1)


def counted_beside(rungs: Sequence[Rung]) -> list[Counted]:
    """A row for each image size that the tables have of each reference, as networks of ImageNet's 1,000 classes."""
    models = [*models_of_torchvision(), *published_models(pretrained=True), *isotropic_models()]
    rows = {(model.name, model.image_size): model for model in reversed(models)}
    return [
        Counted(rung.name, cost(rung.experiment.design, size), rows[name, size])
        for rung in rungs
        for name, size in sorted(rows)
        if name == rung.name
    ]
