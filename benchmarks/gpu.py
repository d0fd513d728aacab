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
import statistics
import sys
import tempfile
import time
import traceback
from collections.abc import Callable, Iterator
from dataclasses import dataclass, replace
from functools import partial
from pathlib import Path
from typing import Any

import numpy as np
import torch
from torch import Tensor, nn
from torch.nn import functional as F

import roadmap
from roadmap.recipe import Recipe
from roadmap.record.events import ignore
from roadmap.record.run import Run
from roadmap.study.load import load_study
from runner.machine.distributed import SINGLE_PROCESS, World
from runner.machine.requests import Request
from runner.machine.resources import available_cores
from runner.machine.setup import DTYPES, choose_setup
from runner.machine.snapshot import code_state
from runner.train import checkpoint
from runner.train.engine import Stopped, Training, train

TRAIN, TEST, CLASSES = 512, 128, 8
HALF = (0.5, 0.5, 0.5)
# The bytes of the photographs that ImageNet has on average: 500 x 375 pixels.
WIDTH, HEIGHT, QUALITY = 500, 375, 88
ROUNDS = 3
DEADLINE = 60.0  # seconds for processes that may hang
TOLERANCE = 10.0  # percentage points between precisions, of 128 images after two epochs
THREADS = available_cores()
NOT_HERE = "not on a CPU"


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
    precision: str  # of networks whose speed is measured
    batch: int
    pixels: int
    steps: int  # measured in each round
    photographs: int
    workers: int


def scale_of(device: str) -> Scale:
    if device == "cuda":
        half = "bf16" if torch.cuda.is_bf16_supported(including_emulation=False) else "fp16"
        return Scale(device, half, 128, 224, 20, 4096, min(16, available_cores()))
    return Scale(device, "fp32", 4, 64, 2, 32, 0)


def small_run(precision: str = "fp32", rung: str = "layer-scale", **changes: Any) -> Run:
    (rung_,) = roadmap.ladder("pico", rung, data="gpu-patterns")
    modern = {"ema": 0.9, "mixup": 0.8, "mix_probability": 1.0, "random_erasing": 0.25, "drop_path": 0.1}
    changes = {"epochs": 2, "batch_size": 32, "precision": precision} | (modern if rung != "pico" else {}) | changes
    recipe = replace(rung_.experiment.recipe, **changes)
    experiment = replace(rung_.experiment, recipe=recipe)
    return Run("pico", rung, experiment, "gpu-patterns", roadmap.Dataset(CLASSES, TRAIN, TEST, HALF, HALF), 0, "paper")


def execution(scale: Scale, **changes: Any) -> Any:
    how = {"device": scale.device, "workers": 0, "processes": 1, "checkpoint_share": 1.0, **changes}
    return replace(load_study().execution, **how)


def weights(folder: Path) -> Tensor:
    model = torch.load(folder / checkpoint.NAME, weights_only=True, map_location="cpu")["model"]
    return torch.cat([tensor.double().flatten() for tensor in model.values()])


@contextlib.contextmanager
def started(run: Run, scale: Scale, **changes: Any) -> Iterator[Training]:
    """A training that is driven step by step."""
    how = execution(scale, **changes)
    setup = choose_setup(run.experiment.recipe, how, 1, THREADS)
    setup.prepare()
    with tempfile.TemporaryDirectory() as folder:
        training = Training(run, Path(folder), how, setup, SINGLE_PROCESS, (), ignore, lambda: Request.NONE)
        training.restore()
        training.model.train()
        with contextlib.closing(training.batches.stream(0, 0)) as training.stream:
            yield training


def synchronize(scale: Scale) -> None:
    if scale.device == "cuda":
        torch.cuda.synchronize()


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


def resnet50(library: str, classes: int = 1000) -> nn.Module:
    import timm
    import torchvision

    return (
        timm.create_model("resnet50", num_classes=classes)
        if library == "timm"
        else torchvision.models.resnet50(num_classes=classes)
    )


def convnext(library: str, classes: int = 1000) -> nn.Module:
    import timm
    import torchvision

    if library == "timm":
        return timm.create_model("convnext_tiny", num_classes=classes)
    return torchvision.models.convnext_tiny(num_classes=classes, stochastic_depth_prob=0.0)


LIBRARIES = ("torchvision", "timm")
Build = Callable[[str, int], nn.Module]
PEERS: dict[str, Build] = {"recipe": resnet50, "layer-scale": convnext}


