"""The input pipeline against timm's: images/s of one core, the paper's recipe, files to the batch that the model takes.

    python benchmarks/augment.py [--rounds 7] [--images 512]

"timm's transform" is a plain loader of image files with timm's transform, followed by its Mixup; "timm's loader" is
that of its training script. Ratios are to both. "ours" is what the engine trains on. The images are parts of
scikit-learn's two photographs.
"""

from __future__ import annotations

import argparse
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from photographs import write_photographs
from timm.data import FastCollateMixup, ImageDataset, auto_augment, create_loader, create_transform
from timm.data.mixup import Mixup
from torch import Tensor
from torch.utils.data import DataLoader
from torchvision.datasets import ImageFolder

import roadmap
from roadmap.data.image_folders import describe_folder
from roadmap.record.run import Run
from roadmap.study.load import load_study
from runner.data.batches import TrainingBatches
from runner.data.datasets import load_data
from runner.machine.setup import choose_setup

BATCH = 128


def allow_zero_bits() -> None:
    """With Pillow 13, timm's posterize to 0 bits raises an error. Here the image becomes black, as in the engine."""
    auto_augment.NAME_TO_OP["PosterizeIncreasing"] = lambda image, bits, **_: (
        auto_augment.posterize(image, bits) if bits else image.point(lambda level: 0)
    )


def by_timm(folder: Path, run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    allow_zero_bits()
    recipe = run.experiment.recipe
    transform = create_transform(
        recipe.image_size,
        is_training=True,
        color_jitter=None,
        auto_augment=recipe.randaugment,
        interpolation=recipe.interpolation,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
    )
    mixup = Mixup(recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=run.dataset.classes)
    while True:
        for images, labels in DataLoader(ImageFolder(str(folder / "train"), transform), BATCH, shuffle=True):
            yield mixup(images, labels)


def by_timms_loader(folder: Path, run: Run) -> Iterator[tuple[Tensor, Tensor]]:
    """The loader of timm's training script: uint8 until images are mixed in the batch, then normalized and erased."""
    allow_zero_bits()
    recipe = run.experiment.recipe
    mixup = FastCollateMixup(
        recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=run.dataset.classes
    )
    loader = create_loader(
        ImageDataset(str(folder / "train")),
        (3, recipe.image_size, recipe.image_size),
        BATCH,
        is_training=True,
        num_workers=0,
        persistent_workers=False,
        device=torch.device("cpu"),
        auto_augment=recipe.randaugment,
        color_jitter=None,
        interpolation=recipe.interpolation,
        re_prob=recipe.random_erasing,
        re_mode="pixel",
        collate_fn=mixup,
        pin_memory=False,
    )
    while True:
        yield from loader


def by_us(folder: Path, run: Run, augment: str) -> Iterator[tuple[Tensor, Tensor]]:
    execution = replace(load_study().execution, device="cpu", workers=0, augment=augment)
    setup = choose_setup(run.experiment.recipe, execution, processes=1, threads=1)
    setup.prepare()
    training, _ = load_data(run, str(folder))
    return TrainingBatches(run, training, setup, rank=0).stream(0, 0)


def make_run(folder: Path) -> Run:
    (rung,) = roadmap.ladder("resnet-50", "layer-scale")
    recipe = replace(rung.experiment.recipe, batch_size=BATCH)
    dataset = describe_folder(folder)
    return Run("resnet-50", rung.name, replace(rung.experiment, recipe=recipe), folder.name, dataset, 0, "paper")


WAYS: dict[str, Callable[[Path, Run], Iterator[tuple[Tensor, Tensor]]]] = {
    "timm's transform": by_timm,
    "timm's loader": by_timms_loader,
    "ours, --augment reference": partial(by_us, augment="reference"),
    "ours": partial(by_us, augment="fast"),
}


def measure(way: str, folder: Path, images: int, connection: Connection) -> None:
    """In a new process, because the engine changes the allocator of its process."""
    torch.set_num_threads(1)
    if hasattr(os, "sched_setaffinity"):
        os.sched_setaffinity(0, {max(os.sched_getaffinity(0))})
    batches = WAYS[way](folder, make_run(folder))
    next(batches)
    connection.send(None)
    while connection.recv():
        began = time.perf_counter()
        for _ in range(images // BATCH):
            next(batches)
        connection.send(images / (time.perf_counter() - began))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=7)
    parser.add_argument("--images", type=int, default=512, help="images per round and loader")
    options = parser.parse_args()
    if options.images < BATCH or options.images % BATCH:
        parser.error(f"--images must be a multiple of {BATCH} (got {options.images})")
    rates: dict[str, list[float]] = {way: [] for way in WAYS}
    with tempfile.TemporaryDirectory() as scratch:
        folder = Path(scratch) / "photographs"
        write_photographs(folder, options.images)
        pipes = {}
        for way in WAYS:
            pipes[way], end = get_context("spawn").Pipe()
            get_context("spawn").Process(target=measure, args=(way, folder, options.images, end), daemon=True).start()
            end.close()
            pipes[way].recv()
        for number in range(1, options.rounds + 1):
            for way, pipe in pipes.items():
                pipe.send(True)
                rates[way].append(pipe.recv())
            print(f"round {number}: " + ", ".join(f"{way} {rate[-1]:.0f}" for way, rate in rates.items()), flush=True)
        for pipe in pipes.values():
            pipe.send(False)
    print(f"\nimages/s of one core, medians of {options.rounds} alternating rounds, torch {torch.__version__}")
    for way, rates_of_way in rates.items():
        ratios = [
            statistics.median(ours / theirs for ours, theirs in zip(rates_of_way, rates[peer], strict=True))
            for peer in ("timm's transform", "timm's loader")
        ]
        rate = statistics.median(rates_of_way)
        print(f"{way:<26} {rate:6.0f}   {1e3 / rate:6.3f} ms   ratio {ratios[0]:.2f} and {ratios[1]:.2f}")


if __name__ == "__main__":
    main()
