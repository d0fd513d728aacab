"""Measuring the speed and memory of one network in this process, in training and inference.

Batches are random and on the device: reading and augmenting images is not measured. On a GPU, time is measured with
CUDA events, and `--cuda-graphs` replays a captured graph. Neither has been run on a GPU so far.
"""

from __future__ import annotations

import math
import platform
import re
import sys
import time
from collections import deque
from collections.abc import Callable
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from roadmap.design import NamedModel
from roadmap.network.cost import cost
from roadmap.network.library_models import builder_of
from roadmap.record.benchmarks import Conditions, Round, workload_of
from roadmap.record.run import Run
from runner.machine.copies import FromDevice
from runner.machine.resources import available_cores
from runner.machine.setup import DTYPES, Setup, choose_setup
from runner.measure.plan import Plan
from runner.train.provenance import peak_memory
from runner.train.train_state import TrainState, compiled, network_of

SIDES = {"cpu": (1024, 2048), "cuda": (2048, 4096, 8192)}  # of square matrices
CAPTURE_WARM_UP = 3  # steps before a CUDA graph is captured, as in PyTorch's documentation


def measure(run: Run, plan: Plan, started: str) -> Round:
    """Measures one network. The process must not have had another before: its memory would be counted too.

    Raises ValueError if the machine lacks what the plan needs, and RuntimeError if a device's memory is too small.
    """
    recipe, classes = run.experiment.recipe, run.dataset.classes
    setup = choose_setup(recipe, plan.execution, 1, available_cores())
    setup.prepare()
    if isinstance(run.experiment.design, NamedModel):
        builder_of(run.experiment.design)  # so that the import of its library is not measured
    _load_libraries(setup)
    memory, clock = _Memory(setup.device), _Clock(setup.device, plan.warm_up, plan.seconds)
    shape = (plan.batch, 3, recipe.image_size, recipe.image_size)
    images = torch.randn(shape, device=setup.device).contiguous(memory_format=setup.memory_format)
    rates: dict[str, float | None] = {"inference": None, "training": None}
    peaks: dict[str, int | None] = dict(rates)  # type: ignore[arg-type]
    # Training takes more memory than inference. It is last, because on a CPU the peak is that of the process so far.
    for mode, make_step in (("inference", _inference), ("training", _training)):
        if mode in plan.modes:
            memory.begin()
            rates[mode] = plan.batch / clock.seconds_of(make_step(run, setup, images, plan.cuda_graphs))
            peaks[mode] = memory.peak()
    model_cost = cost(run.experiment.design, recipe.image_size, classes)
    return Round(
        started=started,
        regime=run.regime,
        rung=run.rung,
        workload=workload_of(run),
        image_size=recipe.image_size,
        parameters=model_cost.parameters,
        macs=model_cost.macs,
        conditions=_conditions(setup, plan),
        training_images_per_second=rates["training"],
        inference_images_per_second=rates["inference"],
        training_peak_bytes=peaks["training"],
        inference_peak_bytes=peaks["inference"],
        matrix_gmacs_per_second=_matrix_gmacs_per_second(setup, clock),
    )


def _inference(run: Run, setup: Setup, images: Tensor, cuda_graphs: bool) -> Callable[[], object]:
    forward = compiled(network_of(run, setup).eval(), setup)

    def step() -> Tensor:
        with torch.inference_mode(), setup.autocast():
            return forward(images)

    return _captured(step) if cuda_graphs else step


def _training(run: Run, setup: Setup, images: Tensor, cuda_graphs: bool) -> Callable[[], object]:
    """A whole training step, as in the engine."""
    train_state, classes = TrainState(run, setup), run.dataset.classes
    train_state.model.train()
    for group in train_state.optimizer.param_groups:
        group["lr"] = 0.0  # the images are noise, on which training could diverge
    targets = torch.randint(classes, (len(images),), device=setup.device)
    if run.experiment.recipe.mixes:
        targets = torch.rand(len(images), classes, device=setup.device).softmax(1)

    def gradients() -> Tensor:
        train_state.optimizer.zero_grad()
        return train_state.backward(images, targets)

    work = _captured(gradients) if cuda_graphs else gradients

    pending: deque[FromDevice] = deque()

    def step() -> None:
        pending.append(FromDevice(work().view(1)))
        if len(pending) > setup.late:
            pending.popleft().read()  # the engine reads every loss
        train_state.update()  # can't be captured: with fp16 it waits for the GPU

    return step


