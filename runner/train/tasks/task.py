"""What a run in training asks of its task. Everything else is its own: resuming, processes, divergence, records."""

from __future__ import annotations

from collections.abc import Callable, Generator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol

from torch import Tensor, nn

from roadmap.network.cost import Cost
from roadmap.record.metrics import Metric
from roadmap.record.outcomes import Outcomes
from roadmap.record.predictions import Predicted
from roadmap.record.results import Value, scalar
from runner.data.batches import BadImages, EpochAndStep, Waiting
from runner.machine.distributed import World
from runner.machine.setup import Setup

Forward = Callable[..., Any]  # a network, or one with its gradients averaged over processes, or a compiled one
Weights = Mapping[str, Tensor]


@dataclass(frozen=True)
class Scores:
    """A network's metrics on held-out images."""

    values: Mapping[str, Value]  # of each metric, by its key
    skipped_images: int  # that could not be read
    outcomes: Outcomes | None = None  # of each image, if they were asked for
    predictions: tuple[Predicted, ...] = ()  # for people, of a few images after the last epoch

    def value(self, metric: Metric) -> float | None:
        return scalar(self.values[metric.key])


class Batches(Protocol):
    """The training batches of a process (runner/data/batches.py)."""

    steps: int  # of an epoch
    retries: Sequence[EpochAndStep]
    bad: BadImages

    def stream(self, epoch: int, step: int) -> Generator[tuple[Tensor, Any], None, None]:
        """The parts of batches from that step to the end of training, each images and targets."""


class TestBatches(Protocol):
    """A process's share of the held-out images."""

    rounds: int  # batches, the same number in all processes
    bad: BadImages


class Task(Protocol):
    """A task for one run."""

    def network(self) -> nn.Module:
        """The network with initial weights, drawn from torch's global generator."""

    def load(self, network: nn.Module, weights: Weights) -> None:
        """Puts the weights of a classifier of the same design into the network.

        Raises ValueError if they are of another network.
        """

    def cost(self) -> Cost:
        """The network's parameters and multiply-adds for one image."""

    def check(self) -> None:
        """Raises ValueError for what would fail later, such as a metric of a plug-in."""

    def training_batches(
        self, split: Any, setup: Setup, rank: int, retries: Sequence[EpochAndStep], skip_bad: bool, waiting: Waiting
    ) -> Batches: ...

    def test_batches(self, split: Any, setup: Setup, rank: int, skip_bad: bool, waiting: Waiting) -> TestBatches: ...

    def forward(self, forward: Forward, images: Tensor, targets: Any) -> Any:
        """The network's output for a batch of training, under the setup's autocast."""

    def loss(self, output: Any, targets: Any) -> Tensor:
        """The mean loss of that output, in fp32."""

    def evaluate(
        self,
        model: nn.Module,
        batches: Any,
        setup: Setup,
        world: World,
        between: Callable[[], None],
        *,
        last: bool,
    ) -> Scores:
        """The metrics on the held-out images, each of which counts once.

        Each process evaluates its share, and all get the result. `between` is called before every batch, by all
        processes equally often. `last`: after the last epoch. Raises ValueError if no image can be read.
        """