def large_run(rung: str, scale: Scale, data: str = "imagenet", dataset: Any = None) -> Run:
    """ResNet-50 by the modern recipe (`recipe`), or ConvNeXt-T; without drop path, which libraries do differently."""
    (rung_,) = roadmap.ladder("resnet-50", rung)
    changes: dict[str, Any] = {
        "batch_size": scale.batch,
        "image_size": scale.pixels,
        "precision": scale.precision,
        "drop_path": 0.0,
    }
    recipe = replace(rung_.experiment.recipe, **changes)
    dataset = dataset or load_study().dataset("imagenet")
    return Run("resnet-50", rung, replace(rung_.experiment, recipe=recipe), data, dataset, 0, "paper")


def _plain_step(model: nn.Module, scale: Scale, batches: Iterator[tuple[Tensor, Tensor]]) -> Callable[[], object]:
    """As in the examples of timm and torchvision, in the same precision, memory format and form of AdamW."""
    model = model.to(scale.device).to(memory_format=torch.channels_last).train()
    optimizer = torch.optim.AdamW(model.parameters(), lr=0.0, fused=True)
    scaler = torch.amp.GradScaler(scale.device, enabled=scale.precision == "fp16")
    dtype = DTYPES.get(scale.precision)

    def step() -> None:
        images, targets = next(batches)
        optimizer.zero_grad()
        with torch.autocast(scale.device, dtype, enabled=dtype is not None):
            output = model(images)
        scaler.scale(F.cross_entropy(output.float(), targets)).backward()
        scaler.step(optimizer)
        scaler.update()

    return step


Step = Callable[[], object]
Begin = Callable[[], Step]  # builds what the steps need
Batches = Iterator[tuple[Tensor, Tensor]]


def _images_per_second(step: Step, scale: Scale, discarded: int) -> float:
    """`discarded`: steps before time is taken, whose batches workers had made while another loop ran."""
    for _ in range(discarded):
        step()
    synchronize(scale)
    began = time.perf_counter()
    for _ in range(scale.steps):
        step()
    synchronize(scale)
    return scale.batch * scale.steps / (time.perf_counter() - began)


def _rows(check: str, rung: str, loops: dict[str, Begin], scale: Scale, discarded: int = 0) -> Iterator[Row]:
    """Rounds in turn; speeds and ratios are medians. Peak memory: of a step, beyond what the loops before it hold."""
    steps: dict[str, Step] = {}
    memory: dict[str, str] = {}
    for name, begin in loops.items():
        held = torch.cuda.memory_allocated() if scale.device == "cuda" else 0
        steps[name] = begin()
        for _ in range(3):
            steps[name]()
        if scale.device == "cuda":
            torch.cuda.reset_peak_memory_stats()
            steps[name]()
            memory[name] = f"{(torch.cuda.max_memory_allocated() - held) / 2**30:.2f} GiB"
    rounds = [{name: _images_per_second(step, scale, discarded) for name, step in steps.items()} for _ in range(ROUNDS)]
    ours = statistics.median(each["ours"] for each in rounds)
    for name in steps:
        if name != "ours":
            theirs = statistics.median(each[name] for each in rounds)
            ratio = statistics.median(each["ours"] / each[name] for each in rounds)
            yield Row(check, f"{rung}, images/s in training", f"{ours:.1f}", f"{name}, {theirs:.1f}", ratio)
    if memory:
        others = ", ".join(f"{name} {size}" for name, size in memory.items() if name != "ours")
        yield Row(check, f"{rung}, peak memory", memory["ours"], others)


def synthetic(scale: Scale) -> Iterator[Row]:
    """Networks on batches that are on the device already, with targets as mixing makes them."""
    from runner.measure.throughput import _training

    images = torch.randn(scale.batch, 3, scale.pixels, scale.pixels, device=scale.device)
    images = images.contiguous(memory_format=torch.channels_last)
    targets = torch.rand(scale.batch, 1000, device=scale.device).softmax(1)
    for rung, build in PEERS.items():
        run = large_run(rung, scale)
        setup = choose_setup(run.experiment.recipe, execution(scale), 1, THREADS)
        setup.prepare()
        loops: dict[str, Begin] = {"ours": partial(_training, run, setup, images, False)}
        for library in LIBRARIES:
            loops[library] = partial(_plain_loop, build, library, 1000, scale, itertools.repeat((images, targets)))
        yield from _rows("synthetic", rung, loops, scale)


def _plain_loop(
    build: Callable[[str, int], nn.Module],
    library: str,
    classes: int,
    scale: Scale,
    batches: Iterator[tuple[Tensor, Tensor]],
) -> Step:
    return _plain_step(build(library, classes), scale, batches)


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


