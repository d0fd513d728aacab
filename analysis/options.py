"""What is asked of tables, figures and the report, as it is written on the command line or in a call.

Imports nothing large, so that the command line lists the kinds of figures without drawing any.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from roadmap.options import StudyOptions, reject_unused
from roadmap.record.metrics import TOP1, Metric

Comparison = Literal["side-by-side", "difference"]
TradeoffAxis = Literal["macs", "parameters", "throughput", "memory"]
FigureKind = Literal["roadmap", "tradeoff", "curves", "attribution", "interactions", "counterparts"]

# By kind what --help says of it, and which it takes of the options that some kinds leave unused.
FIGURE_KINDS: dict[FigureKind, tuple[str, frozenset[str]]] = {
    "roadmap": ("default", frozenset({"published", "compare", "throughput", "metric", "ablation"})),
    "tradeoff": ("the metric against a cost", frozenset({"published", "x", "metric", "ablation"})),
    "curves": ("epoch by epoch", frozenset({"metric", "ablation"})),
    "attribution": ("each step in all orders", frozenset({"metric"})),
    "interactions": ("a heat map of pairs of steps", frozenset({"metric"})),
    "counterparts": (
        "each ConvNeXt over the system of its size, as `bench --references` measured both",
        frozenset({"ablation"}),
    ),
}


class RunsWarning(UserWarning):
    """Something about the runs that a reader of the result should know."""


@dataclass(frozen=True)
class RunsOptions:
    """Which runs, and the metric that they are compared by."""

    study: StudyOptions = field(default_factory=StudyOptions)
    out: Path | None = None  # folder of the runs; None: the study's
    metric: str = TOP1.name  # as --metric names it

    def find_metric(self) -> Metric:
        """Also of the plugins. Raises ValueError for an unknown one."""
        return self.study.metric(self.metric)

    def folder(self) -> Path:
        """Of the runs. Raises ValueError for a file in its place."""
        return self.study.out(self.out)


@dataclass(frozen=True)
class FigureOptions(RunsOptions):
    kind: FigureKind = "roadmap"
    published: bool = False  # the paper's tables instead of runs
    compare: Comparison | None = None  # with the paper's roadmap
    against: str | None = None  # the regime whose published table `compare` takes
    x: TradeoffAxis | None = None  # of a tradeoff; None: macs
    throughput: bool = False  # images/s beside each bar
    columns: Literal[1, 2] = 2  # of a page that the figure is as wide as

    def check(self) -> None:
        """Raises ValueError for an option that this figure leaves unused."""
        for name in sorted(set().union(*(taken for _, taken in FIGURE_KINDS.values()))):
            kinds = [kind for kind, (_, taken) in FIGURE_KINDS.items() if name in taken]
            if self.kind not in kinds:
                reason = f"applies to --kind {', '.join(kinds)} only (got --kind {self.kind})"
                if len(kinds) == 1 and kinds != ["roadmap"]:
                    reason = f"requires --kind {kinds[0]}"
                reject_unused([name], reason, self, self.study)
        if not self.compare:
            reject_unused(["against"], "requires --compare", self)
        else:
            reject_unused(["throughput"], "does not apply to --compare", self)
        if self.published:
            reject_unused(["compare"], "does not apply to --published", self)
            # Beside the paper's bars stands what was measured here, in the folder of runs.
            reject_unused_by_published(self, *([] if self.throughput else ["out"]))


@dataclass(frozen=True)
class TableOptions(RunsOptions):
    published: bool = False  # the paper's own table, without any run
    robustness: bool = False  # instead: accuracies on ImageNet-C, -A, -R and -Sketch

    def check(self) -> None:
        """Raises ValueError for an option that this table leaves unused."""
        if self.robustness:
            reject_unused(["published", "metric"], "does not apply to --robustness", self)
        if self.published:
            reject_unused_by_published(self, "out")


def reject_unused_by_published(options: RunsOptions, *more: str) -> None:
    """What is published is neither trained nor set."""
    names = ["steps", "ablation", "fidelity", "data", "settings", "plugins", "base", "metric", *more]
    reject_unused(names, "does not apply to --published", options.study, options)
