"""The metrics that compare runs. Each is declared once, here or in a plug-in: how it is computed and printed.

Evaluation, records, collection, tables, figures and `--metric` take them from METRICS. A plug-in adds its own:

    @roadmap.metric("confidence", "mean confidence", unit="%")
    def confidence(logits, labels):
        return 100 * logits.softmax(1).amax(1).sum()
"""

from __future__ import annotations

from collections.abc import Callable, Container
from dataclasses import dataclass, fields
from typing import TYPE_CHECKING

from roadmap.plugins import Registry, load_installed
from roadmap.record.results import RESERVED
from roadmap.tasks.registry import TASKS

if TYPE_CHECKING:
    from torch import Tensor

    from roadmap.record.results import EpochMetrics, RunResult

    HasValues = EpochMetrics | RunResult
    Sums = Callable[[Tensor, Tensor], Tensor]
    Final = Callable[[Tensor, int], Tensor]

AVERAGED = "ema_"  # prefix of the keys of metrics of the averaged weights
ECE_BINS = 15


@dataclass(frozen=True)
class Metric:
    """Name and format of a number that compares runs."""

    name: str  # for --metric
    key: str  # in metrics.jsonl and result.json, and the column of the collection
    quantity: str  # full name
    short: str  # short name, for lines of progress
    unit: str  # empty: none
    decimals: int  # in figures; tables print one more
    higher_is_better: bool = True
    published: bool = False  # whether the paper's tables have it

    @property
    def title(self) -> str:
        return f"{self.quantity} ({self.unit})" if self.unit else self.quantity

    def text(self, value: float | None) -> str:
        """A value with its name and unit: `top-1 92.11 %`."""
        number = "not finite" if value is None else f"{value:.{self.decimals + 1}f} {self.unit}".rstrip()
        return f"{self.short} {number}"


@dataclass(frozen=True)
class EvaluatedMetric(Metric):
    """A metric that is computed from the outputs of the network, batch by batch.

    `sums` takes the logits of a batch (N x classes, float32) and its labels (N) and returns a tensor of any shape,
    which is summed over batches and processes in float64. Its shape must be the same for every batch, even one without
    images. `final` takes the total, on the CPU, and the number of images, and returns the value: one number, or one
    number for each class in order. Numbers that are not finite are recorded as null.
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


METRICS: Registry[Metric] = Registry(
    "metric", hint="; ema and ema_NAME use the averaged weights (--plugin loads the file that defines a metric)"
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
    """Registers the decorated function as the metric `name`. It returns the sums of a batch (see EvaluatedMetric).

    Raises ValueError for a name that is taken or that can't be a key of a run's record.
    """
    METRICS.check_name(name)
    record_key = name if key is None else key
    for part, text in (("name", name), ("key", record_key)):
        if not text.isidentifier() or text == "ema" or text.startswith(AVERAGED):
            rule = "must have only letters, digits and _, and not be ema or ema_NAME"
            raise ValueError(f"metric {name!r}: the {part} {rule} (got {text!r})")
    if record_key in RESERVED or record_key in {other.key for other in METRICS.values()}:
        raise ValueError(f"metric {name!r}: the record or the table of runs has a key {record_key} already")

    def register(sums: Sums) -> Sums:
        described = (quantity, short or quantity, unit, decimals, higher_is_better, published)
        METRICS.add(name, EvaluatedMetric(name, record_key, *described, sums=sums, final=value))
        return sums

    return register


def averaged(metric: Metric) -> Metric:
    """The same metric of the averaged weights. For the top-1 accuracy its name is `ema`."""
    values = {field.name: getattr(metric, field.name) for field in fields(Metric)}
    values["name"] = "ema" if metric.name == TOP1.name else f"{AVERAGED}{metric.name}"
    values["key"] = f"{AVERAGED}{metric.key}"
    quantity, short = f"{metric.quantity} of the averaged weights", f"EMA {metric.short}"
    return Metric(**values | {"quantity": quantity, "short": short, "published": False})


def evaluated_metrics() -> tuple[EvaluatedMetric, ...]:
    """All metrics that an evaluation computes, including those of installed packages."""
    load_installed()
    return tuple(metric for metric in METRICS.values() if isinstance(metric, EvaluatedMetric))


def headline(record: HasValues) -> str:
    """The metric that compares runs like this one, with its name and unit: `top-1 92.11 %`."""
    metric = primary(record.values)
    return metric.text(record.value(metric))


def find_metric(name: str) -> Metric:
    """A metric by its name for --metric. Raises ValueError for an unknown name."""
    if name == "ema":
        return averaged(TOP1)
    return averaged(METRICS.find(name.removeprefix(AVERAGED))) if name.startswith(AVERAGED) else METRICS.find(name)


def metric_names() -> str:
    """The help text of --metric."""
    default, *others = METRICS
    others = [name for name in others if isinstance(METRICS[name], EvaluatedMetric) or name in primaries()]
    names = f"{default} (default), {', '.join(others)} or a plug-in's"
    return f"{names}; ema ({default} of the averaged weights), or ema_NAME"


def _hits(logits: Tensor, labels: Tensor) -> Tensor:
    """N x 5, or N x classes if there are fewer: whether the label has that rank."""
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
    """For each of the bins of confidence, of equal width: the sum of (correct - confidence) over its images.

    Guo et al., "On Calibration of Modern Neural Networks", ICML 2017, equation 3: the absolute value of this sum is the
    difference of accuracy and mean confidence of the bin, weighted by its images. A bin includes its upper edge.
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
    return torch.stack([_sums_by_group(values, labels, classes) for values in (correct, torch.ones_like(correct))])


