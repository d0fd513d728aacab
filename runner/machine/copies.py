"""Copies between the memory of this process and that of a device, for which neither waits."""

from __future__ import annotations

import functools

import torch
from torch import Tensor


def to_device(tensor: Tensor, device: str) -> Tensor:
    """The tensor on the device. It is copied while the device does earlier work; later work waits for the copy."""
    if device != "cuda" or tensor.is_cuda:
        return tensor.to(device)
    stream, current = _copies(torch.cuda.current_device()), torch.cuda.current_stream()
    with torch.cuda.stream(stream):
        copied = (tensor if tensor.is_pinned() else tensor.pin_memory()).to(device, non_blocking=True)
    current.wait_stream(stream)
    copied.record_stream(current)  # its memory is not used again before that is done with it
    return copied


@functools.cache
def _copies(device: int) -> torch.cuda.Stream:
    return torch.cuda.Stream(device)


class FromDevice:
    """A few numbers of a device, which can be read as soon as it has computed them, whatever else it has to do."""

    def __init__(self, numbers: Tensor) -> None:
        self._numbers, self._copied = numbers, None
        if numbers.is_cuda:
            self._numbers = torch.empty(numbers.shape, dtype=numbers.dtype, pin_memory=True)
            self._numbers.copy_(numbers, non_blocking=True)
            self._copied = torch.cuda.Event()
            self._copied.record()

    def read(self) -> list[float]:
        if self._copied:
            self._copied.synchronize()
        numbers: list[float] = self._numbers.tolist()
        return numbers
