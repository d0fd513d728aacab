"""Solves for the width at which a design has the multiply-adds of another."""

from __future__ import annotations

import itertools
from bisect import bisect_left
from dataclasses import replace

from roadmap.design import Design
from roadmap.network.cost import cost

TOLERANCE = 0.01  # of the multiply-adds


def match_width(design: Design, target: Design, input_size: int, num_classes: int) -> Design:
    """The design with the width at which its MACs are within 1 % of those of the target.

    First the real-valued width is solved for; it doubles from stage to stage. Then each stage takes the multiple of 8
    channels above or below it. If no combination is close enough, as in a narrow network, multiples of 4, 2 and 1 are
    tried. Raises ValueError if none is close enough.
    """
    target_macs = cost(target, input_size, num_classes).macs

    def deviation(widths: tuple[int, ...]) -> float:
        return cost(replace(design, width=widths), input_size, num_classes).macs / target_macs - 1

    def stages(sixteenths: int) -> list[float]:
        return [sixteenths / 16 * 2**i for i in range(len(design.depths))]

    def rounded(sixteenths: int) -> float:
        return deviation(tuple(max(1, round(width)) for width in stages(sixteenths)))

    exact = stages(bisect_left(range(1, 256 * design.widths[0]), 0.0, key=rounded) + 1)
    for multiple in (8, 4, 2, 1):
        around = [(max(1, int(width / multiple)) * multiple, (int(width / multiple) + 1) * multiple) for width in exact]
        nearest = min(itertools.product(*around), key=lambda widths: abs(deviation(widths)))
        if abs(deviation(nearest)) <= TOLERANCE:
            return replace(design, width=nearest)
    percent = 100 * deviation(nearest)
    raise ValueError(f"no width comes within 1 % of {target_macs} MACs: {list(nearest)} is {percent:+.1f} % off")
