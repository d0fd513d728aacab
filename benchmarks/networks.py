"""Training images/s and memory of the resnet-50 rungs against the same network of timm and torchvision, on a CPU.

    python benchmarks/networks.py [--rungs resnet-50,layer-scale] [--precision fp32,bf16,as-started] [--rounds 5]
                                  [--clock processor] [--allocator]

Whole training steps at batch 16 of 224 x 224 pixels. A rung that timm and torchvision lack is compared with the same
network of stock torch modules. Peers take the same step (recipe, optimizer, autocast) with glibc's default allocator,
in the memory layout that was faster in the first round. `as-started`: the setup that the engine chooses, against a
peer's defaults: fp32, channels first, a plain loop and a plain optimizer.

Each measurement is in a new process, in alternating rounds. All rungs take about three quarters of an hour.
`--clock processor` is for machines with other work: the processor time of the process, divided by the cores. It
underestimates the work of one core while the others wait. `--allocator` adds our networks with glibc's default
allocator: the effect of keeping freed memory on speed and memory.
"""

from __future__ import annotations

import argparse
import multiprocessing
import os
import statistics
import time
from collections.abc import Callable
from dataclasses import replace
from multiprocessing.connection import Connection
from unittest import mock

import timm
import torch
import torchvision
from torch import Tensor, nn

import roadmap
from roadmap.record.run import Run
from roadmap.study.load import load_study
from runner.machine.setup import Setup, choose_setup
from runner.measure import throughput
from runner.train.tasks import classification

BATCH, PIXELS = 16, 224
WARM_UP, SECONDS = 1, 1.5  # steps before the clock starts; measured at least, in whole steps
CORES = os.cpu_count() or 1
CLOCKS = {"wall": time.perf_counter, "processor": lambda: time.process_time() / CORES}
START, END = "resnet-50", "layer-scale"
LIMITS = {"layer-norm": 1.1, "separate-downsampling": 1.1, END: 1.1}  # 1 for other rungs
LIMIT_AS_STARTED = 2.0
OURS, STOCK = "ours", "stock modules"
ON_GLIBC = "ours, glibc's default allocator"
# By the rung with the same network. Each function takes the drop path rate of the last block.
PEERS: dict[str, dict[str, Callable[[float], nn.Module]]] = {
    START: {
        "torchvision": lambda drop_path: torchvision.models.resnet50(),
        "timm": lambda drop_path: timm.create_model("resnet50", drop_path_rate=drop_path),
    },
    END: {
        "torchvision": lambda drop_path: torchvision.models.convnext_tiny(stochastic_depth_prob=drop_path),
        "timm": lambda drop_path: timm.create_model("convnext_tiny", drop_path_rate=drop_path),
        "timm, conv_mlp": lambda drop_path: timm.create_model("convnext_tiny", conv_mlp=True, drop_path_rate=drop_path),
    },
}
SpeedAndMemory = tuple[float, float]  # images/s; MiB at the peak, minus those before the network
Entrant = tuple[str, bool]  # whose network, and whether channels come last


def run_of(rung: str) -> Run:
    study = load_study()
    (selected,) = roadmap.ladder("resnet-50", rung)
    return Run("resnet-50", rung, selected.experiment, "imagenet", study.dataset("imagenet"), 0, "paper")


def engines_step(run: Run, setup: Setup, name: str, images: Tensor) -> Callable[[], object]:
    """The engine's step with the rung's network, or with a peer's network instead."""
    if name in (OURS, ON_GLIBC):
        return throughput._training(run, setup, images, cuda_graphs=False)
    if name == STOCK:
        with mock.patch("roadmap.network.modules.DepthwiseConvolution", nn.Conv2d):
            return throughput._training(run, setup, images, cuda_graphs=False)

    def build(design: object, classes: int, *, drop_path: float, **_: object) -> nn.Module:
        return PEERS[run.rung][name](drop_path)

    with mock.patch.object(classification, "build", build):
        return throughput._training(run, setup, images, cuda_graphs=False)


def plain_step(run: Run, name: str, images: Tensor) -> Callable[[], object]:
    """A step as in PyTorch's tutorials."""
    model, recipe = PEERS[run.rung][name](run.experiment.recipe.drop_path).train(), run.experiment.recipe
    optimizer = (
        torch.optim.SGD(model.parameters(), lr=1e-9, momentum=recipe.momentum)
        if recipe.optimizer == "sgd"
        else torch.optim.AdamW(model.parameters(), lr=1e-9)
    )
    labels, criterion = torch.randint(1000, (len(images),)), nn.CrossEntropyLoss()

    def step() -> None:
        optimizer.zero_grad()
        loss = criterion(model(images), labels)
        loss.backward()
        optimizer.step()
        loss.item()

    return step


def seconds_of(step: Callable[[], object], clock: Callable[[], float]) -> float:
    """Seconds of one step: the mean over as many as take SECONDS."""
    for _ in range(WARM_UP):
        step()
    began, steps = clock(), 0
    while clock() - began < SECONDS:
        step()
        steps += 1
    return (clock() - began) / steps


def work(rung: str, precision: str, clock: str, entrant: Entrant, connection: Connection) -> None:
    (name, channels_last), run = entrant, run_of(rung)
    execution = replace(load_study().execution, device="cpu", channels_last=channels_last)
    setup = choose_setup(run.experiment.recipe, execution, 1, CORES)
    if precision != "as-started":
        setup = replace(setup, precision=precision)
    if name == OURS:
        setup.prepare()
    torch.set_num_threads(CORES)
    throughput._load_libraries(setup)
    memory = throughput._Memory("cpu")
    images = torch.randn(BATCH, 3, PIXELS, PIXELS).contiguous(memory_format=setup.memory_format)
    if precision == "as-started" and name not in (OURS, ON_GLIBC):
        step = plain_step(run, name, images)
    else:
        step = engines_step(run, setup, name, images)
    speed = BATCH / seconds_of(step, CLOCKS[clock])
    connection.send((speed, memory.peak() / 2**20))


