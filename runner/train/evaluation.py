"""Evaluating a network on held-out images."""

from __future__ import annotations

import math
from collections.abc import Callable, Sequence

import torch
from torch import Tensor, nn

from roadmap.record.metrics import evaluated_metrics
from roadmap.record.outcomes import NOT_READ, Outcomes
from roadmap.record.results import Value
from runner.data.batches import EvaluationBatches
from runner.machine.distributed import World
from runner.machine.setup import Setup
from runner.train.tasks.task import Scores


def empty_sums(classes: int) -> list[Tensor]:
    """What each metric gives for a batch of no images. Raises ValueError for a metric that fails."""
    nothing = torch.zeros(0, classes), torch.zeros(0, dtype=torch.int64)
    return [metric.of_batch(*nothing) for metric in evaluated_metrics()]


class _Predictions:
    """The predictions of this process's share of the held-out images."""

    def __init__(self) -> None:
        self.indices: list[int] = []
        self.classes: list[Tensor] = []
        self.confidence: list[Tensor] = []

    def add(self, indices: Sequence[int], logits: Tensor) -> None:
        confidence, classes = logits.softmax(1).max(1)
        self.indices += indices
        self.classes.append(classes.to(torch.int32).cpu())
        self.confidence.append(confidence.to(torch.float16).cpu())

    def gathered(self, labels: Tensor, world: World) -> Outcomes:
        """Of all processes."""
        nothing = torch.zeros(0)
        own = self.indices, torch.cat(self.classes or [nothing]), torch.cat(self.confidence or [nothing])
        predicted = torch.full((len(labels),), NOT_READ, dtype=torch.int32)
        confidence = torch.zeros(len(labels), dtype=torch.float16)
        for indices, classes, confidences in world.all_gather(own):
            predicted[indices], confidence[indices] = classes.to(torch.int32), confidences.to(torch.float16)
        return Outcomes(labels.to(torch.int32).numpy(), predicted.numpy(), confidence.numpy())


@torch.no_grad()
def evaluate(
    model: nn.Module,
    batches: EvaluationBatches,
    setup: Setup,
    world: World,
    between: Callable[[], None],
    *,
    outcomes: bool = False,
) -> Scores:
    """All metrics on the held-out images, and with `outcomes` what is predicted for each. Each image counts once.

    Each process evaluates its share of them, and all get the result. `between` is called before every batch, by all
    processes equally often. Raises ValueError if no image can be read.
    """
    # Running statistics differ between processes while they train.
    world.broadcast(model.buffers())
    model.eval()
    metrics = evaluated_metrics()
    # A process whose share has no images adds sums of the same shape.
    totals = [torch.zeros_like(sums, device=setup.device) for sums in empty_sums(batches.classes)]
    images_seen, batches.bad.count, predictions = 0, 0, _Predictions()
    for images, labels, indices in batches:
        between()
        if len(labels):
            with setup.autocast():
                logits = model(images).float()
            images_seen += len(labels)
            for metric, total in zip(metrics, totals, strict=True):
                total += metric.of_batch(logits, labels)
            if outcomes:
                predictions.add(indices, logits)
    counts = torch.tensor([images_seen, batches.bad.count], dtype=torch.float64, device=setup.device)
    summed = world.all_reduce(torch.cat([counts, *(total.flatten() for total in totals)])).cpu()
    (count, skipped), *sums = summed.split([2, *(total.numel() for total in totals)])
    if not count:
        raise ValueError("no held-out image can be read")
    values = {
        metric.key: _recorded(metric.of_total(total.view(shaped.shape), round(count.item())))
        for metric, total, shaped in zip(metrics, sums, totals, strict=True)
    }
    gathered = predictions.gathered(batches.labels, world) if outcomes else None
    return Scores(values, round(skipped.item()), gathered)


def _recorded(value: Tensor) -> Value:
    """A number, or one for each class; None for a number that is not finite."""
    numbers = tuple(number if math.isfinite(number) else None for number in value.view(-1).tolist())
    return numbers if value.ndim else numbers[0]


class RestrictedClasses(nn.Module):
    """A network that predicts only some of its classes: the logits of the others are minus infinity."""

    def __init__(self, network: nn.Module, chosen: Sequence[int], classes: int) -> None:
        super().__init__()
        self.network = network
        mask = torch.full((classes,), -math.inf)
        mask[list(chosen)] = 0.0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images) + self.mask
        return logits
