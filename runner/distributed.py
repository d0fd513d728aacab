"""The processes that train a run together: who they are, and what they tell each other.

Torch is imported when they meet: who merely starts them has no use for it.
"""

from __future__ import annotations

import os
import subprocess
from collections.abc import Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from typing import TYPE_CHECKING

from runner.machine import available_cores

if TYPE_CHECKING:
    from torch import Tensor

PORTS = range(20_000, 60_000)  # one of them by the Slurm job's and step's numbers


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
        """In touch with the others: over NCCL from GPUs, over gloo from CPUs."""
        import torch
        from torch import distributed as dist

        if device == "cuda":
            torch.cuda.set_device(self.local_rank)
        if self.size == 1:
            yield
            return
        backend = "nccl" if device == "cuda" else "gloo"
        dist.init_process_group(backend, init_method=self.meeting, rank=self.rank, world_size=self.size)
        try:
            yield
        finally:
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

    def first_word(self, word: str | None) -> str | None:
        """What the first process that has something to say says, on each."""
        if self.size == 1:
            return word
        from torch import distributed as dist

        words: list[str | None] = [None] * self.size
        dist.all_gather_object(words, word)
        return next((said for said in words if said is not None), None)


ALONE = World()


def world_of_environment(environment: Mapping[str, str] = os.environ) -> World | None:
    """This process's place as torchrun or a Slurm job step of several tasks has it; None where it is on its own."""
    if {"RANK", "WORLD_SIZE", "LOCAL_RANK", "MASTER_ADDR"} <= environment.keys():
        rank, size, local = (int(environment[name]) for name in ("RANK", "WORLD_SIZE", "LOCAL_RANK"))
        cores = available_cores() // int(environment.get("LOCAL_WORLD_SIZE", size))
        return World(rank, size, local, "env://", max(1, cores))
    # A batch script has SLURM_PROCID too, but is no step of tasks.
    if int(environment.get("SLURM_STEP_NUM_TASKS", "1")) > 1:
        names = ("SLURM_PROCID", "SLURM_STEP_NUM_TASKS", "SLURM_LOCALID")
        rank, size, local = (int(environment[name]) for name in names)
        job, step = int(environment["SLURM_JOB_ID"]), int(environment["SLURM_STEP_ID"])
        port = PORTS[(job * 101 + step) % len(PORTS)]  # jobs that share a machine have neighbouring numbers
        host = _first_host(environment["SLURM_STEP_NODELIST"])
        return World(rank, size, local, f"tcp://{host}:{port}", int(environment.get("SLURM_CPUS_PER_TASK", "1")))
    return None


def _first_host(nodes: str) -> str:
    """Of Slurm's notation, such as node[03-04,07]."""
    if "[" not in nodes:
        return nodes.split(",")[0]
    listed = subprocess.run(["scontrol", "show", "hostnames", nodes], check=True, capture_output=True, text=True)
    return listed.stdout.split()[0]
