"""The first hour on a GPU: what holds there, what is exact, and how fast it is beside timm and torchvision.

    scripts/gpu [--device cuda|cpu] [--only NAME,...] [-o gpu.json]

Takes about five minutes on one GPU, from a checkout, with torch 2.11 or newer, timm, torchvision, OpenCV, PyYAML and
NumPy present: nothing is installed and no data is read. On a CPU it does the same with small images and networks, to
test itself. Prints a table and writes JSON; a check that fails does not keep the others from running, but the exit
status is 1.
"""

from __future__ import annotations

import argparse
import contextlib
import io
import itertools
import json
import multiprocessing
import platform
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import roadmap
from roadmap.record.events import ignore
from roadmap.record.run import Run
from roadmap.study.load import load_study
from runner.machine.distributed import SINGLE_PROCESS, World
from runner.machine.requests import Request
from runner.machine.setup import DTYPES, choose_setup
from runner.train import checkpoint
from runner.train.engine import Stopped, Training, train

TRAIN, TEST, CLASSES = 512, 128, 8
HALF = (0.5, 0.5, 0.5)
# The bytes of the photographs that ImageNet has on average: 500 x 375 pixels.
WIDTH, HEIGHT, QUALITY = 500, 375, 88
ROUNDS = 3


@roadmap.dataset("gpu-patterns", roadmap.Dataset(CLASSES, TRAIN, TEST, HALF, HALF))
def _patterns(path: Path | None) -> Any:
    """Noisy patterns of 32 pixels, one for each class."""
    draw = np.random.default_rng(0)
    patterns = draw.integers(0, 256, (CLASSES, 3, 4, 4)).repeat(8, 2).repeat(8, 3)
    labels = draw.integers(CLASSES, size=TRAIN + TEST)
    images = (patterns[labels] / 2 + draw.integers(0, 128, (TRAIN + TEST, 3, 32, 32))).astype(np.uint8)
    return (images[:TRAIN], labels[:TRAIN]), (images[TRAIN:], labels[TRAIN:])


@dataclass(frozen=True)
class Row:
    check: str
    what: str
    result: str
    peer: str = ""
    ratio: float | None = None
    failed: bool = False


@dataclass(frozen=True)
class Scale:
    """How large the networks and images are that speed is measured with."""

    device: str
    batch: int
    pixels: int
    steps: int  # measured in each round
    photographs: int
    workers: int


def scale_of(device: str) -> Scale:
    if device == "cuda":
        return Scale(device, 128, 224, 20, 2048, min(16, multiprocessing.cpu_count()))
    return Scale(device, 4, 64, 2, 32, 0)


def small_run(precision: str = "fp32", epochs: int = 2, rung: str = "layer-scale") -> Run:
    (rung_,) = roadmap.ladder("pico", rung, data="gpu-patterns")
    recipe = replace(rung_.experiment.recipe, epochs=epochs, precision=precision, batch_size=32, ema=0.9, mixup=0.8,
                     mix_probability=1.0, random_erasing=0.25, drop_path=0.1)  # fmt: skip
    experiment = replace(rung_.experiment, recipe=recipe)
    return Run("pico", rung, experiment, "gpu-patterns", roadmap.Dataset(CLASSES, TRAIN, TEST, HALF, HALF), 0, "paper")


def execution(scale: Scale, **changes: Any) -> Any:
    how = {"device": scale.device, "workers": 0, "processes": 1, "checkpoint_share": 1.0, **changes}
    return replace(load_study().execution, **how)


def weights(folder: Path) -> Tensor:
    model = torch.load(folder / checkpoint.NAME, weights_only=True, map_location="cpu")["model"]
    return torch.cat([tensor.double().flatten() for tensor in model.values()])


def started(run: Run, scale: Scale, **changes: Any) -> Training:
    """A training that is driven step by step."""
    how = execution(scale, **changes)
    setup = choose_setup(run.experiment.recipe, how, 1, torch.get_num_threads())
    setup.prepare()
    training = Training(run, Path(tempfile.mkdtemp()), how, setup, SINGLE_PROCESS, (), ignore, lambda: Request.NONE)
    training.stream, training.model = training.batches.stream(0, 0), training.model.train()
    return training


