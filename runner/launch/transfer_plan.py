"""The runs of `roadmap transfer`: which runs are transferred, and the plan that trains their transfers."""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from pathlib import Path

from roadmap.files import InvalidFile
from roadmap.options import Selection, StudyOptions
from roadmap.record.folder import read_manifest, read_result, state
from roadmap.record.run import Run, find_run, folders_below
from roadmap.record.transfers import Transfers
from roadmap.tasks.registry import CLASSIFICATION
from runner.data.datasets import check_trainable
from runner.launch.plan import PlannedRun, RunPlan
from runner.train.initial_weights import file_weights, initial_weights
from runner.train.trackers import check_installed


@dataclass(frozen=True)
class TransferPlan(RunPlan):
    """The transfers of finished runs."""

    transfers: Transfers | None = None
    sources: tuple[Run, ...] = ()  # of each transfer


def sources(names: Sequence[str], transfers: Transfers, out: Path) -> list[Run]:
    """The runs to transfer: those of these names, else all finished ones of the regime.

    New weights, and those of a file, need no run: then a name may also be of a rung, or RUNG-sSEED. Raises ValueError
    for a name of neither, for a run that is not below `out`, for one that has not finished and should have, and for a
    file without a name.
    """
    if names:
        return [_named(name, transfers, out) for name in names]
    if transfers.options.state_dict:
        raise ValueError("--state-dict requires the rung whose network the file is of, such as layer-scale")
    return list(_finished(transfers.selection, out))


def _named(name: str, transfers: Transfers, out: Path) -> Run:
    needs_run = not transfers.options.state_dict and transfers.options.begin != "scratch"
    try:
        folder = find_run(name, out)
    except ValueError:
        if needs_run or not (untrained := _untrained(name, transfers.selection)):
            raise
        return untrained
    manifest = read_manifest(folder)
    assert manifest is not None  # else find_run does not find it
    if folder.resolve().parent.parent != out.resolve():
        raise ValueError(f"{folder} is not in {out}, where its transfer would be; --out names its folder of runs")
    if manifest.run.task != CLASSIFICATION:
        raise ValueError(f"{folder} is a run of {manifest.run.task}; a transfer begins with a classifier")
    if needs_run and read_result(folder, manifest.run) is None:
        raise ValueError(f"{folder} has not finished training, so there is nothing to transfer yet")
    return manifest.run


def _untrained(name: str, selection: Selection) -> Run | None:
    """The run of a rung, or of RUNG-sSEED, which is not trained; None if there is no such rung."""
    rung, dash, seed = name.rpartition("-s")
    is_seeded = bool(dash) and seed.isdecimal()
    try:
        return selection.run(selection.rung(rung if is_seeded else name), int(seed) if is_seeded else 0)
    except ValueError:
        return None


def _finished(selection: Selection, out: Path) -> Iterator[Run]:
    """The finished runs of the regime, in the order of the study's rungs. Transfers are not transferred again."""
    found = []
    for folder in folders_below(out).values() if out.is_dir() else ():
        try:
            manifest = read_manifest(folder)
            if manifest is None or manifest.run.transfer or manifest.run.regime != selection.regime:
                continue
            if read_result(folder, manifest.run) is not None:
                found.append(manifest.run)
        except (InvalidFile, OSError):
            continue  # `collect` says what is wrong
    order = {name: position for position, name in enumerate(selection.context.names)}
    yield from sorted(found, key=lambda run: (order.get(run.rung, len(order)), run.rung, run.seed))


def first_and_last(options: StudyOptions) -> StudyOptions:
    """The study's first and last rung, which are trained if there is nothing to transfer."""
    names = Selection.of(replace(options, data=None, settings=())).context.names
    return replace(options, data=None, settings=(), steps=f"{names[0]},{names[-1]}")


def transfer_plan(names: Sequence[str], transfers: Transfers, out: Path) -> TransferPlan:
    """The plan of the transfers of these runs (see `sources`). Raises ValueError if one can't be trained."""
    return plan_of(sources(names, transfers, out), transfers, out)


def plan_of(chosen: Sequence[Run], transfers: Transfers, out: Path) -> TransferPlan:
    """The plan of the transfers of these runs, finished or not. Raises ValueError if one can't be trained."""
    check_installed(transfers.selection.execution)
    options = transfers.options
    weights = file_weights(options.state_dict) if options.state_dict else None
    existing = folders_below(out)
    planned: dict[str, tuple[PlannedRun, Run]] = {}
    for source in chosen:
        run = transfers.run(source, weights)
        check_trainable(run)
        folder = run.folder(out, existing)
        if options.state_dict:  # it fits the network
            initial_weights(run, folder, transfers.selection.execution)
        planned.setdefault(run.identity, (PlannedRun(run, folder, state(folder, run)), source))
    runs, origins = tuple(plan for plan, _ in planned.values()), tuple(source for _, source in planned.values())
    return TransferPlan(transfers.selection, out, (), runs, transfers, origins)