def _captured(work: Callable[[], Tensor]) -> Callable[[], Tensor]:
    """The work as the replay of a CUDA graph. The result is always the same tensor, overwritten.

    As in PyTorch's documentation for whole networks: warmed up on another stream, then captured, with gradients
    allocated inside.
    """
    stream = torch.cuda.Stream()
    stream.wait_stream(torch.cuda.current_stream())
    with torch.cuda.stream(stream):
        for _ in range(CAPTURE_WARM_UP):
            work()
    torch.cuda.current_stream().wait_stream(stream)
    graph = torch.cuda.CUDAGraph()
    with torch.cuda.graph(graph):
        result = work()

    def replay() -> Tensor:
        graph.replay()
        return result

    return replay


class _Clock:
    """Times whole steps after a warm-up, with the device's clock."""

    def __init__(self, device: Literal["cpu", "cuda"], warm_up: int, least: float) -> None:
        self.device, self.warm_up, self.least = device, warm_up, least  # `least`: seconds

    def seconds_of(self, step: Callable[[], object]) -> float:
        """Seconds of one step: the mean over as many steps as take the least time."""
        for _ in range(self.warm_up):
            step()
        steps, seconds = 1, self._timed(step, 1)
        while seconds < self.least:  # the first may have been the slowest
            more = math.ceil((self.least - seconds) * steps / seconds)
            seconds += self._timed(step, more)
            steps += more
        return seconds / steps

    def _timed(self, step: Callable[[], object], count: int) -> float:
        """Seconds of so many steps."""
        if self.device == "cuda":
            begin, end = (torch.cuda.Event(enable_timing=True) for _ in range(2))
            begin.record()
            for _ in range(count):
                step()
            end.record()
            end.synchronize()
            return float(begin.elapsed_time(end)) / 1e3
        began = time.perf_counter()
        for _ in range(count):
            step()
        return time.perf_counter() - began


class _Memory:
    """Peak memory: the allocations on a GPU; on a CPU the growth of the process since the start."""

    def __init__(self, device: Literal["cpu", "cuda"]) -> None:
        self.device = device
        self.before = 0 if device == "cuda" else _resident_now()

    def begin(self) -> None:
        if self.device == "cuda":
            torch.cuda.reset_peak_memory_stats()

    def peak(self) -> int:
        return max(0, (peak_memory("cuda") if self.device == "cuda" else _resident_peak()) - self.before)


def _resident_now() -> int:
    """Bytes. Resets the peak, if the system can do that."""
    try:
        Path("/proc/self/clear_refs").write_text("5")
    except OSError:
        pass
    return _resident_peak()


def _resident_peak() -> int:
    status = Path("/proc/self/status")
    match = re.search(r"^VmHWM:\s+(\d+) kB$", status.read_text(), re.MULTILINE) if status.exists() else None
    return int(match[1]) * 1024 if match else peak_memory("cpu")  # which may include that of the parent process


def _load_libraries(setup: Setup) -> None:
    """Uses the libraries that every network uses, so that loading them is not measured."""
    layers = nn.Sequential(nn.Conv2d(3, 16, 3), nn.BatchNorm2d(16), nn.GELU(), nn.Flatten(), nn.Linear(16 * 14**2, 16))
    model = layers.to(setup.device).to(memory_format=setup.memory_format)
    with setup.autocast():
        loss = model(torch.randn(4, 3, 16, 16, device=setup.device)).float().sum()
    loss.backward()
    torch.optim.AdamW(model.parameters(), fused=True).step()


def _matrix_gmacs_per_second(setup: Setup, clock: _Clock) -> float:
    """The rate of the fastest product of two square matrices in the setup's precision."""
    dtype, best = DTYPES.get(setup.precision, torch.float32), 0.0
    for side in SIDES[setup.device]:
        a, b = torch.randn(2, side, side, device=setup.device).to(dtype)
        best = max(best, side**3 / 1e9 / clock.seconds_of(lambda a=a, b=b: a @ b))  # type: ignore[misc]
    return best


def _conditions(setup: Setup, plan: Plan) -> Conditions:
    return Conditions(
        device=setup.device,
        name=torch.cuda.get_device_name() if setup.device == "cuda" else _processor(),
        precision=setup.precision,
        threads=setup.threads,
        batch=plan.batch,
        channels_last=setup.channels_last,
        compile=setup.compile,
        cuda_graphs=plan.cuda_graphs,
        torch=str(torch.__version__),
    )


def _processor() -> str:
    """The processor's name, on Linux from /proc/cpuinfo, otherwise from Python."""
    path = Path("/proc/cpuinfo")
    match = re.search(r"^model name\s*:\s*(.+)$", path.read_text(), re.MULTILINE) if path.exists() else None
    name = match[1] if match else platform.processor() or platform.machine() or sys.platform
    return re.sub(r"\((R|TM)\)| CPU| @.*", "", name).strip()
