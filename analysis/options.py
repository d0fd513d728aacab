"""The options of tables, figures and the report, for the command line and for Python.

Imports nothing large, so that the command line can list the kinds of figures quickly.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from roadmap.options import StudyOptions, reject_unused
from roadmap.record.metrics import TOP1, Metric

Comparison = Literal["side-by-side", "difference"]
TradeoffAxis = Literal["macs", "parameters", "throughput", "memory"]
FigureKind = Literal["roadmap", "tradeoff", "curves", "attribution", "interactions", "counterparts", "transfer"]

# By kind: its text in --help, and the options that it uses, of those that only some kinds use.
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
    "transfer": ("top-1 against another task's metric, and which steps transfer", frozenset({"to", "recipe"})),
}


class RunsWarning(UserWarning):
    """Something about the runs that a reader of the result should know."""


@dataclass(frozen=True)
class RunsOptions:
    """The runs, and the metric by which they are compared."""

    study: StudyOptions = field(default_factory=StudyOptions)
    out: Path | None = None  # folder of the runs; None: the study's
    metric: str = TOP1.name  # a name that --metric takes

    def find_metric(self) -> Metric:
        """The metric, built in or of a plug-in. Raises ValueError for an unknown name."""
        return self.study.metric(self.metric)

    def folder(self) -> Path:
        """The folder of the runs. Raises ValueError if it is a file."""
        return self.study.out(self.out)


@dataclass(frozen=True)
class FigureOptions(RunsOptions):
    kind: FigureKind = "roadmap"
    published: bool = False  # the paper's tables instead of runs
    compare: Comparison | None = None  # with the paper's roadmap
    against: str | None = None  # the regime whose published table `compare` takes
    x: TradeoffAxis | None = None  # of a tradeoff; None: macs
    throughput: bool = False  # images/s at each bar
    columns: Literal[1, 2] = 2  # width of the figure, in columns of a page
    to: str | None = None  # the task of a transfer; None: the only one that has runs
    recipe: str | None = None  # the transfer recipe; None: the first one for the task

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
            # --throughput reads the folder of runs, with --published too.
            reject_unused_by_published(self, *([] if self.throughput else ["out"]))


@dataclass(frozen=True)
class TableOptions(RunsOptions):
    published: bool = False  # the paper's own table, without any run
    robustness: bool = False  # accuracies on ImageNet-C, -A, -R and -Sketch instead
    transfer: bool = False  # what the rungs reach in other tasks instead
    to: str | None = None  # the task of a transfer; None: each that has runs
    recipe: str | None = None  # the transfer recipe; None: the first one for the task

    def check(self) -> None:
        """Raises ValueError for an option that this table leaves unused."""
        if self.transfer:
            reject_unused(["published", "metric", "robustness"], "does not apply to --transfer", self)
        else:
            reject_unused(["to", "recipe"], "requires --transfer", self)
        if self.robustness:
            reject_unused(["published", "metric"], "does not apply to --robustness", self)
        if self.published:
            reject_unused_by_published(self, "out")


def reject_unused_by_published(options: RunsOptions, *more: str) -> None:
    """Raises ValueError for options of runs, which published results leave unused."""
    names = ["steps", "ablation", "references", "fidelity", "data", "settings", "plugins", "base", "metric", *more]
    reject_unused(names, "does not apply to --published", options.study, options)
