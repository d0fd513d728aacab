"""What each step is worth beyond the paper's one path, and which steps help or hinder each other."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal


@dataclass(frozen=True)
class Worth:
    """A step's share in what all steps came to, in the metric's unit."""

    step: str
    title: str
    shapley: float  # the mean change over all orders of the steps
    interval: tuple[float, float] | None  # at 95 %; none of too few orders
    orders: int  # random orders that it was measured in
    on_path: float | None = None  # the change in the paper's order
    alone: float | None = None  # the change against the start (add-one)
    left_out: float | None = None  # the change that is lost where all others stay (leave-one-out)


@dataclass(frozen=True)
class Interaction:
    """What two steps are worth together beyond what each is worth without the other."""

    first: str  # step
    second: str
    value: float
    interval: tuple[float, float]  # at 95 %
    p: float  # corrected for the number of pairs
    verdict: Literal["help", "hinder", "within noise"]


@dataclass(frozen=True)
class Attribution:
    steps: tuple[str, ...]  # in the study's order
    titles: dict[str, str]
    worths: tuple[Worth, ...]
    interactions: tuple[Interaction, ...]  # none where there are too few runs to tell pairs apart
    total: float  # what all steps together changed
