"""Jobs without a cluster: what a job does, by submitit's local executor; what is submitted, to a played Slurm."""

from __future__ import annotations

import dataclasses
import getpass
import json
import math
import os
import shutil
import signal
import subprocess
import sys
from contextlib import suppress
from pathlib import Path

import pytest
import submitit
from hypothesis import given
from hypothesis import strategies as st

from roadmap.cli import main
from roadmap.files import InvalidFile, read_json, write_json
from roadmap.record.folder import write_divergences
from roadmap.record.results import Divergence
from roadmap.record.sessions import (
    PositionFile,
    Session,
    TrainingPosition,
    append_session,
    read_position,
    read_sessions,
)
from roadmap.serialization.plain_data import changed
from roadmap.study.cluster import Cluster, Layout
from roadmap.study.execution import Execution
from roadmap.study.load import load_study
from runner.launch.slurm import requeue, slurm_cli
from runner.launch.slurm.submission import (
    MOST_IDLE,
    Attempts,
    Entry,
    Failure,
    JobFiles,
    Submission,
    SubmitOptions,
    read_submissions,
)
from runner.launch.slurm.submit import plan_arrays
from runner.launch.slurm.task import Task
from runner.launch.status import collect_status
from runner.machine.lock import folder_lock, is_held
from tests.helpers.records import begin
from tests.helpers.training import assert_same, execution, train
from tests.helpers.waiting import until

CPU = Cluster(hours=1)


def submitted(out, *jobs, cluster=CPU, name=None, **how):
    """The record of a submission of jobs, each a tuple of runs with their folders."""
    entries = tuple(tuple(Entry.of(run, folder, out) for run, folder in job) for job in jobs)
    options = SubmitOptions("cpu", cluster, execution(**how), ("roadmap", "run"))
    made = Submission.new(options, Layout(1, 1), entries)
    made = dataclasses.replace(made, name=name or made.name)
    made.write(out)
    return made


def task(out, *members, cluster=CPU, **how):
    """A job's task with its files, as it is submitted."""
    made = submitted(out, members, cluster=cluster, **how)
    return Task(tuple(members), made.options, (), JobFiles(made.folder(out), 0))


# Of little work, which a job's processes need not import timm for.
LIGHT = {"width": 8, "mix_probability": 0.0, "random_erasing": 0.0}


def local(folder, task, tasks=1):
    executor = submitit.LocalExecutor(folder)
    executor.update_parameters(tasks_per_node=tasks, timeout_min=5)
    return executor.submit(task)


@pytest.mark.slow
@pytest.mark.parametrize("tasks", [1, 2])
def test_a_job_trains_as_this_machine_does(make_run, tmp_path, tasks):
    """Its tasks find each other by an address that the first leaves."""
    run, out = make_run("layer-norm", **LIGHT), tmp_path / "runs"
    job = local(tmp_path / "jobs", task(out, (run, run.folder(out))), tasks)
    assert job.results() == ["concluded"] * tasks
    if tasks == 1:
        train(run, tmp_path / "here")
        assert_same(run.folder(out), tmp_path / "here")
    assert read_json(run.folder(out) / "manifest.json")["execution"]["processes"] == tasks
    (session,) = read_sessions(run.folder(out))
    assert session.job == f"local {job.job_id}"


@pytest.mark.slow
@pytest.mark.parametrize(("number", "packed"), [(signal.SIGUSR2, False), (signal.SIGTERM, True)])
def test_a_job_that_is_signalled_saves_its_state_and_ends(make_run, tmp_path, number, packed):
    out = tmp_path / "runs"
    runs = [make_run(rung, epochs=500, **LIGHT) for rung in ("layer-norm", "gelu")][: 1 + packed]
    members = [(run, run.folder(out)) for run in runs]
    job = local(tmp_path / "jobs", task(out, *members, cluster=Cluster(hours=1, cpus_per_task=2)))
    until(
        lambda: all((read_position(folder) or TrainingPosition(0, 0, 1)).epoch >= 1 for _, folder in members),
        "they are at it",
    )
    for _ in range(2):  # Slurm, and srun behind it, may say it twice
        os.kill(_first_task(job), number)
    assert job.result() == "stopped"
    for _, folder in members:
        assert (folder / "checkpoint.pt").exists() and not (folder / "result.json").exists()
        assert "stopped in epoch" in (folder / "log.txt").read_text()


def _first_task(job):
    """The process that submitit's stand-in for Slurm started."""
    started = int(job.job_id)
    return int(Path(f"/proc/{started}/task/{started}/children").read_text().split()[0])


