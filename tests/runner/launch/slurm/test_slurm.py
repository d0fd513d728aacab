"""Jobs on a real Slurm cluster of two nodes: whatever becomes of them, every run ends once, as it would have here."""

from __future__ import annotations

import json
import os
import shutil
import signal
from contextlib import suppress
from pathlib import Path

import pytest

from roadmap.files import read_json
from roadmap.record.sessions import read_position, read_sessions
from runner.machine.distributed import RENDEZVOUS_SECONDS
from runner.machine.snapshot import code_state
from tests.helpers import ROOT
from tests.helpers.cluster import NODES
from tests.helpers.command import LIGHT, run_apart, run_here, shadow, start_apart
from tests.helpers.once import once
from tests.helpers.training import assert_same
from tests.helpers.waiting import until

pytestmark = pytest.mark.slow

EPOCHS = 6  # of 20 steps
LONG = ["--steps", "layer-norm", "--set", f"recipe.epochs={EPOCHS}", *LIGHT]  # long enough to be interrupted
BOTH = ["--steps", "gelu,layer-norm", *LONG[2:]]
SHORT = ["--set", "recipe.epochs=2", "--set", "recipe.warmup_epochs=0", *LIGHT]
TWO_NODES = ["--set", "cluster.nodes=2"]

# A plug-in by which a job's steps take longer, so that a run lasts some time everywhere without keeping a core busy.
SLOW = """
import os, time
import torch

def wait(module, given):
    if isinstance(module, torch.nn.Linear) and module.training and torch.is_grad_enabled():
        time.sleep({seconds})

if "SLURM_JOB_ID" in os.environ:
    torch.nn.modules.module.register_module_forward_pre_hook(wait)
"""


def epoch_of(run):
    """That is in training, from 0; -1 before the first step."""
    place = read_position(run)
    return place.epoch if place else -1


class Study:
    """A folder from which runs are submitted."""

    def __init__(self, slurm, folder):
        self.slurm, self.folder, self.runs = slurm, folder, folder / "runs"

    def roadmap(self, *arguments, status=0):
        done = run_here(*arguments, cwd=self.folder)
        assert done.status == status, done.out + done.err
        assert "Traceback" not in done.err
        return done.out + done.err

    def submit(self, *options, status=0, step_seconds=0.0):
        """Submits runs each of whose steps takes so long, and what it takes anyway."""
        if step_seconds:
            (self.folder / "slow.py").write_text(SLOW.format(seconds=step_seconds))
            options = (*options, "--plugin", "slow.py")
        return self.roadmap("run", "--seeds", "1", "--on", "slurm", *options, status=status)

    def status(self):
        return {record["rung"]: record for record in json.loads(self.roadmap("status", "--json"))}

    def run_folders(self):
        return sorted(path for path in self.runs.glob("pico/*") if path.is_dir())

    def run_folder(self):
        (folder,) = self.run_folders()
        return folder

    def wait_for_epoch(self, epoch):
        """Of a single run."""

        self.slurm.wait(lambda: any(epoch_of(run) >= epoch for run in self.run_folders()), f"epoch {epoch}")

    def assert_finished_as(self, other, runs=1, crashes=0):
        """Each once, with the record of an undisturbed study elsewhere, and nothing left, no process either."""
        assert self.slurm.queue() == []
        until(lambda: not left_behind(self.slurm), "no process is left")
        assert len(self.run_folders()) == runs
        for folder in self.run_folders():
            (undisturbed_folder,) = other.glob(f"pico/{folder.name}")
            assert_same(folder, undisturbed_folder)
            assert (folder / "result.json").exists()
        assert {record["state"] for record in self.status().values()} == {"finished"}
        assert list(self.runs.glob("*.png")), "the figure was not drawn"
        if not crashes:
            assert not list(self.runs.glob("slurm/*/*.failure.json"))
        attempts = [read_json(path) for path in self.runs.glob("slurm/*/*.attempts.json")]
        assert sum(each["crashes"] for each in attempts) == crashes


