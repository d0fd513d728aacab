"""Where a training step's time goes on a CPU, ours against stock torch modules, and the depthwise convolution alone.

    python benchmarks/layers.py [--rung layer-scale] [--precision fp32] [--rounds 5] [--kernels 7,11]

Batch 16 of 224 x 224, all cores, both in channels last and with freed memory kept, as in the engine. The shares of a
step are from torch's profiler: the self time of each operator, by kind.
"""

from __future__ import annotations

import argparse
import statistics
import time
from collections import Counter
from collections.abc import Callable, Sequence
from dataclasses import replace

import torch
from networks import BATCH, CORES, OURS, PIXELS, STOCK, engines_step, run_of
from torch import nn
from torch.profiler import ProfilerActivity, profile

from roadmap.network.modules import DepthwiseConvolution
from roadmap.study.load import load_study
from runner.machine.setup import Setup, choose_setup

SHAPES = ((96, 56), (192, 28), (384, 14), (768, 7))  # channels and pixels a side of a ConvNeXt-T's stages
STEPS = 2  # of a measurement
KINDS = {
    "GELU": ("aten::gelu", "aten::gelu_backward"),
    "layer norm": ("aten::native_layer_norm", "aten::native_layer_norm_backward"),
    "batch norm": ("aten::native_batch_norm", "aten::native_batch_norm_backward"),
    "matrix products": ("aten::addmm", "aten::mm", "aten::bmm", "aten::mkldnn_linear"),
    "optimizer": ("aten::_fused_adamw_", "aten::_fused_sgd_"),
}
KIND_OF = {operator: kind for kind, operators in KINDS.items() for operator in operators}


def kind_of(operator: str, shapes: Sequence[Sequence[int]]) -> str:
    if "convolution" in operator:
        # A depthwise convolution has a tensor with one filter for each channel.
        depthwise = any(len(shape) == 4 and shape[1] == 1 < shape[0] for shape in shapes)
        return "depthwise convolutions" if depthwise else "other convolutions"
    return KIND_OF.get(operator, "the rest (casts, copies, sums)")


def step_by_kind(step: Callable[[], object]) -> Counter[str]:
    """Milliseconds of a step."""
    with profile(activities=[ProfilerActivity.CPU], record_shapes=True) as profiled:
        for _ in range(STEPS):
            step()
    milliseconds: Counter[str] = Counter()
    for event in profiled.key_averages(group_by_input_shape=True):
        shapes = [shape for shape in event.input_shapes if isinstance(shape, list)]
        milliseconds[kind_of(event.key, shapes)] += event.self_cpu_time_total / 1e3 / STEPS
    return milliseconds


def depthwise_milliseconds(cls: type[nn.Conv2d], kernel: int, channels: int, side: int, setup: Setup) -> float:
    """Milliseconds of a convolution, forward and backward."""
    images = torch.randn(BATCH, channels, side, side).to(memory_format=setup.memory_format).requires_grad_()
    convolution = cls(channels, channels, kernel, padding=kernel // 2, groups=channels).to(
        memory_format=setup.memory_format
    )

    def step() -> None:
        with setup.autocast():
            output = convolution(images)
        output.backward(torch.ones_like(output))

    step()
    began = time.perf_counter()
    for _ in range(STEPS):
        step()
    return (time.perf_counter() - began) * 1e3 / STEPS


def depthwise_pairs(kernel: int, setup: Setup) -> dict[str, tuple[float, float]]:
    return {
        f"{channels}x{side}x{side}": (
            depthwise_milliseconds(nn.Conv2d, kernel, channels, side, setup),
            depthwise_milliseconds(DepthwiseConvolution, kernel, channels, side, setup),
        )
        for channels, side in SHAPES
    }


def print_table(title: str, rounds: Sequence[dict[str, tuple[float, float]]]) -> None:
    """Medians of both, and of the rounds' ratios."""
    print(f"{title:32s}{'stock':>8s}{'ours':>8s}{'ratio':>8s}")
    for name in rounds[0]:
        theirs, ours = (statistics.median(times[name][i] for times in rounds) for i in (0, 1))
        ratio = statistics.median(times[name][0] / times[name][1] for times in rounds)
        print(f"{name:32s}{theirs:8.1f}{ours:8.1f}{ratio:8.2f}")


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rung", default="layer-scale")
    parser.add_argument("--precision", choices=("fp32", "bf16"), default="fp32")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--kernels", default="7,11", help="of the depthwise convolutions that are measured alone")
    options = parser.parse_args()
    kernels = [int(kernel) for kernel in options.kernels.split(",")]
    run = run_of(options.rung)
    execution = replace(load_study().execution, device="cpu")
    setup = replace(choose_setup(run.experiment.recipe, execution, 1, CORES), precision=options.precision)
    setup.prepare()
    images = torch.randn(BATCH, 3, PIXELS, PIXELS).contiguous(memory_format=setup.memory_format)
    steps = [engines_step(run, setup, name, images) for name in (STOCK, OURS)]
    for step in steps:
        step()
    shares = []
    alone: dict[int, list[dict[str, tuple[float, float]]]] = {kernel: [] for kernel in kernels}
    for number in range(1, options.rounds + 1):
        theirs, ours = (step_by_kind(step) for step in steps)
        kinds = [kind for kind, _ in theirs.most_common() if ours[kind]]
        shares.append({kind: (theirs[kind], ours[kind]) for kind in kinds} | {"all": (theirs.total(), ours.total())})
        for kernel, rounds in alone.items():
            rounds.append(depthwise_pairs(kernel, setup))
        print(f"# round {number}: a step {shares[-1]['all'][0]:.0f} and {shares[-1]['all'][1]:.0f} ms", flush=True)
    print(f"{CORES} cores, torch {torch.__version__}; ms, medians of {options.rounds} alternating rounds")
    print_table(f"{options.rung}, {options.precision}: a step", shares)
    for kernel, rounds in alone.items():
        print_table(f"a {kernel}x{kernel} depthwise, both ways", rounds)


if __name__ == "__main__":
    main()
