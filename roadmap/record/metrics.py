"""The metrics that runs are compared by: each declared once, here or in a plug-in, with how it is computed and printed.

Evaluation, records, collection, tables, figures and `--metric` take them from METRICS. A plug-in adds its own:

    @roadmap.metric("confidence", "mean confidence", unit="%")
    def confidence(logits, labels):
        return 100 * logits.softmax(1).amax(1).sum()
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from roadmap.plugins import Registry, load_installed
from roadmap.record.results import FIELDS

if TYPE_CHECKING:
    from torch import Tensor

    Sums = Callable[[Tensor, Tensor], Tensor]
    Final = Callable[[Tensor, int], Tensor]

AVERAGED = "ema_"  # before the key of a metric of the averaged weights
ECE_BINS = 15


@dataclass(frozen=True)
class Metric:
    """How a number that runs are compared by is named and printed."""

    name: str  # as --metric takes it
    key: str  # in metrics.jsonl and result.json, and the column of the collection
    quantity: str  # in full words
    short: str  # in a line of progress
    unit: str  # empty where there is none
    decimals: int  # that figures print; tables print one more
    higher_is_better: bool = True
    published: bool = False  # whether the paper's tables have it

    @property
    def title(self) -> str:
        return f"{self.quantity} ({self.unit})" if self.unit else self.quantity

    def text(self, value: float | None) -> str:
        """A value in a sentence: `top-1 92.11 %`."""
        number = "not finite" if value is None else f"{value:.{self.decimals + 1}f} {self.unit}".rstrip()
        return f"{self.short} {number}"


@dataclass(frozen=True)
class EvaluatedMetric(Metric):
    """A metric with how it is computed from the network's outputs, batch by batch.

    `sums` takes the logits of a batch (N x classes, float32) and its labels (N) and gives a tensor that is added up
    over batches and processes in float64: of any shape, the same for every batch, one of no images too.
    `final` takes that total, on the CPU, and the number of images, and gives the value: one number, or one of each
    class in order. What is not finite is recorded as null.
    """

    sums: Sums = lambda logits, labels: logits.new_zeros(())
    final: Final = lambda sums, images: sums

    def of_batch(self, logits: Tensor, labels: Tensor) -> Tensor:
        """The sums of a batch, float64. Raises ValueError, with the metric's name, for whatever its function raises."""
        import torch

        try:
            return torch.as_tensor(self.sums(logits, labels), dtype=torch.float64, device=logits.device)
        except Exception as error:
            raise ValueError(f"metric {self.name!r} fails: {type(error).__name__}: {error}") from error

    def of_total(self, sums: Tensor, images: int) -> Tensor:
        """The value. Raises ValueError as `of_batch` does."""
        import torch

        try:
            return torch.as_tensor(self.final(sums, images))
        except Exception as error:
            raise ValueError(f"metric {self.name!r} fails: {type(error).__name__}: {error}") from error


METRICS: Registry[EvaluatedMetric] = Registry(
    "metric", hint="; ema and ema_NAME are those of the averaged weights (--plugin loads the file of one's own)"
)


def mean(sums: Tensor, images: int) -> Tensor:
    """The mean over the images."""
    return sums / images


def metric(
    name: str,
    quantity: str,
    *,
    value: Final = mean,
    key: str | None = None,
    short: str | None = None,
    unit: str = "",
    decimals: int = 1,
    higher_is_better: bool = True,
    published: bool = False,
) -> Callable[[Sums], Sums]:
    """Registers the decorated function, which gives a batch's sums (see EvaluatedMetric), as the metric `name`.

    Raises ValueError for a name that is taken, or that can't be a key of a run's record.
    """
    METRICS.check_name(name)
    written = name if key is None else key
    if not name.isidentifier() or name == "ema" or written.startswith(AVERAGED):
        raise ValueError(f"metric {name!r}: a name has letters, digits and _ only, and is not ema or ema_NAME")
    if written in FIELDS or written in {known.key for known in METRICS.values()}:
        raise ValueError(f"metric {name!r}: the record of a run has {written} already")

    def register(sums: Sums) -> Sums:
        described = (quantity, short or quantity, unit, decimals, higher_is_better, published)
        METRICS.add(name, EvaluatedMetric(name, written, *described, sums=sums, final=value))
        return sums

    return register


