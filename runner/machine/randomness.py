"""Random numbers that depend on what they are for alone, not on what was drawn before.

So a run that is interrupted anywhere and goes on draws what an undisturbed one would, and no state is to be kept.
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

    torch.manual_seed costs a millisecond where CUDA is built in but not in use, and puts every call aside for
    the day that it is.
    """
    random.seed(seed)
    np.random.seed(seed % 2**32)
    torch.default_generator.manual_seed(seed)
    if torch.cuda.is_initialized():
        torch.cuda.manual_seed_all(seed)