@pytest.mark.slow
@pytest.mark.parametrize(("what", "again"), [("foreign", False), ("unwritable", True)])
def test_a_job_says_whether_the_same_again_may_succeed(make_run, tmp_path, what, again):
    run, out = make_run("layer-norm", **LIGHT), tmp_path / "runs"
    folder = run.folder(out)
    folder.mkdir(parents=True)
    if what == "foreign":
        write_json(folder / "result.json", {})
    else:
        (folder / "metrics.jsonl").symlink_to("metrics.jsonl")  # an error of the system, as a disk has them
    made = task(out, (run, folder))
    job = local(tmp_path / "jobs", made)
    with pytest.raises(submitit.core.utils.FailedJobError, match="JobFailed"):
        job.result()
    failure = made.files.failure()
    assert failure.again is again and str(folder) in failure.message


@pytest.mark.slow
def test_a_job_waits_for_a_process_that_is_about_to_end(make_run, tmp_path):
    """Such as one on a node that Slurm took for dead."""
    run, out = make_run("layer-norm", **LIGHT), tmp_path / "runs"
    with folder_lock(run.folder(out)):
        job = local(tmp_path / "jobs", task(out, (run, run.folder(out))))
        until(lambda: "waiting for it to end" in (job.stdout() or ""), "the job waits")
        assert not (run.folder(out) / "manifest.json").exists()
    assert job.result() == "concluded"


def test_the_first_failure_of_a_job_counts(tmp_path):
    files = JobFiles(tmp_path, 3)
    assert files.failure() is None and files.attempts() == Attempts()
    files.fail(Failure("the first", again=True))
    files.fail(Failure("for want of the first", again=False))
    assert files.failure() == Failure("the first", again=True)
    files.forget_failure()
    assert files.failure() is None


class Requeued(Exception):
    pass


@pytest.fixture
def ended(make_run, tmp_path, monkeypatch):
    """A job whose tasks have ended: `ended(status)` is its batch script's last line."""
    run = make_run("gelu")
    folder = run.folder(tmp_path)
    folder.mkdir(parents=True)
    made = submitted(tmp_path, ((run, folder),), cluster=Cluster(hours=1, most_crashes=2))
    monkeypatch.setenv("SLURM_JOB_ID", "7")
    monkeypatch.setattr(slurm_cli, "state_of", lambda job_id: "RUNNING")

    def record(job_id):
        raise Requeued(job_id)

    monkeypatch.setattr(slurm_cli, "requeue", record)

    class Ended:
        def __init__(self):
            self.folder, self.files = folder, JobFiles(made.folder(tmp_path), 0)

        def __call__(self, status):
            return requeue.main(made.folder(tmp_path), 0, status)

        def step(self, step):
            file = PositionFile(folder)
            file.write(TrainingPosition(0, step, 100))
            file.close()

    return Ended()


def test_a_job_is_over_when_its_runs_are(ended):
    write_json(ended.folder / "result.json", {"top1": 1.0})
    assert ended(0) == 0 and ended(137) == 0  # whatever came after the result


def test_a_diverged_job_has_failed(ended):
    write_divergences(ended.folder, [Divergence(1, 1, 0.1, "nan", "head")])
    assert ended(0) == 1


def test_a_stopped_job_begins_again_as_long_as_it_gets_on(ended):
    for step in range(20):
        ended.step(step + 1)
        with pytest.raises(Requeued, match="7"):
            ended(0)
    assert ended.files.attempts() == Attempts(steps=20)
    for _ in range(MOST_IDLE - 1):
        with pytest.raises(Requeued):
            ended(0)
    assert ended(0) == 1
    assert "before a step was done; the cluster's hours, 1, minus save_seconds, 90" in ended.files.failure().message


@pytest.mark.parametrize("how", ["told", "killed"])
def test_a_crashed_job_begins_again_twice(ended, how):
    for _ in range(2):
        if how == "told":
            ended.files.fail(Failure("OSError: no space", again=True))
        with pytest.raises(Requeued):
            ended(1 if how == "told" else 137)
        assert ended.files.failure() is None
    if how == "told":
        ended.files.fail(Failure("OSError: no space", again=True))
    assert ended(137) == 137
    assert ("no space" if how == "told" else "status 137; killed") in ended.files.failure().message
    assert ended.files.attempts().crashes == 2


def test_what_has_to_be_put_right_first_is_not_tried_again(ended):
    ended.files.fail(Failure("no such data set", again=False))
    assert ended(1) == 1 and ended.files.attempts() == Attempts()


def test_a_run_that_is_to_be_retried_is_not_over_by_its_divergence(ended, make_run, tmp_path):
    write_divergences(ended.folder, [Divergence(1, 1, 0.1, "nan", "head")])
    path = ended.files.folder / "submission.json"
    record = read_json(path)
    record["options"]["execution"]["on_nan"] = "retry"
    write_json(path, record)
    with pytest.raises(Requeued):
        ended(0)
    write_divergences(ended.folder, [Divergence(1, 1, 0.1, "nan", "head")] * 4)
    assert ended(0) == 1