def averaged(metric: Metric) -> Metric:
    """The same of the averaged weights; that of the top-1 accuracy is called `ema`."""
    values = {each.name: getattr(metric, each.name) for each in fields(Metric)}
    values["name"] = "ema" if metric.name == TOP1.name else f"{AVERAGED}{metric.name}"
    values["key"] = f"{AVERAGED}{metric.key}"
    quantity, short = f"{metric.quantity} of the averaged weights", f"EMA {metric.short}"
    return Metric(**values | {"quantity": quantity, "short": short, "published": False})


def evaluated_metrics() -> tuple[EvaluatedMetric, ...]:
    """All that an evaluation computes: those of installed packages too."""
    load_installed()
    return tuple(METRICS.values())


def find_metric(name: str) -> Metric:
    """A metric as --metric names it. Raises ValueError for an unknown one."""
    if name == "ema":
        return averaged(TOP1)
    return averaged(METRICS.find(name.removeprefix(AVERAGED))) if name.startswith(AVERAGED) else METRICS.find(name)


def metric_names() -> str:
    """What --metric takes, in words."""
    default, *others = METRICS
    own = "one of a plug-in's"
    return f"{default} (default), {', '.join(others)} or {own}; ema ({default} of the averaged weights), or ema_NAME"


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    """N x 5, or as many as there are classes: whether the label is at that place of the ranking."""
    return logits.topk(min(5, logits.shape[1]), dim=1).indices == labels[:, None]


def _sums_by_group(values: Tensor, groups: Tensor, count: int) -> Tensor:
    """The sum of the values (N) of each group (N, from 0)."""
    from torch.nn.functional import one_hot

    return (one_hot(groups, count) * values.double()[:, None]).sum(0)


@metric("top1", "top-1 accuracy", short="top-1", unit="%", published=True)
def _top1(logits: Tensor, labels: Tensor) -> Tensor:
    return 100 * _hits(logits, labels)[:, 0].sum()


@metric("top5", "top-5 accuracy", short="top-5", unit="%")
def _top5(logits: Tensor, labels: Tensor) -> Tensor:
    return 100 * _hits(logits, labels).sum()


@metric("loss", "loss on the held-out images", key="test_loss", short="loss", decimals=3, higher_is_better=False)
def _loss(logits: Tensor, labels: Tensor) -> Tensor:
    """Cross entropy, without label smoothing."""
    from torch.nn.functional import cross_entropy

    return cross_entropy(logits, labels, reduction="sum")


def _calibration_error(sums: Tensor, images: int) -> Tensor:
    return 100 * sums.abs().sum() / images


@metric("ece", "expected calibration error", value=_calibration_error, short="ECE", unit="%", higher_is_better=False)
def _ece(logits: Tensor, labels: Tensor) -> Tensor:
    """By bin of the confidence, of equal width: the sum of correct predictions less confidences.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3: weighted by its images, a bin's
    difference of accuracy and mean confidence is the absolute value of this sum. A bin holds its upper edge.
    """
    import torch

    confidence = logits.double().softmax(1).amax(1)
    edges = torch.arange(1, ECE_BINS, dtype=torch.float64, device=logits.device) / ECE_BINS
    correct = _hits(logits, labels)[:, 0].double()
    return _sums_by_group(correct - confidence, torch.bucketize(confidence, edges), ECE_BINS)


def _class_accuracies(sums: Tensor, images: int) -> Tensor:
    return 100 * sums[0] / sums[1]


@metric("per_class_accuracy", "balanced accuracy", value=_class_accuracies, unit="%")
def _per_class_accuracy(logits: Tensor, labels: Tensor) -> Tensor:
    """Correct predictions and images of each class: 2 x classes. The mean over classes is the balanced accuracy."""
    import torch

    classes, correct = logits.shape[1], _hits(logits, labels)[:, 0]
    return torch.stack([_sums_by_group(each, labels, classes) for each in (correct, torch.ones_like(correct))])


TOP1 = METRICS["top1"]  # what runs are compared by unless another metric is named
