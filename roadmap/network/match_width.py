"""Widths solved for: a design held to the multiply-adds of another."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from dataclasses import replace

from roadmap.design import Design
from roadmap.network.cost import cost

TOLERANCE = 0.01  # of the multiply-adds


def match_width(design: Design, target: Design, input_size: int, num_classes: int) -> Design:
    """The design with its width solved for the target's MACs, to within 1 %.

    Of the real width that would have them, doubled from stage to stage, each stage takes the multiple of 8 channels
    above or below it; where that is not near enough, as in a narrow network, of 4, 2 or 1. Raises ValueError where
    none is.
    """
    wanted = cost(target, input_size, num_classes).macs

    def off(widths: tuple[int, ...]) -> float:
        return cost(replace(design, width=widths), input_size, num_classes).macs / wanted - 1

    def stages(sixteenths: int) -> list[float]:
        return [sixteenths / 16 * 2**i for i in range(len(design.depths))]

    def rounded(sixteenths: int) -> float:
        return off(tuple(max(1, round(width)) for width in stages(sixteenths)))

    exact = stages(bisect_left(range(1, 256 * design.widths[0]), 0.0, key=rounded) + 1)
    for multiple in (8, 4, 2, 1):
        around = [(max(1, int(width / multiple)) * multiple, (int(width / multiple) + 1) * multiple) for width in exact]
        nearest = min(itertools.product(*around), key=lambda widths: abs(off(widths)))
        if abs(off(nearest)) <= TOLERANCE:
            return replace(design, width=nearest)
    raise ValueError(f"no width comes within 1 % of {wanted} MACs: {list(nearest)} is {100 * off(nearest):+.1f} % off")