def test_a_killed_task_is_reported_after_its_peers_error(ended):
    for _ in range(3):
        ended.files.fail(Failure("RuntimeError: Connection closed by peer", again=True))
        with suppress(Requeued):
            ended(137)
    assert "closed by peer; a task was killed, perhaps for lack of memory" in ended.files.failure().message


@pytest.mark.parametrize("state", ["RUNNING", "SIGNALING", "STOPPED"])
def test_what_slurm_has_not_decided_begins_again(ended, monkeypatch, state):
    monkeypatch.setattr(slurm_cli, "state_of", lambda job_id: state)
    with pytest.raises(Requeued):
        ended(0)


@pytest.mark.parametrize("state", ["CANCELLED", "COMPLETING", "TIMEOUT", "PENDING", ""])
@pytest.mark.parametrize("status", [0, 137])
def test_a_job_that_slurm_ends_is_left_to_it(ended, monkeypatch, state, status):
    monkeypatch.setattr(slurm_cli, "state_of", lambda job_id: state)
    assert ended(status) == (status or 1) and ended.files.failure() is None


def test_a_task_that_was_signalled_before_it_could_hear_is_no_crash(ended):
    with pytest.raises(Requeued):
        ended(140)
    assert ended.files.attempts().crashes == 0


RUNS = st.lists(st.sampled_from([64, 128, 256, 512]), max_size=60)


@given(RUNS, st.integers(1, 5), st.integers(1, 9))
def test_every_run_is_in_one_job_of_one_array(batches, pack, limit):
    """With others that want the same, as many as may."""
    study = load_study()
    recipe = study.recipes["modern"]
    from roadmap.record.run import Run
    from roadmap.study.selection import ladder

    experiment = ladder("pico", "gelu")[0].experiment
    members = []
    for seed, batch in enumerate(batches):
        of_batch = dataclasses.replace(experiment, recipe=dataclasses.replace(recipe, batch_size=batch))
        members.append((Run("pico", "gelu", of_batch, "digits", study.dataset("digits"), seed, "paper"), None))
    cluster = Cluster(hours=1, nodes=2, tasks_per_node=2 if pack == 1 else 1)
    nodes = cluster if pack == 1 else dataclasses.replace(cluster, nodes=1)
    how = changed(study.execution, {"device_batch": 64 if pack == 1 else "auto"}, "test")
    how = SubmitOptions("test", nodes, how, (), pack)
    arrays = list(plan_arrays(members, how, limit))
    planned = [member for _, jobs in arrays for job in jobs for member in job]
    assert sorted(run.seed for run, _ in planned) == list(range(len(batches)))
    for layout, jobs in arrays:
        assert 1 <= len(jobs) <= limit and all(1 <= len(job) <= pack for job in jobs)
        assert {how.layout(run) for job in jobs for run, _ in job} == {layout}
    layouts = {how.layout(run) for run, _ in members}
    needed = {layout: sum(how.layout(run) == layout for run, _ in members) for layout in layouts}
    assert len(arrays) == sum(math.ceil(math.ceil(count / pack) / limit) for count in needed.values())


PAPER = load_study().cluster("paper")


def paper(**more) -> tuple[Cluster, Execution]:
    execution = changed(load_study().execution, PAPER.execution, "test")
    return dataclasses.replace(PAPER, **more), execution


def test_the_papers_layout_makes_its_batch_and_a_smaller_batch_takes_fewer():
    cluster, how = paper()
    assert (cluster.nodes, cluster.gpus_per_node, cluster.cpus_per_task, how.device_batch) == (4, 8, 10, 128)
    recipes = load_study().recipes
    assert cluster.layout(recipes["modern"], how) == Layout(4, 8)
    assert cluster.layout(recipes["classic"], how) == Layout(1, 2)
    assert cluster.layout(dataclasses.replace(recipes["classic"], batch_size=2048), how) == Layout(2, 8)


def test_a_layout_that_cannot_make_the_batch_names_those_that_can():
    cluster, how = paper(nodes=3)
    with pytest.raises(ValueError, match=r"3 x 8 processes .* can't be shared by 24 .* can: 2 x 8, 4 x 4, 4 x 8"):
        cluster.layout(load_study().recipes["modern"], how)