def measure(rung: str, precision: str, clock: str, entrant: Entrant) -> SpeedAndMemory:
    context = multiprocessing.get_context("forkserver")
    ours, theirs = context.Pipe(duplex=False)
    process = context.Process(target=work, args=(rung, precision, clock, entrant, theirs))
    process.start()
    theirs.close()
    try:
        result: SpeedAndMemory = ours.recv()
    except EOFError:
        raise SystemExit(f"{rung}, {precision}: the process of {entrant} ended without an answer") from None
    process.join()
    return result


def compare(rung: str, precision: str, clock: str, rounds: int, allocator: bool) -> dict[Entrant, list[SpeedAndMemory]]:
    """The results of each entrant in each round; for a peer only its faster layout."""
    names = list(PEERS.get(rung, {STOCK: None}))
    layout = load_study().execution.channels_last
    entrants = [(OURS, layout), *([(ON_GLIBC, layout)] if allocator else [])]
    layouts = [False] if precision == "as-started" else [True, False]
    entrants += [(name, channels_last) for name in names for channels_last in layouts]
    results: dict[Entrant, list[SpeedAndMemory]] = {entrant: [] for entrant in entrants}
    for number in range(1, rounds + 1):
        for entrant, rounds_of_entrant in results.items():
            rounds_of_entrant.append(measure(rung, precision, clock, entrant))
            last = text(rounds_of_entrant[-1])
            print(f"# round {number}: {rung}, {precision}, {describe(entrant)}: {last}", flush=True)
        for name in names if number == 1 else ():
            layouts_of_peer = (entrant for entrant in results if entrant[0] == name)
            for slower in sorted(layouts_of_peer, key=lambda entrant: results[entrant][0][0])[:-1]:
                del results[slower]
    return results


def describe(entrant: Entrant) -> str:
    name, channels_last = entrant
    return f"{name}, channels {'last' if channels_last else 'first'}"


def text(result: SpeedAndMemory) -> str:
    return f"{result[0]:5.2f} images/s, {result[1]:5.0f} MiB"


def rows(rung: str, precision: str, results: dict[Entrant, list[SpeedAndMemory]]) -> list[str]:
    """A row for each peer: both medians, and the medians of the rounds' ratios."""
    ((_, ours), *peers) = results.items()
    lines = []
    for entrant, theirs in peers:
        limit = LIMIT_AS_STARTED if precision == "as-started" else LIMITS.get(rung, 1.0)
        if entrant[0] == ON_GLIBC:
            limit = 1.0
        (speed, memory), (their_speed, their_memory) = (
            [statistics.median(column) for column in zip(*rounds, strict=True)] for rounds in (ours, theirs)
        )
        faster, larger = (
            statistics.median(our[i] / their[i] for our, their in zip(ours, theirs, strict=True)) for i in (0, 1)
        )
        verdict = "" if faster >= limit and larger <= 1 else "  *"
        lines.append(
            f"{rung:21s}  {precision:10s}  {their_speed:5.2f}  {speed:5.2f}  {faster:5.2f}  {limit:5.1f}"
            f"  {their_memory:8.0f}  {memory:8.0f}  {larger:5.2f}  {describe(entrant)}{verdict}"
        )
    return lines


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__.splitlines()[0])
    parser.add_argument("--rungs", default="all", help="names, separated by commas (default: all)")
    parser.add_argument("--precision", default="fp32,bf16,as-started")
    parser.add_argument("--rounds", type=int, default=5)
    parser.add_argument("--clock", choices=CLOCKS, default="wall")
    parser.add_argument("--allocator", action="store_true")
    options = parser.parse_args()
    if options.clock == "processor":
        os.environ["OMP_WAIT_POLICY"] = "passive"  # in new processes: waiting takes no processor time
    known = [rung.name for rung in roadmap.ladder("resnet-50")]
    rungs = known if options.rungs == "all" else options.rungs.split(",")
    if unknown := set(rungs) - set(known):
        parser.error(f"no rung {', '.join(sorted(unknown))}; there are {', '.join(known)}")
    precisions = options.precision.split(",")
    if unknown := set(precisions) - {"fp32", "bf16", "as-started"}:
        parser.error(f"no precision {', '.join(sorted(unknown))}; there are fp32, bf16, as-started")
    multiprocessing.set_forkserver_preload(["timm", "torchvision", "runner.measure.throughput"])
    table = []
    for precision in precisions:
        for rung in rungs:
            if precision != "as-started" or rung in PEERS:
                results = compare(rung, precision, options.clock, options.rounds, options.allocator)
                table += rows(rung, precision, results)
                print("\n".join(f"# {line}" for line in table[-len(results) + 1 :]), flush=True)
    print(
        f"{CORES} cores, torch {torch.__version__}, torchvision {torchvision.__version__}, timm {timm.__version__}; "
        f"batch {BATCH}, by the {options.clock} clock, medians of {options.rounds} alternating rounds"
    )
    print("rung                   precision   images/s: peer, ours, ratio, limit   MiB: peer, ours, ratio   peer")
    print("\n".join(table))
    print("* below its limit, or above the peer's memory")


if __name__ == "__main__":
    main()
