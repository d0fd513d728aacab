"""What runs are compared by."""

from __future__ import annotations

from dataclasses import dataclass

from roadmap.serialization import suggest


@dataclass(frozen=True)
class Metric:
    name: str  # as --metric has it
    column: str  # of the collection, and of a run's metrics
    title: str
    decimals: int  # that figures print
    higher_is_better: bool = True
    published: bool = False  # whether the paper's tables have it


TOP1 = Metric("top1", "top1", "top-1 accuracy (%)", 1, published=True)
METRICS = {
    metric.name: metric
    for metric in (
        TOP1,
        Metric("top5", "top5", "top-5 accuracy (%)", 1),
        Metric("ema", "ema_top1", "top-1 accuracy of the averaged weights (%)", 1),
        Metric("loss", "test_loss", "loss on the held-out images", 3, higher_is_better=False),
    )
}


def find_metric(name: str) -> Metric:
    """Raises ValueError for an unknown one."""
    if name not in METRICS:
        raise ValueError(f"unknown metric {name!r}; {suggest(METRICS, name)}")
    return METRICS[name]