TOP1 = METRICS["top1"]  # the default metric

# COCO's figures (Lin et al., 2014): the part of the name, and what it measures.
_COCO = {
    "ap": "AP",
    "ap50": "AP at an IoU of 0.5",
    "ap75": "AP at an IoU of 0.75",
    "ap_small": "AP of small objects",
    "ap_medium": "AP of medium objects",
    "ap_large": "AP of large objects",
    "ar1": "recall with one detection",
    "ar10": "recall with ten detections",
    "ar100": "recall",
    "ar_small": "recall of small objects",
    "ar_medium": "recall of medium objects",
    "ar_large": "recall of large objects",
}
COCO_NAMES = tuple(_COCO)
OF_COCO = frozenset(f"{region}_{name}" for region in ("box", "mask") for name in COCO_NAMES)
for _region in ("box", "mask"):
    for _name, _quantity in _COCO.items():
        _key = f"{_region}_{_name}"
        METRICS.add(_key, Metric(_key, _key, f"{_region} {_quantity}", f"{_region} {_name.upper()}", "%", 1))
METRICS.add("miou", Metric("miou", "miou", "mean IoU", "mIoU", "%", 1))
METRICS.add("miou_ms", Metric("miou_ms", "miou_ms", "mean IoU at several scales", "mIoU ms", "%", 1))
METRICS.add("pixel_accuracy", Metric("pixel_accuracy", "pixel_accuracy", "pixel accuracy", "pixels", "%", 1))
METRICS.add(
    "class_accuracy", Metric("class_accuracy", "class_accuracy", "mean pixel accuracy of the classes", "mAcc", "%", 1)
)


def primaries() -> tuple[str, ...]:
    """The names of the metrics of the tasks. Each run has one of them."""
    return tuple(dict.fromkeys(task.metric for task in TASKS.values()))


def measured(values: Container[str]) -> tuple[Metric, ...]:
    """The metrics with these keys."""
    return tuple(metric for metric in METRICS.values() if metric.key in values)


def primary(values: Container[str]) -> Metric:
    """The metric that compares runs with these keys."""
    return next((METRICS[name] for name in primaries() if name in METRICS and METRICS[name].key in values), TOP1)
