"""Parameters and multiply-adds of the rungs with the heads of a task."""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass, replace

from roadmap.network.cost import Cost
from roadmap.options import Selection, StudyOptions
from roadmap.record.transfers import TransferOptions, Transfers
from roadmap.study.rungs import Rung
from runner.train.tasks.registry import task_of


@dataclass(frozen=True)
class Counted:
    """The rungs of a selection, counted with heads."""

    selection: Selection
    recipe: str  # the transfer recipe, whose heads are counted
    data: str
    size: tuple[int, int]  # height and width of the image
    costs: tuple[tuple[Rung, Cost], ...]


def count_transfers(options: StudyOptions, task: str, recipe: str | None = None) -> Counted:
    """Counts the selected rungs with the heads of a transfer recipe: by default, in the paper's regimes the authors',
    else that of `roadmap transfer`.

    Raises ValueError for an unknown name, and for classification, whose networks `roadmap list` counts.
    """
    if task == "classification":
        raise ValueError("--transfer classification has the networks of `roadmap list`, without heads")
    selection = Selection.of(options)
    study = selection.study
    if recipe is None and study.regime(selection.regime).published:
        published = {"detection": "coco", "segmentation": "ade20k"}.get(task)
        recipe = study.transfer_for(task, published, selection.regime)
    transfers = Transfers.of(TransferOptions(task, "scratch", recipe=recipe), replace(options, data=None))
    size = transfers.task_options().get("cost_size", (0, 0))
    costs = tuple(_costs(selection, transfers))
    return Counted(selection, transfers.recipe, transfers.selection.context.data, (size[0], size[1]), costs)


def _costs(selection: Selection, transfers: Transfers) -> Iterator[tuple[Rung, Cost]]:
    for rung in selection.rungs():
        yield rung, task_of(transfers.run(selection.run(rung))).cost()
