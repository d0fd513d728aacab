"""Random numbers that depend only on their purpose, not on the numbers drawn before.

So a run that is interrupted and resumed draws the same numbers as an uninterrupted one, and no state is stored.
"""

from __future__ import annotations

import hashlib
import random

import numpy as np
import torch


def seed_for(*purpose: int | str) -> int:
    """A seed of 63 bits for a purpose, such as (run's seed, "augment", epoch)."""
    digest = hashlib.blake2b(repr(purpose).encode(), digest_size=8).digest()
    return int.from_bytes(digest, "big") >> 1


def generator_for(*purpose: int | str) -> torch.Generator:
    return torch.Generator().manual_seed(seed_for(*purpose))


def seed_globally(seed: int) -> None:
    """Seeds the global generators of Python, NumPy and torch, which timm, torchvision and networks draw from.

    torch.manual_seed is not used: if CUDA is built in but not initialized, it takes a millisecond and queues every
    call until CUDA is initialized.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