@given(st.integers(1, 6), st.integers(1, 8), st.sampled_from([256, 1024, 4096]), st.sampled_from([32, 128, "auto"]))
def test_the_layouts_that_are_named_can(nodes, gpus, batch, each):
    from roadmap.study.execution import accumulation

    recipe = dataclasses.replace(load_study().recipes["modern"], batch_size=batch)
    how = dataclasses.replace(load_study().execution, device_batch=each)
    cluster = dataclasses.replace(PAPER, nodes=nodes, gpus_per_node=gpus)
    try:
        layout = cluster.layout(recipe, how)
    except ValueError as error:
        named = str(error).rsplit(": ", 1)[1]
        assert named.split(", ")
        for text in named.split(", ") if " x " in named else []:
            other = Layout(*map(int, text.split(" x ")))
            accumulation(recipe, other.processes, each)
    else:
        assert layout.nodes <= nodes and layout.tasks_per_node <= gpus
        accumulation(recipe, layout.processes, each)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"nodes": 0}, r"nodes must be at least 1 \(got 0\)"),
        ({"hours": 0.0}, r"hours must be above 0 and below 10000 \(got 0.0\)"),
        ({"gpus_per_node": 4, "tasks_per_node": 2}, r"tasks_per_node must be gpus_per_node, 4 \(got 2\)"),
        ({"execution": {"processes": 3}}, "execution.processes can't be set: it is nodes x tasks_per_node"),
        ({"partition": ""}, "partition must be a name, or null"),
        ({"sbatch": {"cpus_per_task": 4}}, "sbatch.cpus_per_task can't be set: another key"),
        ({"figure": {"gpus": 1}}, "figure.gpus: unknown; .*partition"),
        ({"figure": {"memory_gb": -1}}, "figure.memory_gb must be above 0"),
        ({"sbatch": {"--reservation": "x"}}, "sbatch.--reservation must be the long name of an option"),
        ({"save_seconds": 3600}, "save_seconds must be below the 3600 seconds of hours"),
    ],
)
def test_a_profile_that_cannot_be_is_refused(changes, message):
    with pytest.raises(ValueError, match=message):
        dataclasses.replace(CPU, **changes)


@pytest.fixture
def played(tmp_path, monkeypatch):
    """A Slurm that notes its calls, and answers with what is put into files of its commands' names."""
    folder = tmp_path / "played"
    folder.mkdir()
    script = """#!/bin/sh
echo "{name} $*" >> {folder}/calls
[ -e {folder}/{name}.fails ] && cat {folder}/{name}.fails >&2 && exit 1
{extra}
cat {folder}/{name}.out 2>/dev/null || true
"""
    number = """n=$(grep -c ^sbatch {folder}/calls)
[ -e {folder}/sbatch.fails.$n ] && echo 'sbatch: error: refused' >&2 && exit 1
echo Submitted batch job $n
"""
    for name in ("sbatch", "squeue", "sacct", "scancel", "scontrol", "srun"):
        extra = number.format(folder=folder) if name == "sbatch" else ""
        (folder / name).write_text(script.format(name=name, folder=folder, extra=extra))
        (folder / name).chmod(0o755)
    monkeypatch.setenv("PATH", str(folder), prepend=":")
    monkeypatch.chdir(tmp_path)
    (folder / "scontrol.out").write_text("MaxArraySize            = 10\n")

    class Played:
        def answer(self, name, text):
            (folder / f"{name}.out").write_text(text)

        def fail(self, name, text):
            (folder / f"{name}.fails").write_text(text)

        def calls(self, name=""):
            written = (folder / "calls").read_text().splitlines() if (folder / "calls").exists() else []
            return [call for call in written if call.startswith(name)]

    return Played()


RUN = ["run", "--on", "slurm", "--steps", "gelu,layer-norm", "--seeds", "6"]


def test_a_submission_is_split_at_the_clusters_limit(played, tmp_path, capsys):
    assert main(RUN) == 0
    output = capsys.readouterr().out
    assert "submitted: 1, 10 jobs of 1 node with 1 task, 1 h at most" in output and "submitted: 2, 2 jobs" in output
    assert "submitted: 3, the table and the figure of runs, when all have ended (12 runs)" in output
    scripts = [path.read_text() for path in sorted((tmp_path / "runs/slurm").glob("*/*_submission.sh"))]
    assert sum("--array=0-9%10" in text for text in scripts) == 1
    assert sum("--dependency=afterany:1:2" in text for text in scripts) == 1
    assert all("#SBATCH --requeue" in text for text in scripts)


def test_what_slurm_refuses_half_way_is_taken_back(played, tmp_path, capsys):
    (tmp_path / "played/sbatch.fails.2").touch()
    assert main(RUN) == 1
    assert "sbatch: error: refused; nothing was submitted" in capsys.readouterr().err
    assert len(played.calls("scancel --name=roadmap-")) == 2  # one by one: of several names at once it takes none
    assert read_submissions(tmp_path / "runs") == []


def test_what_slurm_may_have_taken_keeps_its_record(played, tmp_path, capsys):
    """Slurm does not answer to the cancellation either: the next submission finds the job by its name."""
    (tmp_path / "played/sbatch.fails.2").touch()
    played.fail("scancel", "scancel: error: no controller")
    assert main(RUN) == 1
    assert "are not submitted twice" in capsys.readouterr().err
    first, second = sorted(read_submissions(tmp_path / "runs"), key=lambda each: -len(each.jobs))
    (tmp_path / "played/sbatch.fails.2").unlink()
    played.answer("squeue", "".join(f"{first.name}|{i}|1|PENDING|Priority|\n" for i in range(10)))
    assert main(RUN) == 0
    assert "not submitted twice: 10 runs" in capsys.readouterr().out and len(second.jobs) == 2