def synchronize(scale: Scale) -> None:
    if scale.device == "cuda":
        torch.cuda.synchronize()


# Each check yields its rows.


def machine(scale: Scale) -> Iterator[Row]:
    name = torch.cuda.get_device_name() if scale.device == "cuda" else platform.processor() or platform.machine()
    yield Row("machine", "device", name)
    yield Row("machine", "torch, Python", f"{torch.__version__}, {platform.python_version()}")
    if scale.device == "cuda":
        free, total = torch.cuda.mem_get_info()
        yield Row("machine", "memory free, of", f"{free / 2**30:.1f}, {total / 2**30:.1f} GiB")
        yield Row("machine", "bf16 units", str(torch.cuda.is_bf16_supported(including_emulation=False)))


def precisions(scale: Scale) -> Iterator[Row]:
    """Short trainings, whose losses should be alike."""
    for precision in ("fp32", "tf32", "bf16", "fp16"):
        run = small_run("fp32" if precision == "tf32" else precision)
        with tempfile.TemporaryDirectory() as folder:
            result = train(run, Path(folder), execution(scale, tf32=precision == "tf32"), torch.get_num_threads())
        assert result is not None
        loss, top1 = result.values["test_loss"], result.values["top1"]
        yield Row("precision", precision, f"loss {loss:.4f}, top-1 {top1:.1f} %", failed=not np.isfinite(float(loss)))


def resuming(scale: Scale) -> Iterator[Row]:
    """Two equal trainings, and one that is stopped in its middle and resumed: how far are their weights apart?"""
    run, threads = small_run(), torch.get_num_threads()
    for benchmark in (False, True) if scale.device == "cuda" else (False,):
        how = execution(scale, cudnn_benchmark=benchmark)
        with tempfile.TemporaryDirectory() as folder:
            whole, again, stopped = (Path(folder) / name for name in ("whole", "again", "stopped"))
            train(run, whole, how, threads)
            train(run, again, how, threads)
            requests = itertools.chain([Request.NONE] * 20, [Request.STOP], itertools.repeat(Request.NONE))
            with contextlib.suppress(Stopped):
                train(run, stopped, how, threads, request=requests.__next__)
            assert not (stopped / "result.json").exists(), "it did not stop"
            train(run, stopped, how, threads)
            reference = weights(whole)
            for what, other in (("trained twice", again), ("stopped and resumed", stopped)):
                apart = (weights(other) - reference).abs().max().item()
                text = "the same bits" if apart == 0 else f"weights differ by {apart:.1e} at most"
                yield Row("exact", f"{what}, cudnn.benchmark {str(benchmark).lower()}", text)


def _process(rank: int, size: int, scale: Scale, rendezvous: str, folder: Path) -> None:
    torch.set_num_threads(1)
    sys.stdout = io.StringIO()
    world = World(rank, size, rank, rendezvous)
    # NCCL takes a device for one process only, gloo also tensors of a shared one.
    with world.joined(scale.device, backend="gloo"):
        train(small_run(), folder, execution(scale), 1, world)


def processes(scale: Scale) -> Iterator[Row]:
    """Two processes of a run on one device."""
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        train(small_run(), folder / "one", execution(scale), 1)
        arguments = (2, scale, f"file://{folder}/rendezvous", folder / "two")
        both = [context.Process(target=_process, args=(rank, *arguments)) for rank in range(2)]
        for process in both:
            process.start()
        for process in both:
            process.join(180)
        failed = any(process.exitcode for process in both)
        top1s = ["failed"]
        if not failed:
            top1s = [f"{json.loads((folder / n / 'result.json').read_text())['top1']:.1f}" for n in ("two", "one")]
        yield Row("processes", "two on one device, top-1 % (one process)", " and ".join(top1s), failed=failed)


