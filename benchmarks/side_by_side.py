"""Two runs side by side, one core each, against the two one after the other on all cores.

    python benchmarks/side_by_side.py [--rounds 5]

Determines `runner.launch.local.SMALL_STEP_MACS`: above it, one run at a time on all cores is as fast.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from dataclasses import replace

import torch

import roadmap
from roadmap.study.load import load_study
from runner.machine.setup import choose_setup

CORES = os.cpu_count() or 1
CASES = [  # (regime, rung, image size, batch), from small to large
    ("pico", "recipe", 32, 32),
    ("pico", "layer-scale", 32, 32),
    ("pico", "layer-scale", 64, 128),
    ("resnet-50", "recipe", 64, 16),
    ("resnet-50", "layer-scale", 64, 16),
    ("resnet-50", "layer-scale", 128, 16),
]


def steps(case: tuple[str, str, int, int], threads: int, count: int) -> None:
    regime, rung, size, batch = case
    (selected,) = roadmap.ladder(regime, rung)
    execution = replace(load_study().execution, device="cpu")
    choose_setup(selected.experiment.recipe, execution, 1, threads).prepare()  # as in the engine
    model = roadmap.build(selected.experiment.design, 10).to(memory_format=torch.channels_last)
    images = torch.randn(batch, 3, size, size).contiguous(memory_format=torch.channels_last)
    optimizer = torch.optim.AdamW(model.parameters(), fused=True)
    for _ in range(count):
        optimizer.zero_grad()
        model(images).sum().backward()
        optimizer.step()


def timed(case: tuple[str, str, int, int], side_by_side: bool, count: int) -> float:
    context = multiprocessing.get_context("forkserver")
    processes = [context.Process(target=steps, args=(case, 1 if side_by_side else CORES, count)) for _ in range(CORES)]
    began = time.perf_counter()
    for process in processes:
        process.start()
        if not side_by_side:
            process.join()
    for process in processes:
        process.join()
    return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    multiprocessing.set_forkserver_preload(["torch", "roadmap.network.modules", "runner.machine.setup"])
    print(f"{CORES} cores, torch {torch.__version__}; seconds for {CORES} runs, medians of {rounds} alternating rounds")
    print("MACs a step   in turn   side by side   ratio   case")
    for case in CASES:
        regime, rung, size, batch = case
        macs = roadmap.cost(roadmap.ladder(regime, rung)[0].experiment.design, size, 10).macs * batch
        count = max(5, min(150, int(3e10 / macs)))
        times = [(timed(case, False, count), timed(case, True, count)) for _ in range(rounds)]
        turn, side = (statistics.median(column) for column in zip(*times, strict=True))
        print(f"{macs:11.2e}  {turn:8.2f}  {side:13.2f}  {turn / side:6.2f}   {case}", flush=True)


if __name__ == "__main__":
    main()
