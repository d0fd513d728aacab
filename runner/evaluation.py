"""How good a network is on the held-out images."""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import torch
from torch import nn
from torch.nn import functional as F

from runner.data import EvaluationBatches
from runner.device import Setup
from runner.distributed import World


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
