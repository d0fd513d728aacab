"""A folder of photographs with ImageNet's average size, made from the two that come with scikit-learn."""

from __future__ import annotations

import io
import random
from pathlib import Path

from PIL import Image
from sklearn.datasets import load_sample_image

SIZE, BYTES = (500, 375), 55_000


def write_photographs(folder: Path, count: int, classes: int = 2) -> None:
    """Writes `count` JPEGs in train/ and two of each class in val/: parts of the pictures, 500 x 375, about 55 KB."""
    pictures = [Image.fromarray(load_sample_image(name)) for name in ("china.jpg", "flower.jpg")]
    draw = random.Random(0)
    for split, images in (("train", count), ("val", 2 * classes)):
        for index in range(images):
            path = folder / split / f"class-{index % classes}" / f"{index:05}.jpg"
            path.parent.mkdir(parents=True, exist_ok=True)
            path.write_bytes(_encoded(_part(pictures[index % 2], draw)))


def _part(picture: Image.Image, draw: random.Random) -> Image.Image:
    width = draw.randint(400, 560)
    height = round(width * SIZE[1] / SIZE[0])
    left, top = draw.randint(0, picture.width - width), draw.randint(0, picture.height - height)
    return picture.resize(SIZE, Image.Resampling.BICUBIC, box=(left, top, left + width, top + height))


def _encoded(image: Image.Image) -> bytes:
    """A JPEG with the quality whose size is nearest to BYTES."""
    low, high, best = 40, 98, b""
    while low <= high:
        quality = (low + high) // 2
        file = io.BytesIO()
        image.save(file, "JPEG", quality=quality)
        if abs(file.tell() - BYTES) <= abs(len(best) - BYTES):
            best = file.getvalue()
        low, high = (quality + 1, high) if file.tell() < BYTES else (low, quality - 1)
    return best
