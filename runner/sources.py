"""The data sets that the runner can read, by name. Importing this costs nothing: loading imports what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

from roadmap.plain import choices
from roadmap.record import Run

if TYPE_CHECKING:
    from torch import Tensor


@dataclass(frozen=True)
class Split:
    images: Tensor  # uint8, N x C x H x W; C is 1 or 3
    labels: Tensor  # int64, N

    def __len__(self) -> int:
        return len(self.labels)


@dataclass(frozen=True)
class Source:
    """A data set that can be trained on."""

    load: Callable[[int], tuple[Split, Split]]  # the image size in pixels to (training, test)
    modules: tuple[str, ...]  # what loading imports, for a launcher that imports once for many runs


def source(name: str) -> Source:
    """The data set of that name. Raises ValueError where this version can't read it."""
    if name not in SOURCES:
        raise ValueError(f"data set {name!r} can't be read by this version; {choices(SOURCES, name)} (--data NAME)")
    return SOURCES[name]


def _digits(image_size: int) -> tuple[Split, Split]:
    """scikit-learn's 1,797 scans of handwritten digits; a quarter of each digit's scans is held out."""
    import numpy as np
    import torch
    from sklearn.datasets import load_digits
    from sklearn.model_selection import train_test_split
    from torch.nn import functional as F

    digits = load_digits()
    images = torch.from_numpy(digits.images).float().unsqueeze(1) * (255 / 16)
    images = F.interpolate(images, size=image_size, mode="bilinear", align_corners=False).round().to(torch.uint8)
    labels = torch.from_numpy(digits.target)
    train, test = train_test_split(np.arange(len(labels)), test_size=450, stratify=digits.target, random_state=0)
    return Split(images[train], labels[train]), Split(images[test], labels[test])


SOURCES = {"digits": Source(_digits, ("sklearn.datasets", "sklearn.model_selection"))}


def check_trainable(run: Run) -> None:
    """Raises ValueError where the runner does not do what the run's recipe or data ask."""
    recipe = run.experiment.recipe
    source(run.data)
    if recipe.randaugment is not None:
        raise ValueError(
            f"{run.name}: recipe.randaugment {recipe.randaugment!r} is not done by this version; "
            "--set recipe.randaugment=null trains without it"
        )
    if recipe.batch_size > run.dataset.train_images:
        raise ValueError(
            f"{run.name}: recipe.batch_size {recipe.batch_size} is more than the {run.dataset.train_images} training "
            f"images of {run.data}; --set recipe.batch_size=64 fits"
        )
