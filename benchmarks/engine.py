"""The engine against a bare loop of the same network, batches, loss and optimizer: milliseconds a step.

    python benchmarks/engine.py [--epochs 40]

On the smallest steps there are, pico's on digits, where what an engine adds weighs most. Each is a process of its own
with one thread, and they take turns, an epoch each. Two ratios: of the steps alone, and of whole epochs, in which both
evaluate, and the engine writes metrics and checkpoints too.
"""

from __future__ import annotations

import argparse
import multiprocessing
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path
from typing import Any

import torch
from torch.nn import functional as F

import roadmap
from roadmap.record import Run
from roadmap.study import load_study
from runner.data import EvaluationBatches, TrainingBatches
from runner.device import choose_setup
from runner.engine import train
from runner.optim import learning_rate, make_optimizer
from runner.randomness import seed_for, seed_globally
from runner.sources import load_data

RUNGS = ("pico", "recipe", "layer-scale")
LIMIT = 1.02


class Turns:
    """An epoch at a time, when it is this process's turn; tells what it took."""

    def __init__(self, connection: Connection) -> None:
        self.connection, self.stepped = connection, 0.0
        self.began = 0.0

    def step(self) -> None:
        self.stepped = time.perf_counter()

    def epoch(self) -> None:
        if self.began:
            self.connection.send((self.stepped - self.began, time.perf_counter() - self.began))
        self.connection.recv()
        self.began = time.perf_counter()


def by_engine(run: Run, turns: Turns) -> None:
    def report(kind: str, detail: dict[str, Any]) -> None:
        if kind in ("step", "epoch"):
            getattr(turns, kind)()

    with tempfile.TemporaryDirectory() as folder:
        train(run, Path(folder), replace(load_study().execution, device="cpu"), report=report)


def by_loop(run: Run, turns: Turns) -> None:
    recipe = run.experiment.recipe
    setup = choose_setup(recipe, replace(load_study().execution, device="cpu"), 1, 1)
    training, held_out = load_data(run)
    batches, test_batches = TrainingBatches(run, training, setup, 0), EvaluationBatches(run, held_out, setup, 0)
    seed_globally(seed_for(run.seed, "initialization"))
    model = roadmap.build(
        run.experiment.design, run.dataset.classes, drop_path=recipe.drop_path, initialization=recipe.initialization
    ).to(memory_format=torch.channels_last)
    optimizer = make_optimizer(model, recipe)
    stream = batches.stream(0, 0)
    for epoch in range(recipe.epochs):
        model.train()
        for step in range(batches.steps):
            images, targets = next(stream)
            for group in optimizer.param_groups:
                group["lr"] = learning_rate(recipe, (epoch + step / batches.steps) / recipe.epochs)
            optimizer.zero_grad()
            with setup.autocast():
                logits = model(images)
            F.cross_entropy(logits.float(), targets).backward()
            optimizer.step()
            turns.step()
        model.eval()
        with torch.no_grad():
            sum(int((model(images).argmax(1) == labels).sum()) for images, labels in test_batches)
        turns.epoch()


def work(train_by: Callable[[Run, Turns], None], run: Run, connection: Connection) -> None:
    torch.set_num_threads(1)
    train_by(run, Turns(connection))


def measure(run: Run) -> list[list[tuple[float, float]]]:
    """Seconds of an epoch's steps, and of all of it, by each, for every round."""
    context = multiprocessing.get_context("spawn")
    pairs = [context.Pipe() for _ in range(2)]
    workers = [
        context.Process(target=work, args=(by, run, theirs))
        for by, (_, theirs) in zip((by_engine, by_loop), pairs, strict=True)
    ]
    for worker in workers:
        worker.start()
    rounds = []
    # The first epoch is a warm-up, and the last of the engine's has its result in it.
    for _ in range(run.experiment.recipe.epochs - 1):
        took = []
        for ours, _ in pairs:
            ours.send("go on")
            took.append(ours.recv())
        rounds.append(took)
    for worker in workers:
        worker.kill()
    return rounds


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--epochs", type=int, default=40)
    epochs = parser.parse_args().epochs
    print(f"one thread, torch {torch.__version__}; ms a step, medians of {epochs - 1} alternating epochs; limit {LIMIT}")
    print("  steps alone: engine   loop  ratio    whole epochs: engine   loop  ratio  rung")
    for rung in roadmap.ladder("pico", ",".join(RUNGS)):
        recipe = replace(rung.experiment.recipe, epochs=epochs)
        run = Run(
            "pico", rung.name, replace(rung.experiment, recipe=recipe), "digits", load_study().dataset("digits"), 0, "paper"
        )
        steps = run.dataset.train_images // recipe.batch_size
        rounds, figures = measure(run), []
        for part in (0, 1):
            pairs = [[took[part] / steps * 1e3 for took in round_] for round_ in rounds]
            ours, theirs = (statistics.median(column) for column in zip(*pairs, strict=True))
            figures += [ours, theirs, statistics.median(our / its for our, its in pairs)]
        print(
            "{:20.2f} {:6.2f}  {:5.3f} {:23.2f} {:6.2f}  {:5.3f}  {}".format(*figures, rung.name),
            flush=True,
        )


if __name__ == "__main__":
    main()
