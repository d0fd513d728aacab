"""The processes that train a run together: who they are, and what they tell each other.

Torch is imported when they meet: who merely starts them has no use for it.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

if TYPE_CHECKING:
    from torch import Tensor

T = TypeVar("T")


@dataclass(frozen=True)
class World:
    """One process among those that train a run, one a device. Alone, where nothing else is said."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its machine: the number of its GPU
    meeting: str = ""  # where they meet, as torch.distributed's init_method
    cores: int | None = None  # that this process has for itself, where it is known

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """In touch with the others, over NCCL from GPUs and gloo from CPUs. Raises ValueError where they don't meet."""
        import torch
        from torch import distributed as dist

        if device == "cuda":
            # Where a launcher shows each process its own GPU alone, that is number 0.
            torch.cuda.set_device(self.local_rank if torch.cuda.device_count() > 1 else 0)
        if self.size > 1:
            backend = "nccl" if device == "cuda" else "gloo"
            try:
                dist.init_process_group(backend, init_method=self.meeting, rank=self.rank, world_size=self.size)
            except RuntimeError as error:
                reason = str(error).splitlines()[0]
                raise ValueError(f"the {self.size} processes do not meet at {self.meeting}: {reason}") from None
        yield
        # Not after an error: the others may never come to it.
        if self.size > 1:
            dist.destroy_process_group()

    def sum(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, on each; in place."""
        if self.size > 1:
            from torch import distributed as dist

            dist.all_reduce(numbers)
        return numbers

    def spread(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process rank 0's values, in place."""
        if self.size > 1:
            from torch import distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def said_by_all(self, word: T) -> list[T]:
        """What each process says, by rank, on each."""
        if self.size == 1:
            return [word]
        from torch import distributed as dist

        words: list[T] = [word] * self.size
        dist.all_gather_object(words, word)
        return words

    def first_word(self, word: str | None) -> str | None:
        """What the first process that has something to say says, on each."""
        return next((said for said in self.said_by_all(word) if said is not None), None)


ALONE = World()
