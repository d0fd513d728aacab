"""How good a network is on the held-out images."""

from __future__ import annotations

import itertools
import math
from collections.abc import Callable, Sequence
from typing import Any

import torch
from torch import Tensor, nn
from torch.nn import functional as F

from roadmap.record.run import Run
from roadmap.study.execution import Execution
from runner.data.batches import EvaluationBatches
from runner.data.datasets import load_data
from runner.data.splits import Split
from runner.machine.distributed import SINGLE_PROCESS, World
from runner.machine.resources import available_cores
from runner.machine.setup import Setup, choose_setup


@torch.no_grad()
def evaluate(
    model: nn.Module, batches: EvaluationBatches, setup: Setup, world: World, between: Callable[[], None]
) -> dict[str, Any]:
    """Loss, and top-1 and top-5 accuracy in percent, on the held-out images, each once.

    Each process takes its share of them, and all have the result. `between` is called before every batch, by every
    process alike.
    """
    # Running statistics are each process's own while it trains.
    world.spread(model.buffers())
    model.eval()
    sums = torch.zeros(5, dtype=torch.float64)  # images, images skipped, loss, top-1, top-5
    batches.bad.count = 0
    for images, labels in batches:
        between()
        if len(labels):
            with setup.autocast():
                logits = model(images).float()
            ranked = logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]
            loss = F.cross_entropy(logits, labels, reduction="sum")
            sums[0] += len(labels)
            sums[2:] += torch.stack((loss.double(), ranked[:, 0].sum(), ranked.sum())).cpu()
    sums[1] = batches.bad.count
    count, skipped, loss, top1, top5 = world.sum(sums.to(setup.device)).tolist()
    if not count:
        raise ValueError("none of the held-out images can be read")
    return {
        "test_loss": loss / count if math.isfinite(loss) else None,
        "top1": 100 * top1 / count,
        "top5": 100 * top5 / count,
        "skipped_images": round(skipped),
    }


def evaluate_alone(
    run: Run,
    network: nn.Module,
    execution: Execution,
    report: Callable[[int, int], None],
    held_out: Split | None = None,
) -> dict[str, Any]:
    """A network on a run's held-out images, or on others, in this process.

    `report` hears how many are done, and of how many.
    """
    setup = choose_setup(run.experiment.recipe, execution, 1, available_cores())
    setup.prepare()
    if held_out is None:
        _, held_out = load_data(run, execution.data_path)
    total = len(held_out)
    batches = EvaluationBatches(run, held_out, setup, 0, execution.bad_images == "skip")
    done = itertools.count()

    def between() -> None:
        report(min(next(done) * batches.batch_size, total), total)

    network = network.to(torch.device(setup.device)).to(memory_format=setup.memory_format)
    found = evaluate(network, batches, setup, SINGLE_PROCESS, between)
    report(total, total)
    return found


class Among(nn.Module):
    """A network that chooses among some of its classes: the logits of the others are minus infinity."""

    def __init__(self, network: nn.Module, chosen: Sequence[int], classes: int) -> None:
        super().__init__()
        self.network = network
        mask = torch.full((classes,), -math.inf)
        mask[list(chosen)] = 0.0
        self.register_buffer("mask", mask, persistent=False)

    def forward(self, images: Tensor) -> Tensor:
        logits: Tensor = self.network(images) + self.mask
        return logits