def left_behind(slurm):
    """Processes of the cluster's jobs."""
    return slurm.processes("SUBMITIT_EXECUTOR=slurm")


def watchers(slurm, job):
    """Slurm's processes that look after a job's."""
    titles = []
    for pid in slurm.processes():
        with suppress(OSError):  # one that has ended since
            titles.append(Path(f"/proc/{pid}/cmdline").read_text().split("\0")[0])
    return [title for title in titles if title.startswith(f"slurmstepd: [{job}.")]


@pytest.fixture
def study(slurm, tmp_path, monkeypatch):
    monkeypatch.setenv("SLURM_CONF", slurm.environment["SLURM_CONF"])
    return Study(slurm, tmp_path)


def trained_here(*options, folder):
    """The same runs on this machine, in the folder's `local`."""
    done = run_here("run", "--seeds", "1", *options, "--out", "local", cwd=folder)
    assert done.status == 0, done.err
    return folder / "local"


@pytest.fixture(scope="module")
def undisturbed():
    """The same runs on this machine: by the number of processes."""

    def fill(folder):
        for processes in ("1", "2"):
            trained_here(*BOTH, "--processes", processes, folder=folder).rename(folder / processes)

    return once("undisturbed-jobs", fill)


OWN = """
import neighbour, roadmap, torch

@roadmap.model("linear")
def linear(num_classes):
    return torch.nn.Sequential(torch.nn.Flatten(), torch.nn.Linear(neighbour.INPUTS, num_classes))
"""


def test_references_are_jobs_like_rungs(study, tmp_path):
    """A library's network and a user's own: the same as here, bit for bit, whatever else lies in the folder."""
    (tmp_path / "own.py").write_text(OWN)
    (tmp_path / "neighbour.py").write_text("INPUTS = 3 * 32 * 32\n")
    shadow(tmp_path, "runner", "analysis/", "queue", "yaml")
    chosen = ["--steps", "pico", "--references", "swin-t,linear", "--plugin", "own.py"]
    chosen += ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0"]
    assert "3 jobs" in study.submit(*chosen)
    study.slurm.wait_until_empty()
    local = trained_here(*chosen, folder=tmp_path)
    study.assert_finished_as(local, runs=3)
    table = study.roadmap("table", *chosen)
    assert all(name in table for name in ("swin-t", "linear"))


# Of the start, the middle and the end of the ladder. No more: each task takes seconds to import what it needs.
THREE = ["--steps", "pico,gelu,layer-scale"]


def test_a_study_with_two_ranks_on_two_nodes(study, tmp_path):
    """Submitted with one command, which returns at once; the same as two processes here, bit for bit."""
    command = ["run", "--seeds", "1", "--on", "slurm", *THREE, *SHORT, *TWO_NODES]
    submitted = run_apart(*command, cwd=tmp_path)  # so that the records have its command line
    assert submitted.status == 0, submitted.err
    assert "3 jobs of 2 nodes with 1 task" in submitted.out and "roadmap status" in submitted.out
    assert "not submitted twice: 3 runs" in study.roadmap(*command)
    study.slurm.wait_until_empty()
    local = trained_here(*THREE, *SHORT, "--processes", "2", folder=tmp_path)
    study.assert_finished_as(local, runs=3)
    for folder in study.run_folders():
        (session,) = read_sessions(folder)
        assert session.job.startswith("slurm ") and session.lost_steps == 0
        manifest = read_json(folder / "manifest.json")
        assert manifest["execution"]["processes"] == 2 and manifest["code"]["sources"]
        assert "--on" in manifest["command"]
    assert "nothing to train" in study.roadmap(*command)


