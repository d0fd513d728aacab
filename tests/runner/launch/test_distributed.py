"""Processes that train one run together: the same batch, the same losses, one record."""

from __future__ import annotations

import json
import os
import re
import signal
import socket
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from roadmap.record.events import StepDone
from roadmap.record.folder import read_metrics
from roadmap.record.metrics import TOP1
from roadmap.study.execution import accumulation
from runner.launch import distributed_worker
from runner.launch.distributed_worker import world_of_environment
from runner.machine.distributed import World
from tests.helpers.command import LIGHT, run_apart, run_here, shadow, start_apart
from tests.helpers.training import FORKSERVER, assert_same_weights, execution, train, warm_fork_server, weights
from tests.helpers.waiting import until


def train_one(run, folder, chosen_execution, world, losses):
    from runner.train import engine

    torch.set_num_threads(1)

    def hear(event):
        if isinstance(event, StepDone):
            losses.put((world.rank, event.loss))

    with world.joined("cpu"):
        engine.train(run, folder, chosen_execution, 1, world, hear)
    thread_names = [thread.read_text().strip() for thread in Path("/proc/self/task").glob("*/comm")]
    assert not [
        name for name in thread_names if "gloo" in name
    ]  # one that outlives the interpreter may abort the process


def losses_of(run, folder, processes, **changes):
    """The loss of each step, as rank 0 hears it, and weights at the end."""
    warm_fork_server()
    losses_queue = FORKSERVER.SimpleQueue()
    chosen_execution = execution(**changes)
    init_method = f"file://{folder}-init_method" if processes > 1 else ""
    started = []
    for rank in range(processes):
        arguments = (run, folder, chosen_execution, World(rank, processes, rank, init_method), losses_queue)
        started.append(FORKSERVER.Process(target=train_one, args=arguments))
        started[-1].start()
    steps = run.experiment.recipe.epochs * (run.dataset.train_images // run.experiment.recipe.batch_size)
    losses_by_rank = [losses_queue.get() for _ in range(steps)]
    for process in started:
        process.join()
        assert process.exitcode == 0
    assert {rank for rank, _ in losses_by_rank} == {0}
    return [loss for _, loss in losses_by_rank]


PLAIN = {"mix_probability": 0.0, "random_erasing": 0.0, "drop_path": 0.0, "crop_padding": 0, "precision": "fp32"}


def test_two_processes_have_the_losses_of_one(tiny_run, tmp_path):
    """An LN rung, in fp32, without augmentation: to 1e-5 over 50 steps."""
    run = tiny_run("layer-scale", epochs=10, **PLAIN)
    one, two = (losses_of(run, tmp_path / str(processes), processes) for processes in (1, 2))
    assert len(one) == len(two) == 50
    assert two == pytest.approx(one, abs=1e-5)
    rows, rows_of_one = read_metrics(tmp_path / "2"), read_metrics(tmp_path / "1")
    assert len(rows) == 10 and rows[-1].value(TOP1) == pytest.approx(rows_of_one[-1].value(TOP1), abs=0.5)


def test_layouts_share_mixed_and_erased_batches_alike(tiny_run, tmp_path):
    """With all augmentation but what a network drops: one process, two, one in four parts, two in two parts each."""
    run = tiny_run("layer-scale", epochs=2, mix_group=8, random_erasing=0.25, drop_path=0.0)
    one = losses_of(run, tmp_path / "one", 1)
    assert losses_of(run, tmp_path / "two", 2) == pytest.approx(one, abs=1e-4)
    assert losses_of(run, tmp_path / "parts", 1, device_batch=16) == pytest.approx(one, abs=1e-4)
    assert losses_of(run, tmp_path / "both", 2, device_batch=16) == pytest.approx(one, abs=1e-4)
    stored = json.loads((tmp_path / "both" / "manifest.json").read_text())["execution"]
    assert (stored["processes"], stored["accumulation"]) == (2, 2)


def test_gradients_accumulate_to_those_of_the_whole_batch(tiny_run, tmp_path):
    run = tiny_run("layer-scale", epochs=1, **PLAIN)
    train(run, tmp_path / "whole")
    train(run, tmp_path / "parts", device_batch=16)
    ours, theirs = weights(tmp_path / "parts"), weights(tmp_path / "whole")
    assert all(torch.allclose(ours[name], theirs[name], atol=2e-4) for name in ours)


def recipe_of(make_run, batch_size, mixes=False, image_size=224):
    mixing = {"mix_probability": float(mixes), "mix_group": 2}
    return make_run("recipe", batch_size=batch_size, image_size=image_size, **mixing).experiment.recipe


@pytest.mark.parametrize(
    ("batch", "processes", "device_batch", "parts"),
    [
        (4096, 32, 128, 1),
        (4096, 8, 128, 4),
        (4096, 32, "auto", 1),
        (4096, 8, "auto", 4),
        (64, 2, 8, 4),
        (96, 1, "auto", 1),
    ],
)
def test_the_batch_is_the_recipes_whatever_the_layout(make_run, batch, processes, device_batch, parts):
    assert accumulation(recipe_of(make_run, batch), processes, device_batch) == parts


def test_a_device_takes_the_pixels_of_the_papers_at_a_time(make_run):
    assert accumulation(recipe_of(make_run, 4096, image_size=32), 1, "auto") == 1
    assert accumulation(recipe_of(make_run, 512, image_size=384), 1, "auto") == 16  # 32 of them
    assert accumulation(recipe_of(make_run, 6, image_size=4096, mixes=True), 1, "auto") == 3  # a pair is the least


@pytest.mark.parametrize(
    ("layout", "message"),
    [
        ((96, 5, "auto"), "can't be shared by 5 processes; by 1, 2, 3, 4, 6, 8, 12, 16, 24, 32, 48 or 96 it can"),
        ((96, 2, 9), "is 48 images each, .*device_batch 9 can't make; 1, 2, 3, 4, 6, 8, 12, 16, 24 or 48"),
    ],
)
def test_layouts_that_can_not_make_the_batch_are_refused_with_those_that_can(make_run, layout, message):
    batch, processes, device_batch = layout
    with pytest.raises(ValueError, match=message):
        accumulation(recipe_of(make_run, batch), processes, device_batch)


def test_pairs_are_not_parted(make_run):
    recipe = recipe_of(make_run, 12, mixes=True)
    with pytest.raises(ValueError, match=r"device_batch 3 can't make; 2, 4, 6 or 12 can"):
        accumulation(recipe, 1, 3)
    with pytest.raises(ValueError, match=r"can't be shared by 4 processes; by 1, 2, 3 or 6 it can"):
        accumulation(recipe, 4, "auto")


def test_the_processes_are_the_gpus_that_can_share_every_batch(make_run, monkeypatch):
    from runner.machine import resources

    recipes = [recipe_of(make_run, 256), recipe_of(make_run, 4096, mixes=True)]
    for gpus, processes in ((0, 1), (1, 1), (3, 2), (7, 4), (8, 8)):
        monkeypatch.setattr(resources, "available_gpus", lambda execution, count=gpus: count)
        assert resources.default_processes(execution(), recipes) == processes
    assert resources.default_processes(execution(processes=2), recipes) == 2
    with pytest.raises(ValueError, match=r"execution\.processes must be at most 8, the GPUs here \(got 9\)"):
        resources.default_processes(execution(processes=9), recipes)


QUICK = ["--set", "recipe.epochs=2", "--set", "recipe.warmup_epochs=0", "--set", "recipe.batch_size=128", *LIGHT]


@pytest.mark.slow
def test_torchrun_and_the_commands_own_processes_give_the_same(tmp_path):
    # Standalone: it meets at a port that is free, and not at the one that is every torchrun's.
    torchrun = [sys.executable, "-m", "torch.distributed.run", "--standalone", "--nproc-per-node", "2"]
    command = ["run", "--seeds", "1", "--steps", "gelu,layer-norm", *QUICK]
    shadow(tmp_path, "runner/", "analysis/", "yaml")
    started = run_apart(*command, "--out", "torchrun", cwd=tmp_path, launcher=torchrun)
    assert started.status == 0, started.err
    assert started.out.count("2 runs, 0 finished already") == 1  # rank 0 alone speaks
    own = run_here(*command, "--processes", "2", "--out", "own", cwd=tmp_path)
    assert own.status == 0, own.err
    for rung in ("gelu", "layer-norm"):
        one, other = (folder_of(tmp_path / name, rung) for name in ("torchrun", "own"))
        assert_same_weights(one, other)
        assert sorted(path.name for path in one.iterdir()) == sorted(path.name for path in other.iterdir())


def folder_of(out, rung):
    (folder,) = out.glob(f"*/{rung}-s0-*")
    return folder


MIXED = ["--set", "recipe.mix_probability=1"]


def test_a_layout_that_can_not_be_is_one_sentence(tmp_path):
    done = run_here("run", "--seeds", "1", "--steps", "gelu", "--processes", "7", *MIXED, cwd=tmp_path)
    assert done.status == 2 and done.err.count("\n") == 1
    assert "recipe.batch_size 32, mixed in pairs, can't be shared by 7 processes" in done.err


def test_processes_of_torchrun_and_of_slurm_know_their_places(monkeypatch):
    torchrun = {"RANK": "5", "WORLD_SIZE": "8", "LOCAL_RANK": "1", "LOCAL_WORLD_SIZE": "4", "MASTER_ADDR": "n1"}
    torchrun |= {"MASTER_PORT": "29500"}
    world = world_of_environment(torchrun)
    assert (world.rank, world.size, world.local_rank, world.init_method) == (5, 8, 1, "env://")
    step = {"SLURM_PROCID": "3", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "n1,n2"}
    step |= {"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0", "SLURM_CPUS_PER_TASK": "10"}
    world = world_of_environment(step)
    assert (world.rank, world.size, world.local_rank, world.cores) == (3, 4, 1, 10)
    assert world.init_method.startswith("tcp://n1:")
    assert world_of_environment(step | {"SLURM_STEP_ID": "1"}).init_method != world.init_method
    # A batch script, or a session of salloc, is one process, whatever was allocated.
    assert world_of_environment({"SLURM_PROCID": "0", "SLURM_NTASKS": "8", "SLURM_JOB_ID": "17"}) is None
    assert world_of_environment({}) is None
    # Only the first of several tasks has the terminal of `srun --pty`.
    monkeypatch.setattr(distributed_worker, "has_terminal", lambda: True)
    assert world_of_environment(step | {"SLURM_PTY_PORT": "40001"}) is None
    monkeypatch.setattr(distributed_worker, "has_terminal", lambda: False)  # as in `srun` from such a shell
    assert world_of_environment(step | {"SLURM_PTY_PORT": "40001"}) == world_of_environment(step)
    assert world_of_environment({"WORLD_SIZE": "1"}) is None


TORCHRUN = {"RANK": "1", "WORLD_SIZE": "4", "LOCAL_RANK": "1", "MASTER_ADDR": "n1", "MASTER_PORT": "29500"}
STEP = {"SLURM_PROCID": "1", "SLURM_LOCALID": "1", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": "n1"}
STEP |= {"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"}


@pytest.mark.parametrize("name", sorted({*TORCHRUN, *STEP} - {"SLURM_STEP_NUM_TASKS"}))
def test_a_missing_variable_of_several_processes_is_named(name):
    variables = TORCHRUN if name in TORCHRUN else STEP
    assert world_of_environment(variables).size == 4
    with pytest.raises(ValueError, match=f"{name} is missing; start all processes with (torch|s)run, or unset "):
        world_of_environment({key: value for key, value in variables.items() if key != name})


@pytest.mark.parametrize(
    ("name", "value"),
    [
        ("RANK", "one"),
        ("RANK", "4"),
        ("WORLD_SIZE", "-1"),
        ("LOCAL_RANK", ""),
        ("MASTER_PORT", "x"),
        ("SLURM_PROCID", "4"),
        ("SLURM_STEP_NUM_TASKS", "four"),
        ("SLURM_JOB_ID", "17_1"),
        ("SLURM_LOCALID", "?"),
    ],
)
def test_an_invalid_variable_of_several_processes_is_named(name, value, tmp_path, monkeypatch):
    for key, given in ((TORCHRUN if name in TORCHRUN else STEP) | {name: value}).items():
        monkeypatch.setenv(key, given)
    done = run_here("run", "--seeds", "1", "--steps", "gelu", *QUICK, cwd=tmp_path)
    assert done.status == 2 and done.err.count("\n") == 1
    assert f" {name} must be " in done.err or (not value and f" {name} is missing" in done.err)


@pytest.mark.slow
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM, signal.SIGHUP])
def test_a_process_that_waits_for_others_names_their_address_and_handles_signals(tmp_path, number):
    with socket.socket() as taken:
        taken.bind(("127.0.0.1", 0))
        port = str(taken.getsockname()[1])
    variables = TORCHRUN | {"RANK": "0", "LOCAL_RANK": "0", "MASTER_ADDR": "127.0.0.1", "MASTER_PORT": port}
    process = start_apart("run", "--seeds", "1", "--steps", "gelu", *QUICK, cwd=tmp_path, env=os.environ | variables)
    assert process.stderr.readline() == f"process 1 of 4, waiting for the others at 127.0.0.1:{port}\n"
    until(lambda: _is_listening(int(port)), "it waits")
    process.send_signal(number)
    _, errors = process.communicate(timeout=60)
    assert process.returncode == 128 + number and errors == ""


