"""The first hour on a GPU: what holds there, what is exact, and how fast it is beside timm and torchvision.

    scripts/gpu [--device cuda|cpu] [--only NAME,...] [-o gpu.json]

Takes about five minutes on one GPU, from a checkout, with Python 3.11 or newer, torch 2.11 or newer, timm, torchvision,
OpenCV, PyYAML and NumPy present: nothing is installed and no data is read. On a CPU it does the same with small images
and networks, to test itself. Prints a table and writes JSON; a check that fails does not keep the others from running,
but the exit status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import faulthandler
import gc
import io
import itertools
import json
import multiprocessing
import os
import platform
import signal
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from gpu_speed import CLASSES, HALF, THREADS, Row, Scale, execution, photographs, scale_of, started, synthetic
from torch import Tensor, nn

import roadmap
from roadmap.record.run import Run
from runner.machine.distributed import World
from runner.machine.requests import Request
from runner.machine.snapshot import code_state
from runner.train import checkpoint
from runner.train.engine import train
from runner.train.training import Stopped

TRAIN, TEST = 512, 128  # images
DEADLINE = 60.0  # seconds for processes that may hang
TOLERANCE = 10.0  # percentage points between precisions, of 128 images after two epochs
NOT_HERE = "not on a CPU"


@roadmap.dataset("gpu-patterns", roadmap.Dataset(CLASSES, TRAIN, TEST, HALF, HALF))
def _patterns(path: Path | None) -> Any:
    """Noisy patterns of 32 pixels, one for each class."""
    draw = np.random.default_rng(0)
    patterns = draw.integers(0, 256, (CLASSES, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    labels = draw.integers(CLASSES, size=TRAIN + TEST)
    images = (patterns[labels] / 2 + draw.integers(0, 128, (TRAIN + TEST, 3, 32, 32))).astype(np.uint8)
    return (images[:TRAIN], labels[:TRAIN]), (images[TRAIN:], labels[TRAIN:])


def small_run(precision: str = "fp32", rung: str = "layer-scale", **changes: Any) -> Run:
    (rung_,) = roadmap.ladder("pico", rung, data="gpu-patterns")
    modern = {"ema": 0.9, "mixup": 0.8, "mix_probability": 1.0, "random_erasing": 0.25, "drop_path": 0.1}
    changes = {"epochs": 2, "batch_size": 32, "precision": precision} | (modern if rung != "pico" else {}) | changes
    recipe = replace(rung_.experiment.recipe, **changes)
    experiment = replace(rung_.experiment, recipe=recipe)
    return Run("pico", rung, experiment, "gpu-patterns", roadmap.Dataset(CLASSES, TRAIN, TEST, HALF, HALF), 0, "paper")


def weights(folder: Path) -> Tensor:
    model = torch.load(folder / checkpoint.NAME, weights_only=True, map_location="cpu")["model"]
    return torch.cat([tensor.double().flatten() for tensor in model.values()])


# Each check yields its rows.


def machine(scale: Scale) -> Iterator[Row]:
    name = torch.cuda.get_device_name() if scale.device == "cuda" else platform.processor() or platform.machine()
    yield Row("machine", "device", name)
    yield Row(
        "machine", "torch, CUDA, cuDNN", f"{torch.__version__}, {torch.version.cuda}, {torch.backends.cudnn.version()}"
    )
    yield Row("machine", "Python, commit", f"{platform.python_version()}, {str(code_state().get('commit'))[:12]}")
    if scale.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        yield Row("machine", "memory free, of", f"{free / 2**30:.1f}, {total / 2**30:.1f} GiB")
        yield Row("machine", "capability, half precision", f"{torch.cuda.get_device_capability()}, {scale.precision}")


def precisions(scale: Scale) -> Iterator[Row]:
    """Short trainings, by AdamW and by SGD, whose accuracies should be alike."""
    for rung in ("layer-scale", "pico"):
        expected = None
        for precision in ("fp32", "tf32", "bf16", "fp16"):
            changes = {"learning_rate": 0.02} if rung == "pico" else {}
            run = small_run("fp32" if precision == "tf32" else precision, rung, **changes)
            with tempfile.TemporaryDirectory() as folder:
                result = train(run, Path(folder), execution(scale, tf32=precision == "tf32"), THREADS)
            assert result is not None
            loss, top1 = (float(str(result.values[key])) for key in ("test_loss", "top1"))
            expected = top1 if expected is None else expected
            failed = not np.isfinite(loss) or abs(top1 - expected) > TOLERANCE
            what, found = f"{precision}, {run.experiment.recipe.optimizer}", f"loss {loss:.4f}, top-1 {top1:.1f} %"
            yield Row("precision", what, found, f"fp32, {expected:.1f} %", failed=failed)


def compiling(scale: Scale) -> Iterator[Row]:
    if scale.device != "cuda":
        yield Row("compile", "inductor", NOT_HERE)
        return
    with tempfile.TemporaryDirectory() as folder:
        result = train(small_run(), Path(folder), execution(scale, compile="inductor"), THREADS)
    assert result is not None
    yield Row("compile", "inductor", f"loss {result.values['test_loss']:.4f}, top-1 {result.values['top1']:.1f} %")


def out_of_memory(scale: Scale) -> Iterator[Row]:
    """A batch that the device has no room for, as far as torch is told."""
    if scale.device != "cuda":
        yield Row("memory", "too little of it", NOT_HERE)
        return
    gc.collect()
    torch.cuda.empty_cache()
    allowed = torch.cuda.memory_reserved() + 2**28
    torch.cuda.set_per_process_memory_fraction(allowed / torch.cuda.mem_get_info()[1])
    try:
        run = small_run(batch_size=256, image_size=128)
        with tempfile.TemporaryDirectory() as folder:
            train(run, Path(folder), execution(scale), THREADS)
            parts = json.loads((Path(folder) / "manifest.json").read_text())["execution"]["accumulation"]
    finally:
        torch.cuda.set_per_process_memory_fraction(1.0)
    yield Row("memory", "256 images of 128 pixels in 256 MiB", f"trained in {parts} parts", failed=parts == 1)


def _kill_after(steps: int, run: Run, scale: Scale, folder: Path) -> None:
    """The process of a training that SIGKILL ends; with its state saved after each step."""
    sys.stdout, count = io.StringIO(), itertools.count(1)

    def request() -> Request:
        if next(count) > steps:
            os.kill(os.getpid(), signal.SIGKILL)
        return Request.NONE

    train(run, folder, execution(scale, checkpoint_minutes=0), THREADS, request=request)


def resuming(scale: Scale) -> Iterator[Row]:
    """Equal trainings, undisturbed, stopped and killed: how far are their weights apart?"""
    run = small_run()
    for benchmark in (False, True) if scale.device == "cuda" else (False,):
        how = execution(scale, cudnn_benchmark=benchmark)
        with tempfile.TemporaryDirectory() as folder:
            whole, again, stopped, killed = (Path(folder) / name for name in ("whole", "again", "stopped", "killed"))
            train(run, whole, how, THREADS)
            train(run, again, how, THREADS)
            requests = itertools.chain([Request.NONE] * 20, [Request.STOP], itertools.repeat(Request.NONE))
            with contextlib.suppress(Stopped):
                train(run, stopped, how, THREADS, request=requests.__next__)
            process = multiprocessing.get_context("spawn").Process(target=_kill_after, args=(20, run, scale, killed))
            process.start()
            process.join(DEADLINE)
            process.kill()
            for folder_of in (stopped, killed):
                assert not (folder_of / "result.json").exists(), f"{folder_of.name}: it did not end early"
                train(run, folder_of, how, THREADS)
            reference = weights(whole)
            for what, other in (("trained twice", again), ("stopped, resumed", stopped), ("killed, resumed", killed)):
                apart = (weights(other) - reference).abs().max().item()
                text = "the same bits" if apart == 0 else f"weights differ by {apart:.1e} at most"
                yield Row("exact", f"{what}, cudnn.benchmark {str(benchmark).lower()}", text)


def _process(rank: int, scale: Scale, rendezvous: str, folder: Path) -> None:
    torch.set_num_threads(1)
    sys.stdout = io.StringIO()
    world = World(rank, 2, 0, rendezvous)  # both as the first process of a machine, so on its first device
    # NCCL takes a device for one process only, gloo also tensors of a shared one.
    with world.joined(scale.device, backend="gloo"):
        train(small_run(), folder, execution(scale), 1, world)


def processes(scale: Scale) -> Iterator[Row]:
    """Two processes of a run on one device."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        result = train(small_run(), folder / "one", execution(scale), 1)
        assert result is not None
        arguments = (scale, f"file://{folder}/rendezvous", folder / "two")
        both = [context.Process(target=_process, args=(rank, *arguments)) for rank in range(2)]
        for process in both:
            process.start()
        deadline = time.monotonic() + DEADLINE
        for process in both:
            process.join(max(0.0, deadline - time.monotonic()))
        failed = any(process.exitcode != 0 for process in both)
        for process in both:
            process.kill()
        top1 = "failed" if failed else f"{json.loads((folder / 'two' / 'result.json').read_text())['top1']:.1f}"
        one = f"one process, {result.values['top1']:.1f}"
        yield Row("processes", "two on one device, top-1 (%)", top1, one, failed=failed)


