"""The engine against a plain loop of timm's own parts: the same network and recipe, on Fashion-MNIST.

    python benchmarks/peer.py [--epochs 5] [--seeds 3] [--rounds 7]

Prints the ratio of their times a step; then the top-1 of both, and of the engine with timm's own transforms, for each
seed, with the spread of the seeds. Needs Debian's package dataset-fashion-mnist, or the usual download; about a quarter
of an hour on two cores.
"""

from __future__ import annotations

import argparse
import math
import os
import statistics
import tempfile
import time
from collections.abc import Callable, Iterator
from concurrent.futures import ProcessPoolExecutor
from dataclasses import replace
from functools import partial
from multiprocessing import get_context
from pathlib import Path
from typing import Literal

import torch
from timm.data import auto_augment, create_transform
from timm.data.mixup import Mixup
from timm.loss import SoftTargetCrossEntropy
from timm.optim import create_optimizer_v2
from timm.scheduler import create_scheduler_v2
from torch.utils.data import DataLoader, Dataset

import roadmap
from roadmap.record.events import ignore
from roadmap.record.metrics import TOP1
from roadmap.record.run import Run
from roadmap.study.load import load_study
from runner.data.datasets import load_data
from runner.data.splits import Split
from runner.machine.distributed import SINGLE_PROCESS
from runner.machine.randomness import seed_globally
from runner.machine.requests import Request
from runner.machine.setup import choose_setup
from runner.train.engine import train
from runner.train.training import Training

RUNG = "layer-scale"
# The paper's recipe at the size of pico, with all of its augmentation switched on, but for a layer scale of 0.1.
SHORT = {
    "warmup_epochs": 1,
    "batch_size": 128,
    "learning_rate": 4e-3,
    "initialization": "truncated-normal",
    "drop_path": 0.1,
    "random_erasing": 0.25,
    "mix_probability": 1.0,
    "image_size": 32,
    "crop": "random-resized",
    "interpolation": "bicubic",
    "evaluation_crop": 0.875,
    "randaugment": "rand-m9-mstd0.5-inc1",
    "precision": "fp32",
}


def make_run(seed: int, epochs: int) -> Run:
    (rung,) = roadmap.ladder("pico", RUNG, data="fashion-mnist")
    recipe = replace(rung.experiment.recipe, epochs=epochs, **SHORT)
    dataset = load_study().dataset("fashion-mnist")
    return Run("pico", RUNG, replace(rung.experiment, recipe=recipe), "fashion-mnist", dataset, seed, "paper")


def by_engine(seed: int, epochs: int, augment: Literal["fast", "reference"] = "fast") -> float:
    torch.set_num_threads(1)
    execution = replace(load_study().execution, device="cpu", augment=augment)
    with tempfile.TemporaryDirectory() as folder:
        result = train(make_run(seed, epochs), Path(folder), execution)
        assert result is not None  # rank 0 has a result
        return result.value(TOP1) or math.nan


class Transformed(Dataset):
    def __init__(self, split: Split, transform: Callable) -> None:
        self.split, self.transform = split, transform

    def __len__(self) -> int:
        return len(self.split)

    def __getitem__(self, index: int) -> tuple[torch.Tensor, int]:
        return self.transform(self.split.image(index).rgb()), int(self.split.labels[index])


class Loop:
    """The plain loop, in steps."""

    def __init__(self, run: Run) -> None:
        recipe, dataset = run.experiment.recipe, run.dataset
        # timm's posterize to 0 bits ends a run with Pillow 13; as in the engine the image is black then.
        auto_augment.NAME_TO_OP["PosterizeIncreasing"] = lambda image, bits, **_: (
            auto_augment.posterize(image, bits) if bits else image.point(lambda level: 0)
        )
        training, held_out = load_data(run)
        statistic = {"mean": dataset.mean, "std": dataset.std, "interpolation": recipe.interpolation}
        transform = create_transform(
            recipe.image_size,
            is_training=True,
            color_jitter=None,
            auto_augment=recipe.randaugment,
            hflip=recipe.horizontal_flip,
            re_prob=recipe.random_erasing,
            re_mode="pixel",
            **statistic,
        )
        plain = create_transform(recipe.image_size, crop_pct=recipe.evaluation_crop, **statistic)
        self.loader = DataLoader(Transformed(training, transform), recipe.batch_size, shuffle=True, drop_last=True)
        self.test_loader = DataLoader(Transformed(held_out, plain), 256)
        seed_globally(run.seed)
        self.model = roadmap.build(
            run.experiment.design, dataset.classes, drop_path=recipe.drop_path, initialization=recipe.initialization
        ).to(memory_format=torch.channels_last)
        self.mixup = Mixup(
            recipe.mixup, recipe.cutmix, label_smoothing=recipe.label_smoothing, num_classes=dataset.classes
        )
        self.loss = SoftTargetCrossEntropy()
        self.optimizer = create_optimizer_v2(
            self.model, "adamw", lr=recipe.learning_rate, weight_decay=recipe.weight_decay, betas=recipe.betas
        )
        self.scheduler, self.epochs = create_scheduler_v2(
            self.optimizer,
            "cosine",
            num_epochs=recipe.epochs - recipe.warmup_epochs,
            warmup_epochs=recipe.warmup_epochs,
            warmup_prefix=True,
            warmup_lr=0,
            min_lr=recipe.min_learning_rate,
            step_on_epochs=False,
            updates_per_epoch=len(self.loader),
        )
        self.updates = 0

    def epoch(self) -> Iterator[None]:
        """Takes one step for each item."""
        self.model.train()
        for images, labels in self.loader:
            images, targets = self.mixup(images.contiguous(memory_format=torch.channels_last), labels)
            self.scheduler.step_update(self.updates)
            self.optimizer.zero_grad()
            loss = self.loss(self.model(images), targets)
            if not torch.isfinite(loss):
                raise SystemExit("the loop diverged")
            loss.backward()
            self.optimizer.step()
            self.updates += 1
            yield

    @torch.no_grad()
    def top1(self) -> float:
        self.model.eval()
        hits = sum(int((self.model(images).argmax(1) == labels).sum()) for images, labels in self.test_loader)
        return 100 * hits / len(self.test_loader.dataset)


