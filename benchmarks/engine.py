"""The engine against a bare loop of the same network, batches, loss and optimizer: milliseconds a step.

    python benchmarks/engine.py [--rounds 5] [--epochs 13] [--rungs pico,layer-scale]

On the smallest steps, those of pico on digits, where the engine's overhead is largest. Each is in a process with one
thread, new in each round, and they alternate by epochs. Two ratios, of sums over the epochs of a round: of the steps
alone, and of whole epochs, in which both evaluate, and the engine also writes metrics and checkpoints.

By default glibc returns memory and takes it again, depending on the history of the process, so that two equal processes
differ by 3 %. Here it keeps freed memory in both.
"""

from __future__ import annotations

import argparse
import contextlib
import multiprocessing
import os
import statistics
import tempfile
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from pathlib import Path

import torch
from torch.nn import functional as F

import roadmap
from roadmap.record.events import EpochDone, StepDone, TrainingEvent
from roadmap.record.run import Run
from roadmap.study.load import load_study
from runner.data.batches import EvaluationBatches, TrainingBatches
from runner.data.datasets import load_data
from runner.machine.randomness import seed_for, seed_globally
from runner.machine.setup import choose_setup
from runner.train.engine import train
from runner.train.optimizer import learning_rate, make_optimizer

LIMIT = 1.02
ALLOCATOR = {"MALLOC_TRIM_THRESHOLD_": str(2**32), "MALLOC_MMAP_MAX_": "0"}


class Turns:
    """Lets a process train one epoch at a time, and sends the seconds that it took."""

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
    def report(event: TrainingEvent) -> None:
        if isinstance(event, StepDone):
            turns.step()
        elif isinstance(event, EpochDone):
            turns.epoch()

    with tempfile.TemporaryDirectory() as folder, contextlib.redirect_stdout(None):
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


def measure(run: Run) -> list[list[float]]:
    """Seconds of the epochs' steps by the engine and by the loop, and those of whole epochs."""
    context = multiprocessing.get_context("spawn")
    pipes = [context.Pipe() for _ in range(2)]
    workers = [
        context.Process(target=work, args=(by, run, theirs))
        for by, (_, theirs) in zip((by_engine, by_loop), pipes, strict=True)
    ]
    for worker in workers:
        worker.start()
    sums = [[0.0, 0.0], [0.0, 0.0]]
    for _ in range(run.experiment.recipe.epochs - 1):  # the first is a warm-up
        for i, (ours, _) in enumerate(pipes):
            ours.send("go on")
            for part, seconds in enumerate(ours.recv()):
                sums[part][i] += seconds
    for worker, (ours, _) in zip(workers, pipes, strict=True):
        ours.send("go on")
        worker.join()
    return sums


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--epochs", type=int, default=13)
    parser.add_argument("--rungs", default="pico,layer-scale")
    options = parser.parse_args()
    os.environ.update(ALLOCATOR)  # inherited by new processes
    print(f"one thread, torch {torch.__version__}; ms a step, medians of {options.rounds} rounds; limit {LIMIT}")
    print("steps alone: engine   loop  ratio   whole epochs: engine   loop  ratio   rung")
    study = load_study()
    for rung in roadmap.ladder("pico", options.rungs):
        experiment = replace(rung.experiment, recipe=replace(rung.experiment.recipe, epochs=options.epochs))
        run = Run("pico", rung.name, experiment, "digits", study.dataset("digits"), 0, "paper")
        steps = run.dataset.train_images // experiment.recipe.batch_size * (options.epochs - 1)
        rounds = [measure(run) for _ in range(options.rounds)]
        line = ""
        for part, width in ((0, 19), (1, 22)):
            ours, theirs = (statistics.median(sums[part][i] for sums in rounds) / steps * 1e3 for i in (0, 1))
            ratio = statistics.median(sums[part][0] / sums[part][1] for sums in rounds)
            line += f"{ours:{width}.2f} {theirs:6.2f}  {ratio:5.3f}"
        print(f"{line}   {rung.name}", flush=True)


if __name__ == "__main__":
    main()
