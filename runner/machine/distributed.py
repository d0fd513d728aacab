"""The processes that train a run together: their ranks, and the collective operations between them.

Torch is imported when they connect: a launcher that only starts them does not need it.
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
RENDEZVOUS_SECONDS = 600  # the tasks of a job may start minutes apart


class RendezvousError(ValueError):
    """The processes of a run did not connect. Another attempt may succeed."""


@dataclass(frozen=True)
class World:
    """One of the processes that train a run, one per device. By default the only one."""

    rank: int = 0
    size: int = 1
    local_rank: int = 0  # rank within the machine: the number of its GPU
    init_method: str = ""  # as in torch.distributed, or address:// and the path of a file with rank 0's address
    cores: int | None = None  # reserved for this process; None: unknown
    host: str = ""  # of rank 0; only used with address://

    @contextmanager
    def joined(self, device: str, backend: str | None = None) -> Iterator[None]:
        """Connects the processes, by default over NCCL on GPUs and gloo on CPUs. Raises RendezvousError."""
        import torch
        import torch.distributed.nn  # now, or DDP does later: its functions keep the group as a default, never freed
        from torch import distributed as dist

        if device == "cuda":
            # If the launcher makes only one GPU visible to each process, its number is 0.
            torch.cuda.set_device(self.local_rank if torch.cuda.device_count() > 1 else 0)
        if self.size > 1:
            backend = backend or ("nccl" if device == "cuda" else "gloo")
            try:
                if self.init_method.startswith(ADDRESS):
                    store = self._store(Path(self.init_method.removeprefix(ADDRESS)))
                    dist.init_process_group(backend, store=store, rank=self.rank, world_size=self.size)
                else:
                    dist.init_process_group(backend, init_method=self.init_method, rank=self.rank, world_size=self.size)
            except (RuntimeError, TimeoutError) as error:
                reason = str(error).splitlines()[0]
                raise RendezvousError(f"{self.size} processes did not connect ({self.init_method}): {reason}") from None
        yield
        # Not after an error: the other processes may never reach this call.
        if self.size > 1:
            dist.destroy_process_group()
            # Gloo's threads end with the group's last reference. One that frees a tensor while the interpreter shuts
            # down aborts the process (pytorch/pytorch#179291).
            gc.collect()

    def _store(self, address: Path) -> TCPStore:
        """The store at a free port of rank 0's host, so that two jobs never share a port.

        Rank 0 writes its address to a file that all processes can read.
        """
        from torch.distributed import TCPStore  # type: ignore[attr-defined]

        if self.rank == 0:
            store = TCPStore(self.host, 0, self.size, is_master=True, wait_for_workers=False)
            write_atomic(address, f"{self.host} {store.port}".encode())
            return store
        deadline = time.monotonic() + RENDEZVOUS_SECONDS
        while not address.exists():
            if time.monotonic() > deadline:
                raise TimeoutError(f"rank 0 wrote no address within {RENDEZVOUS_SECONDS} s")
            time.sleep(0.1)
        host, port = address.read_text().split()
        return TCPStore(host, int(port), self.size, is_master=False)

    def all_reduce(self, numbers: Tensor) -> Tensor:
        """The sum over all processes, in place. Every process gets it."""
        if self.size > 1:
            from torch import distributed as dist

            dist.all_reduce(numbers)
        return numbers

    def broadcast(self, tensors: Iterable[Tensor]) -> None:
        """Copies rank 0's values to every process, in place."""
        if self.size > 1:
            from torch import distributed as dist

            for tensor in tensors:
                dist.broadcast(tensor, src=0)

    def all_gather(self, value: T) -> list[T]:
        """The values of all processes, by rank. Every process gets them."""
        if self.size == 1:
            return [value]
        from torch import distributed as dist

        values: list[T] = [value] * self.size
        dist.all_gather_object(values, value)
        return values

    def first_not_none(self, value: str | None) -> str | None:
        """The value of the first rank whose value is not None. Every process gets it."""
        return next((value for value in self.all_gather(value) if value is not None), None)


SINGLE_PROCESS = World()
