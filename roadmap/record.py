"""A run and its folder: identity, manifest, metrics, result. The format through which training and analysis meet.

runs/<regime>/<rung>-s<seed>-<identity>/
    manifest.json   the whole experiment and where it runs; written once, first
    metrics.jsonl   one line an epoch
    checkpoint.pt   all that resuming needs (the runner's)
    result.json     last, and only when the run is complete
    divergences.json  only where the loss was no number: when, and where training went on from, if it did
    sessions.jsonl, place.json  each start, and how far training is (roadmap/sessions.py)
    log.txt         what a person would read
    tensorboard/, wandb/  mirrors of it, where they are asked for (runner/mirrors.py)
"""

from __future__ import annotations

import contextlib
import json
import os
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import cached_property, lru_cache
from pathlib import Path
from typing import Any, Literal, TypeVar

from roadmap.design import Design, simplest
from roadmap.plain import from_data, to_data
from roadmap.recipe import Experiment
from roadmap.study import Dataset

FORMAT = 2
T = TypeVar("T")

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


class ForeignFolder(ValueError):
    """A run folder holds another run than its name says."""


@dataclass(frozen=True)
class Run:
    """One training: a rung of a regime on a data set, with one seed."""

    regime: str
    rung: str
    experiment: Experiment
    data: str  # the data set's name
    dataset: Dataset
    seed: int
    fidelity: str
    mixers: dict[str, str] = field(default_factory=dict)  # users' own code in the network, with each one's hash

    @cached_property
    def identity(self) -> str:
        """A hash over everything that decides the result, every default written out.

        Where the rung stands in a study, paths, hosts, devices and worker counts are no part of it.
        """
        # The data set's own changes to the recipe are in the recipe by now.
        return digest({"format": FORMAT, **self._decisive(), "dataset": to_data(replace(self.dataset, recipe={}))})

    def _decisive(self) -> dict[str, Any]:
        data = self.dataset.content or self.data  # a folder is what it holds, whatever it is called
        named = {"data": data, "seed": self.seed, "fidelity": self.fidelity, "mixers": self.mixers}
        return {"experiment": canonical(self.experiment), **named}

    @property
    def crops_by_batch(self) -> bool:
        """Whether images are cropped and mirrored a batch at a time: small ones in memory, with no more to be done."""
        in_memory = self.dataset.content is None and self.data != "imagenet"  # not in a folder
        recipe = self.experiment.recipe
        return in_memory and recipe.crop == "padded" and recipe.randaugment is None

    @property
    def name(self) -> str:
        return f"{self.regime}/{self.rung}-s{self.seed}"

    def folder(self, out: Path, existing: Mapping[str, Path] | None = None) -> Path:
        """The folder of this run below `out`: the one that has its identity, under whatever rung, else a new one.

        `existing` are the folders there are, by identity, for who asks for many.
        """
        found = (folders_below(out) if existing is None else existing).get(self.identity)
        return found or out / f"{self.name}-{self.identity}"


def digest(data: Any) -> str:
    """A hash of plain data, whatever the order of its keys."""
    import hashlib  # here, as what answers at once does without

    text = json.dumps(data, sort_keys=True, separators=(",", ":"))
    return hashlib.sha256(text.encode()).hexdigest()[:12]


def canonical(experiment: Experiment) -> dict[str, Any]:
    """An experiment as plain data, the same for all that mean the same. Not to be changed: it is kept."""
    if isinstance(experiment.design, Design):
        return _canonical(experiment)
    return _canonical.__wrapped__(experiment)  # among a model's arguments 0, 0.0 and false are equal, and not the same


@lru_cache(maxsize=4096)  # many runs differ in their seed alone
def _canonical(experiment: Experiment) -> dict[str, Any]:
    design = experiment.design
    plain = replace(experiment, design=simplest(design) if isinstance(design, Design) else design)
    # Through the types, so that a width of 1 and of 1.0 are one.
    canonical: dict[str, Any] = to_data(from_data(Experiment, to_data(plain)))
    return canonical