def nccl(scale: Scale) -> Iterator[Row]:
    """DDP over NCCL with one rank, as on a machine with one GPU."""
    from torch import distributed as dist

    if scale.device != "cuda":
        yield Row("processes", "NCCL with one rank", "not on a CPU")
        return
    dist.init_process_group("nccl", store=dist.HashStore(), rank=0, world_size=1)
    try:
        model = nn.Linear(8, 8).cuda()
        parallel = nn.parallel.DistributedDataParallel(model, device_ids=[0], gradient_as_bucket_view=True)
        parallel(torch.randn(4, 8, device="cuda")).sum().backward()
        ones = torch.ones(3, device="cuda")
        dist.all_reduce(ones)
        yield Row("processes", "NCCL with one rank", f"all_reduce {ones.tolist()}, gradients finite")
    finally:
        dist.destroy_process_group()


def waiting(scale: Scale) -> Iterator[Row]:
    """Steps of the engine in which torch raises an error at whatever waits for the device."""
    if scale.device != "cuda":
        yield Row("waiting", "steps without waiting", "not on a CPU; see tests/runner/train/test_waiting.py")
        return
    for precision in ("bf16", "fp16"):
        training = started(small_run(precision), scale)
        for _ in range(3):
            training._train_step()
        torch.cuda.synchronize()
        torch.cuda.set_sync_debug_mode("error")
        try:
            for _ in range(5):
                training._train_step()
        finally:
            torch.cuda.set_sync_debug_mode("default")
        yield Row("waiting", f"5 steps in {precision} with set_sync_debug_mode", "none waits")


def peers() -> dict[str, dict[str, Callable[[], nn.Module]]]:
    import timm
    import torchvision

    return {
        "recipe": {
            "torchvision": torchvision.models.resnet50,
            "timm": lambda: timm.create_model("resnet50"),
        },
        "layer-scale": {
            "torchvision": torchvision.models.convnext_tiny,
            "timm": lambda: timm.create_model("convnext_tiny", drop_path_rate=0.1),
        },
    }


def large_run(rung: str, scale: Scale, data: str = "imagenet", dataset: Any = None) -> Run:
    (rung_,) = roadmap.ladder("resnet-50", rung)
    precision = "bf16" if scale.device == "cuda" else "fp32"
    recipe = replace(rung_.experiment.recipe, batch_size=scale.batch, image_size=scale.pixels, precision=precision)
    dataset = dataset or load_study().dataset("imagenet")
    return Run("resnet-50", rung, replace(rung_.experiment, recipe=recipe), data, dataset, 0, "paper")


