"""Run folders as one tidy table: one row for each run.

The rows of finished runs are cached in `.collected.jsonl` next to the regimes' folders, one line for each run, so that
the next collection reads only new runs. The file may be removed at any time.
"""

from __future__ import annotations

import contextlib
import io
import json
import os
from collections.abc import Iterable, Iterator
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd

from roadmap.estimates import CPU
from roadmap.files import InvalidFile, make_parent, parse_json, read_json_lines, write_atomic
from roadmap.record.folder import Manifest, is_diverged, read_divergences, read_manifest, read_metrics, read_result
from roadmap.record.metrics import METRICS, averaged
from roadmap.record.outcomes import read_outcomes
from roadmap.record.results import RunResult, scalar
from roadmap.record.run import FORMAT
from roadmap.serialization.plain_data import from_data

CACHE, HEAD = ".collected.jsonl", {"format": 6, "runs": FORMAT}

SLACK = 1000  # lines
STATES = ("finished", "begun", "diverged", "foreign")

# The columns and their meaning. The metrics' columns stand before `best_top1` (see `columns`). Numbers are of
# finished runs only, except `epochs`.
COLUMNS = {
    "regime": "of the study",
    "rung": "as which it was trained",
    "seed": "",
    "state": "finished, begun, diverged, or foreign: not a run of this version",
    "why": "the reason if it is not finished",
    "best_top1": "of the best epoch; chosen on the test images, so biased upwards",
    "best_ema_top1": "the same of the averaged weights",
    "train_loss": "cross entropy over the last epoch, augmented",
    "parameters": "",
    "macs": "multiply-adds of one image",
    "epochs": "finished epochs",
    "seconds": "of training, including evaluation",
    "device_hours": "hours of a GPU, or of a core of a CPU",
    "images_per_second": "in training, over all devices; median of the epochs",
    "peak_memory_bytes": "of the device, or of the process on a CPU",
    "skipped_images": "number of images that could not be read",
    "restarts": "after the first start",
    "lost_steps": "steps that were trained twice",
    "task": "classification, or another of `roadmap transfer`",
    "weights": "of a transfer: scratch, run-IDENTITY, ema-IDENTITY or file-HASH",
    "frozen": "of a transfer: the part that was not trained",
    "data": "the data set",
    "fidelity": "",
    "device": "its model",
    "devices": "GPUs, or cores of a CPU",
    "host": "where it began",
    "precision": "fp32, bf16 or fp16",
    "torch": "version",
    "libraries": "versions of the others",
    "commit": "of the code",
    "modified": "whether the code differed from the commit",
    "started": "UTC",
    "finished": "UTC",
    "experiment": "the identity of the run with seed 0: the same for all seeds",
    "recipe": "a hash of recipe, data and fidelity: the same for runs that differ in network and seed only",
    "identity": "of the run; its folder ends in it, without `run-`",
    "folder": "relative to the folder of runs",
}
RESULT_COLUMNS = (
    *(
        "best_top1",
        "best_ema_top1",
        "train_loss",
        "parameters",
        "macs",
        "epochs",
        "seconds",
        "images_per_second",
        "peak_memory_bytes",
    ),
    *("skipped_images", "restarts", "lost_steps", "finished"),
)
TEXTS = (
    *(
        "regime",
        "rung",
        "state",
        "why",
        "task",
        "weights",
        "frozen",
        "data",
        "fidelity",
        "device",
        "host",
        "precision",
        "torch",
        "libraries",
    ),
    *("commit", "started", "finished", "experiment", "recipe", "identity", "folder"),
)
REQUIRED = frozenset(  # in a cached row
    {"folder", "regime", "rung", "seed", "experiment", "recipe", "identity", "data"}
)
WHOLE = (
    *("seed", "parameters", "macs", "epochs", "peak_memory_bytes", "skipped_images", "restarts", "lost_steps"),
    "devices",
)

Row = dict[str, Any]