def by_loop(seed: int, epochs: int) -> float:
    torch.set_num_threads(1)
    loop = Loop(make_run(seed, epochs))
    for _ in range(loop.epochs):
        for _ in loop.epoch():
            pass
    return loop.top1()


def compare_accuracy(seeds: int, epochs: int) -> None:
    ways = {"engine": by_engine, "--augment reference": partial(by_engine, augment="reference"), "timm's loop": by_loop}
    with ProcessPoolExecutor(os.cpu_count(), mp_context=get_context("spawn")) as pool:
        pending = {name: pool.map(way, range(seeds), [epochs] * seeds) for name, way in ways.items()}
        accuracies = {name: list(results) for name, results in pending.items()}
    print(f"top-1 %, {epochs} epochs of Fashion-MNIST, {RUNG} of pico, the paper's augmentation")
    print("seed  " + "  ".join(f"{name:>19}" for name in accuracies))
    rows = {str(seed): [by_seed[seed] for by_seed in accuracies.values()] for seed in range(seeds)}
    rows |= {"mean": [statistics.fmean(by_seed) for by_seed in accuracies.values()]}
    rows |= {"std": [statistics.stdev(by_seed) for by_seed in accuracies.values()]}
    for name, row in rows.items():
        print(f"{name:>4}  " + "  ".join(f"{value:19.2f}" for value in row))
    seed_range = max(max(by_seed) - min(by_seed) for by_seed in accuracies.values())
    mean = dict(zip(accuracies, rows["mean"], strict=True))
    print(f"range of the seeds {seed_range:.2f}; the engine's mean minus its peers', and that over the range:")
    for name in list(accuracies)[1:]:
        difference = mean["engine"] - mean[name]
        print(f"{name:>19}  {difference:+.2f}  ratio {abs(difference) / seed_range:.2f}")


def compare_time(rounds: int, steps: int = 20) -> None:
    torch.set_num_threads(1)
    run = make_run(0, 300)
    execution = replace(load_study().execution, device="cpu")
    with tempfile.TemporaryDirectory() as folder:
        setup = choose_setup(run.experiment.recipe, execution, 1, 1)
        engine = Training(run, Path(folder), execution, setup, SINGLE_PROCESS, (), ignore, lambda: Request.NONE)
        engine.stream, engine.model = engine.batches.stream(0, 0), engine.model.train()
        loop = Loop(run)
        turns = loop.epoch()
        pairs = []
        for _ in range(rounds + 1):
            took = []
            for step in (engine._train_step, lambda: next(turns)):
                began = time.perf_counter()
                for _ in range(steps):
                    step()
                took.append((time.perf_counter() - began) / steps * 1e3)
            pairs.append(took)
    ours, theirs = (statistics.median(column) for column in zip(*pairs[1:], strict=True))
    ratio = statistics.median(engine / loop for engine, loop in pairs[1:])
    print(
        f"\nms a step of {run.experiment.recipe.batch_size} images on one core, medians of {rounds} alternating rounds"
    )
    print(f"engine {ours:.1f}   loop {theirs:.1f}   ratio {ratio:.3f} (median of the rounds')\n", flush=True)


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=5)
    parser.add_argument("--seeds", type=int, default=3)
    parser.add_argument("--rounds", type=int, default=7)
    options = parser.parse_args()
    compare_time(options.rounds)
    if options.seeds > 1:
        compare_accuracy(options.seeds, options.epochs)


if __name__ == "__main__":
    main()
