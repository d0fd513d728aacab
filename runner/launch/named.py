"""Finding the runs that a user names: by rung, rung-sSEED, identity, folder or job."""

from __future__ import annotations

from collections.abc import Sequence

from roadmap.record.run import written_identity
from roadmap.text import suggest
from runner.launch.status import RunStatus


def runs_named(runs: Sequence[RunStatus], names: Sequence[str]) -> tuple[RunStatus, ...]:
    """The named runs, or all if there is no name. Raises ValueError for a name that matches none."""
    if not names:
        return tuple(runs)
    named: dict[str, RunStatus] = {}
    for name in names:
        matching_runs = [run for run in runs if name.rstrip("/") in _names(run)]
        if not matching_runs:
            rungs = sorted({run.entry.rung for run in runs})
            if not rungs:
                raise ValueError(f"no run is called {name!r}: the folder has no runs")
            raise ValueError(f"no run is called {name!r}; {suggest(rungs, name)}, or with a seed, such as gelu-s0")
        named |= {run.entry.identity: run for run in matching_runs}
    return tuple(named.values())


def run_named(runs: Sequence[RunStatus], name: str) -> RunStatus:
    """The run that a name matches. Raises ValueError if it matches none or several."""
    matching_runs = runs_named(runs, [name])
    if len(matching_runs) > 1:
        folders = ", ".join(run.folder.name for run in matching_runs)
        raise ValueError(f"{name!r} must match one run (got {len(matching_runs)}: {folders})")
    return matching_runs[0]


def _names(run: RunStatus) -> tuple[str, ...]:
    entry, folder = run.entry, run.folder
    folders = (folder.name, str(folder), entry.folder, f"{folder.parent.parent.name}/{entry.folder}")
    job = (run.job.job_id, run.job.job_id.split("_")[0]) if run.job else ()
    rungs = (entry.rung, f"{entry.rung}-s{entry.seed}", f"{entry.regime}/{entry.rung}")
    return (entry.identity, written_identity(entry.identity), *rungs, run.name, *folders, *job)