def test_nothing_is_written_where_slurm_is_away(played, tmp_path, capsys):
    played.fail("scontrol", "slurm_load_ctl_conf error: Unable to contact slurm controller (connect failure)")
    assert main(RUN) == 1
    assert "Unable to contact slurm controller" in capsys.readouterr().err
    assert read_submissions(tmp_path / "runs") == [] and played.calls("sbatch") == []


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--on", "local", "--pack", "2"], "--pack requires --on slurm"),
        (["--on", "local", "--max-running", "2"], "--max-running requires --on slurm"),
        (["--on", "local", "--set", "cluster.nodes=2"], "--set cluster.nodes=2 requires --on slurm"),
        (["--on", "slurm", "--cluster", "papr"], "unknown cluster 'papr'; .*paper"),
        (["--on", "slurm", "--pack", "0"], r"--pack must be at least 1 \(got 0\)"),
        (["--on", "slurm", "--processes", "2"], "execution.processes is unused on Slurm"),
        (["--on", "slurm", "--pack", "2", "--set", "cluster.nodes=2"], "--pack 2 requires runs of one process"),
        (["--on", "slurm", "--set", "cluster.nodes=3"], "clusters.cpu: pico/.*can't be shared by 3.*: 2 x 1, 4 x 1"),
        (["--on", "slurm", "--set", "cluster.hours=soon"], "cluster.hours"),
    ],
)
def test_options_that_no_submission_can_follow(played, options, message, capsys):
    import re

    assert main(["run", "--seeds", "1", *options]) == 2
    assert re.search(message, capsys.readouterr().err)
    assert played.calls("sbatch") == []


def test_a_dry_run_prints_jobs_scripts_and_hours_and_submits_nothing(played, tmp_path, capsys):
    assert main([*RUN, "--dry-run", "--pack", "5", "--set", "cluster.sbatch={reservation: mine}"]) == 0
    output = capsys.readouterr().out
    assert "1_2  layer-norm" in output and "#SBATCH --reservation=mine" in output and "#SBATCH --array=0-2%3" in output
    assert "device-hours in 3 jobs" in output and "Nothing was submitted" in output
    assert played.calls("sbatch") == [] and not (tmp_path / "runs").exists()


def test_a_dry_run_works_where_there_is_no_slurm(tmp_path, monkeypatch, capsys):
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("PATH", "/nowhere")
    assert main(["run", "--on", "slurm", "--regime", "resnet-50", "--dry-run"]) == 0
    output = capsys.readouterr().out
    assert (
        "#SBATCH --nodes=4" in output
        and "#SBATCH --gpus-per-node=8" in output
        and "#SBATCH --gpus-per-node=2" in output
    )
    assert "is not on this machine" in output


@pytest.mark.slow
def test_what_runs_measured_is_what_further_ones_are_expected_to_take(played, tmp_path, make_run, capsys):
    run = make_run("gelu")
    train(run, run.folder(tmp_path / "runs"))
    assert main([*RUN, "--dry-run"]) == 0
    assert "measured by 1 run in runs on CPU cores" in capsys.readouterr().out
    for options in (["--throughput", "1e9"], ["--device", "v100"]):
        assert main(["cost", *options]) == 0
        assert "measured" not in capsys.readouterr().out


ACCOUNTS = """{name}|5_3|CANCELLED by 0|2026-01-01T00:00:00
{name}|5_4|OUT_OF_MEMORY|2026-01-01T00:00:00
{name}|5_[7-9]|PENDING|Unknown
"""


