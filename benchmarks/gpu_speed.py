"""How fast a GPU trains by the engine, and by timm's and torchvision's loops; checks of `gpu.py`."""

from __future__ import annotations

import contextlib
import itertools
import os
import statistics
import tempfile
import time
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
from runner.machine.distributed import SINGLE_PROCESS
from runner.machine.requests import Request
from runner.machine.resources import available_cores
from runner.machine.setup import DTYPES, choose_setup
from runner.train.training import Training

CLASSES = 8
HALF = (0.5, 0.5, 0.5)  # means and deviations of the images that are made here
# The bytes of the photographs that ImageNet has on average: 500 x 375 pixels.
WIDTH, HEIGHT, QUALITY = 500, 375, 88
ROUNDS = 3
THREADS = int(os.environ.get("OMP_NUM_THREADS", available_cores()))


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


def execution(scale: Scale, **changes: Any) -> Any:
    how = {"device": scale.device, "workers": 0, "processes": 1, "checkpoint_share": 1.0, **changes}
    return replace(load_study().execution, **how)


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


Step = Callable[[], object]
Begin = Callable[[], Step]  # builds what the steps need
Batches = Iterator[tuple[Tensor, Tensor]]
Build = Callable[[str, int], nn.Module]  # the network of a library, by its name, with so many classes


def resnet50(library: str, classes: int) -> nn.Module:
    import timm
    import torchvision

    if library == "timm":
        return timm.create_model("resnet50", num_classes=classes)
    return torchvision.models.resnet50(num_classes=classes)


def convnext(library: str, classes: int) -> nn.Module:
    import timm
    import torchvision

    if library == "timm":
        return timm.create_model("convnext_tiny", num_classes=classes)
    return torchvision.models.convnext_tiny(num_classes=classes, stochastic_depth_prob=0.0)


LIBRARIES = ("torchvision", "timm")
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


def _plain_loop(build: Build, library: str, classes: int, scale: Scale, batches: Batches) -> Step:
    """As in the examples of timm and torchvision, in the same precision, memory format and form of AdamW."""
    model = build(library, classes).to(scale.device).to(memory_format=torch.channels_last).train()
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


def _timms_batches(folder: Path, recipe: Recipe, scale: Scale) -> Batches:
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


def _torchvisions_batches(folder: Path, recipe: Recipe, scale: Scale) -> Batches:
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
