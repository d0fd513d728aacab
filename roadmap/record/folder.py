"""The folder of a run: manifest, metrics, result. Training writes it, analysis reads it.

runs/<regime>/<rung>-s<seed>-<identity>/
    manifest.json   the whole experiment and where it runs; written first, and once
    metrics.jsonl   one line an epoch
    checkpoint.pt   the state that resuming needs (read and written by runner/)
    test_images.npz   what the trained network predicts for each held-out image (roadmap/record/outcomes.py)
    result.json     written last, when the run is complete
    divergences.json  only if the loss was not finite: when, and where training resumed, if it did
    sessions.jsonl, place.json  each start, and the position of training (roadmap/record/sessions.py)
    log.txt         the log, for people
    tensorboard/, wandb/  copies of the record for trackers, if asked for (runner/train/trackers.py)
"""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import lru_cache
from pathlib import Path
from typing import Annotated, Any, Literal, Protocol

from roadmap.files import (
    InvalidFile,
    append_json_line,
    fsync,
    parse_json,
    read_json,
    read_json_lines,
    read_tail,
    write_atomic,
    write_json,
)
from roadmap.record.metrics import METRICS, TOP1, averaged, primary
from roadmap.record.results import Divergence, EpochMetrics, RunResult
from roadmap.record.run import FORMAT, Run
from roadmap.record.upgrade import upgraded
from roadmap.serialization.plain_data import from_data, to_data
from roadmap.serialization.ranges import TIME, Range, check_fields

METRICS_FILE = "metrics.jsonl"
State = Literal["absent", "begun", "diverged", "finished"]


def state(folder: Path, run: Run) -> State:
    """The state of the run in that folder. Raises InvalidFile if the folder holds another run."""
    manifest = read_manifest(folder)
    if manifest is None:
        present = [name for name in ("checkpoint.pt", "result.json") if (folder / name).exists()]
        if present:
            raise InvalidFile(f"{folder} has a {present[0]} but no manifest.json; move the folder away to train again")
        return "absent"
    stored = manifest.run.identity
    if stored != run.identity:
        raise InvalidFile(
            f"{folder} holds another run ({stored}) than {run.name} ({run.identity}); move the folder away"
        )
    if read_result(folder, run) is not None:
        return "finished"
    return "diverged" if is_diverged(read_divergences(folder)) else "begun"


def read_divergences(folder: Path) -> tuple[Divergence, ...]:
    """The divergences of a run, in order. Raises InvalidFile if the file is not valid."""
    path = folder / "divergences.json"
    content = read_json(path)
    if content is None:
        return ()
    try:
        divergences: tuple[Divergence, ...] = from_data(
            tuple[Divergence, ...], content.get("divergences"), "divergences"
        )
    except ValueError as error:
        raise InvalidFile(f"{path}: {error}") from None
    return divergences


def write_divergences(folder: Path, divergences: Sequence[Divergence]) -> None:
    write_json(folder / "divergences.json", {"divergences": to_data(divergences)})


def is_diverged(divergences: Sequence[Divergence]) -> bool:
    """Whether training ended by divergence: the last one was not retried."""
    return bool(divergences) and divergences[-1].retried_from is None


class HasIdentity(Protocol):
    """A run, or an entry of one."""

    @property
    def identity(self) -> str: ...


def read_result(folder: Path, run: HasIdentity) -> RunResult | None:
    """The result of a run; None before it is complete. Raises InvalidFile if it is of another run or not complete."""
    path = folder / "result.json"
    row = read_json(path)
    if row is None:
        return None
    if row.get("identity") != run.identity:
        raise InvalidFile(f"{path} is of run {row.get('identity')}, not {run.identity}; move the folder away")
    try:
        result = RunResult.of_row(row)
        known = {kind.key for metric in METRICS.values() for kind in (metric, averaged(metric))}
        invalid = [key for key in row if key in known and key not in result.values]
        compared = primary(row) if TOP1.key not in row else TOP1
        for key in [*invalid, *([compared.key] if result.value(compared) is None else [])]:
            raise ValueError(f"{key} is {row.get(key)!r}, not a number")
    except ValueError as error:
        raise InvalidFile(f"{path}: {error}; remove the file to train the rest again") from None
    return result


@dataclass(frozen=True)
class Environment:
    """Where a run began, and how it was computed. None: an older version did not write it."""

    processes: Annotated[int | None, Range(1)] = None  # in training
    threads: Annotated[int | None, Range(1)] = None  # of each process, on a CPU
    precision: str | None = None  # fp32, bf16 or fp16
    gpu: str | None = None  # its model; None: on a CPU
    host: str | None = None
    torch: str | None = None  # its version
    commit: str | None = None  # of the code
    modified: bool | None = None  # whether the code differed from the commit
    started: Annotated[str | None, TIME] = None  # UTC

    def __post_init__(self) -> None:
        check_fields(self)

    @property
    def devices(self) -> int | None:
        """GPUs, or cores of a CPU."""
        return self.processes and self.processes * (1 if self.gpu else self.threads or 1)


_SECTIONS = {  # of the manifest: the fields of Environment in each
    "execution": ("processes", "threads", "precision"),
    "machine": ("gpu", "host"),
    "versions": ("torch",),
    "code": ("commit", "modified"),
}


