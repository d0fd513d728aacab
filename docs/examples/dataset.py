"""A data set of your own: noisy stripes in four directions, drawn here; most others read files of `path`.

roadmap run --data stripes --plugin docs/examples/dataset.py
"""

from pathlib import Path

import roadmap

TRAIN, TEST = 1600, 400  # images
STRIPES = roadmap.Dataset(
    classes=4, train_images=TRAIN, test_images=TEST, mean=(0.5,) * 3, std=(0.31,) * 3,
    recipe={"horizontal_flip": 0.0},  # which exchanges the two diagonals
)  # fmt: skip


@roadmap.dataset("stripes", STRIPES, class_names=["across", "rising", "down", "falling"])
def read_stripes(path: Path | None):
    """Images N x 1 x 16 x 16 and labels, for training and held out; `path` is that of --data stripes=PATH."""
    import numpy as np

    random = np.random.default_rng(0)
    labels = random.integers(4, size=TRAIN + TEST)
    angle, phase = labels * np.pi / 4, random.uniform(0, 2 * np.pi, TRAIN + TEST)
    y, x = np.mgrid[:16, :16][..., None]
    waves = np.sin(x * np.sin(angle) + y * np.cos(angle) + phase) / 3 + random.normal(0, 0.2, (16, 16, TRAIN + TEST))
    images = np.clip(255 * (waves + 0.5), 0, 255).astype(np.uint8).transpose(2, 0, 1)[:, None]
    return (images[:TRAIN], labels[:TRAIN]), (images[TRAIN:], labels[TRAIN:])