def _timms_batches(folder: Path, recipe: Recipe, scale: Scale) -> Iterator[tuple[Tensor, Tensor]]:
    """timm's loader, transforms and mixup, as its script of training has them."""
    from timm.data import ImageDataset, Mixup, create_loader

    mix = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=CLASSES)
    loader = create_loader(
        ImageDataset(str(folder / "train")),
        (3, scale.pixels, scale.pixels),
        scale.batch,
        is_training=True,
        auto_augment=recipe.randaugment,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        interpolation="bicubic",
        num_workers=scale.workers,
        pin_memory=scale.device == "cuda",
        use_multi_epochs_loader=scale.workers > 0,  # its workers go on from epoch to epoch, as ours do
        device=torch.device(scale.device),
    )
    while True:
        for images, labels in loader:
            mixed, targets = mix(images.to(scale.device), labels.to(scale.device))
            yield mixed.contiguous(memory_format=torch.channels_last), targets


def _torchvisions_batches(folder: Path, recipe: Recipe, scale: Scale) -> Iterator[tuple[Tensor, Tensor]]:
    """torchvision's transforms with torch's loader, as in its references/classification."""
    from torch.utils.data import DataLoader
    from torchvision.datasets import ImageFolder
    from torchvision.transforms import v2

    interpolation = v2.InterpolationMode.BICUBIC
    transform = v2.Compose(
        [
            v2.RandomResizedCrop(scale.pixels, interpolation=interpolation, antialias=True),
            v2.RandomHorizontalFlip(),
            v2.RandAugment(magnitude=9, interpolation=v2.InterpolationMode.BILINEAR),
            v2.PILToTensor(),
            v2.ToDtype(torch.float, scale=True),
            v2.Normalize(list(HALF), list(HALF)),
            v2.RandomErasing(recipe.random_erasing),
        ]
    )
    mix = v2.RandomChoice(
        [v2.MixUp(alpha=recipe.mixup, num_classes=CLASSES), v2.CutMix(alpha=recipe.cutmix, num_classes=CLASSES)]
    )
    loader = DataLoader(
        ImageFolder(str(folder / "train"), transform),
        scale.batch,
        shuffle=True,
        drop_last=True,
        num_workers=scale.workers,
        pin_memory=scale.device == "cuda",
        persistent_workers=scale.workers > 0,
    )
    while True:
        for images, labels in loader:
            moved = images.to(scale.device, non_blocking=True), labels.to(scale.device, non_blocking=True)
            mixed, targets = mix(*moved)
            yield mixed.contiguous(memory_format=torch.channels_last), targets


def photographs(scale: Scale) -> Iterator[Row]:
    """Whole loops from JPEGs: the engine beside timm's and torchvision's loaders, transforms, mixing and networks."""
    from roadmap.data.image_folders import describe_folder

    makers = {"timm": _timms_batches, "torchvision": _torchvisions_batches}
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        _write_photographs(folder, scale.photographs)
        dataset = describe_folder(folder)
        for rung, build in PEERS.items():
            run = large_run(rung, scale, "photographs", dataset)
            with started(run, scale, workers=scale.workers, data_path=folder) as training:
                loops: dict[str, Begin] = {"ours": lambda: training._train_step}
                for library in LIBRARIES:
                    batches = makers[library](folder, run.experiment.recipe, scale)
                    loops[library] = partial(_plain_loop, build, library, CLASSES, scale, batches)
                yield from _rows("JPEGs", rung, loops, scale, discarded=2 * scale.workers)
                if scale.device == "cuda":
                    yield _idle(rung, training, scale)


def _idle(rung: str, training: Training, scale: Scale) -> Row:
    """The share of the time in which the device computes nothing."""
    from torch.profiler import ProfilerActivity, profile

    with profile(activities=[ProfilerActivity.CUDA]):  # the first one starts the profiler
        training._train_step()
    with profile(activities=[ProfilerActivity.CUDA]) as profiled:
        for _ in range(2 * scale.workers + scale.steps):
            training._train_step()
        synchronize(scale)
    spans = sorted(
        (event.time_range.start, event.time_range.end)
        for event in profiled.events()
        if event.device_type == torch.autograd.DeviceType.CUDA and not event.name.startswith(("Mem", "mem"))
    )
    spans = spans[len(spans) * 2 * scale.workers // (2 * scale.workers + scale.steps) :]  # without the discarded steps
    busy, reached = 0.0, spans[0][0]
    for start, end in spans:  # kernels of several streams overlap
        busy += max(0.0, end - max(start, reached))
        reached = max(reached, end)
    return Row(
        "JPEGs", f"{rung}, share of the time in which the device waits", f"{1 - busy / (reached - spans[0][0]):.2f}"
    )


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