def folders_below(out: Path) -> dict[str, Path]:
    """Every folder that is named as a run's, by the identity in its name."""
    return {path.name.rpartition("-")[2]: path for path in sorted(out.glob("*/*-s*-*"), reverse=True)}


def state(folder: Path, run: Run) -> State:
    """How far the run in that folder is. Raises ForeignFolder where the folder holds another run."""
    manifest = read_json(folder / "manifest.json")
    if manifest is None:
        left = [name for name in ("checkpoint.pt", "result.json") if (folder / name).exists()]
        if left:
            raise ForeignFolder(f"{folder} has a {left[0]} but no manifest.json; move the folder away to train again")
        return "absent"
    stored = manifest.get("identity")
    if stored != run.identity or read_run(manifest, folder).identity != run.identity:
        raise ForeignFolder(
            f"{folder} holds another run ({stored}) than {run.name} ({run.identity}); move the folder away"
        )
    if read_result(folder, run) is not None:
        return "finished"
    return "diverged" if is_diverged(read_divergences(folder)) else "begun"


def read_divergences(folder: Path) -> tuple[Divergence, ...]:
    """When a run diverged, in order. Raises ForeignFolder where the file is not of this version."""
    path = folder / "divergences.json"
    content = read_json(path)
    if content is None:
        return ()
    try:
        found: tuple[Divergence, ...] = from_data(tuple[Divergence, ...], content.get("divergences"), "divergences")
    except ValueError as error:
        raise ForeignFolder(f"{path}: {error}") from None
    return found


def write_divergences(folder: Path, divergences: Sequence[Divergence]) -> None:
    write_json(folder / "divergences.json", {"divergences": to_data(divergences)})


def is_diverged(divergences: Sequence[Divergence]) -> bool:
    """Whether training ended there: the last was not retried."""
    return bool(divergences) and divergences[-1].retried_from is None


def read_result(folder: Path, run: Run) -> dict[str, Any] | None:
    """A run's result; None before it is complete. Raises ForeignFolder where it is not this run's, or not whole."""
    path = folder / "result.json"
    result = read_json(path)
    if result is None:
        return None
    if result.get("identity") != run.identity:
        raise ForeignFolder(f"{path} is of run {result.get('identity')}, not {run.identity}; move the folder away")
    for key in ("top1", "seconds"):
        if not isinstance(result.get(key), int | float):
            raise ForeignFolder(f"{path} has {key} {result.get(key)!r}, not a number; remove the file to go on")
    return result


def read_run(manifest: dict[str, Any], folder: Path) -> Run:
    """The run that a manifest describes. Raises ForeignFolder where it is not one of this version."""
    if manifest.get("format") != FORMAT:
        found = manifest.get("format")
        raise ForeignFolder(f"{folder}/manifest.json has format {found!r}; this version reads {FORMAT}")
    data = manifest.get("run")
    try:
        if not isinstance(data, dict):
            raise ValueError(f"run: {data!r} is not a mapping")
        run = _run_of(json.dumps({**data, "seed": 0}))
        return replace(run, seed=from_data(int, data.get("seed"), "run.seed"))
    except ValueError as error:
        raise ForeignFolder(f"{folder}/manifest.json: {error}") from None


@lru_cache(maxsize=4096)  # many manifests differ in their seed alone
def _run_of(text: str) -> Run:
    run: Run = from_data(Run, json.loads(text), "run")
    return run


def write_manifest(folder: Path, run: Run, **circumstances: Any) -> None:
    folder.mkdir(parents=True, exist_ok=True)
    manifest = {"format": FORMAT, "identity": run.identity, "run": to_data(run), **circumstances}
    write_json(folder / "manifest.json", manifest)