def test_a_preempted_job_resumes(study, undisturbed):
    """Of a task on each of two nodes, with a GPU each. The test of a packed job has it of a single task."""
    study.submit(*LONG, *TWO_NODES, "--set", "cluster.gpus_per_node=1", step_seconds=0.1)
    study.wait_for_epoch(2)
    study.slurm.run("sbatch", "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    until(lambda: _state(study) == "queued", "the job waits again", every=0.5)
    study.slurm.wait_until_empty()
    study.assert_finished_as(undisturbed / "2")
    first, second = read_sessions(study.run_folder())
    assert (first.epoch, first.lost_steps) == (0, 0)
    assert second.epoch >= 2 and second.lost_steps == 0  # the state was saved when it was asked for
    assert read_json(study.run_folder() / "result.json")["restarts"] == 1


def test_a_job_that_gets_only_sigterm_resumes_too(study, undisturbed):
    """As where a cluster preempts without the signal that was asked for."""
    study.submit(*LONG, step_seconds=0.1)
    study.wait_for_epoch(2)
    study.slurm.run("scancel", "--signal=TERM", study.status()["layer-norm"]["job"])
    until(lambda: _state(study) == "queued", "the job waits again", every=0.5)
    study.slurm.wait_until_empty()
    study.assert_finished_as(undisturbed / "1")
    assert [session.lost_steps for session in read_sessions(study.run_folder())] == [0, 0]


def test_a_job_that_reaches_its_time_limit_is_requeued(study, undisturbed):
    """Two minutes, of which submitit would take any signal for a time-out; Slurm may signal a minute early."""
    limit = ["--set", "cluster.hours=0.033", "--set", "cluster.save_seconds=60"]
    study.submit(*LONG, *limit, step_seconds=0.7)
    study.slurm.wait_until_empty()
    study.assert_finished_as(undisturbed / "1")
    sessions = read_sessions(study.run_folder())
    assert len(sessions) >= 2 and sum(session.lost_steps for session in sessions) == 0


def test_a_node_that_fails_takes_nothing_with_it(study, undisturbed):
    """One of two, of a job on both."""
    study.submit(*LONG, *TWO_NODES, step_seconds=0.1)
    study.wait_for_epoch(2)
    job, failed = study.status()["layer-norm"]["job"], NODES[1]
    study.slurm.run("scontrol", "update", f"NodeName={failed}", "State=DOWN", "Reason=test")
    until(lambda: (job, "RUNNING") not in study.slurm.queue(), "the job is off the node")
    # Else Slurm would find what is left of it there, and hold the job.
    until(lambda: not watchers(study.slurm, job), "nothing is left of it")
    study.slurm.run("scontrol", "update", f"NodeName={failed}", "State=RESUME", check=False)
    study.slurm.wait_until_empty()
    study.assert_finished_as(undisturbed / "2")
    assert len(read_sessions(study.run_folder())) == 2


def test_a_cancelled_job_keeps_its_state_and_does_not_come_back(study, undisturbed):
    """The figure of the finished runs is drawn all the same; the same command resumes the others."""
    study.submit(*BOTH, step_seconds=0.1)
    until(lambda: [epoch_of(run) >= 2 for run in study.run_folders()] == [True, True], "both are at it")
    foreign = study.slurm.run("sbatch", "--parsable", "-o", "/dev/null", "--wrap", "sleep 600").strip()
    assert "cancelled: 1 run" in study.roadmap("cancel", "layer-norm")
    until(lambda: [job for job, _ in study.slurm.queue()] == [foreign], "only the foreign job is left")
    study.slurm.run("scancel", foreign)
    assert _state(study) == "cancelled" and study.status()["gelu"]["state"] == "finished"
    assert list(study.runs.glob("*.png")), "the figure was not drawn"
    assert "no run has failed" in study.roadmap("retry")
    assert "1 to resume" in study.submit(*BOTH)
    study.slurm.wait_until_empty()
    study.assert_finished_as(undisturbed / "1", runs=2)
    (folder,) = study.runs.glob("pico/layer-norm-*")
    _, second = read_sessions(folder)
    assert second.epoch >= 2 and second.lost_steps == 0


def test_a_controller_that_is_away_while_jobs_run(study, undisturbed):
    """Long enough for Slurm's commands to give it up, which takes them ten seconds."""
    study.submit(*LONG, step_seconds=0.5)
    study.wait_for_epoch(2)
    study.slurm.stop_controller()
    try:
        output = study.roadmap("status")
        assert "Slurm did not report what is in the queue: " in output and f"of {EPOCHS}" in output
        refused = study.submit("--steps", "gelu", *SHORT, status=1)
        assert refused.startswith("pico on digits") and "roadmap run: Slurm failed: " in refused
        assert len(list((study.runs / "slurm").glob("roadmap-*"))) == 2  # of what was submitted before
    finally:
        study.slurm.start_controller()
    study.slurm.wait_until_empty()
    study.assert_finished_as(undisturbed / "1")


def test_two_submissions_at_once(study, undisturbed, tmp_path):
    """Every run is submitted once."""
    both = [start_apart("run", "--seeds", "1", "--on", "slurm", *BOTH, cwd=tmp_path) for _ in range(2)]
    output = [process.communicate(timeout=300)[0] for process in both]
    assert [process.returncode for process in both] == [0, 0]
    assert sum("not submitted twice: 2 runs" in text for text in output) == 1
    study.slurm.wait_until_empty()
    study.assert_finished_as(undisturbed / "1", runs=2)
    for folder in study.run_folders():
        assert len(read_sessions(folder)) == 1


def test_a_crash_is_tried_again_and_not_for_ever(study, undisturbed):
    """A killed task is requeued; a task that is killed each time fails, and `retry` submits it again."""
    study.submit(*LONG, "--set", "cluster.most_crashes=1", step_seconds=0.1)
    for kill in range(2):
        study.wait_for_epoch(1 + 2 * kill)
        until(lambda kill=kill: len(read_sessions(study.run_folder())) == kill + 1, "it is in training")
        os.kill(_process(study.run_folder()), signal.SIGKILL)
        reached = read_position(study.run_folder())
        study.slurm.wait(lambda: _state(study) != "running", "the job has ended")
    study.slurm.wait(lambda: _state(study) == "failed", "the run has failed")
    assert "ended with status 137" in study.status()["layer-norm"]["detail"]
    study.slurm.wait_until_empty()
    assert "submitted again: 1 run" in study.roadmap("retry")
    study.slurm.wait_until_empty()
    study.assert_finished_as(undisturbed / "1", crashes=1)
    third = read_sessions(study.run_folder())[2]
    assert third.lost_steps == reached.total - (third.epoch * reached.steps + third.step)
    assert read_json(study.run_folder() / "result.json")["restarts"] == 2


def _state(study):
    return study.status()["layer-norm"]["state"]


def _process(folder):
    """That trains the run, by its log."""
    return int((folder / "log.txt").read_text().rsplit(", process ", 1)[1].split()[0])


def test_a_divergence_is_not_tried_again(study):
    study.submit("--steps", "layer-norm", *SHORT, "--set", "recipe.learning_rate=1e14")
    study.slurm.wait_until_empty()
    record = study.status()["layer-norm"]
    assert record["state"] == "diverged" and "the loss is " in record["detail"] and record["restarts"] == 0
    assert "is diverged: there is nothing to retry" in study.roadmap("retry", "layer-norm", status=2)


def test_one_tasks_failure_ends_all_at_once_and_its_error_is_reported(study, tmp_path):
    plugin = tmp_path / "broken.py"
    text = 'import os\nif os.environ.get("SLURM_PROCID") == "1" and os.environ.get("SLURM_STEP_NUM_TASKS") == "2":\n'
    plugin.write_text(f'{text}    raise RuntimeError("the second task is broken")\n')
    study.submit("--steps", "layer-norm", *SHORT, *TWO_NODES, "--plugin", "broken.py")
    study.slurm.wait_until_empty(seconds=RENDEZVOUS_SECONDS / 2)  # not when the first gives the other up
    until(lambda: not left_behind(study.slurm), "no process is left")
    record = study.status()["layer-norm"]
    assert record["state"] == "failed" and "RuntimeError: the second task is broken" in record["detail"]


def test_an_edit_after_the_submission_reaches_no_job(study, tmp_path):
    code = tmp_path / "checkout"
    for package in ("roadmap", "runner", "analysis"):
        shutil.copytree(ROOT / package, code / package, ignore=shutil.ignore_patterns("__pycache__"))
    shutil.copy(ROOT / "ablations.yaml", code)
    with (code / "runner" / "code.py").open("a") as file:
        file.write("# another code than the environment's\n")
    study.slurm.run("scontrol", "update", f"NodeName={','.join(NODES)}", "State=DRAIN", "Reason=test")
    of_checkout = {"PYTHONPATH": str(code), "PYTHONSAFEPATH": "1"}
    assert run_apart("run", "--seeds", "1", "--on", "slurm", "--steps", "gelu", *SHORT, cwd=tmp_path, env=of_checkout)
    shutil.rmtree(code)
    study.slurm.run("scontrol", "update", f"NodeName={','.join(NODES)}", "State=RESUME")
    study.slurm.wait_until_empty()
    assert study.status()["gelu"]["state"] == "finished"
    (copy,) = (path for path in (study.runs / "slurm" / "code").iterdir())
    kept = read_json(copy / "code.json")
    assert read_json(study.run_folder() / "manifest.json")["code"] == kept
    assert kept["sources"] != code_state()["sources"]


def test_small_runs_share_a_job(study, tmp_path):
    output = study.submit("--steps", "gelu,layer-norm", "--seeds", "2", *SHORT, "--pack", "3")
    assert "2 jobs of 1 node with 1 task" in output
    study.slurm.wait_until_empty()
    local = trained_here("--steps", "gelu,layer-norm", "--seeds", "2", *SHORT, folder=tmp_path)
    study.assert_finished_as(local, runs=4)


def test_rounds_of_designs_are_submitted_one_after_the_other(study, tmp_path):
    rounds = ["--space", "stage-ratio", "--samples", "2", "--rounds", "2", "--keep", "1/2", *SHORT]
    first = study.submit(*rounds, "--pack", "3")
    assert first.startswith("round 1 of 2, to epoch 1: 2 designs, recipe") and "1 job of" in first
    study.slurm.wait_until_empty()
    paused = study.status().values()
    assert {(record["state"], record["detail"]) for record in paused} == {("stopped", "paused after epoch 1")}
    second = study.submit(*rounds, "--pack", "3")
    assert "round 2 of 2, to epoch 2: 1 design, recipe; 1 design left behind" in second and "1 job of" in second
    study.slurm.wait_until_empty()
    assert sorted(record["state"] for record in study.status().values()) == ["finished", "finished", "stopped"]
    assert list(study.runs.glob("space-pico-stage-ratio-*.png"))
    local = trained_here(*rounds, folder=tmp_path)
    for folder in study.run_folders():
        assert_same(folder, local / "pico" / folder.name)
    assert "best designs" in study.submit(*rounds)  # nothing is left to submit


def test_a_packed_job_that_is_preempted_resumes(study, undisturbed):
    study.submit(*BOTH, "--pack", "2", "--set", "cluster.cpus_per_task=2", step_seconds=0.1)
    until(lambda: len(study.run_folders()) == 2, "both are in training")
    until(lambda: all(epoch_of(run) >= 2 for run in study.run_folders()), "both are at it")
    study.slurm.run("sbatch", "-p", "urgent", "-N2", "--exclusive", "-o", "/dev/null", "--wrap", "sleep 1")
    until(lambda: _state(study) == "queued", "the job waits again", every=0.5)
    study.slurm.wait_until_empty()
    study.assert_finished_as(undisturbed / "1", runs=2)
    for folder in study.run_folders():
        _, second = read_sessions(folder)
        assert second.epoch >= 2 and second.lost_steps == 0


def test_five_thousand_runs_take_a_handful_of_calls(study, tmp_path, monkeypatch):
    """The limit of an array is the cluster's; and all is taken out again with one command."""
    calls = tmp_path / "calls"
    bin_folder = tmp_path / "bin"
    bin_folder.mkdir()
    for name in ("sbatch", "squeue", "sacct", "scancel"):
        wrapper = bin_folder / name
        wrapper.write_text(f'#!/bin/sh\necho {name} >> {calls}\nexec {shutil.which(name)} "$@"\n')
        wrapper.chmod(0o755)
    study.slurm.run("scontrol", "update", f"NodeName={','.join(NODES)}", "State=DRAIN", "Reason=test")
    monkeypatch.setenv("PATH", str(bin_folder), prepend=":")
    output = study.submit("--steps", "all", "--seeds", "278", *SHORT[:4], "--max-running", "50")
    assert output.count("submitted: ") == 4 and "(5004 runs)" in output
    assert calls.read_text().split().count("sbatch") == 4
    arrays = study.slurm.run("squeue", "-h", "-o", "%i %E").splitlines()
    assert sum("%50]" in line for line in arrays) == 3
    assert sum("afterany" in line for line in arrays) == 3  # the second behind the first, so that no more than 50 run
    calls.unlink()
    output = study.roadmap("status")
    assert "5004 runs: 5004 queued" in output
    assert len(calls.read_text().split()) <= 2
    study.roadmap("cancel")
    until(lambda: not study.slurm.queue(), "the queue is empty")


def test_a_submission_from_inside_an_allocation_is_not_changed_by_it(study, tmp_path, monkeypatch):
    """Its variables would be options of sbatch, and of srun in the job."""
    kept = {"SLURM_JOB_ID": "17", "SLURM_MEM_PER_CPU": "100", "SLURM_CPU_BIND": "map_cpu:99", "SLURM_NTASKS": "7"}
    kept |= {"SBATCH_PARTITION": "nowhere", "SBATCH_MEM_PER_NODE": "1", "SRUN_CPUS_PER_TASK": "99", "SLURM_EXACT": "x"}
    for name, value in kept.items():
        monkeypatch.setenv(name, value)
    (tmp_path / "listing.py").write_text(
        "import os, pathlib\n"
        "if os.environ.get('SUBMITIT_EXECUTOR'):\n"
        "    pathlib.Path('environment').write_text('\\n'.join(f'{k}={v}' for k, v in os.environ.items()))\n"
    )
    study.submit("--steps", "layer-norm", *SHORT, "--plugin", "listing.py")
    assert {name: os.environ.get(name) for name in kept} == kept
    study.slurm.wait_until_empty()
    assert study.status()["layer-norm"]["state"] == "finished"
    found = (tmp_path / "environment").read_text().splitlines()
    assert f"SLURM_CONF={os.environ['SLURM_CONF']}" in found
    assert not {f"{name}={value}" for name, value in kept.items()} & set(found)


def test_a_transfer_waits_for_the_run_that_it_begins_with(study, tmp_path):
    """Of one epoch each, by the study's own file; its jobs start after that of the run has succeeded."""
    text = (ROOT / "ablations.yaml").read_text(encoding="utf-8")
    (tmp_path / "ablations.yaml").write_text(text.replace("recipe: {epochs: 6,", "recipe: {epochs: 1,"))
    submitted = study.submit("--steps", "pico", "--set", "recipe.epochs=1", "--transfer", "detection")
    assert submitted.count("submitted: ") == 4  # two arrays, and their tables
    waiting = {record["rung"]: record for record in study.status().values()}
    assert waiting["pico-detection"]["state"] in ("queued", "running")
    study.slurm.wait_until_empty()
    assert {record["state"] for record in study.status().values()} == {"finished"}
    assert "box AP, pre-trained" in study.roadmap("table", "--transfer")
    source, transferred = study.run_folders()[1], study.run_folders()[0]
    assert read_json(transferred / "manifest.json")["weights_of"] == str(source)
    assert list(study.runs.glob("transfer-pico-detection.png")) and list(study.runs.glob("predictions-*.png"))
