"""A device is not waited for: losses are read a step late, which changes no bit of what is trained."""

from __future__ import annotations

import pytest
import torch
from torch import Tensor
from torch.utils._python_dispatch import TorchDispatchMode

from runner.data import augmentation, batches
from runner.machine import agreement
from runner.machine.agreement import Agreement
from runner.machine.copies import FromDevice
from runner.machine.distributed import SINGLE_PROCESS
from runner.machine.requests import Request
from runner.machine.setup import Setup
from runner.train.train_state import AveragedWeights
from tests.helpers.training import AUGMENTED, assert_same, end, execution, start, start_processes, take_step, train


def test_reading_losses_late_changes_no_bit(tiny_run, tmp_path, monkeypatch):
    run = tiny_run("recipe", ema=0.9, clip_gradients=1.0, **AUGMENTED)
    at_once = train(run, tmp_path / "at once", device_batch=16)
    monkeypatch.setattr(Setup, "late", 1)
    later = train(run, tmp_path / "late", device_batch=16)
    assert_same(tmp_path / "at once", tmp_path / "late")
    assert later.values == at_once.values


@pytest.mark.slow
def test_two_processes_that_read_losses_late_end_with_the_same_bits(tiny_run, tmp_path):
    run = tiny_run("recipe")
    assert end(start_processes(run, tmp_path / "at once", execution(), 2))
    assert end(start_processes(run, tmp_path / "late", execution(checkpoint_minutes=0), 2, late=1))
    assert_same(tmp_path / "at once", tmp_path / "late")


def test_an_update_is_called_off_where_the_loss_is_not_finite(tiny_run, tmp_path):
    training = start(tiny_run("recipe"), tmp_path)
    training.stream = training.batches.stream(0, 0)
    take_step(training)
    before = [parameter.detach().clone() for parameter in training.model.parameters()]
    for parameter in training.model.parameters():
        parameter.grad = torch.full_like(parameter, float("nan"))
    training.train_state.update(unless_infinite=torch.tensor(float("inf")))
    assert training.train_state.skips_updates
    assert all(torch.equal(*pair) for pair in zip(before, training.model.parameters(), strict=True))
    training.optimizer.zero_grad()
    take_step(training)  # further ones are not called off
    assert not torch.equal(before[0], next(training.model.parameters()))


def test_what_is_said_is_heard_late_and_in_order():
    processes = Agreement(SINGLE_PROCESS, "cpu", late=1)
    processes.say(1, torch.tensor(2.0), 3, Request.SAVE)
    assert list(processes.hear()) == []
    processes.say(2, torch.tensor(4.0), 0, Request.NONE)
    (first,) = processes.hear()
    assert (first.step, first.loss, first.skipped, first.request) == (1, 2.0, 3, Request.SAVE)
    (second,) = processes.hear(late=0)
    assert (second.step, second.loss) == (2, 4.0) and list(processes.hear(late=0)) == []


def test_a_first_step_of_sgd_that_is_called_off_leaves_no_trace(tiny_run, tmp_path):
    """As where the first scale of fp16 overflows."""
    training = start(tiny_run("pico"), tmp_path)
    (weight,) = (parameter for parameter in training.model.parameters() if parameter.shape == (10, 256))
    before = weight.detach().clone()
    for finite in (False, True):
        training.optimizer.zero_grad()
        for parameter in training.model.parameters():
            parameter.grad = torch.ones_like(parameter)
        training.train_state.update(unless_infinite=torch.tensor(1.0 if finite else float("inf")))
    group = training.optimizer.param_groups[0]
    step = group["lr"] * (1 + group["weight_decay"] * before)
    assert torch.allclose(weight, before - step)


class OnDevice(Tensor):
    """A stub of a device's memory: reading a value, or copying in either direction, would wait for the device."""

    @classmethod
    def __torch_function__(cls, function, types, arguments=(), named=None):
        name = getattr(function, "__name__", "")
        if name in WAITING:
            raise AssertionError(f"{name} waits for the device")
        named = named or {}
        moves = any(isinstance(each, (str, torch.device)) for each in (*arguments[1:], *named.values()))
        if name == "to" and moves and not named.get("non_blocking"):
            raise AssertionError("a copy waits for the device")
        return super().__torch_function__(function, types, arguments, named)


WAITING = {
    *("item", "tolist", "cpu", "numpy", "nonzero", "masked_select", "unique", "__bool__", "__float__", "__int__"),
    *("__index__", "__array__", "__contains__", "equal", "allclose"),
}


class Unread(FromDevice):
    """On its way from the stub. The test reads it itself."""

    def __init__(self, numbers: Tensor) -> None:
        assert isinstance(numbers, OnDevice)
        super().__init__(numbers.as_subclass(Tensor))


@pytest.mark.parametrize("rung", ["recipe", "layer-scale"])
def test_no_step_waits_for_the_device(tiny_run, tmp_path, monkeypatch, rung):
    """Images, labels and shares of mixing are put on the stub, as is all that is computed from them."""
    monkeypatch.setattr(Setup, "late", 1)
    moved = lambda tensor, device: tensor.as_subclass(OnDevice)  # noqa: E731
    for module in (batches, augmentation):
        monkeypatch.setattr(module, "to_device", moved)
    monkeypatch.setattr(agreement, "FromDevice", Unread)
    run = tiny_run(rung, ema=0.9, clip_gradients=1.0, label_smoothing=0.1, **AUGMENTED)
    training = start(run, tmp_path, device_batch=16)
    training.restore()
    training.stream = training.batches.stream(0, 0)
    for _ in range(3):
        take_step(training)
    assert training.step == 3 and isinstance(training.ema, AveragedWeights)


class Reading(TorchDispatchMode):
    """Counts the tensors whose value is read, whatever computes with them; of a device, each would be waited for."""

    def __init__(self, *allowed: Tensor) -> None:
        super().__init__()
        self.allowed, self.count = allowed, 0

    def __torch_dispatch__(self, function, types, arguments=(), named=None):
        if function is torch.ops.aten._local_scalar_dense.default:
            self.count += not any(arguments[0] is tensor for tensor in self.allowed)
        return function(*arguments, **(named or {}))


@pytest.mark.parametrize("late", [0, 1])
@pytest.mark.parametrize("precision", ["fp32", "fp16"])
def test_no_step_reads_a_value_of_its_network(tiny_run, tmp_path, monkeypatch, precision, late):
    """Gradients, clipping, optimizer, loss scaling and averages included; the count of these is on the CPU."""
    monkeypatch.setattr(Setup, "late", late)
    run = tiny_run("recipe", precision=precision, ema=0.9, clip_gradients=1.0, **AUGMENTED)
    training = start(run, tmp_path, device_batch=16)
    training.restore()
    training.stream = training.batches.stream(0, 0)
    take_step(training)
    with Reading(training.ema.n_averaged) as reading:
        take_step(training)
        take_step(training)
    assert reading.count == 0


@pytest.mark.parametrize(
    "wait", [lambda t: t.item(), lambda t: bool(t > 0), lambda t: t.to("cpu"), lambda t: t.tolist()]
)
def test_the_stub_tells_who_waits(wait):
    with pytest.raises(AssertionError, match="waits for the device"):
        wait(torch.tensor(1.0).as_subclass(OnDevice) * 2)
