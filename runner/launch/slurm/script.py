"""The batch scripts of a submission, written by submitit."""

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

FIGURE_MINUTES = 30  # submitit treats any signal to a job of ten minutes or less as a timeout


def sbatch(
    submission: Submission,
    out: Path,
    tasks: Sequence[Callable[[], object]],
    code: Path,
    after: Sequence[str],
    after_success: Sequence[str] = (),
) -> str:
    """Submits an array, or a single job, to start when the jobs `after` have ended; returns its number.

    The jobs `after_success` must have ended without failure, too.
    """
    try:
        # No limit of submitit: runner/launch/slurm/requeue.py decides. submitit would treat short jobs as timed out.
        executor = submitit.SlurmExecutor(submission.folder(out), max_num_timeout=sys.maxsize)
    except RuntimeError:
        raise slurm_cli.SlurmError("Slurm's command srun is not on this machine; submit from a login node") from None
    executor.update_parameters(**_parameters(submission, out, code, after, after_success))
    with (
        slurm_cli.without_allocation(),
        contextlib.redirect_stderr(io.StringIO()),  # submitit prints sbatch's errors, and also raises them
    ):
        return executor.submit_array(tasks)[0].job_id.split("_")[0]


def script(submission: Submission, out: Path, code: Path) -> str:
    """The batch script of an array of runs."""
    count = len(submission.jobs)
    command = f"{shlex.quote(sys.executable)} -u -m submitit.core._submit {shlex.quote(str(submission.folder(out)))}"
    parameters = _parameters(submission, out, code, [])
    map_count = count if count > 1 else None
    text: str = _make_sbatch_string(command, submission.folder(out), map_count=map_count, **parameters)
    return text


def _parameters(
    submission: Submission, out: Path, code: Path, after: Sequence[str], after_success: Sequence[str] = ()
) -> dict[str, Any]:
    """submitit's parameters, without those for which the cluster's default applies."""
    jobs = submission.jobs
    conditions = {"afterok": after_success, "afterany": after}
    parameters = {
        "job_name": submission.name,
        "stderr_to_stdout": True,
        "dependency": ",".join(f"{kind}:{':'.join(of)}" for kind, of in conditions.items() if of) or None,
        **(_of_runs(submission, out, code) if jobs else _of_figure(submission, code)),
    }
    return {key: value for key, value in parameters.items() if value is not None}


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
        # Slurm does not pass a job's CPUs per task to its steps. The second option: a failed task ends all tasks.
        "srun_args": [f"--cpus-per-task={cluster.cpus_per_task}", "--kill-on-bad-exit=1"],
        "setup": [
            *_setup(cluster, code),
            "trap : TERM  # the tasks handle it; the requeue command after them decides",
            f'rm -f {folder}/"{index}".failure.json {folder}/"{index}".cancelled  # from a previous start',
        ],
        "teardown": ["status=$?", f'{after} {folder} "{index}" "$status"'],
    }


def _of_figure(submission: Submission, code: Path) -> dict[str, Any]:
    cluster = submission.options.cluster.for_figure()
    parameters = {"time": FIGURE_MINUTES, "nodes": 1, "ntasks_per_node": 1, "cpus_per_task": 1}
    return {**_of_cluster(cluster), **parameters, "setup": _setup(cluster, code)}


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
