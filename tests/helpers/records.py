"""Fabricated run folders: what training would have left in them, without the training."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from roadmap.files import append_json_line, write_json
from roadmap.record.folder import METRICS_FILE, write_manifest
from roadmap.record.run import Run
from roadmap.study.load import load_study
from roadmap.study.rungs import Rung

ENVIRONMENT: dict[str, Any] = {
    "execution": {"processes": 2, "threads": 3},
    "machine": {"host": "n1", "gpu": None},
    "versions": {"torch": "2.14.1"},
    "code": {"commit": "abc", "modified": False},
    "started": "2026-01-01T00:00:00+00:00",
}


def study_run(rung: Rung, seed: int = 0, regime: str = "pico", data: str = "") -> Run:
    """A run of a rung as the study has it, so that no option is needed to find it."""
    study = load_study()
    data = data or study.regime(regime).data
    return Run(regime, rung.name, rung.experiment, data, study.dataset(data), seed, "paper")


def begin(run: Run, out: Path, epochs: int = 0, **manifest: Any) -> Path:
    """The folder of a run that has trained so many epochs, with other values of its manifest than ENVIRONMENT's."""
    folder = run.folder(out)
    write_manifest(folder, run, **ENVIRONMENT | manifest)
    for number in range(1, epochs + 1):
        append_row(folder, epoch_row(number))
    return folder


def append_row(folder: Path, row: dict[str, Any]) -> None:
    """A line of metrics as it stands, whatever version would have written it."""
    append_json_line(folder / METRICS_FILE, row)


def epoch_row(number: int, **more: Any) -> dict[str, Any]:
    """A line of metrics."""
    row = {"epoch": number, "train_loss": 2.0 / number, "test_loss": 1.0 / number, "top1": 80.0 + number, "top5": 99.0}
    speed = {"seconds": 3.0, "images_per_second": 100.0 * number, "peak_memory_bytes": 1000 * number}
    return row | speed | more


def finish(
    run: Run, out: Path, top1: float = 90.0, epochs: int = 0, manifest: dict[str, Any] | None = None, **result: Any
) -> Path:
    """The folder of a run that has finished, with other values in its manifest and its result."""
    folder = begin(run, out, epochs, **manifest or {})
    came_to = {"identity": run.identity, "top1": top1, "seconds": 60.0, "epochs": epochs or 2}
    speed = {"images_per_second": 5.0, "peak_memory_bytes": 2**20}
    write_json(folder / "result.json", came_to | speed | result)
    return folder
