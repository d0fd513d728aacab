"""Drawing designs at the multiply-adds of ResNet-50, within 1 %, against pycls's sampler; and analysing 10,000 results.

    git clone https://github.com/facebookresearch/pycls          (its commit 5719de6 was used)
    pip install yacs iopath simplejson
    python benchmarks/sampling.py --pycls pycls                  a minute of one core

Both count a design without building it. pycls draws the widths too and rejects what is not in the band; here the width
is solved for. Designs a second are of one process; medians of three rounds in turn. Without --pycls only ours is timed.
"""

from __future__ import annotations

import argparse
import os
import statistics
import sys
import time
from collections.abc import Callable
from itertools import islice
from pathlib import Path

import numpy as np

from analysis.statistics.spaces import best_value, distribution, surface
from roadmap.network import cost as counting
from roadmap.network.cost import cost
from roadmap.study.rungs import StudyContext
from roadmap.study.spaces import SpaceOfRungs

ROUNDS, PEER_DRAWS, DESIGNS, RESULTS = 3, 4000, 10_000, 10_000
TOLERANCE = 0.01


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--pycls", type=Path, help="a checkout of pycls")
    options = parser.parse_args()
    _print_all_designs()
    for name, peer in (("stage-ratio", "anynet"), ("regnet", "regnet")):
        space = SpaceOfRungs(StudyContext.of("resnet-50"), name)
        assert space.macs is not None
        ours, theirs = [], []
        for number in range(ROUNDS):
            ours.append(_rate(lambda space=space, number=number: len(list(islice(space.samples(2000, number), 2000)))))  # type: ignore[misc]
            if options.pycls:
                draw = _peer(options.pycls, peer, space.macs)
                theirs.append(_rate(lambda draw=draw, number=number: draw(number)))  # type: ignore[misc]
        _print(name, ours, peer, theirs)
    _print_analysis()


def _rate(draw: Callable[[], int]) -> float:
    counting._cost.cache_clear()  # of designs that an earlier round drew
    began = time.process_time()
    return draw() / (time.process_time() - began)


def _print(name: str, ours: list[float], peer: str, theirs: list[float]) -> None:
    own = statistics.median(ours)
    beside = ""
    if theirs:
        ratio = statistics.median(a / b if b else float("inf") for a, b in zip(ours, theirs, strict=True))
        beside = f"; pycls's {peer} {statistics.median(theirs):.1f}; ratio {ratio:.0f}"
    print(f"{name}: {own:.0f} designs/s{beside}", flush=True)


def _print_all_designs() -> None:
    space = SpaceOfRungs(StudyContext.of("resnet-50"), "stage-ratio")
    began = time.process_time()
    designs = [sample.design for sample in space.samples(DESIGNS)]
    seconds = time.process_time() - began
    off = max(abs(cost(design).macs / (space.macs or 1) - 1) for design in designs)
    print(
        f"{len(set(designs))} designs of resnet-50: {seconds:.1f} s of one core, off by {off:.2%} at most (limit 10 s)"
    )
    print(f"torch was {'' if 'torch' in sys.modules else 'not '}imported")


def _print_analysis() -> None:
    draw = np.random.default_rng(0)
    values = {f"depths {stage}": np.round(np.exp(draw.uniform(0, 3, RESULTS))).tolist() for stage in range(1, 5)}
    errors = (np.log(values["depths 3"]) - 1.5) ** 2 + draw.normal(0, 0.3, RESULTS)
    surface({name: [1.0, 2.0] for name in values}, [1.0, 2.0])  # imports
    began = time.perf_counter()
    distribution(errors.tolist())
    for own in values.values():
        best_value(own, errors.tolist())
    surface(values, errors.tolist())
    print(f"analysis of {RESULTS} results, four parameters: {time.perf_counter() - began:.1f} s (limit 5 s)")


def _peer(checkout: Path, kind: str, macs: float) -> Callable[[int], int]:
    """A function that draws with a seed, and returns the number of designs within the band."""
    os.environ.setdefault("CONDA_PREFIX", "none")  # its launcher wants one
    sys.path[:0] = [path for path in map(str, (checkout, checkout / "tools")) if path not in sys.path]
    import sweep_setup  # type: ignore[import-not-found]
    from pycls.sweep.config import SAMPLERS, sweep_cfg  # type: ignore[import-not-found]

    setup = sweep_cfg.SETUP
    setup.CHUNK_SIZE, setup.NUM_CONFIGS = PEER_DRAWS, PEER_DRAWS
    setup.CONSTRAINTS.CX.FLOPS = [macs * (1 - TOLERANCE), macs * (1 + TOLERANCE)]  # pycls's flops are multiply-adds
    setup.BASE_CFG.MODEL.TYPE = kind
    setup.BASE_CFG.TRAIN.IM_SIZE = 224
    setup.SAMPLERS.clear()
    if kind == "anynet":
        own = setup.BASE_CFG.ANYNET
        own.STEM_TYPE, own.STEM_W, own.BLOCK_TYPE = "res_stem_in", 64, "res_bottleneck_block"
        own.STRIDES, own.BOT_MULS = [1, 2, 2, 2], [0.25] * 4
        setup.SAMPLERS["ANYNET.DEPTHS"] = _list_of(SAMPLERS, [1, 24], 1)
        setup.SAMPLERS["ANYNET.WIDTHS"] = _list_of(SAMPLERS, [64, 4096], 8)
    else:
        setup.SAMPLERS["REGNET"] = SAMPLERS.REGNET_SAMPLER.clone()

    def draw(seed: int) -> int:
        return len(sweep_setup.sample_cfgs(seed))

    return draw


def _list_of(samplers: object, allowed: list[int], multiple: int) -> object:
    """Four numbers, each drawn evenly on a logarithmic scale."""
    each = samplers.INT_SAMPLER.clone()  # type: ignore[attr-defined]
    each.RAND_TYPE, each.RANGE, each.QUANTIZE = "log_uniform", allowed, multiple
    four = samplers.LIST_SAMPLER.clone()  # type: ignore[attr-defined]
    four.LENGTH, four.ITEM_SAMPLER = 4, each
    return four


if __name__ == "__main__":
    main()
