"""A metric of your own: how often the true class is among the three likeliest.

roadmap run --steps recipe --plugin docs/examples/metric.py
roadmap table --metric top3 --plugin docs/examples/metric.py
"""

import roadmap


@roadmap.metric("top3", "top-3 accuracy", short="top-3", unit="%")
def top3(logits, labels):
    """Of a batch, N x classes and N: what is added up over all batches, and then divided by the number of images."""
    hits = logits.topk(min(3, logits.shape[1]), dim=1).indices == labels[:, None]
    return 100 * hits.sum()