def nccl(scale: Scale) -> Iterator[Row]:
    """DDP over NCCL with one rank, as on a machine with one GPU."""
    from torch import distributed as dist

    if scale.device != "cuda":
        yield Row("processes", "NCCL with one rank", NOT_HERE)
        return
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Linear(8, 8).cuda()
        parallel = nn.parallel.DistributedDataParallel(model, device_ids=[0], gradient_as_bucket_view=True)
        parallel(torch.randn(4, 8, device="cuda")).sum().backward()
        ones = torch.ones(3, device="cuda")
        dist.all_reduce(ones)
        finite = all(bool(p.grad is not None and p.grad.isfinite().all()) for p in model.parameters())
        yield Row(
            "processes",
            "NCCL with one rank",
            f"all_reduce {ones.tolist()}, gradients finite: {finite}",
            failed=not finite,
        )
    finally:
        dist.destroy_process_group()


def waiting(scale: Scale) -> Iterator[Row]:
    """Steps of the engine in which torch raises an error at whatever waits for the device."""
    if scale.device != "cuda":
        yield Row("waiting", "steps without waiting", f"{NOT_HERE}; see test_waiting.py")
        return
    for precision, rung, clip in (
        (scale.precision, "layer-scale", 1.0),
        ("fp16", "layer-scale", None),
        ("fp16", "pico", None),
    ):
        with started(small_run(precision, rung, clip_gradients=clip), scale, device_batch=16) as training:
            for _ in range(3):
                training._train_step()
            torch.cuda.synchronize()
            torch.cuda.set_sync_debug_mode("error")
            try:
                for _ in range(5):
                    training._train_step()
            finally:
                torch.cuda.set_sync_debug_mode("default")
        yield Row("waiting", f"5 steps of {rung} in {precision}, set_sync_debug_mode", "none waits")