def test_status_of_every_kind_by_one_question_each(played, tmp_path, make_run, capsys):
    out = tmp_path / "runs"
    names = ("gelu", "layer-norm", "width", "recipe", "pico", "depthwise")
    runs = [make_run(rung) for rung in names]
    members = [(run, run.folder(out)) for run in runs]
    made = submitted(out, *[(member,) for member in members])
    begin(runs[0], out)
    (members[0][1] / "metrics.jsonl").write_text(
        json.dumps({"epoch": 1, "top1": 50.0, "images_per_second": 800.0, "seconds": 3.0}) + "\n"
    )
    append_session(members[0][1], Session("2026-01-01T00:00:00+00:00", "a", "slurm 5_0", 0, 0, 0))
    append_session(members[0][1], Session("2026-01-01T00:00:00+00:00", "a", "slurm 5_0", 1, 0, 7))
    file = PositionFile(members[0][1])
    file.write(TrainingPosition(1, 2, 5))
    file.close()
    begin(runs[5], out)
    write_json(members[5][1] / "result.json", {"identity": members[5][0].identity, "top1": 91.5, "seconds": 1.0})
    JobFiles(made.folder(out), 2).fail(Failure("the disk is full", again=True))
    played.answer("squeue", f"{made.name}|0|5|RUNNING|None|n1\n{made.name}|1|5|PENDING|Priority|\n")
    played.answer("sacct", ACCOUNTS.format(name=made.name))
    assert main(["status"]) == 0
    output = capsys.readouterr().out
    line = "pico/gelu-s0: epoch 2 of 2, step 2 of 5, top-1 50.00 %, 800 images/s, 2s left, "
    line += "1 restart, 7 steps lost, job 5_0 on n1"
    assert line in output
    assert "queued: 1 (Priority)" in output and "pico/width-s0: the disk is full" in output
    assert "pico/pico-s0: its job ended as OUT_OF_MEMORY" in output and "91.50 %" in output
    assert "6 runs: 1 running, 1 queued, 2 failed, 1 cancelled, 1 finished" in output
    assert len(played.calls()) == 2
    assert main(["status", "gelu", "--json"]) == 0
    (record,) = json.loads(capsys.readouterr().out)
    assert record["state"] == "running" and record["lost_steps"] == 7 and record["seconds_left"] == pytest.approx(1.8)


def test_a_run_that_waits_to_be_retried_is_queued(played, tmp_path, make_run, capsys):
    out = tmp_path / "runs"
    run = make_run("gelu")
    made = submitted(out, ((run, run.folder(out)),), on_nan="retry")
    begin(run, out)
    write_divergences(run.folder(out), [Divergence(1, 1, 0.1, "nan", "head")])
    played.answer("squeue", f"{made.name}|N/A|5|PENDING|Priority|\n")
    assert main(["status"]) == 0 and "1 queued" in capsys.readouterr().out
    played.answer("squeue", f"{made.name}|N/A|5|PENDING|launch failed requeued held|\n")
    assert main(["status"]) == 0 and "held jobs start after `scontrol release`" in capsys.readouterr().out
    played.answer("squeue", "")
    assert main(["status"]) == 0 and "1 diverged" in capsys.readouterr().out


def test_a_figure_that_is_still_to_be_drawn_is_reported(played, tmp_path, make_run, capsys):
    """Also when every run has ended: whoever watches waits for it."""
    out = tmp_path / "runs"
    run = make_run("gelu")
    submitted(out, ((run, run.folder(out)),))
    begin(run, out)
    write_json(run.folder(out) / "result.json", {"identity": run.identity, "top1": 91.5, "seconds": 1.0})
    figure = submitted(out, name="roadmap-figure-1")
    played.answer("squeue", f"{figure.name}|N/A|6|PENDING|Dependency|\n")
    assert main(["status"]) == 0 and "by job 6 (pending), when all runs have ended" in capsys.readouterr().out
    (figure.folder(out) / "6_0_result.pkl").touch()
    before = len(played.calls())
    assert main(["status"]) == 0 and "pending" not in capsys.readouterr().out
    assert len(played.calls()) == before  # there is nothing to ask of Slurm


def test_a_figure_that_was_not_drawn_is_reported(played, tmp_path, make_run, capsys):
    out = tmp_path / "runs"
    run = make_run("gelu")
    submitted(out, ((run, run.folder(out)),))
    figure = submitted(out, name="roadmap-figure-1")
    JobFiles(figure.folder(out), 0).fail(Failure("OSError: no space", again=False))
    assert main(["status"]) == 0 and "the figure was not drawn: OSError: no space" in capsys.readouterr().out


@pytest.mark.parametrize("user", ["root", "someone else"])
def test_jobs_that_a_cluster_hides_are_not_submitted_twice(played, tmp_path, make_run, capsys, user):
    out = tmp_path / "runs"
    run = make_run("gelu")
    made = submitted(out, ((run, run.folder(out)),))
    path = made.folder(out) / "submission.json"
    write_json(path, read_json(path) | {"user": getpass.getuser() if user == "root" else user})
    played.answer("scontrol", "MaxArraySize            = 10\nPrivateData             = accounts,jobs\n")
    assert main(RUN) == (0 if user == "root" else 2)
    if user != "root":
        assert "someone else submitted runs into it that have not ended" in capsys.readouterr().err
        assert main(["status"]) == 0
        assert "pico/gelu-s0: by someone else, whose job is not visible in the queue" in capsys.readouterr().out
        JobFiles(made.folder(out), 0).cancel()
        assert main(RUN) == 0


def test_a_folder_that_slurm_would_misread_is_refused(played, capsys):
    assert main([*RUN, "--out", "50%a"]) == 2
    assert "--out must not contain '%', which Slurm misreads" in capsys.readouterr().err


