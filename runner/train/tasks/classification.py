"""Classification: the task of the roadmap."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.network.cost import Cost, cost
from roadmap.network.modules import build
from roadmap.record.run import Run
from runner.data.batches import EpochAndStep, EvaluationBatches, TrainingBatches, Waiting
from runner.machine.distributed import World
from runner.machine.setup import Setup
from runner.train.evaluation import empty_sums, evaluate
from runner.train.freezing import keep_fixed, keep_fixed_except, stem_of
from runner.train.tasks.task import Forward, Scores, Weights


class Classification:
    """One class for an image."""

    def __init__(self, run: Run) -> None:
        self.run, self.recipe = run, run.experiment.recipe

    def network(self) -> nn.Module:
        recipe = self.recipe
        model = build(
            self.run.experiment.design,
            self.run.dataset.classes,
            drop_path=recipe.drop_path,
            initialization=recipe.initialization,
            image_size=recipe.image_size,
        )
        if recipe.head_init_scale != 1:
            with torch.no_grad():
                for parameter in classifier(model).parameters():
                    parameter.mul_(recipe.head_init_scale)
        self._freeze(model)
        return model

    def _freeze(self, model: nn.Module) -> None:
        frozen = self.run.transfer.frozen if self.run.transfer else "none"
        if frozen == "stem":
            keep_fixed(stem_of(model))
        elif frozen == "all":
            keep_fixed_except(model, classifier(model))

    def load(self, network: nn.Module, weights: Weights) -> None:
        """A classifier of as many classes is loaded too; else the new one remains."""
        own = network.state_dict()
        head = {name for name, kept in own.items() if name in weights and weights[name].shape != kept.shape}
        allowed = {name for name, _ in classifier_names(network)}
        if wrong := sorted((own.keys() ^ weights.keys()) | (head - allowed)):
            raise ValueError(f"the weights are of another network than {self.run.name}: {wrong[0]} does not fit")
        network.load_state_dict({**weights, **{name: own[name] for name in head}})

    def cost(self) -> Cost:
        return cost(self.run.experiment.design, self.recipe.image_size, self.run.dataset.classes)

    def check(self) -> None:
        empty_sums(self.run.dataset.classes)

    def training_batches(
        self, split: Any, setup: Setup, rank: int, retries: Sequence[EpochAndStep], skip_bad: bool, waiting: Waiting
    ) -> TrainingBatches:
        return TrainingBatches(self.run, split, setup, rank, retries, skip_bad, waiting)

    def test_batches(self, split: Any, setup: Setup, rank: int, skip_bad: bool, waiting: Waiting) -> EvaluationBatches:
        return EvaluationBatches(self.run, split, setup, rank, skip_bad, waiting)

    def forward(self, forward: Forward, images: Tensor, targets: Tensor) -> Tensor:
        logits: Tensor = forward(images)
        return logits

    def loss(self, output: Tensor, targets: Tensor) -> Tensor:
        """Cross entropy. Mixed targets are probabilities that contain the label smoothing."""
        smoothing = self.recipe.label_smoothing if targets.ndim == 1 else 0.0
        return F.cross_entropy(output.float(), targets, label_smoothing=smoothing)

    def evaluate(
        self,
        model: nn.Module,
        batches: EvaluationBatches,
        setup: Setup,
        world: World,
        between: Callable[[], None],
        *,
        last: bool,
    ) -> Scores:
        return evaluate(model, batches, setup, world, between, outcomes=last)


def classifier(model: nn.Module) -> nn.Module:
    """The last linear layer."""
    return [module for module in model.modules() if isinstance(module, nn.Linear)][-1]


def classifier_names(model: nn.Module) -> list[tuple[str, Tensor]]:
    last = classifier(model)
    name = next(name for name, module in model.named_modules() if module is last)
    return [(f"{name}.{key}", value) for key, value in last.state_dict().items()]
