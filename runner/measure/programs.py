"""A run's network as a program: a batch of images in, named tensors out, without sizes or targets beside them."""

from __future__ import annotations

import math
from dataclasses import dataclass
from typing import Any

import torch
from torch import Tensor, nn

from roadmap.design import Design
from roadmap.record.run import Run
from roadmap.tasks.registry import CLASSIFICATION
from runner.data.dense.samples import DIVISOR


@dataclass(frozen=True)
class Program:
    """What an export needs to know of a network."""

    network: nn.Module  # images N x 3 x H x W to a tensor, or a tuple of them
    outputs: tuple[str, ...]  # names, in order
    size: int  # side of the images that it is made with, pixels
    images: int  # of a batch: as many as it is made with, or any if there are several
    any_size: bool  # whether it takes images of other sides
    found: bool = False  # whether the outputs are as many as the objects that are found

    def __call__(self, images: Tensor) -> tuple[Tensor, ...]:
        with torch.no_grad():
            outputs = self.network(images)
        return outputs if isinstance(outputs, tuple) else (outputs,)


def program_of(run: Run, network: nn.Module) -> Program:
    """The program of a run's network. Raises ValueError for the task of a plug-in."""
    size = run.experiment.recipe.image_size
    if run.task == CLASSIFICATION:
        # Models of other libraries may need a certain size.
        return Program(network, ("logits",), size, 2, isinstance(run.experiment.design, Design))
    size = math.ceil(size / DIVISOR) * DIVISOR
    if run.task == "detection":
        return Program(_Detections(network).eval(), ("boxes", "labels", "scores", "masks"), size, 1, True, found=True)
    if run.task == "segmentation":
        return Program(_Logits(network).eval(), ("logits",), size, 2, False)
    raise ValueError(f"{run.name}: networks of task {run.task!r}, of a plug-in, can't be exported")


class _Detections(nn.Module):
    """What is found in an image: boxes K x 4, labels K from 1, scores K, and masks K x 1 x 28 x 28 within the boxes."""

    def __init__(self, detector: nn.Module) -> None:
        super().__init__()
        self.detector = detector

    def forward(self, images: Tensor) -> tuple[Tensor, ...]:
        sizes: Any = [(images.shape[2], images.shape[3])]
        (found,) = self.detector(images, sizes)
        return found["boxes"], found["labels"], found["scores"], found["masks"]


class _Logits(nn.Module):
    """N x classes x H x W, without those of the auxiliary head."""

    def __init__(self, segmenter: nn.Module) -> None:
        super().__init__()
        self.segmenter = segmenter

    def forward(self, images: Tensor) -> Tensor:
        (logits,) = self.segmenter(images)
        result: Tensor = logits
        return result