def read_json(path: Path) -> dict[str, Any] | None:
    """A JSON file's content; None where there is no such file. Raises ForeignFolder where it is not an object."""
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
    except FileNotFoundError:
        return None
    except ValueError as error:
        raise ForeignFolder(f"{path} is not valid JSON: {error}; move the folder away") from None
    if not isinstance(content, dict):
        raise ForeignFolder(f"{path} does not hold a JSON object")
    return content


def write_json(path: Path, content: Any) -> None:
    """Writes a whole file or none: aside, to the disk, then renamed."""
    write_whole(path, (json.dumps(content, indent=2) + "\n").encode())


def write_whole(path: Path, content: bytes) -> None:
    """Raises OSError with the path where the disk does not take it; what stood there before stays."""
    aside = path.with_name(path.name + ".tmp")
    try:
        with aside.open("wb") as file:
            file.write(content)
            file.flush()
            os.fsync(file.fileno())
        os.replace(aside, path)
    except OSError as error:
        with contextlib.suppress(OSError):
            aside.unlink()  # a full disk has no room for half a file
        raise OSError(error.errno, error.strerror, str(path)) from None


def append_row(path: Path, row: dict[str, Any]) -> None:
    """Adds a line of JSON to a file. Raises OSError with the path where the disk does not take it."""
    try:
        with path.open("ab+") as file:
            if file.tell() and (file.seek(-1, os.SEEK_END), file.read(1))[1] != b"\n":  # the last line was cut off
                file.write(b"\n")
            file.write((json.dumps(row) + "\n").encode())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def sync(path: Path) -> None:
    """Waits until a file is on the disk itself. Raises OSError with the path where the disk does not take it."""
    try:
        with path.open("rb") as file:
            os.fsync(file.fileno())
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def read_rows(path: Path) -> list[Any]:
    """The values of a file of JSON lines, None for what is no JSON; a last line that was cut off is left out."""
    try:
        lines = path.read_text(encoding="utf-8", errors="replace").splitlines(keepends=True)
    except FileNotFoundError:
        return []
    return [_parsed(line) for line in lines if line.endswith("\n")]


def append_record(path: Path, value: Any, version: int) -> None:
    """Adds a dataclass as a line that tells its format. Raises OSError with the path if the disk does not take it."""
    append_row(path, {"format": version, **to_data(value)})


def read_records(path: Path, kind: type[T], version: int) -> list[T]:
    """The dataclasses of a file's lines, in order; lines that are no such, or of another version, are left out."""
    found = []
    for row in read_rows(path):
        if isinstance(row, dict) and row.pop("format", None) == version:
            with contextlib.suppress(ValueError):
                found.append(from_data(kind, row))
    return found


def _parsed(line: str) -> Any:
    try:
        return json.loads(line)
    except ValueError:
        return None


def append_metrics(folder: Path, row: dict[str, Any]) -> None:
    append_row(folder / "metrics.jsonl", row)


def sync_metrics(folder: Path) -> None:
    """Before a checkpoint that counts on the rows so far."""
    sync(folder / "metrics.jsonl")


def read_metrics(folder: Path) -> list[dict[str, Any]]:
    """The rows of the epochs so far, in order; a last line that was cut off in the writing is not one.

    Raises ForeignFolder with file and line where one is not the row of its epoch.
    """
    path = folder / "metrics.jsonl"
    rows = read_rows(path)
    for number, row in enumerate(rows, start=1):
        if not isinstance(row, dict) or row.get("epoch") != number:
            raise ForeignFolder(f"{path}, line {number}: not the metrics of epoch {number}; move the folder away")
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

    Raises ForeignFolder where there are fewer.
    """
    rows = read_metrics(folder)
    if len(rows) < epochs:
        path = folder / "metrics.jsonl"
        raise ForeignFolder(f"{path} has {len(rows)} of the checkpoint's {epochs} epochs; move the folder away")
    write_whole(folder / "metrics.jsonl", "".join(json.dumps(row) + "\n" for row in rows[:epochs]).encode())
