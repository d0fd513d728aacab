"""Solves for the width at which a design has given multiply-adds, many thousand times a minute.

Multiply-adds are a polynomial of the stages' widths: each stage adds a first block, and equal ones after it. The
coefficients of a stage follow from counting a few small networks, and are kept.
"""

from __future__ import annotations

import itertools
import math
from collections.abc import Sequence
from dataclasses import replace
from functools import lru_cache

from roadmap.design import Design
from roadmap.network.cost import cost

TOLERANCE = 0.01  # of the multiply-adds
MULTIPLES = (8, 4, 2, 1)  # channels, tried in this order
PROBE = 16  # width of the counted networks: its products with the usual expansions are whole

# Of a stage: for its own width squared, its width times that of the stage before, and its width; first for its first
# block, with what is between the stages, then for each block after it.
Terms = tuple[float, float, float, float, float]


class EqualCost:
    """Designs at given multiply-adds for images of one size and number of classes."""

    def __init__(self, input_size: int, classes: int) -> None:
        self.input_size, self.classes = input_size, classes
        self._known: dict[object, tuple[Terms, ...]] = {}

    def at(self, design: Design, macs: float) -> Design:
        """The design with widths in the same proportions, at which it has these multiply-adds within 1 %.

        Widths are multiples of 8, or if none fits of 4, 2 or 1. Raises ValueError if none fits.
        """
        terms = self._terms(design)
        proportions = [width / design.widths[0] for width in design.widths]
        first = _root(*_quadratic(terms, design.depths, proportions), macs)
        exact = [first * proportion for proportion in proportions]
        for multiple in MULTIPLES:
            around = [
                sorted({max(1, int(width / multiple)) * multiple, (int(width / multiple) + 1) * multiple})
                for width in exact
            ]
            widths = min(itertools.product(*around), key=lambda own: abs(_total(terms, design.depths, own) / macs - 1))
            if abs(_total(terms, design.depths, widths) / macs - 1) <= TOLERANCE:
                found = replace(design, width=tuple(widths))
                if abs(cost(found, self.input_size, self.classes).macs / macs - 1) <= TOLERANCE:
                    return found
        raise ValueError(f"no width comes within 1 % of {macs:.0f} multiply-adds")

    def _terms(self, design: Design) -> tuple[Terms, ...]:
        key = (design.stem, design.block, design.downsampling, design.head_norm, len(design.depths))
        if key not in self._known:
            self._known[key] = self._count_terms(design)
        return self._known[key]

    def _count_terms(self, design: Design) -> tuple[Terms, ...]:
        if len({block.convs[-1].width for block in design.blocks}) == 1:
            # What enters a stage does not depend on the other blocks, so each stage can be counted alone.
            of_blocks = [
                _stage_terms(replace(design, block=block, width=PROBE, depths=(1,) * len(design.depths)), *self._images)
                for block in design.blocks
            ]
            return tuple(of_block[stage] for stage, of_block in enumerate(of_blocks))
        return _stage_terms(replace(design, width=PROBE, depths=(1,) * len(design.depths)), *self._images)

    @property
    def _images(self) -> tuple[int, int]:
        return self.input_size, self.classes


@lru_cache(maxsize=4096)
def _stage_terms(design: Design, input_size: int, classes: int) -> tuple[Terms, ...]:
    """The terms of each stage of a design with one block a stage. The stem is in the first, the head in the last."""
    stages = len(design.depths)

    def count(widths: Sequence[int], depths: Sequence[int]) -> int:
        return cost(replace(design, width=tuple(widths), depths=tuple(depths)), input_size, classes).macs

    ones = [1] * stages
    base = count([PROBE] * stages, ones)
    terms: list[Terms] = []
    for stage in range(stages):

        def at(own: int, before: int = 1, depth: int = 1, stage: int = stage) -> int:
            """The multiply-adds with the widths of a stage, and of the one before it, times these numbers."""
            widths, depths = [PROBE] * stages, list(ones)
            widths[stage], depths[stage] = PROBE * own, depth
            if stage:
                widths[stage - 1] = PROBE * before
            return count(widths, depths)

        # Of three widths: a parabola through the multiply-adds. Its slope also has the products with the widths of both
        # neighbours, which are terms of their own and are taken off below.
        one, two, three = (at(own) for own in (1, 2, 3))
        square = (three - 2 * two + one) / (2 * PROBE**2)
        both = (at(2, 2) - at(2, 1) - at(1, 2) + base) / PROBE**2 if stage else 0.0
        linear = (two - one) / PROBE - 3 * square * PROBE
        repeated = [at(own, depth=2) - at(own) for own in (1, 2)]
        square_again = (repeated[1] - 2 * repeated[0]) / (2 * PROBE**2)
        linear_again = repeated[0] / PROBE - square_again * PROBE
        terms.append((square, both, linear, square_again, linear_again))
    return tuple(
        (square, both, linear - PROBE * (both + (terms[i + 1][1] if i + 1 < stages else 0.0)), again, linear_again)
        for i, (square, both, linear, again, linear_again) in enumerate(terms)
    )


def _total(terms: Sequence[Terms], depths: Sequence[int], widths: Sequence[float]) -> float:
    total, before = 0.0, 0.0
    for (square, both, linear, again, linear_again), depth, width in zip(terms, depths, widths, strict=True):
        total += width * (square * width + both * before + linear + (depth - 1) * (again * width + linear_again))
        before = width
    return total


def _quadratic(terms: Sequence[Terms], depths: Sequence[int], proportions: Sequence[float]) -> tuple[float, float]:
    """The coefficients of w squared and of w, where each stage's width is w times its proportion."""
    one, two = (_total(terms, depths, [scale * own for own in proportions]) for scale in (1.0, 2.0))
    square = (two - 2 * one) / 2
    return square, one - square


def _root(square: float, linear: float, macs: float) -> float:
    return (-linear + math.sqrt(linear**2 + 4 * square * macs)) / (2 * square)