CHECKS: dict[str, Callable[[Scale], Iterator[Row]]] = {
    "machine": machine,
    "precision": precisions,
    "compile": compiling,
    "memory": out_of_memory,
    "exact": resuming,
    "processes": processes,
    "nccl": nccl,
    "waiting": waiting,
    "synthetic": synthetic,
    "jpegs": photographs,
}


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--device", choices=("cuda", "cpu"), help="default: cuda where there is one")
    parser.add_argument("--only", default=",".join(CHECKS), metavar="NAME,...", help=f"of {', '.join(CHECKS)}")
    parser.add_argument("-o", "--output", type=Path, default=Path("gpu.json"), metavar="FILE", help="JSON")
    options = parser.parse_args()
    names = options.only.split(",")
    if unknown := [name for name in names if name not in CHECKS]:
        parser.error(f"--only: unknown {', '.join(unknown)}; one of {', '.join(CHECKS)}")
    faulthandler.dump_traceback_later(900, exit=True)  # whatever hangs
    device = options.device or ("cuda" if torch.cuda.is_available() else "cpu")
    if device == "cuda" and not torch.cuda.is_available():
        parser.error("--device cuda: this machine has no CUDA device that torch sees")
    scale, rows, began = scale_of(device), [], time.perf_counter()
    print(f"{'check':11} {'what':58} {'result':38} {'peer':26} ratio", flush=True)
    for name in names:
        try:
            for row in _silently(CHECKS[name](scale)):
                rows.append(row)
                _show(row)
        except Exception as error:  # whatever a new machine brings; the other checks still say what they find
            traceback.print_exc()
            rows.append(Row(name, "failed", f"{type(error).__name__}: {error}".splitlines()[0], failed=True))
            _show(rows[-1])
        options.output.write_text(json.dumps([vars(row) for row in rows], indent=1) + "\n")
    failed = [row.check for row in rows if row.failed]
    seconds, ending = time.perf_counter() - began, f"; failed: {', '.join(failed)}" if failed else ""
    print(f"\n{seconds:.0f} s; {options.output}{ending}")
    return 1 if failed else 0


def _silently(rows: Iterator[Row]) -> Iterator[Row]:
    """Without what the engine prints for its log."""
    while True:
        with contextlib.redirect_stdout(io.StringIO()):
            row = next(rows, None)
        if row is None:
            return
        yield row


def _show(row: Row) -> None:
    ratio = "" if row.ratio is None else f"{row.ratio:.2f}"
    print(f"{row.check:11} {row.what:58} {row.result:38} {row.peer:26} {ratio}", flush=True)


if __name__ == "__main__":
    sys.exit(main())
