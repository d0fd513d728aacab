"""The batch scripts of a submission, as submitit writes them."""

from __future__ import annotations

import contextlib
import io
import math
import shlex
import sys
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Any

import submitit
from submitit.slurm.slurm import _make_sbatch_string

from roadmap.study.cluster import Cluster
from runner.launch.slurm import slurm_cli
from runner.launch.slurm.submission import Submission

FIGURE_MINUTES = 30  # submitit takes a job of ten minutes or less for timed out whenever it is signalled


def sbatch(
    submission: Submission, out: Path, tasks: Sequence[Callable[[], object]], code: Path, after: Sequence[str]
) -> str:
    """Submits an array, or a job by itself, to begin when other jobs have ended; returns its number."""
    try:
        # Whether a job begins again is not submitit's to decide: its own rule takes every short job for timed out.
        executor = submitit.SlurmExecutor(submission.folder(out), max_num_timeout=sys.maxsize)
    except RuntimeError:
        raise slurm_cli.SlurmError("Slurm's command srun is not on this machine; submit from a login node") from None
    executor.update_parameters(**_parameters(submission, out, code, after))
    with contextlib.redirect_stderr(io.StringIO()):  # submitit prints what sbatch says, and raises it too
        return executor.submit_array(tasks)[0].job_id.split("_")[0]


def script(submission: Submission, out: Path, code: Path) -> str:
    """What sbatch is given of an array of runs."""
    count = len(submission.jobs)
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(submission.folder(out)))}"
    told = _parameters(submission, out, code, [])
    text: str = _make_sbatch_string(command, submission.folder(out), map_count=count if count > 1 else None, **told)
    return text


def _parameters(submission: Submission, out: Path, code: Path, after: Sequence[str]) -> dict[str, Any]:
    """What submitit is told; nothing where a cluster's own default is to hold."""
    jobs = submission.jobs
    told = {
        "job_name": submission.name,
        "stderr_to_stdout": True,
        "dependency": f"afterany:{':'.join(after)}" if after else None,
        **(_of_runs(submission, out, code) if jobs else _of_figure(submission, code)),
    }
    return {key: value for key, value in told.items() if value is not None}


def _of_runs(submission: Submission, out: Path, code: Path) -> dict[str, Any]:
    options, layout, cluster = submission.options, submission.layout, submission.options.cluster
    folder, index = shlex.quote(str(submission.folder(out))), "${SLURM_ARRAY_TASK_ID:-0}"
    after = f"{shlex.quote(sys.executable)} -m runner.launch.slurm.requeue"
    return {
        **_of_cluster(cluster),
        "time": max(1, math.ceil(cluster.hours * 60)),
        "nodes": layout.nodes,
        "ntasks_per_node": layout.tasks_per_node,
        "cpus_per_task": cluster.cpus_per_task,
        "gpus_per_node": layout.tasks_per_node if cluster.gpus_per_node else None,
        "signal_delay_s": cluster.save_seconds,
        "array_parallelism": options.most_running or len(submission.jobs),
        # Slurm does not hand a job's CPUs a task down to its steps; one failed task is the end of all.
        "srun_args": [f"--cpus-per-task={cluster.cpus_per_task}", "--kill-on-bad-exit=1"],
        "setup": [
            *_setup(cluster, code),
            "trap : TERM  # the tasks hear it; what follows them is to find out what it meant",
            f'rm -f {folder}/"{index}".failure.json {folder}/"{index}".cancelled  # of a start before this one',
        ],
        "teardown": ["status=$?", f'{after} {folder} "{index}" "$status"'],
    }


def _of_figure(submission: Submission, code: Path) -> dict[str, Any]:
    cluster = submission.options.cluster.for_figure()
    told = {"time": FIGURE_MINUTES, "nodes": 1, "ntasks_per_node": 1, "cpus_per_task": 1}
    return {**_of_cluster(cluster), **told, "setup": _setup(cluster, code)}


def _of_cluster(cluster: Cluster) -> dict[str, Any]:
    further: dict[str, Any] = {"requeue": True, **cluster.sbatch}
    return {
        "partition": cluster.partition,
        "account": cluster.account,
        "qos": cluster.qos,
        "constraint": cluster.constraint,
        "mem": f"{math.ceil(cluster.memory_gb * 1024)}MB" if cluster.memory_gb else None,
        "additional_parameters": {
            key: value for key, value in further.items() if value is not None and value is not False
        },
    }


def _setup(cluster: Cluster, code: Path) -> list[str]:
    path = shlex.quote(str(code))
    return [*cluster.setup, f"export PYTHONPATH={path}${{PYTHONPATH:+:$PYTHONPATH}} PYTHONSAFEPATH=1"]