def _plain_step(model: nn.Module, scale: Scale, batches: Iterator[tuple[Tensor, Tensor]]) -> Callable[[], object]:
    """As in the examples of timm and torchvision, in the same precision and memory format."""
    model = model.to(scale.device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    dtype = DTYPES["bf16"] if scale.device == "cuda" else torch.float32

    def step() -> None:
        images, targets = next(batches)
        optimizer.zero_grad()
        with torch.autocast(scale.device, dtype, enabled=scale.device == "cuda"):
            output = model(images)
        F.cross_entropy(output.float(), targets).backward()
        optimizer.step()

    return step


def _images_per_second(step: Callable[[], object], scale: Scale) -> float:
    synchronize(scale)
    began = time.perf_counter()
    for _ in range(scale.steps):
        step()
    synchronize(scale)
    return scale.batch * scale.steps / (time.perf_counter() - began)


def _rows(check: str, rung: str, steps: dict[str, Callable[[], object]], scale: Scale) -> Iterator[Row]:
    """Rounds in turn; speeds and ratios are medians."""
    memory: dict[str, int] = {}
    for name, step in steps.items():
        if scale.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
        for _ in range(3):
            step()
        memory[name] = torch.cuda.max_memory_allocated() if scale.device == "cuda" else 0
    rounds = [{name: _images_per_second(step, scale) for name, step in steps.items()} for _ in range(ROUNDS)]
    ours = statistics.median(each["ours"] for each in rounds)
    for name in steps:
        if name != "ours":
            theirs = statistics.median(each[name] for each in rounds)
            ratio = statistics.median(each["ours"] / each[name] for each in rounds)
            yield Row(check, f"{rung}, images/s in training", f"{ours:.1f}", f"{name}, {theirs:.1f}", ratio)
    if scale.device == "cuda":
        others = ", ".join(f"{name} {size / 2**30:.2f}" for name, size in memory.items() if name != "ours")
        yield Row(check, f"{rung}, peak memory", f"{memory['ours'] / 2**30:.2f} GiB", others)


def synthetic(scale: Scale) -> Iterator[Row]:
    """Networks on batches that are on the device already. All networks of a rung are in memory at the same time."""
    from runner.measure.throughput import _training

    for rung, of_rung in peers().items():
        run = large_run(rung, scale)
        setup = choose_setup(run.experiment.recipe, execution(scale), 1, torch.get_num_threads())
        setup.prepare()
        images = torch.randn(scale.batch, 3, scale.pixels, scale.pixels, device=scale.device)
        images = images.contiguous(memory_format=torch.channels_last)
        targets = torch.randint(1000, (scale.batch,), device=scale.device)
        steps: dict[str, Callable[[], object]] = {"ours": _training(run, setup, images, False)}
        same = iter(lambda: (images, targets), None)  # noqa: B023  # consumed before the next rung
        steps |= {name: _plain_step(build(), scale, same) for name, build in of_rung.items()}
        yield from _rows("synthetic", rung, steps, scale)


def _write_photographs(folder: Path, count: int) -> None:
    """JPEGs of soft noise, of ImageNet's average size."""
    import cv2

    draw = np.random.default_rng(0)
    for index in range(count):
        coarse = draw.integers(0, 256, (HEIGHT // 12, WIDTH // 12, 3), dtype=np.uint8)
        image = cv2.resize(coarse, (WIDTH, HEIGHT), interpolation=cv2.INTER_CUBIC)
        image = cv2.add(image, draw.integers(0, 24, image.shape, dtype=np.uint8))
        for split in ("train", "val") if index < CLASSES else ("train",):
            path = folder / split / f"class-{index % CLASSES}" / f"{index:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), image, [cv2.IMWRITE_JPEG_QUALITY, QUALITY])


def photographs(scale: Scale) -> Iterator[Row]:
    """Whole loops from JPEGs: the engine beside timm's loader, transforms, mixup and network."""
    import timm
    from timm.data import Mixup, create_loader
    from timm.data.readers import create_reader

    from roadmap.data.image_folders import describe_folder

    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_photographs(folder, scale.photographs)
        run = large_run("layer-scale", scale, "photographs", describe_folder(folder))
        recipe = run.experiment.recipe
        ours = started(run, scale, workers=scale.workers, data_path=folder)
        mix = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=CLASSES)
        reader = create_reader("", root=str(folder / "train"))
        loader = create_loader(
            timm.data.ImageDataset(str(folder / "train"), reader=reader),
            (3, scale.pixels, scale.pixels),
            scale.batch,
            is_training=True,
            auto_augment=recipe.randaugment,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
            interpolation="bicubic",
            num_workers=scale.workers,
            device=torch.device(scale.device),
            persistent_workers=False,
        )

        def batches() -> Iterator[tuple[Tensor, Tensor]]:
            while True:
                for images, labels in loader:
                    mixed, targets = mix(images.to(scale.device), labels.to(scale.device))
                    yield mixed.contiguous(memory_format=torch.channels_last), targets

        model = timm.create_model("convnext_tiny", num_classes=CLASSES, drop_path_rate=0.1)
        steps = {"ours": ours._train_step, "timm": _plain_step(model, scale, batches())}
        yield from _rows("JPEGs", "layer-scale", steps, scale)
        if scale.device == "cuda":
            yield _idle(ours, scale)
        ours.stream.close()


def _idle(training: Training, scale: Scale) -> Row:
    """The share of the time in which no kernel runs."""
    from torch.profiler import ProfilerActivity, profile

    synchronize(scale)
    began = time.perf_counter()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(scale.steps):
            training._train_step()
        synchronize(scale)
    seconds = time.perf_counter() - began
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == torch.autograd.DeviceType.CUDA
    )
    busy, reached = 0.0, -1.0
    for start, end in spans:  # in microseconds; kernels of several streams overlap
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return Row("JPEGs", "layer-scale, share of the time in which the device waits", f"{1 - busy / 1e6 / seconds:.2f}")


CHECKS: dict[str, Callable[[Scale], Iterator[Row]]] = {
    "machine": machine,
    "precision": precisions,
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