def test_every_key_of_a_profile_is_in_the_script(played, capsys):
    keys = (
        "partition=gpu account=vision qos=high constraint=v100 memory_gb=1.5 cpus_per_task=10 nodes=2 gpus_per_node=2"
    )
    settings = [f"--set=cluster.{key}" for key in keys.split()]
    more = ["--set=cluster.setup=[module load cuda]", "--set=cluster.sbatch={exclusive: true, nice: false}"]
    assert main(["run", "--on", "slurm", "--steps", "gelu", "--dry-run", "--cluster", "cpu", *settings, *more]) == 0
    output = capsys.readouterr().out.splitlines()
    expected = "partition=gpu account=vision qos=high constraint=v100 mem=1536MB cpus-per-task=10 nodes=2"
    for option in [*expected.split(), "gpus-per-node=2", "ntasks-per-node=2", "time=60", "exclusive"]:
        assert f"#SBATCH --{option}" in output
    assert "module load cuda" in output and not any("nice" in line for line in output)


def test_the_figures_job_is_small(played, tmp_path):
    options = ["--set=cluster.gpus_per_node=2", "--set=cluster.sbatch={exclusive: true}", "--set=cluster.partition=gpu"]
    assert main([*RUN, *options, "--set=cluster.figure={partition: cpu}"]) == 0
    (script,) = (tmp_path / "runs" / "slurm").glob("roadmap-figure-*/*_submission.sh")
    text = script.read_text()
    assert "--partition=cpu" in text and "--mem=4096MB" in text and "exclusive" not in text and "gpus" not in text


def test_status_by_the_folders_alone(played, tmp_path, make_run, capsys):
    out = tmp_path / "runs"
    run = make_run("gelu")
    submitted(out, ((run, run.folder(out)),))
    begin(run, out)
    played.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    assert main(["status"]) == 0
    output = capsys.readouterr().out
    assert "1 submitted" in output and "Slurm did not report what is in the queue: " in output
    played.answer("sacct", "")
    (tmp_path / "played/squeue.fails").unlink()
    played.fail("sacct", "sacct: error: Slurm accounting storage is disabled")
    assert main(["status"]) == 0
    output = capsys.readouterr().out
    assert "its job is no longer in the queue" in output and "accounting storage is disabled" in output


def test_cancel_touches_the_studys_jobs_alone(played, tmp_path, make_run, capsys):
    out = tmp_path / "runs"
    runs = [make_run("gelu"), make_run("width"), make_run("recipe")]
    members = [(run, run.folder(out)) for run in runs]
    made = submitted(out, (members[0],), (members[1], members[2]))
    figure = submitted(out, name="roadmap-figure-1")
    played.answer(
        "squeue",
        f"{made.name}|0|5|RUNNING|None|n1\n{made.name}|1|5|RUNNING|None|n1\n{figure.name}|N/A|6|PENDING|Dependency|\n",
    )
    assert main(["cancel", "width"]) == 2
    assert "job 5_1 trains pico/recipe-s0 too" in capsys.readouterr().err
    assert main(["cancel", "gelu"]) == 0 and played.calls("scancel") == ["scancel 5_0"]
    assert main(["cancel", "gelo"]) == 2 and "gelu" in capsys.readouterr().err
    assert main(["cancel"]) == 0 and played.calls("scancel")[-1] == "scancel 5_0 5_1 6"


def test_what_stays_in_the_queue_keeps_its_record(played, tmp_path, capsys):
    """Whatever scancel says: it has been seen to do nothing without a word."""
    (tmp_path / "played/sbatch.fails.2").touch()
    played.answer("squeue", "roadmap-0|N/A|1|PENDING|Priority|\n")
    (tmp_path / "runs/slurm").mkdir(parents=True)
    submitted(tmp_path / "runs", name="roadmap-0")
    assert main(RUN) == 1
    assert "are not submitted twice" in capsys.readouterr().err and len(read_submissions(tmp_path / "runs")) == 3


def test_cancelled_is_cancelled_without_accounting_too(played, tmp_path, make_run, capsys):
    out = tmp_path / "runs"
    runs = [make_run("gelu"), make_run("width"), make_run("recipe"), make_run("pico")]
    made = submitted(out, *[((run, run.folder(out)),) for run in runs])
    played.answer("squeue", f"{made.name}|0|5|PENDING|Priority|\n")
    played.fail("sacct", "sacct: error: Slurm accounting storage is disabled")
    assert main(["cancel", "5_0"]) == 0
    played.answer("squeue", "")
    assert main(["status", "gelu"]) == 0 and "1 run: 1 cancelled" in capsys.readouterr().out
    (tmp_path / "played/sacct.fails").unlink()
    stretch = (
        f"{made.name}|5_[1,3,...%4]|CANCELLED by 0|2026-01-01T00:00:00\n{made.name}|5_2|REQUEUED|2026-01-01T00:00:00\n"
    )
    played.answer("sacct", stretch)  # of jobs that never began
    assert main(["status"]) == 0
    output = capsys.readouterr().out
    assert "4 runs: 1 failed, 3 cancelled" in output and "its job is no longer in the queue" in output


