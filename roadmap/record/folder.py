"""A run's folder: manifest, metrics, result. The format through which training and analysis meet.

runs/<regime>/<rung>-s<seed>-<identity>/
    manifest.json   the whole experiment and where it runs; written once, first
    metrics.jsonl   one line an epoch
    checkpoint.pt   all that resuming needs (the runner's)
    result.json     last, and only when the run is complete
    divergences.json  only where the loss was no number: when, and where training went on from, if it did
    sessions.jsonl, place.json  each start, and how far training is (roadmap/record/sessions.py)
    log.txt         what a person would read
    tensorboard/, wandb/  mirrors of it, where they are asked for (runner/train/trackers.py)
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Any, Literal

from roadmap.files import InvalidFile, append_json_line, fsync, read_json, read_json_lines, write_atomic, write_json
from roadmap.record.run import FORMAT, Run
from roadmap.record.upgrade import upgraded
from roadmap.serialization import from_data, to_data

State = Literal["absent", "begun", "diverged", "finished"]


@dataclass(frozen=True)
class Divergence:
    """A loss, or a weight, that was no finite number."""

    epoch: int  # from 1
    step: int  # within the epoch, from 1
    learning_rate: float
    loss: str  # nan, inf or -inf; a number where the weights it left were not finite
    module: str  # the first whose output, or whose weights, were not finite
    retried_from: tuple[int, int] | None = None  # the epoch and step, from 0, that training went on from

    def __str__(self) -> str:
        where = f"epoch {self.epoch}, step {self.step}, at a learning rate of {self.learning_rate:g}"
        return f"the loss is {self.loss} in {where}; the first that was not finite is {self.module}"


def state(folder: Path, run: Run) -> State:
    """How far the run in that folder is. Raises InvalidFile where the folder holds another run."""
    manifest = read_json(folder / "manifest.json")
    if manifest is None:
        left = [name for name in ("checkpoint.pt", "result.json") if (folder / name).exists()]
        if left:
            raise InvalidFile(f"{folder} has a {left[0]} but no manifest.json; move the folder away to train again")
        return "absent"
    stored = manifest.get("identity")
    if stored != run.identity or read_run(manifest, folder).identity != run.identity:
        raise InvalidFile(
            f"{folder} holds another run ({stored}) than {run.name} ({run.identity}); move the folder away"
        )
    if read_result(folder, run) is not None:
        return "finished"
    return "diverged" if is_diverged(read_divergences(folder)) else "begun"


def read_divergences(folder: Path) -> tuple[Divergence, ...]:
    """When a run diverged, in order. Raises InvalidFile where the file is not of this version."""
    path = folder / "divergences.json"
    content = read_json(path)
    if content is None:
        return ()
    try:
        found: tuple[Divergence, ...] = from_data(tuple[Divergence, ...], content.get("divergences"), "divergences")
    except ValueError as error:
        raise InvalidFile(f"{path}: {error}") from None
    return found


def write_divergences(folder: Path, divergences: Sequence[Divergence]) -> None:
    write_json(folder / "divergences.json", {"divergences": to_data(divergences)})


def is_diverged(divergences: Sequence[Divergence]) -> bool:
    """Whether training ended there: the last was not retried."""
    return bool(divergences) and divergences[-1].retried_from is None


def read_result(folder: Path, run: Run) -> dict[str, Any] | None:
    """A run's result; None before it is complete. Raises InvalidFile where it is not this run's, or not whole."""
    path = folder / "result.json"
    result = read_json(path)
    if result is None:
        return None
    if result.get("identity") != run.identity:
        raise InvalidFile(f"{path} is of run {result.get('identity')}, not {run.identity}; move the folder away")
    for key in ("top1", "seconds"):
        if not isinstance(result.get(key), int | float):
            raise InvalidFile(f"{path} has {key} {result.get(key)!r}, not a number; remove the file to go on")
    return result


def read_run(manifest: dict[str, Any], folder: Path) -> Run:
    """The run that a manifest describes, of this format or an earlier one.

    Raises InvalidFile where it is of no known format, or is not valid.
    """
    manifest = upgraded(manifest, folder)
    data = manifest.get("run")
    try:
        if not isinstance(data, dict):
            raise ValueError(f"run: {data!r} is not a mapping")
        run = _run_of(json.dumps({**data, "seed": 0}))
        return replace(run, seed=from_data(int, data.get("seed"), "run.seed"))
    except ValueError as error:
        raise InvalidFile(f"{folder}/manifest.json: {error}") from None


@lru_cache(maxsize=4096)  # many manifests differ in their seed alone
def _run_of(text: str) -> Run:
    run: Run = from_data(Run, json.loads(text), "run")
    return run


def write_manifest(folder: Path, run: Run, **circumstances: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"format": FORMAT, "identity": run.identity, "run": to_data(run), **circumstances}
    write_json(folder / "manifest.json", manifest)


def append_metrics(folder: Path, row: dict[str, Any]) -> None:
    append_json_line(folder / "metrics.jsonl", row)


def sync_metrics(folder: Path) -> None:
    """Before a checkpoint that counts on the rows so far."""
    fsync(folder / "metrics.jsonl")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of the epochs so far, in order; a last line that was cut off in the writing is not one.

    Raises InvalidFile with file and line where one is not the row of its epoch.
    """
    path = folder / "metrics.jsonl"
    rows = read_json_lines(path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or row.get("epoch") != number:
            raise InvalidFile(f"{path}, line {number}: not the metrics of epoch {number}; move the folder away")
    return rows


def summary(rows: Sequence[Mapping[str, Any]]) -> dict[str, Any]:
    """What a run's epochs come to: the last one's accuracies and losses, never the best's, which would choose on the
    test set; the pace, and the memory.
    """
    import statistics  # here, as what answers at once does without

    rates = [row["images_per_second"] for row in rows if row.get("images_per_second")]
    return {
        **{key: value for key, value in rows[-1].items() if key.endswith(("top1", "top5", "loss"))},
        "images_per_second": statistics.median(rates) if rates else None,  # in training
        "peak_memory_bytes": max((row.get("peak_memory_bytes") or 0 for row in rows), default=0) or None,
        "seconds": sum(row["seconds"] for row in rows),
    }


def keep_metrics(folder: Path, epochs: int) -> None:
    """Keeps the rows of the first `epochs` epochs: those behind them will be trained again.

    Raises InvalidFile where there are fewer.
    """
    rows = read_metrics(folder)
    if len(rows) < epochs:
        path = folder / "metrics.jsonl"
        raise InvalidFile(f"{path} has {len(rows)} of the checkpoint's {epochs} epochs; move the folder away")
    write_atomic(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows[:epochs]).encode())
