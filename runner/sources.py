"""The data sets that the runner can read, by name. Importing this costs nothing: loading imports what it needs."""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass
from importlib.metadata import files
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


# Gives (training, test) for an image size in pixels.
Source = Callable[[int], tuple[Split, Split]]


def source(name: str) -> Source:
    """The data set of that name. Raises ValueError where this version can't read it."""
    if name not in SOURCES:
        raise ValueError(f"data set {name!r} can't be read by this version; {choices(SOURCES, name)} (--data NAME)")
    return SOURCES[name]


def _digits(image_size: int) -> tuple[Split, Split]:
    """scikit-learn's 1,797 scans of handwritten digits; every fourth scan of each digit is held out.

    Read from the package's file: importing scikit-learn for it costs each process a second and 75 MiB.
    """
    import numpy as np
    import torch
    from torch.nn import functional as F

    (path,) = (file.locate() for file in files("scikit-learn") or () if file.name == "digits.csv.gz")
    table = torch.from_numpy(np.loadtxt(str(path), delimiter=",", dtype=np.float32))
    labels = table[:, -1].long()
    images = table[:, :-1].view(-1, 1, 8, 8) * (255 / 16)
    images = F.interpolate(images, size=image_size, mode="bilinear", align_corners=False).round().to(torch.uint8)
    scans_so_far = F.one_hot(labels).cumsum(0)[torch.arange(len(labels)), labels]
    held_out = scans_so_far % 4 == 1
    return Split(images[~held_out], labels[~held_out]), Split(images[held_out], labels[held_out])


def load_data(run: Run) -> tuple[Split, Split]:
    """A run's training and test images. Raises ValueError where there are not as many as the study says."""
    splits = source(run.data)(run.experiment.recipe.image_size)
    found, said = tuple(map(len, splits)), (run.dataset.train_images, run.dataset.test_images)
    if found != said:
        raise ValueError(f"data set {run.data!r} has {found} training and test images, ablations.yaml says {said}")
    return splits


SOURCES: dict[str, Source] = {"digits": _digits}


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