def _is_listening(port):
    with socket.socket() as client:
        return client.connect_ex(("127.0.0.1", port)) == 0


@pytest.mark.parametrize(
    ("nodes", "first"),
    [("n1", "n1"), ("n1,n2", "n1"), ("node[03-04,07],other", "node03"), ("a-b[1,3]", "a-b1"), ("r[1-2]n.x", "r1n.x")],
)
def test_the_first_of_slurms_nodes(nodes, first):
    step = {"SLURM_PROCID": "0", "SLURM_LOCALID": "0", "SLURM_STEP_NUM_TASKS": "4", "SLURM_STEP_NODELIST": nodes}
    world = world_of_environment(step | {"SLURM_JOB_ID": "17", "SLURM_STEP_ID": "0"})
    assert world.init_method.startswith(f"tcp://{first}:")


@pytest.mark.slow
def test_two_tasks_of_slurm_on_two_nodes_give_the_same(slurm, tmp_path):
    """As two processes of the command's own, bit for bit; a batch script with as many tasks trains on its own."""
    srun = ["srun", "--nodes", "2", "--ntasks", "2", "--immediate=60", sys.executable]
    options = ["run", "--seeds", "1", "--steps", "layer-norm", *QUICK]
    shadow(tmp_path, "runner", "analysis", "queue", "torch")
    started = run_apart(*options, "--out", "srun", cwd=tmp_path, launcher=srun, env=slurm.environment)
    assert started.status == 0, started.err
    own = run_here(*options, "--processes", "2", "--out", "own", cwd=tmp_path)
    assert own.status == 0, own.err
    one, other = (folder_of(tmp_path / name, "layer-norm") for name in ("srun", "own"))
    assert_same_weights(one, other)
    assert json.loads((one / "manifest.json").read_text())["execution"]["processes"] == 2

    script = f"#!/bin/sh\n{sys.executable} -m roadmap run --steps layer-norm {' '.join(QUICK)} --out script\n"
    (tmp_path / "script.sh").write_text(script)
    sbatch = ["sbatch", "--wait", "--ntasks", "2", "--output", "script.log", "script.sh"]
    subprocess.run(sbatch, cwd=tmp_path, env=slurm.environment, check=True, capture_output=True, timeout=600)
    alone = folder_of(tmp_path / "script", "layer-norm") / "manifest.json"
    assert json.loads(alone.read_text())["execution"]["processes"] == 1


