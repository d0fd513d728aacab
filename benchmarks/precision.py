"""Training steps in bf16 against fp32, and channels last against channels first, on this machine's CPU.

    python benchmarks/precision.py [--rounds 5]

Determines `runner.machine.setup.BF16_CPU_IMAGE_SIZE`.
"""

from __future__ import annotations

import argparse
import os
import statistics
import time
from dataclasses import replace

import torch

import roadmap
from roadmap.study.load import load_study
from runner.machine.setup import choose_setup

CASES = [  # (regime, rung, image size, batch)
    ("pico", "recipe", 32, 32),
    ("pico", "layer-scale", 32, 32),
    ("resnet-50", "recipe", 64, 16),
    ("resnet-50", "layer-scale", 64, 16),
    ("resnet-50", "recipe", 128, 8),
    ("resnet-50", "layer-scale", 128, 8),
    ("resnet-50", "recipe", 224, 8),
    ("resnet-50", "kernel-size-7", 224, 8),
    ("resnet-50", "layer-scale", 224, 8),
]
FORMATS = {"first": torch.contiguous_format, "last": torch.channels_last}


class Variant:
    """A network that takes steps in one precision and memory format."""

    def __init__(self, case: tuple[str, str, int, int], bf16: bool, layout: str) -> None:
        regime, rung, size, batch = case
        design = roadmap.ladder(regime, rung)[0].experiment.design
        self.model = roadmap.build(design, 10).to(memory_format=FORMATS[layout])
        self.images = torch.randn(batch, 3, size, size).contiguous(memory_format=FORMATS[layout])
        self.optimizer = torch.optim.AdamW(self.model.parameters(), fused=True)
        self.bf16 = bf16

    def step(self) -> float:
        began = time.perf_counter()
        self.optimizer.zero_grad()
        with torch.autocast("cpu", torch.bfloat16, enabled=self.bf16):
            logits = self.model(self.images)
        logits.float().sum().backward()
        self.optimizer.step()
        return time.perf_counter() - began


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    execution = replace(load_study().execution, device="cpu")
    recipe = roadmap.ladder("pico", "recipe")[0].experiment.recipe
    choose_setup(recipe, execution, 1, os.cpu_count() or 1).prepare()  # threads and allocator as in the engine
    print(f"{os.cpu_count()} cores, torch {torch.__version__}; ms a step, medians of {rounds} alternating rounds")
    print("fp32 first  fp32 last  bf16 last   last/first   bf16/fp32   case")
    for case in CASES:
        variants = [Variant(case, *kind) for kind in ((False, "first"), (False, "last"), (True, "last"))]
        for variant in variants:
            variant.step()
        times = [[variant.step() for variant in variants] for _ in range(rounds)]
        first, last, bf16 = (1e3 * statistics.median(column) for column in zip(*times, strict=True))
        ratios = f"{first / last:10.2f}  {last / bf16:10.2f}"
        print(f"{first:10.1f}  {last:9.1f}  {bf16:9.1f}   {ratios}   {case}", flush=True)
    print("A ratio above 1 means that channels last, or bf16, is faster.")


if __name__ == "__main__":
    main()
