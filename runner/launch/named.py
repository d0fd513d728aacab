"""The runs that a user names: by rung, rung-sSEED, identity, folder or job."""

from __future__ import annotations

from collections.abc import Sequence

from roadmap.serialization import suggest
from runner.launch.status import RunStatus


def runs_named(runs: Sequence[RunStatus], names: Sequence[str]) -> tuple[RunStatus, ...]:
    """Those that the names mean, all without a name. Raises ValueError for a name that means none."""
    if not names:
        return tuple(runs)
    named: dict[str, RunStatus] = {}
    for name in names:
        meant = [run for run in runs if name.rstrip("/") in _names(run)]
        if not meant:
            rungs = sorted({run.entry.rung for run in runs})
            raise ValueError(f"no run is called {name!r}; {suggest(rungs, name)}, or one's seed, such as gelu-s0")
        named |= {run.entry.identity: run for run in meant}
    return tuple(named.values())


def run_named(runs: Sequence[RunStatus], name: str) -> RunStatus:
    """The one that a name means. Raises ValueError where it means none or several."""
    meant = runs_named(runs, [name])
    if len(meant) > 1:
        folders = ", ".join(run.folder.name for run in meant)
        raise ValueError(f"{name!r} means {len(meant)} runs: {folders}; one is expected")
    return meant[0]


def _names(run: RunStatus) -> tuple[str, ...]:
    entry, folder = run.entry, run.folder
    folders = (folder.name, str(folder), entry.folder, f"{folder.parent.parent.name}/{entry.folder}")
    job = (run.job.job_id, run.job.job_id.split("_")[0]) if run.job else ()
    rungs = (entry.rung, f"{entry.rung}-s{entry.seed}", f"{entry.regime}/{entry.rung}")
    return (entry.identity, *rungs, run.name, *folders, *job)
