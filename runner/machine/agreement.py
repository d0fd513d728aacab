"""What all processes of a run agree on after each step: the loss, the images skipped, and what is requested."""

from __future__ import annotations

from collections import deque
from collections.abc import Iterator
from dataclasses import dataclass

import torch
from torch import Tensor

from runner.machine.copies import FromDevice, to_device
from runner.machine.distributed import World
from runner.machine.requests import Request


@dataclass(frozen=True)
class Agreed:
    step: int | None  # of the epoch, counted from 1; None outside training steps
    loss: float  # of the global batch
    skipped: int  # images, of all processes
    request: Request  # the highest


class Agreement:
    """Processes say what they have, and hear of all some steps `late`, so that none waits for its device.

    All processes hear the same after the same step.
    """

    def __init__(self, world: World, device: str, late: int = 0) -> None:
        self.world, self.device, self.late = world, device, late
        self._said: deque[tuple[int | None, int, Request, FromDevice]] = deque()

    def say(self, step: int | None, loss: Tensor, skipped: int, request: Request) -> Tensor:
        """`loss` is the mean of this process, on the device. Returns that of all processes, there."""
        numbers = loss.view(1)
        if self.world.size > 1:
            own = [float(skipped), float(request is Request.SAVE), float(request is Request.STOP)]
            numbers = torch.cat((numbers / self.world.size, to_device(torch.tensor(own).to(loss.dtype), self.device)))
            self.world.all_reduce(numbers)
        self._said.append((step, skipped, request, FromDevice(numbers)))
        return numbers[0]

    def hear(self, late: int | None = None) -> Iterator[Agreed]:
        """What was said and not heard, except for the last `late` times (default: those of the device)."""
        while len(self._said) > (self.late if late is None else late):
            step, skipped, request, numbers = self._said.popleft()
            loss, *of_all = numbers.read()
            if of_all:
                skipped, save, stop = round(of_all[0]), *of_all[1:]
                request = Request.STOP if stop else Request.SAVE if save else Request.NONE
            yield Agreed(step, loss, skipped, request)
