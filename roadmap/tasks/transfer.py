"""What makes a run a transfer: its task, and where its weights begin."""

from __future__ import annotations

from dataclasses import dataclass, field, replace
from typing import Any, Literal

Frozen = Literal["none", "stem", "all"]
SCRATCH = "scratch"
RUN, AVERAGED_RUN, FILE = "run-", "ema-", "file-"  # before the identity of a run, or the hash of a file


@dataclass(frozen=True)
class Transfer:
    """The part of a run that other runs don't have. The design and the recipe are in its experiment."""

    task: str  # an entry of TASKS
    weights: str = SCRATCH  # scratch, run-IDENTITY, ema-IDENTITY (of the averaged weights), or file-HASH
    origin: str = ""  # of the weights of a run: its identity with seed 0, the same for all seeds
    frozen: Frozen = "none"  # part of the backbone that is not trained
    options: dict[str, Any] = field(default_factory=dict)  # of the task, all of them

    @property
    def source(self) -> str | None:
        """The identity of the run that it begins with; None for other weights."""
        prefix, dash, identity = self.weights.partition("-")
        return identity if f"{prefix}{dash}" in (RUN, AVERAGED_RUN) else None

    @property
    def of_any_seed(self) -> Transfer:
        """The same, begun from the same experiment with seed 0."""
        source = self.source
        return self if source is None else replace(self, weights=self.weights.replace(source, self.origin))

    @property
    def label(self) -> str:
        """In names of runs: what it does, and how it differs from the usual transfer."""
        parts = [self.task]
        parts += [SCRATCH] if self.weights == SCRATCH else []
        parts += ["ema"] if self.weights.startswith(AVERAGED_RUN) else []
        parts += ["file"] if self.weights.startswith(FILE) else []
        parts += [f"frozen-{self.frozen}"] if self.frozen != "none" else []
        return "-".join(parts)
