"""Made-up images, in folders as users have them."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path

from PIL import Image


def make_folder(
    root: Path,
    splits: Sequence[str] = ("train", "val"),
    classes: Sequence[str] = ("ant", "bee"),
    images: int = 2,
) -> Path:
    """SPLIT/CLASS/NUMBER.jpg, all of one colour each."""
    for split in splits:
        (root / split).mkdir(parents=True)
        for name in classes:
            (root / split / name).mkdir()
            for i in range(images):
                Image.new("RGB", (20 + i, 16), (10 * i, 0, 0)).save(root / split / name / f"{i}.jpg")
    return root
