"""Batches of data workers: shared memory that is full, workers that hang, and requests meanwhile."""

from __future__ import annotations

import time

import pytest
import torch

from runner.data import loader, shared_memory
from runner.data.batches import TrainingBatches
from runner.data.datasets import load_data
from runner.data.image import BadImage
from runner.data.shared_memory import check_shared_memory
from runner.machine.requests import Request
from runner.train.training import Stopped
from tests.helpers.command import LIGHT, run_here
from tests.helpers.training import setup_of, start, take_step, train

TENTH = 10**5  # bytes of free shared memory: too few for any batch


@pytest.fixture
def full(monkeypatch):
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: TENTH)


def test_what_the_workers_make_ahead_must_fit(monkeypatch, make_run):
    """Two batches of training and two of evaluation, four times as large, for each worker."""
    recipe = make_run("recipe", batch_size=64, image_size=32).experiment.recipe
    of_worker = 2 * (64 + 256) * 3 * 32 * 32
    monkeypatch.setattr(shared_memory, "free_bytes", lambda: 6 * of_worker)
    check_shared_memory(recipe, parts=1, workers=6)
    check_shared_memory(recipe, parts=1, workers=1, processes=3, at_once=2)
    check_shared_memory(recipe, parts=2, workers=12)  # of half the images
    with pytest.raises(ValueError, match=r"14 data workers need 27.5 MB .* use execution\.workers=6 at most, or make"):
        check_shared_memory(recipe, parts=1, workers=14)
    with pytest.raises(ValueError, match=r"8 data workers need 15.7 MB .* use execution\.workers=3 at most"):
        check_shared_memory(recipe, parts=1, workers=4, at_once=2)


def test_too_little_shared_memory_is_one_sentence_before_training(full, tmp_path):
    done = run_here("run", "--seeds", "1", "--steps", "gelu", "--workers", "2", *LIGHT, cwd=tmp_path)
    assert done.status == 2 and done.err.count("\n") == 1 and not list(tmp_path.rglob("log.txt"))
    assert "/dev/shm has 0.1 MB free; use execution.workers=0, or make /dev/shm larger (docker run --shm" in done.err
    assert "need" not in run_here("run", "--steps", "gelu", "--dry-run", cwd=tmp_path).err


def test_a_run_checks_its_shared_memory_too(full, tiny_run, tmp_path):
    with pytest.raises(ValueError, match="2 data workers need"):
        train(tiny_run("gelu"), tmp_path, workers=2)


def test_shared_memory_that_is_full_later_ends_the_run_with_one_sentence(monkeypatch, tiny_run):
    def share(tensor):
        raise RuntimeError("unable to allocate shared memory(shm) for file </torch_1>: No space left on device (28)")

    run = tiny_run("gelu")
    batches = TrainingBatches(run, load_data(run)[0], setup_of(run, workers=1), 0)
    monkeypatch.setattr(torch.Tensor, "share_memory_", share)
    with pytest.raises(BadImage, match=r"/dev/shm has no room for a batch of .* MB; use fewer execution\.workers"):
        list(batches.stream(0, 0))


class Hanging(torch.utils.data.Dataset):
    def __getitems__(self, keys):
        time.sleep(1000)


def test_a_batch_is_not_awaited_for_ever(monkeypatch, tiny_run):
    monkeypatch.setattr(loader, "MOST_SECONDS", 2)
    with pytest.raises(TimeoutError, match=r"no batch came from 2 data workers in 2 s; execution\.workers=0 reads"):
        next(loader.load(Hanging(), [[(0, 0)]] * 4, setup_of(tiny_run("gelu"), workers=2)))
    assert not torch.multiprocessing.active_children()


def test_a_request_to_stop_is_handled_while_a_batch_is_awaited(monkeypatch, tiny_run, tmp_path):
    """With the state saved: the steps that were done are not lost."""
    run = tiny_run("gelu")
    training = start(run, tmp_path, workers=1)
    training.restore()
    training.stream = training.batches.stream(0, 0)
    take_step(training)
    training.stream.close()
    training.request = lambda: Request.STOP
    training.batches.samples = Hanging()
    training.stream = training.batches.stream(0, 1)
    with pytest.raises(Stopped, match="stopped in epoch 1, step 1"):
        take_step(training)
    resumed = start(run, tmp_path)
    resumed.restore()
    assert (resumed.epoch, resumed.step) == (0, 1)