@pytest.mark.slow
@pytest.mark.parametrize("victim", ["rank 0", "its partner"])
def test_a_process_that_dies_ends_the_run_at_once(tmp_path, victim):
    """The other process does not wait for it, and the same command resumes the run."""
    command = ["run", "--seeds", "1", "--steps", "gelu", "--processes", "2", "--set", "recipe.epochs=99", *LIGHT]
    process = start_apart(*command, cwd=tmp_path, stderr=subprocess.STDOUT)

    def trained():
        assert process.poll() is None
        return any(path.read_text() for path in tmp_path.rglob("metrics.jsonl"))

    until(trained, "an epoch is trained")
    first = int(re.search(r"process (\d+)", next(tmp_path.rglob("log.txt")).read_text())[1])
    server = int(Path(f"/proc/{first}/stat").read_text().rsplit(")", 1)[1].split()[1])
    children = map(int, Path(f"/proc/{server}/task/{server}/children").read_text().split())
    (second,) = (pid for pid in children if pid != first)
    os.kill(first if victim == "rank 0" else second, signal.SIGKILL)
    output, _ = process.communicate(timeout=300)
    assert process.returncode == 1 and "failed: " in output and "the same command tries again" in output


def test_a_divergence_is_every_processs_and_recorded_once(tmp_path):
    settings = [*QUICK, "--set", "recipe.learning_rate=1e14", "--processes", "2", "--on-nan", "retry"]
    done = run_here("run", "--seeds", "1", "--steps", "layer-norm", *settings, cwd=tmp_path)
    assert done.status == 1 and "3 retries did not help" in done.err
    (record,) = tmp_path.rglob("divergences.json")
    divergences = json.loads(record.read_text())["divergences"]
    assert [each["retried_from"] for each in divergences] == [[0, 0]] * 3 + [None]
    assert all(each["module"].startswith(("stem", "stages", "head")) for each in divergences)