def test_a_run_that_is_held_is_running_whoever_trains_it(played, tmp_path, make_run, capsys):
    out = tmp_path / "runs"
    run = make_run("gelu")
    begin(run, out)
    assert not is_held(run.folder(out))
    code = "import sys; from pathlib import Path; from runner.machine.lock import folder_lock\n"
    code += "with folder_lock(Path(sys.argv[1])): print('held', flush=True); sys.stdin.read()"
    command = [sys.executable, "-c", code, str(run.folder(out))]
    with subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True) as holder:
        holder.stdout.readline()
        assert main(["status"]) == 0 and "1 run: 1 running" in capsys.readouterr().out
        holder.kill()
    assert main(["status"]) == 0 and "1 run: 1 stopped" in capsys.readouterr().out


def test_verbs_that_need_the_queue_say_that_it_is_not_known(played, tmp_path, make_run, capsys):
    run = make_run("gelu")
    submitted(tmp_path / "runs", ((run, run.folder(tmp_path / "runs")),))
    played.fail("squeue", "slurm_load_jobs error: Unable to contact slurm controller")
    for verb in ("cancel", "retry"):
        assert main([verb]) == 1
        assert f"roadmap {verb}: Slurm did not report what is in the queue" in capsys.readouterr().err


def test_a_job_that_is_stopped_again_and_again_as_it_begins_has_failed(make_run, tmp_path):
    """By a signal that is submitit's still."""
    run = make_run("gelu")
    made = task(tmp_path, (run, run.folder(tmp_path)))
    for _ in range(MOST_IDLE - 1):
        assert made.checkpoint() is not None
    assert made.checkpoint() is None and "before a step was done" in made.files.failure().message


def test_logs_are_the_runs_or_its_jobs(played, tmp_path, make_run, capsys):
    out = tmp_path / "runs"
    run = make_run("gelu")
    made = submitted(out, ((run, run.folder(out)),))
    assert main(["logs", "gelu"]) == 2
    assert "has no log yet" in capsys.readouterr().err
    (made.folder(out) / "5_0_log.out").write_text("no module named torch\n")
    assert main(["logs", "gelu"]) == 0 and capsys.readouterr().out == "no module named torch\n"
    begin(run, out)
    (run.folder(out) / "log.txt").write_text("epoch 1\n")
    assert main(["logs", "gelu-s0", "-f"]) == 0 and capsys.readouterr().out == "epoch 1\n"
    assert main(["status", "--out", "nowhere"]) == 2
    assert "nowhere: no such folder of runs" in capsys.readouterr().err


def test_retry_submits_what_failed_alone(played, tmp_path, capsys):
    """As it was submitted, and the figure behind it."""
    assert main([*RUN[:4], "gelu,layer-norm", "--seeds", "1", "--set", "recipe.epochs=3"]) == 0
    out = tmp_path / "runs"
    capsys.readouterr()
    (made,) = [each for each in read_submissions(out) if each.jobs]
    JobFiles(made.folder(out), 1).fail(Failure("the disk was full", again=True))
    played.answer("squeue", f"{made.name}|0|1|RUNNING|None|n1\n")
    assert main(["retry"]) == 0
    assert "submitted again: 1 run, 3; the figure then: 4" in capsys.readouterr().out
    (new,) = (each for each in read_submissions(out) if each.jobs and each.name != made.name)
    assert [entry.rung for job in new.jobs for entry in job] == ["layer-norm"]
    assert "afterany:3:1" in (next(new.folder(out).parent.glob("*/4_submission.sh"))).read_text()
    assert main(["retry", "gelu"]) == 2 and "is running: there is nothing to retry" in capsys.readouterr().err


def test_a_submission_of_a_version_with_other_modules_is_reported(played, tmp_path, capsys):
    assert main([*RUN[:4], "gelu"]) == 0
    out = tmp_path / "runs"
    (made,) = [each for each in read_submissions(out) if each.jobs]
    JobFiles(made.folder(out), 0).fail(Failure("the disk was full", again=True))
    made.pickle(0, out).write_bytes(b"cabsent_module\nX\n.")
    capsys.readouterr()
    assert main(["retry"]) == 1
    assert "can't be submitted again: the submission is gone, or of another version" in capsys.readouterr().err


def test_a_damaged_record_is_named(played, tmp_path, capsys):
    made = submitted(tmp_path / "runs")
    path = made.folder(tmp_path / "runs") / "submission.json"
    path.write_text("{")
    assert main(["status"]) == 2
    assert str(path) in capsys.readouterr().err
    with pytest.raises(InvalidFile):
        collect_status(tmp_path / "runs")
    shutil.rmtree(path.parent)
    assert main(["status"]) == 0 and "no runs yet" in capsys.readouterr().out