@dataclass(frozen=True)
class Manifest:
    """What readers use of manifest.json."""

    run: Run
    environment: Environment
    execution: dict[str, Any]  # as recorded
    classes: tuple[str, ...]  # names of the outputs of the network; empty in an older record
    data_path: Path | None  # of the images; None: the usual one
    versions: dict[str, str | None]  # of Python and the libraries, by name
    weights: str | None = None  # hash of those that a transfer began with


def read_manifest(folder: Path) -> Manifest | None:
    """The manifest of a folder; None if there is none.

    Raises InvalidFile for an unknown format, for invalid content, and if its identity is not that of its run.
    """
    path = folder / "manifest.json"
    content = read_json(path)
    if content is None:
        return None
    content = upgraded(content, folder)
    run = read_run(content, folder)
    try:
        identity = run.identity
        sections = {name: from_data(dict[str, Any], content.get(name, {}), name) for name in _SECTIONS}
        values = {name: sections[section].get(name) for section, names in _SECTIONS.items() for name in names}
        environment = from_data(Environment, {**values, "started": content.get("started")})
        classes = from_data(tuple[str, ...], content.get("classes", ()), "classes")
        data_path = from_data(str | None, content.get("data_path"), "data_path")
        versions = from_data(dict[str, str | None], sections["versions"], "versions")
        weights = from_data(str | None, content.get("weights"), "weights")
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{path}: {error}") from None
    if content.get("identity") != identity:
        stated = content.get("identity")
        raise InvalidFile(
            f"{folder} holds another run ({identity}) than its manifest.json says ({stated}); move the folder away"
        )
    path_of_data = Path(data_path) if data_path else None
    return Manifest(run, environment, sections["execution"], classes, path_of_data, versions, weights)


def read_run(manifest: dict[str, Any], folder: Path) -> Run:
    """The run that a manifest describes, of this format or an earlier one.

    Raises InvalidFile for an unknown format and for invalid content.
    """
    manifest = upgraded(manifest, folder)
    data = manifest.get("run")
    try:
        if not isinstance(data, dict):
            raise ValueError(f"run: {data!r} is not a mapping")
        run = _run_of(json.dumps({**data, "seed": 0}))
        return replace(run, seed=from_data(int, data.get("seed"), "run.seed"))
    except (ValueError, RecursionError) as error:
        raise InvalidFile(f"{folder}/manifest.json: {error}") from None


@lru_cache(maxsize=4096)  # many manifests differ in their seed alone
def _run_of(text: str) -> Run:
    run: Run = from_data(Run, json.loads(text), "run")
    return run


def write_manifest(folder: Path, run: Run, **environment: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"format": FORMAT, "identity": run.identity, "run": to_data(run), **environment}
    write_json(folder / "manifest.json", manifest)


def write_accumulation(folder: Path, parts: int) -> None:
    """Changes the number of parts of a device's batch in a run's manifest."""
    path = folder / "manifest.json"
    manifest = parse_json(path.read_text(encoding="utf-8"))
    write_json(path, {**manifest, "execution": {**manifest["execution"], "accumulation": parts}})


def append_metrics(folder: Path, metrics: EpochMetrics) -> None:
    append_json_line(folder / METRICS_FILE, metrics.to_row())


def sync_metrics(folder: Path) -> None:
    """Writes the rows to the disk, before a checkpoint that requires them."""
    fsync(folder / METRICS_FILE)


def read_metrics(folder: Path) -> list[EpochMetrics]:
    """The metrics of the epochs so far, in order. A last line without its end is ignored.

    Raises InvalidFile with file and line if a line is not the row of its epoch.
    """
    return [metrics for _, metrics in _read_rows(folder / METRICS_FILE)]


def _read_rows(path: Path) -> list[tuple[dict[str, Any], EpochMetrics]]:
    """Each line as data and as metrics."""
    rows = []
    for number, row in enumerate(read_json_lines(path), start=1):
        try:
            if not isinstance(row, dict) or row.get("epoch") != number:
                raise ValueError(f"not the metrics of epoch {number}")
            rows.append((row, EpochMetrics.of_row(row)))
        except ValueError as error:
            raise InvalidFile(f"{path}, line {number}: {error}; move the folder away") from None
    return rows


def last_metrics(folder: Path) -> EpochMetrics | None:
    """The metrics of the last complete epoch, read from the end of the file; None if they can't be read."""
    line = next(reversed(read_tail(folder / METRICS_FILE)), "")
    try:
        return EpochMetrics.of_row(from_data(dict[str, Any], parse_json(line)))
    except ValueError:
        return None


def keep_metrics(folder: Path, epochs: int) -> None:
    """Keeps the rows of the first `epochs` epochs and removes later ones, which will be trained again.

    Raises InvalidFile if there are fewer.
    """
    path = folder / METRICS_FILE
    rows = [row for row, _ in _read_rows(path)]
    if len(rows) < epochs:
        raise InvalidFile(f"{path} has {len(rows)} of the checkpoint's {epochs} epochs; move the folder away")
    write_atomic(path, "".join(json.dumps(row) + "\n" for row in rows[:epochs]).encode())