def collect(out: Path) -> pd.DataFrame:
    """A row with COLUMNS for every folder below `out` in the place of a run folder.

    Rows that are not finished have the reason in `why`; no folder is dropped. Raises ValueError if `out` is no folder.
    """
    if not out.is_dir():
        if out.exists():
            raise ValueError(f"--out must be a folder, or a path that does not exist (got the file {out})")
        raise ValueError(f"{out}: no such folder of runs (`roadmap run` creates it)")
    cached, lines = _read_cache(out)
    rows, new_entries = [], []
    for folder in _folders(out):
        stamp, (cached_stamp, row) = _stamp(folder), cached.get(folder.relative_to(out).as_posix(), (None, None))
        if row is None or stamp is None or cached_stamp != stamp:
            row = _row(folder, out)
            if row["state"] == "finished":
                new_entries.append([stamp, row])
        rows.append(row)
    if lines > 2 * len(rows) + SLACK:  # of removed runs, or added by several collections at once
        new_entries = [[_stamp(out / row["folder"]), row] for row in rows if row["state"] == "finished"]
        _write_cache(out, new_entries)
    elif new_entries:
        _add_to_cache(out, new_entries)
    return _table(rows)


def _folders(out: Path) -> Iterator[Path]:
    """All folders in the regimes' folders, in order, without hidden ones."""
    for regime in _names(out):
        yield from (out / regime / name for name in _names(out / regime))


def _names(folder: Path) -> list[str]:
    with os.scandir(folder) as entries:
        return sorted(entry.name for entry in entries if not entry.name.startswith(".") and _is_folder(entry))


def _is_folder(entry: os.DirEntry[str]) -> bool:
    try:
        return entry.is_dir()
    except OSError:  # a link to itself
        return False


def _stamp(folder: Path) -> list[int] | None:
    """Times and sizes of a finished run's files, which change with the files; None if it is not finished."""
    try:
        files = [os.stat(folder / "result.json"), os.stat(folder / "manifest.json")]
    except OSError:
        return None
    return [number for file in files for number in (file.st_mtime_ns, file.st_size)]


def _read_cache(out: Path) -> tuple[dict[str, tuple[list[int], Row]], int]:
    """The cached rows by folder, and the number of lines. Later lines replace earlier ones; others are ignored."""
    try:
        lines = read_json_lines(out / CACHE)
    except (OSError, InvalidFile):
        return {}, 0
    if lines[:1] != [HEAD]:
        return {}, 0
    entries = (line for line in lines[1:] if isinstance(line, list) and len(line) == 2 and isinstance(line[1], dict))
    return {row["folder"]: (stamp, row) for stamp, row in entries if _is_valid(row)}, len(lines)


def _is_valid(row: Row) -> bool:
    """Whether a cached row has what a finished run has, each value of its type."""
    if row.get("state") != "finished" or not row.keys() >= REQUIRED:
        return False
    for key, value in row.items():
        kind: Any = str if key in TEXTS else bool if key == "modified" else int if key in WHOLE else float
        try:
            from_data(kind if key in REQUIRED else kind | None, value, key)
        except ValueError:
            return False
    return True


def _add_to_cache(out: Path, entries: list[list[Any]]) -> None:
    """Without write access nothing is cached, so each collection reads all runs."""
    if not _is_whole(out / CACHE):
        _write_cache(out, entries)
        return
    with contextlib.suppress(OSError), (out / CACHE).open("a", encoding="utf-8") as file:
        file.write("".join(json.dumps(line) + "\n" for line in entries))


def _write_cache(out: Path, entries: list[list[Any]]) -> None:
    with contextlib.suppress(OSError):
        write_atomic(out / CACHE, "".join(json.dumps(line) + "\n" for line in (HEAD, *entries)).encode())


def _is_whole(path: Path) -> bool:
    """Whether the file exists, is of this version, and has a complete last line."""
    with contextlib.suppress(OSError, ValueError), path.open("rb") as file:
        head = parse_json(file.readline().decode())
        file.seek(-1, os.SEEK_END)
        return bool(head == HEAD and file.read() == b"\n")
    return False


def _row(folder: Path, out: Path) -> Row:
    row: Row = {"regime": folder.parent.name, "folder": folder.relative_to(out).as_posix()}
    try:
        manifest = read_manifest(folder)
        if manifest is None:
            return row | {"state": "foreign", "why": "no manifest.json"}
        run, identity = manifest.run, folder.name.rpartition("-")[2]
        if identity != run.identity:
            raise InvalidFile(f"{folder} holds run {run.identity}, not {identity} as its name says")
        row |= _of_manifest(manifest)
        result = read_result(folder, run)
        if result is not None:
            return row | _of_result(folder, result, row["devices"])
        epochs = len(read_metrics(folder))
        divergences = read_divergences(folder)
        if is_diverged(divergences):
            return row | {"state": "diverged", "why": str(divergences[-1]), "epochs": epochs}
        total = run.experiment.recipe.epochs
        return row | {"state": "begun", "why": f"epoch {epochs} of {total} is done", "epochs": epochs}
    except (InvalidFile, OSError) as error:
        return row | {"state": "foreign", "why": str(error)}


