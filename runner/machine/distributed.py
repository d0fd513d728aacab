"""The processes that train a run together: who they are, and what they tell each other.

Torch is imported when they meet: who merely starts them has no use for it.
"""

from __future__ import annotations

import gc
import time
from collections.abc import Iterable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, TypeVar

from roadmap.files import write_atomic

if TYPE_CHECKING:
    from torch import Tensor
    from torch.distributed import TCPStore  # type: ignore[attr-defined]

T = TypeVar("T")
ADDRESS = "address://"
MEETING_SECONDS = 600  # tasks of one job may be started minutes apart


class RendezvousError(ValueError):
    """The processes of a run did not come together; once more they may."""


@dataclass(frozen=True)
class World:
    """One process among those that train a run, one a device. Alone, where nothing else is said."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # on its machine: the number of its GPU
    init_method: str = ""  # where they meet: torch.distributed's init_method, or address:// and a file for rank 0's address
    cores: int | None = None  # that this process has for itself, where it is known
    host: str = ""  # rank 0's, where the meeting is a file for its address

    @contextmanager
    def joined(self, device: str) -> Iterator[None]:
        """Connected to the others, over NCCL from GPUs and gloo from CPUs. Raises RendezvousError."""
        import torch
        import torch.distributed.nn  # now, or DDP does later: its functions keep the group as a default, never freed
        from torch import distributed as dist

        if device == "cuda":
            # Where a launcher shows each process its own GPU alone, that is number 0.
            torch.cuda.set_device(self.local_rank if torch.cuda.device_count() > 1 else 0)
        if self.size > 1:
            backend = "nccl" if device == "cuda" else "gloo"
            try:
                if self.init_method.startswith(ADDRESS):
                    store = self._store(Path(self.init_method.removeprefix(ADDRESS)))
                    dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size)
                else:
                    dist.init_process_group(backend, init_method=self.init_method, rank=self.rank, world_size=self.size)
            except (RuntimeError, TimeoutError) as error:
                reason = str(error).splitlines()[0]
                raise RendezvousError(f"the {self.size} processes do not meet at {self.init_method}: {reason}") from None
        yield
        # Not after an error: the others may never come to it.
        if self.size > 1:
            dist.destroy_process_group()
            # Gloo's threads end with the group's last reference. One that frees a tensor while the interpreter shuts
            # down aborts the process (pytorch/pytorch#179291).
            gc.collect()

    def _store(self, address: Path) -> TCPStore:
        """What they meet by: at a port that is free on rank 0's host, so that no two jobs ever share one.

        Rank 0 leaves its address in a file that all can see.
        """
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        if self.rank == 0:
            store = TCPStore(self.host, 0, self.size, is_master=True, wait_for_workers=False)
            write_atomic(address, f"{self.host} {store.port}".encode())
            return store
        deadline = time.monotonic() + MEETING_SECONDS
        while not address.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"rank 0 left no address for {MEETING_SECONDS} s")
            time.sleep(0.1)
        host, port = address.read_text().split()
        return TCPStore(host, int(port), self.size, is_master=False)

    def all_reduce(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, on each; in place."""
        if self.size > 1:
            from torch import distributed as dist

            dist.all_reduce(numbers)
        return numbers

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Gives every process rank 0's values, in place."""
        if self.size > 1:
            from torch import distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def all_gather(self, word: T) -> list[T]:
        """What each process says, by rank, on each."""
        if self.size == 1:
            return [word]
        from torch import distributed as dist

        words: list[T] = [word] * self.size
        dist.all_gather_object(words, word)
        return words

    def first_not_none(self, word: str | None) -> str | None:
        """What the first process that has something to say says, on each."""
        return next((said for said in self.all_gather(word) if said is not None), None)


SINGLE_PROCESS = World()
