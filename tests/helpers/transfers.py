"""Transfers that tests train in a few seconds."""

from __future__ import annotations

from dataclasses import replace
from typing import Any

import pytest

from roadmap.options import Selection, StudyOptions
from roadmap.record.run import Run
from roadmap.record.transfers import TransferOptions, Transfers
from runner.data.dense import embedded

IMAGES = {"train": 16, "test": 6}
SHORT = {"recipe.epochs": 2, "recipe.batch_size": 4, "recipe.warmup_steps": 0}


def few_scenes(monkeypatch: pytest.MonkeyPatch) -> None:
    """Makes scenes fewer in this process."""
    for split, count in IMAGES.items():
        monkeypatch.setitem(embedded.COUNTS, split, count)


def transfer_of(rung: str, task: str, *, seed: int = 0, options: dict[str, Any] | None = None, **chosen: Any) -> Run:
    """The transfer of a rung of pico on few scenes. `options` are settings besides SHORT."""
    settings = StudyOptions.of({"settings": SHORT | (options or {})}).settings
    transfers = Transfers.of(TransferOptions(task, **chosen), StudyOptions(settings=settings))
    run = transfers.run(source_of(rung, seed))
    return replace(run, dataset=replace(run.dataset, train_images=IMAGES["train"], test_images=IMAGES["test"]))


def source_of(rung: str, seed: int = 0) -> Run:
    """The run that `transfer_of` begins with."""
    selection = Selection.of(StudyOptions())
    return selection.run(selection.rung(rung), seed)
