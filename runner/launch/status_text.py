"""The status of a folder of runs as text: a table of rungs by seeds, then a paragraph on each kind of run."""

from __future__ import annotations

from collections import Counter
from collections.abc import Mapping, Sequence
from collections.abc import Set as AbstractSet
from typing import TYPE_CHECKING, Literal

from roadmap.record.run import written_identity
from roadmap.study.load import load_study
from roadmap.study.selection import ladder
from roadmap.text import duration, many, table

if TYPE_CHECKING:
    from runner.launch.status import RunStatus, StudyStatus

Kind = Literal["finished", "running", "queued", "diverged", "failed", "cancelled", "stopped", "submitted"]
KINDS: dict[Kind, str] = {  # the meaning of each, in the order of the text
    "running": "in training",
    "queued": "waiting for Slurm",
    "submitted": "submitted; their state in Slurm is unknown",
    "stopped": "started, but not in training; `roadmap run` resumes them",
    "failed": "ended without a result",
    "cancelled": "`roadmap run` resumes them",
    "diverged": "the loss was not finite",
    "finished": "finished",
}
MOST_SEEDS = 6  # columns of the table; for more seeds, counts are shown
MOST_LINES = 20  # of each kind, below the table


def status_text(status: StudyStatus) -> str:
    """A table of rungs by seeds for each regime, then a paragraph on each kind of run."""
    unreadable = [f"not listed: {_unreadable(len(status.unreadable))}"] if status.unreadable else []
    if not status.runs:
        return "\n\n".join(["no runs yet", *unreadable])
    runs = _in_order(status.runs)
    names = Counter(run.name for run in runs)
    shared = {name for name, count in names.items() if count > 1}  # by runs with different settings
    regimes = dict.fromkeys(run.entry.regime for run in runs)
    parts = [f"{regime}\n{_table([run for run in runs if run.entry.regime == regime])}" for regime in regimes]
    for kind, meaning in KINDS.items():
        parts += _of_kind(f"{kind} ({meaning})", [run for run in runs if run.kind == kind], shared)
    if status.figures:
        jobs = ", ".join(f"{job.job_id} ({job.state.lower()})" for job in status.figures)
        parts.append(f"the figure is drawn by job {jobs}, when all runs have ended")
    if status.figure_failed:
        parts.append(f"the figure was not drawn: {status.figure_failed}")
    counts = Counter[str](run.kind for run in runs)
    parts.append(f"{many(len(runs), 'run')}: {_counted(counts, list(KINDS))}{_lost(runs)}")
    parts += unreadable
    return "\n\n".join([*parts, *(f"Slurm did not report {message}" for message in status.unanswered)])


def _unreadable(count: int) -> str:
    return f"{many(count, 'folder')} with a manifest that can't be read (`roadmap collect` has the reason)"


def _in_order(runs: Sequence[RunStatus]) -> list[RunStatus]:
    """The runs in the order of the ladder, followed by those that are not on it."""
    study = load_study()
    names = [rung.name for name in study.regimes for rung in ladder(name, study=study)]
    order = {name: i for i, name in reversed(list(enumerate(names)))}
    return sorted(runs, key=lambda run: (order.get(run.entry.rung, len(order)), run.entry.rung, run.entry.seed))


def _of_kind(title: str, runs: Sequence[RunStatus], shared: AbstractSet[str]) -> list[str]:
    """A line for each run; for queued runs only the reasons, for finished ones nothing."""
    if not runs or runs[0].kind == "finished":
        return []
    if runs[0].kind == "queued":
        reasons = Counter(run.detail for run in runs)
        held = "; held jobs start after `scontrol release`" if "held" in " ".join(reasons).lower() else ""
        return [f"queued: {', '.join(f'{count} ({reason})' for reason, count in reasons.most_common())}{held}"]
    lines = [f"  {_line(run, shared)}" for run in runs[:MOST_LINES]]
    more = [f"  and {len(runs) - MOST_LINES} more"] if len(runs) > MOST_LINES else []
    return ["\n".join([f"{title}:", *lines, *more])]


def _counted(counts: Mapping[str, int], kinds: Sequence[str]) -> str:
    return ", ".join(f"{counts[kind]} {kind}" for kind in kinds if counts.get(kind))


def _lost(runs: Sequence[RunStatus]) -> str:
    restarts, lost = sum(run.restarts for run in runs), sum(run.lost_steps for run in runs)
    return f"; {many(restarts, 'restart')}, {many(lost, 'step')} lost and repeated" if restarts else ""


def _table(runs: Sequence[RunStatus]) -> str:
    """Rungs by seeds; for many seeds, the number of runs of each kind."""
    seeds = sorted({run.entry.seed for run in runs})
    rows = []
    for rung in dict.fromkeys(run.entry.rung for run in runs):
        of_rung = [run for run in runs if run.entry.rung == rung]
        if len(seeds) > MOST_SEEDS:
            counts = Counter[str](run.kind for run in of_rung)
            rows.append([rung, _counted(counts, sorted(counts))])
        else:  # runs with different settings may have the same rung and seed
            cells = [[_cell(run) for run in of_rung if run.entry.seed == seed] for seed in seeds]
            rows.append([rung, *(" | ".join(cell) for cell in cells)])
    header = [f"seed {seed}" for seed in seeds] if len(seeds) <= MOST_SEEDS else [f"{len(seeds)} seeds"]
    return table(["rung", *header], rows)


def _cell(run: RunStatus) -> str:
    if run.kind == "finished":
        accuracy = run.value(run.metric)
        return "finished" if accuracy is None else f"{accuracy:.2f} %"
    if run.kind in ("running", "stopped", "submitted") and run.place:
        return f"{run.kind} {run.epochs_done:.1f}/{run.entry.epochs}"
    return run.kind


def _line(run: RunStatus, shared: AbstractSet[str]) -> str:
    """One run: its progress, why it ended, its restarts and its job."""
    parts: list[str] = []
    if run.kind in ("running", "submitted", "stopped"):
        parts.append(_progress(run))
    if run.detail:
        parts.append(run.detail if run.kind != "stopped" else f"last: {run.detail}")
    if run.restarts:
        parts.append(f"{many(run.restarts, 'restart')}, {many(run.lost_steps, 'step')} lost")
    if run.job:
        parts.append(f"job {run.job.job_id}" + (f" on {run.job.nodes}" if run.job.nodes else ""))
    name = f"{run.name} ({written_identity(run.entry.identity)})" if run.name in shared else run.name
    text = ", ".join(filter(None, parts))
    return f"{name}: {text}" if text else name


def _progress(run: RunStatus) -> str:
    if run.place is None:
        return "starting" if run.kind == "running" else ""
    place, accuracy = run.place, run.value(run.metric)
    epoch = min(place.epoch + 1, run.entry.epochs)
    parts = [f"epoch {epoch} of {run.entry.epochs}, step {place.step} of {place.steps}"]
    if accuracy is not None:
        parts.append(run.metric.text(accuracy))
    if run.images_per_second:
        parts.append(f"{run.images_per_second:.0f} images/s")
    if run.kind == "running" and run.seconds_left is not None:
        parts.append(f"{duration(run.seconds_left)} left")
    return ", ".join(parts)