def _of_manifest(manifest: Manifest) -> Row:
    run, environment = manifest.run, manifest.environment
    return {
        "rung": run.rung,
        "task": run.task,
        "weights": run.transfer and run.transfer.weights,
        "frozen": run.transfer and run.transfer.frozen,
        "seed": run.seed,
        "data": run.data,
        "fidelity": run.fidelity,
        "experiment": run.experiment_identity,
        "recipe": run.recipe_identity,
        "identity": run.written_identity,
        "device": environment.gpu or CPU,
        "devices": environment.devices,
        "host": environment.host,
        "precision": environment.precision,
        "torch": environment.torch,
        "libraries": ", ".join(f"{name} {version}" for name, version in manifest.versions.items() if name != "torch"),
        "commit": environment.commit,
        "modified": environment.modified,
        "started": environment.started,
    }


def _of_result(folder: Path, result: RunResult, devices: int | None) -> Row:
    if None in (result.images_per_second, result.best_top1):  # an older result without it
        result = result.completed(read_metrics(folder))
    numbers = {key: scalar(value) for key, value in result.values.items()}
    numbers |= {key: getattr(result, key) for key in RESULT_COLUMNS}
    row: Row = {key: number for key, number in numbers.items() if number is not None} | {"state": "finished"}
    return row | ({"device_hours": result.seconds * devices / 3600} if devices else {})


def columns(rows: Iterable[Row] = ()) -> list[str]:
    """The columns of a table with these rows, in order, with those of all known metrics and of others in the rows."""
    metrics = METRICS.values()
    known = [metric.key for metric in (*metrics, *map(averaged, metrics))]
    unknown = sorted({key for row in rows for key in row} - {*COLUMNS, *known})
    other_columns = list(COLUMNS)
    position = other_columns.index("best_top1")
    return [*other_columns[:position], *known, *unknown, *other_columns[position:]]


def empty_table() -> pd.DataFrame:
    """The table of a folder without runs."""
    return _table([])


def _table(rows: list[Row]) -> pd.DataFrame:
    table = pd.DataFrame({column: [_encodable(row.get(column)) for row in rows] for column in columns(rows)})
    for column in table.columns.difference([*TEXTS, "modified"]):
        table[column] = pd.to_numeric(table[column])
    kinds = {column: "Int64" for column in WHOLE if column in COLUMNS} | {"modified": "boolean"}
    return table.astype(kinds | {column: pd.StringDtype(na_value=np.nan) for column in TEXTS})


def _encodable(value: Any) -> Any:
    """A text without what UTF-8 can't encode: names of folders may be any bytes."""
    return value.encode(errors="backslashreplace").decode() if isinstance(value, str) else value


def with_outcomes(table: pd.DataFrame, out: Path) -> pd.DataFrame:
    """The table of `collect(out)` with columns `correct` and `confidence`: of each test image, or None."""
    outcomes = [
        read_outcomes(out / row["folder"]) if row["state"] == "finished" else None for row in table.to_dict("records")
    ]
    columns = {
        "correct": [own and own.correct for own in outcomes],
        "confidence": [own and own.confidence for own in outcomes],
    }
    return table.assign(**{name: pd.Series(cells, table.index, dtype=object) for name, cells in columns.items()})


def check_suffix(path: Path) -> None:
    """Raises ValueError for a suffix that `write_table` can't write."""
    if path.suffix.lower() not in (".csv", ".parquet"):
        raise ValueError(f"{path}: a table must end in .csv or .parquet")


def write_table(table: pd.DataFrame, path: Path) -> None:
    """Writes .csv or .parquet, by the suffix. Raises ValueError for another suffix, or without Parquet's library."""
    check_suffix(path)
    suffix, buffer = path.suffix.lower(), io.BytesIO()
    if suffix == ".csv":
        table.to_csv(buffer, index=False)
    else:
        try:
            table.to_parquet(buffer, index=False)
        except ImportError:
            raise ValueError(f"{path}: Parquet needs pyarrow: pip install 'roadmap-convnext[parquet]'") from None
    make_parent(path)
    write_atomic(path, buffer.getvalue())
