"""Nothing is lost, and resuming is exact: runs that are killed anywhere end as undisturbed ones, bit for bit."""

from __future__ import annotations

import json
import os
import random
import resource
import signal
import time
from contextlib import contextmanager
from dataclasses import replace
from types import SimpleNamespace

import pytest
import torch

from roadmap.record.folder import read_divergences, read_metrics, state
from runner.machine.distributed import World
from runner.machine.setup import Setup
from runner.train import checkpoint
from runner.train.train_state import TrainState
from tests.helpers.training import (
    Death,
    assert_same,
    end,
    execution,
    kill_after,
    outcome,
    start_processes,
    train,
    weights,
)

# Of each run that is killed again and again. ROADMAP_KILLS=20 for the long run.
KILLS = int(os.environ.get("ROADMAP_KILLS", "4"))


# How often each of them happens in a run of three epochs, at most.
MOMENTS = {"step": 40, "evaluation": 3, "write": 12, "request": 60}
CASES = [("recipe", 1), ("layer-scale", 1), ("layer-scale", 2), ("recipe", 2)]


@pytest.mark.slow
@pytest.mark.parametrize("case", range(len(CASES)), ids=lambda case: "{}-{}".format(*CASES[case]))
def test_a_run_that_is_killed_again_and_again_ends_as_if_undisturbed(tiny_run, tmp_path, case):
    """BN and LN; with other numbers of data workers each time; at moments of the clock, and of what it is about."""
    rung, processes = CASES[case]
    whole, killed = tmp_path / "whole", tmp_path / "killed"
    run = tiny_run(rung, epochs=3, batch_size=16, ema=0.9, drop_path=0.5, randaugment="rand-m9-mstd0.5-inc1")
    drawn = random.Random(f"{rung} {processes}")
    began = time.monotonic()
    assert end(start_processes(run, whole, execution(), processes))
    seconds = time.monotonic() - began
    kills = 0
    while kills < KILLS:
        # Every second or so a checkpoint, so that many kills can't keep it from getting on.
        chosen_execution = execution(workers=drawn.choice((0, 0, 1, 2)), checkpoint_minutes=drawn.choice((0, 0.01, 10)))
        if kills % 2:
            where = list(MOMENTS)[(case + kills // 2) % len(MOMENTS)]
            death = Death(where, drawn.randint(1, MOMENTS[where]))
            finished = end(start_processes(run, killed, chosen_execution, processes, death))
        else:
            finished = not kill_after(
                start_processes(run, killed, chosen_execution, processes), drawn.uniform(0.1, seconds)
            )
        if finished:  # too soon: it is to be killed more often
            assert_same(whole, killed)
            for name in ("result.json", "metrics.jsonl", checkpoint.NAME, checkpoint.PREVIOUS):
                (killed / name).unlink(missing_ok=True)
        else:
            kills += 1
    assert end(start_processes(run, killed, execution(), processes))
    assert_same(whole, killed)
    assert outcome(whole) == outcome(killed)


@contextmanager
def files_at_most(size):
    """As on a disk that is full beyond that: no file gets longer, bytes."""
    before = resource.getrlimit(resource.RLIMIT_FSIZE)
    handler = signal.signal(signal.SIGXFSZ, signal.SIG_IGN)
    resource.setrlimit(resource.RLIMIT_FSIZE, (size, before[1]))
    try:
        yield
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, before)
        signal.signal(signal.SIGXFSZ, handler)


def test_a_full_disk_is_named_and_loses_nothing(tiny_run, tmp_path):
    run = tiny_run("recipe", epochs=3)
    train(run, tmp_path / "whole")
    rows = []

    def filling(row):
        rows.append(row)
        if len(rows) == 1:
            resource.setrlimit(resource.RLIMIT_FSIZE, (100_000, resource.RLIM_INFINITY))

    with files_at_most(10**9), pytest.raises(OSError, match=r"File too large: '.*run/checkpoint.*\.pt'"):
        train(run, tmp_path / "run", filling)
    assert not list((tmp_path / "run").glob("*.tmp"))  # half a file would only take room
    train(run, tmp_path / "run")
    assert_same(tmp_path / "whole", tmp_path / "run")


def test_a_folder_that_can_not_be_written_is_named(tiny_run, tmp_path):
    from roadmap.record.events import Failed
    from runner.launch.job import train_job

    (tmp_path / "file").write_text("")
    nothing = lambda *_: None  # noqa: E731
    ending = train_job(tiny_run(), tmp_path / "file" / "run", execution(), 1, World(), nothing, lambda: 0)
    assert isinstance(ending, Failed) and "Not a directory" in ending.message and "file" in ending.message


def test_checkpoints_of_another_format_are_refused(tiny_run, tmp_path):
    from runner.train.training import Stopped

    run = tiny_run("recipe")
    with pytest.raises(Stopped):
        train(run, tmp_path, should_stop=lambda: True)
    saved = torch.load(tmp_path / checkpoint.NAME, weights_only=True)
    torch.save(saved | {"format": 99}, tmp_path / checkpoint.NAME)
    with pytest.raises(ValueError, match=r"checkpoint\.pt has format 99; this version reads 2; move the folder away"):
        train(run, tmp_path)
    torch.save({"identity": run.identity, "epoch": 1}, tmp_path / checkpoint.NAME)
    with pytest.raises(ValueError, match=r"checkpoint\.pt has format None"):
        train(run, tmp_path)


def test_where_no_checkpoint_can_be_read_nothing_is_thrown_away(tiny_run, tmp_path):
    from runner.train.training import Stopped

    run = tiny_run("recipe", epochs=3)
    with pytest.raises(Stopped):
        train(run, tmp_path, should_stop=lambda: len(read_metrics(tmp_path)) == 2)
    for name in (checkpoint.NAME, checkpoint.PREVIOUS):
        (tmp_path / name).write_bytes(b"PK\x03\x04 and no more")
    with pytest.raises(ValueError, match=r"checkpoint\.previous\.pt can't be read .*; remove these files to train"):
        train(run, tmp_path)
    assert len(read_metrics(tmp_path)) == 2


def test_a_flipped_bit_is_seen(tiny_run, tmp_path):
    from runner.train.training import Stopped

    run = tiny_run("recipe", epochs=3)
    with pytest.raises(Stopped):
        train(run, tmp_path, should_stop=lambda: len(read_metrics(tmp_path)) == 2)
    path, drawn = tmp_path / checkpoint.NAME, random.Random(0)
    whole = path.read_bytes()
    for _ in range(20):
        place = drawn.randrange(len(whole) // 10, len(whole) * 9 // 10)  # in the weights
        path.write_bytes(whole[:place] + bytes([whole[place] ^ 16]) + whole[place + 1 :])
        with pytest.warns(UserWarning, match="damaged or incomplete"):
            assert checkpoint.load(tmp_path, run.identity)["epoch"] == 2


def test_a_checkpoint_of_another_network_is_refused(tiny_run, tmp_path):
    """As after a change of the code that left the run's identity alone."""
    from runner.train.training import Stopped

    run = tiny_run("recipe")
    with pytest.raises(Stopped):
        train(run, tmp_path, should_stop=lambda: True)
    saved = torch.load(tmp_path / checkpoint.NAME, weights_only=True)
    saved["model"]["another.weight"] = saved["model"].pop(next(iter(saved["model"])))
    torch.save(saved, tmp_path / checkpoint.NAME)
    with pytest.raises(ValueError, match=r"the checkpoint is of another network .*; move the folder away"):
        train(run, tmp_path)


def test_nothing_in_a_checkpoint_is_executed(tiny_run, tmp_path):
    from runner.train.training import Stopped

    class Deadly:
        def __reduce__(self):
            return (os.mkdir, (str(tmp_path / "executed"),))

    run = tiny_run("recipe")
    with pytest.raises(Stopped):
        train(run, tmp_path, should_stop=lambda: True)
    saved = torch.load(tmp_path / checkpoint.NAME, weights_only=True)
    torch.save(saved | {"epoch": Deadly()}, tmp_path / checkpoint.NAME)
    (tmp_path / checkpoint.PREVIOUS).unlink(missing_ok=True)
    with pytest.raises(ValueError, match="contains something other than tensors and numbers"):
        train(run, tmp_path)
    assert not (tmp_path / "executed").exists()


class Weak(torch.nn.Module):
    """Gives no number from its n-th training pass on, once only, if `once`."""

    passes = 0

    def __init__(self, inner, at, once):
        super().__init__()
        self.inner, self.at, self.once = inner, at, once

    def forward(self, images):
        if not self.training or not torch.is_grad_enabled():  # also in the diagnosis
            return self.inner(images) * (float("nan") if self.training else 1)
        Weak.passes += 1
        broken = Weak.passes == self.at if self.once else Weak.passes >= self.at
        return self.inner(images) * (float("nan") if broken else 1)


@pytest.fixture(params=[0, 1], ids=["read at once", "read late"])
def late(request, monkeypatch):
    """The steps after which a loss is read: on a CPU none, on a GPU one."""
    monkeypatch.setattr(Setup, "late", request.param)


@pytest.fixture
def weaken(monkeypatch):
    """Puts a weak module in the place of every network's first stage."""
    from runner.train.tasks import classification

    def do(at, once):
        Weak.passes = 0
        build = classification.build

        def weak(*arguments, **named):
            model = build(*arguments, **named)
            model.stages[1] = Weak(model.stages[1], at, once)
            return model

        monkeypatch.setattr(classification, "build", weak)

    return do


def test_a_divergence_names_step_rate_and_module_and_keeps_the_last_good_checkpoint(tiny_run, tmp_path, weaken, late):
    from runner.train.engine import Diverged

    run = tiny_run("recipe", epochs=3)
    weaken(at=8, once=False)  # the third step of the second epoch
    message = r"the loss is nan in epoch 2, step 3, at a learning rate of 0\.00\d+; .* finite is stages\.1$"
    with pytest.raises(Diverged, match=message):
        train(run, tmp_path)
    assert state(tmp_path, run) == "diverged" and not (tmp_path / "result.json").exists()
    saved = torch.load(tmp_path / checkpoint.NAME, weights_only=True)
    assert (saved["epoch"], saved["step"]) == (1, 0) and len(read_metrics(tmp_path)) == 1
    with pytest.raises(Diverged, match=message):  # not trained again: it would diverge again
        train(run, tmp_path)


def test_a_retry_resumes_from_the_last_checkpoint_in_another_order_and_reports_it(tiny_run, tmp_path, weaken, late):
    run = tiny_run("recipe", epochs=3)
    train(run, tmp_path / "whole")
    weaken(at=8, once=True)
    result = train(run, tmp_path / "retried", on_nan="retry")
    (divergence,) = read_divergences(tmp_path / "retried")
    assert (divergence.epoch, divergence.step, divergence.retried_from) == (2, 3, (1, 0))
    assert result.divergences[0].retried_from == (1, 0) and result.epochs == 3
    whole, retried = read_metrics(tmp_path / "whole"), read_metrics(tmp_path / "retried")
    assert whole[0].train_loss == retried[0].train_loss and whole[1].train_loss != retried[1].train_loss


def test_a_retry_that_is_interrupted_resumes_as_a_retry(tiny_run, tmp_path, weaken, late):
    from runner.train.training import Stopped

    run = tiny_run("recipe", epochs=3)
    weaken(at=8, once=True)
    train(run, tmp_path / "retried", on_nan="retry")
    Weak.passes = 0
    steps = iter(range(100))
    with pytest.raises(Stopped):
        train(run, tmp_path / "stopped", should_stop=lambda: next(steps) == 11, on_nan="retry")
    assert read_divergences(tmp_path / "stopped")
    train(run, tmp_path / "stopped")
    assert_same(tmp_path / "retried", tmp_path / "stopped")


def test_three_retries_are_the_most(tiny_run, tmp_path, weaken):
    from runner.train.engine import Diverged

    weaken(at=2, once=False)
    with pytest.raises(Diverged, match="after 3 retries"):
        train(tiny_run("recipe"), tmp_path, on_nan="retry")
    assert len(read_divergences(tmp_path)) == 4


def test_weights_that_are_not_finite_are_never_saved(tiny_run, tmp_path, monkeypatch):
    from runner.train import engine, train_state

    run = tiny_run("recipe", epochs=2)
    make = train_state.make_optimizer

    def poisoning(model, recipe):
        optimizer, steps = make(model, recipe), iter(range(1, 100))

        def poison(*_):
            if next(steps) == 10:  # the last step of the second epoch, whose loss was a number
                next(model.parameters()).data[0] = float("inf")

        optimizer.register_step_post_hook(poison)
        return optimizer

    monkeypatch.setattr(train_state, "make_optimizer", poisoning)
    with pytest.raises(engine.Diverged, match=r"first that was not finite is stem\.0\.conv\.weight"):
        train(run, tmp_path)
    (divergence,) = read_divergences(tmp_path)
    assert (divergence.epoch, divergence.step) == (2, 5) and float(divergence.loss) > 0
    assert all(tensor.isfinite().all() for tensor in weights(tmp_path).values())


def test_weights_whose_squares_have_no_finite_sum_are_finite_themselves():
    from runner.train.nonfinite import not_finite_weight

    network = torch.nn.Sequential(torch.nn.Linear(2, 2), torch.nn.BatchNorm1d(2))
    largest = torch.finfo(torch.float32).max
    network[0].weight.data.fill_(largest)
    network[1].running_var.fill_(-largest)
    assert torch.isinf(torch.nn.utils.get_total_norm(network.parameters()))
    assert not_finite_weight(network) is None
    network[1].running_var[1] = float("nan")
    assert not_finite_weight(network) == "1.running_var"
    network[0].weight.data[0, 1] = float("inf")
    assert not_finite_weight(network) == "0.weight"


def test_state_is_saved_by_time_and_on_request(tiny_run, tmp_path, monkeypatch):
    from runner.machine.requests import Request
    from runner.train import engine

    saves = []
    save = checkpoint.save
    monkeypatch.setattr(
        checkpoint, "save", lambda folder, state: [saves.append((state["epoch"], state["step"])), save(folder, state)]
    )
    train(tiny_run("recipe"), tmp_path / "seldom")
    assert saves == [(1, 0), (2, 0)]
    saves.clear()
    train(tiny_run("recipe"), tmp_path / "always", checkpoint_minutes=0)
    of_epoch = [[(epoch, step) for step in range(1, 6)] for epoch in range(2)]  # the last before the evaluation
    assert saves == [*of_epoch[0], (1, 0), *of_epoch[1], (2, 0)]
    saves.clear()
    asked = iter([Request.NONE] * 2 + [Request.SAVE] + [Request.NONE] * 100)
    engine.train(tiny_run("recipe"), tmp_path / "asked", execution(), request=lambda: next(asked))
    assert saves == [(0, 3), (1, 0), (2, 0)]
    assert_same(tmp_path / "seldom", tmp_path / "always")


class Clock:
    """Of a machine on which each step takes a second, and each checkpoint one too."""

    def __init__(self, monkeypatch):
        from runner.train import training

        self.now, self.saves = 0.0, []
        save, backward = checkpoint.save, TrainState.backward

        def timed_save(folder, state):
            save(folder, state)
            self.now += 1
            self.saves.append((state["epoch"], state["step"]))

        def timed_backward(train_state, *batch, **parts):
            self.now += 1
            return backward(train_state, *batch, **parts)

        monkeypatch.setattr(checkpoint, "save", timed_save)
        monkeypatch.setattr(TrainState, "backward", timed_backward)
        monkeypatch.setattr(training, "time", SimpleNamespace(perf_counter=lambda: self.now))


def test_short_epochs_are_saved_a_few_at_a_time_and_the_last_always(tiny_run, tmp_path, monkeypatch):
    clock, run = Clock(monkeypatch), tiny_run("recipe", epochs=6)  # of five seconds each
    train(run, tmp_path / "always")
    assert [epoch for epoch, _ in clock.saves] == [1, 2, 3, 4, 5, 6]
    for share, saved in {0.1: [1, 3, 5, 6], 1e-3: [1, 6]}.items():
        clock.saves.clear()
        train(run, tmp_path / f"{share}", checkpoint_share=share)
        assert [epoch for epoch, _ in clock.saves] == saved
        assert_same(tmp_path / "always", tmp_path / f"{share}")


def test_a_long_time_without_a_checkpoint_ends_in_an_epoch_whatever_their_share(tiny_run, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    train(tiny_run("recipe", epochs=3), tmp_path, checkpoint_share=1e-3, checkpoint_minutes=7.5 / 60)
    assert clock.saves == [(1, 0), (2, 2), (3, 0)]


def test_where_a_divergence_is_retried_no_epoch_goes_without_a_checkpoint(tiny_run, tmp_path, monkeypatch):
    clock = Clock(monkeypatch)
    train(tiny_run("recipe", epochs=3), tmp_path, checkpoint_share=1e-3, on_nan="retry")
    assert clock.saves == [(1, 0), (2, 0), (3, 0)]


def test_a_run_killed_between_checkpoints_resumes_from_the_last_and_counts_lost_steps(tiny_run, tmp_path, monkeypatch):
    clock, run = Clock(monkeypatch), tiny_run("recipe", epochs=6)
    train(run, tmp_path / "whole")
    clock.saves.clear()

    def killed(row):
        if row.epoch == 5:
            raise KeyboardInterrupt

    with pytest.raises(KeyboardInterrupt):
        train(run, tmp_path / "killed", killed, checkpoint_share=0.07)
    assert clock.saves == [(1, 0), (4, 0)] and len(read_metrics(tmp_path / "killed")) == 5
    rows = []
    train(run, tmp_path / "killed", rows.append, checkpoint_share=0.07)
    assert [row.epoch for row in rows] == [5, 6]
    assert_same(tmp_path / "whole", tmp_path / "killed")
    result = json.loads((tmp_path / "killed" / "result.json").read_text())
    assert (result["restarts"], result["lost_steps"]) == (1, 5)


def test_processes_that_are_killed_between_two_savings_go_on_together(tiny_run, tmp_path):
    run, seldom = tiny_run("recipe", epochs=4), execution(checkpoint_share=1e-9)  # the first and the last
    assert end(start_processes(run, tmp_path / "whole", execution(), 2))
    assert not end(start_processes(run, tmp_path / "killed", seldom, 2, Death("step", 13)))  # of five an epoch
    assert torch.load(tmp_path / "killed" / checkpoint.NAME, weights_only=True)["epoch"] == 1
    assert len(read_metrics(tmp_path / "killed")) == 2
    assert end(start_processes(run, tmp_path / "killed", seldom, 2))
    assert_same(tmp_path / "whole", tmp_path / "killed")


def test_a_stop_between_two_savings_loses_nothing(tiny_run, tmp_path, late):
    from runner.train.training import Stopped

    run, steps = tiny_run("recipe", epochs=4), iter(range(1, 100))
    train(run, tmp_path / "whole")
    with pytest.raises(Stopped):
        train(run, tmp_path / "stopped", should_stop=lambda: next(steps) == 16, checkpoint_share=1e-9)
    train(run, tmp_path / "stopped", checkpoint_share=1e-9)
    assert_same(tmp_path / "whole", tmp_path / "stopped")
    assert json.loads((tmp_path / "stopped" / "result.json").read_text())["lost_steps"] == 0


def test_a_stop_in_an_evaluation_is_heeded_there(tiny_run, tmp_path):
    from runner.train.training import Stopped

    run = tiny_run("recipe")
    train(run, tmp_path / "whole")
    calls = iter(range(1, 100))
    with pytest.raises(Stopped):
        train(run, tmp_path / "stopped", should_stop=lambda: next(calls) == 6)  # five steps, then the first batch
    saved = torch.load(tmp_path / "stopped" / checkpoint.NAME, weights_only=True)
    assert (saved["epoch"], saved["step"]) == (0, 5) and not read_metrics(tmp_path / "stopped")
    train(run, tmp_path / "stopped")
    assert_same(tmp_path / "whole", tmp_path / "stopped")


def test_skipped_images_are_counted_in_the_record(tiny_run, tmp_path):
    from PIL import Image

    from roadmap.data.image_folders import describe_folder

    for i in range(24):
        path = tmp_path / "data" / ("train", "val")[i % 2] / ("a", "b")[i // 2 % 2] / f"{i}.png"
        path.parent.mkdir(parents=True, exist_ok=True)
        Image.new("RGB", (32, 32), (10 * i, 0, 0)).save(path)
    (tmp_path / "data" / "train" / "a" / "0.png").write_bytes(b"")
    (tmp_path / "data" / "val" / "a" / "1.png").write_bytes(b"")
    run = tiny_run("recipe", batch_size=4)
    run = replace(run, data="shades", dataset=describe_folder(tmp_path / "data"))
    where = str(tmp_path / "data")
    result = train(run, tmp_path / "run", data_path=where, bad_images="skip", workers=1)
    assert [each.skipped_images for each in read_metrics(tmp_path / "run")] == [2, 2]
    assert result.skipped_images == 4
    with pytest.raises(ValueError, match=r"0\.png can't be read"):
        train(run, tmp_path / "other", data_path=where)
