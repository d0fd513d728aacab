"""How the runs of a folder are, in words: a table of rungs by seeds, then what there is to say of each kind."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING

from roadmap.record.metrics import TOP1
from roadmap.study.load import load_study
from roadmap.text import duration, many, table

if TYPE_CHECKING:
    from runner.launch.status import Overview, RunStatus

MOST_SEEDS = 6  # columns of the table; of more the counts are shown
MOST_LINES = 20  # of a kind, below the table


def status_text(overview: Overview, runs: Sequence[RunStatus]) -> str:
    """A table of rungs by seeds for each regime, then what there is to say of each kind of run."""
    from runner.launch.status import KINDS

    if not runs:
        return "no runs yet"
    runs = _in_order(runs)
    names = Counter(standing.name for standing in runs)
    shared = {name for name, count in names.items() if count > 1}  # by runs of several settings
    regimes = dict.fromkeys(standing.entry.regime for standing in runs)
    parts = [f"{regime}\n{_table([each for each in runs if each.entry.regime == regime])}" for regime in regimes]
    for kind, meaning in KINDS.items():
        parts += _of_kind(f"{kind} ({meaning})", [standing for standing in runs if standing.kind == kind], shared)
    if overview.figures:
        jobs = ", ".join(f"{job.job_id} ({job.state.lower()})" for job in overview.figures)
        parts.append(f"the figure is drawn when all have ended, by job {jobs}")
    if overview.figure_failed:
        parts.append(f"the figure was not drawn: {overview.figure_failed}")
    counts = Counter[str](standing.kind for standing in runs)
    parts.append(f"{many(len(runs), 'run')}: {_counted(counts, list(KINDS))}{_lost(runs)}")
    return "\n\n".join([*parts, *(f"Slurm was not asked {each}" for each in overview.unanswered)])


def _in_order(runs: Sequence[RunStatus]) -> list[RunStatus]:
    """That of the ladder, as far as they stand on it."""
    from roadmap.study.selection import ladder

    study = load_study()
    names = [rung.name for name in study.regimes for rung in ladder(name, study=study)]
    order = {name: i for i, name in reversed(list(enumerate(names)))}
    return sorted(runs, key=lambda each: (order.get(each.entry.rung, len(order)), each.entry.rung, each.entry.seed))


def _of_kind(what: str, runs: Sequence[RunStatus], shared: AbstractSet[str]) -> list[str]:
    """A line for each, but of those that wait the reasons, and nothing of those that are finished."""
    if not runs or runs[0].kind == "finished":
        return []
    if runs[0].kind == "queued":
        reasons = Counter(standing.detail for standing in runs)
        held = "; held ones begin when `scontrol release` lets them go" if "held" in " ".join(reasons).lower() else ""
        return [f"queued: {', '.join(f'{count} ({reason})' for reason, count in reasons.most_common())}{held}"]
    lines = [f"  {_line(standing, shared)}" for standing in runs[:MOST_LINES]]
    more = [f"  and {len(runs) - MOST_LINES} more"] if len(runs) > MOST_LINES else []
    return ["\n".join([f"{what}:", *lines, *more])]


def _counted(counts: Mapping[str, int], kinds: Sequence[str]) -> str:
    return ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts.get(kind))


def _lost(runs: Sequence[RunStatus]) -> str:
    restarts, lost = sum(each.restarts for each in runs), sum(each.lost_steps for each in runs)
    return f"; {many(restarts, 'restart')}, {many(lost, 'step')} lost and done again" if restarts else ""


def _table(runs: Sequence[RunStatus]) -> str:
    """Rungs by seeds, or where those are many, what became of them all."""
    seeds = sorted({standing.entry.seed for standing in runs})
    rows = []
    for rung in dict.fromkeys(standing.entry.rung for standing in runs):
        of_rung = [standing for standing in runs if standing.entry.rung == rung]
        if len(seeds) > MOST_SEEDS:
            counts = Counter[str](standing.kind for standing in of_rung)
            rows.append([rung, _counted(counts, sorted(counts))])
        else:  # runs of several settings may have the same rung and seed
            cells = [[_cell(each) for each in of_rung if each.entry.seed == seed] for seed in seeds]
            rows.append([rung, *(" | ".join(cell) for cell in cells)])
    header = [f"seed {seed}" for seed in seeds] if len(seeds) <= MOST_SEEDS else [f"{len(seeds)} seeds"]
    return table(["rung", *header], rows)


def _cell(standing: RunStatus) -> str:
    if standing.kind == "finished":
        accuracy = standing.value(TOP1)
        return "finished" if accuracy is None else f"{accuracy:.2f} %"
    if standing.kind in ("running", "stopped", "submitted") and standing.place:
        return f"{standing.kind} {standing.epochs_done:.1f}/{standing.entry.epochs}"
    return standing.kind


def _line(standing: RunStatus, shared: AbstractSet[str]) -> str:
    """Of one run, all there is to say."""
    parts: list[str] = []
    if standing.kind in ("running", "submitted", "stopped"):
        parts.append(_progress(standing))
    if standing.detail:
        parts.append(standing.detail if standing.kind != "stopped" else f"last: {standing.detail}")
    if standing.restarts:
        parts.append(f"{many(standing.restarts, 'restart')}, {many(standing.lost_steps, 'step')} lost")
    if standing.job:
        parts.append(f"job {standing.job.job_id}" + (f" on {standing.job.nodes}" if standing.job.nodes else ""))
    name = f"{standing.name} ({standing.entry.identity})" if standing.name in shared else standing.name
    said = ", ".join(filter(None, parts))
    return f"{name}: {said}" if said else name


def _progress(standing: RunStatus) -> str:
    if standing.place is None:
        return "starting" if standing.kind == "running" else ""
    place, accuracy = standing.place, standing.value(TOP1)
    epoch = min(place.epoch + 1, standing.entry.epochs)
    parts = [f"epoch {epoch} of {standing.entry.epochs}, step {place.step} of {place.steps}"]
    if accuracy is not None:
        parts.append(TOP1.text(accuracy))
    if standing.images_per_second:
        parts.append(f"{standing.images_per_second:.0f} images/s")
    if standing.kind == "running" and standing.seconds_left is not None:
        parts.append(f"{duration(standing.seconds_left)} left")
    return ", ".join(parts)
