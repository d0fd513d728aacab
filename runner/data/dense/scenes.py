"""Scenes of digits: scikit-learn's scans on textured ground, with clutter, occlusion, tint and crowds.

A scene depends on nothing but its split and its index. Scenes for training use training scans only.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, Literal

import cv2
import numpy as np
from numpy.typing import NDArray

SIDE = 64  # pixels
DIGITS = 10
EMPTY = 0.2  # share of the scenes without objects
CROWDED = 0.15  # share of the scenes with digits that have a crowd
MOST_OBJECTS = 3
OBJECT_SIDE = (28, 39)  # pixels, before the scan's own margins are cut off
CROWD_SIDE = 10  # pixels of a digit of a crowd
LEAST_VISIBLE = 0.4  # share of its pixels below which a covered digit is no object
INK = 0.3  # opacity from which a pixel belongs to a digit

Split = Literal["train", "test"]
Pixels = NDArray[np.uint8]  # H x W x 3
Mask = NDArray[np.bool_]  # H x W


@dataclass(frozen=True)
class Thing:
    """A digit of a scene, or a crowd of digits."""

    label: int  # the digit; of a crowd, that of all its digits
    mask: Mask  # its visible pixels
    crowd: bool = False


@dataclass(frozen=True)
class Scene:
    image: Pixels
    things: tuple[Thing, ...]


def make_scene(scans: Pixels, labels: NDArray[np.int64], split: Split, index: int) -> Scene:
    """The scene with that index, composed of scans (N x 8 x 8, uint8) with their labels (N)."""
    draw = np.random.default_rng([{"train": 0, "test": 1}[split], index])
    canvas = _ground(draw)
    _add_clutter(canvas, draw)
    layers: list[tuple[int, NDArray[np.float32], bool]] = []
    if draw.random() >= EMPTY:
        if draw.random() < CROWDED:
            layers.append(_crowd(scans, labels, draw))
        for _ in range(draw.integers(1, MOST_OBJECTS + 1)):
            layers.append(_digit(scans, labels, draw))
    drawn: list[tuple[int, Mask, bool]] = []
    for label, alpha, crowd in layers:
        _paint(canvas, alpha, draw)
        ink = alpha > INK
        drawn = [(other, mask & ~ink, was_crowd) for other, mask, was_crowd in drawn]
        drawn.append((label, ink, crowd))
    whole = [int((alpha > INK).sum()) for _, alpha, _ in layers]
    things = [
        Thing(label, mask, crowd)
        for (label, mask, crowd), area in zip(drawn, whole, strict=True)
        if mask.sum() >= max(1, LEAST_VISIBLE * area)
    ]
    noise = draw.normal(0, 4, canvas.shape)
    image = np.clip(canvas + noise, 0, 255).round().astype(np.uint8)
    return Scene(image, tuple(things))


def _ground(draw: np.random.Generator) -> NDArray[np.float32]:
    """A smooth texture of two colours with stripes."""
    coarse = draw.random((draw.integers(2, 7), draw.integers(2, 7))).astype(np.float32)
    texture = cv2.resize(coarse, (SIDE, SIDE), interpolation=cv2.INTER_CUBIC)[..., None]
    colours = draw.uniform(0, 60, (2, 3)).astype(np.float32)
    y, x = np.mgrid[:SIDE, :SIDE].astype(np.float32)
    angle, wave = draw.uniform(0, np.pi), draw.uniform(4, 16)
    stripes = np.sin((x * np.cos(angle) + y * np.sin(angle)) * 2 * np.pi / wave)[..., None]
    ground: NDArray[np.float32] = colours[0] + (colours[1] - colours[0]) * texture
    ground += np.float32(draw.uniform(0, 12)) * stripes.astype(np.float32)
    return ground


def _add_clutter(canvas: NDArray[np.float32], draw: np.random.Generator) -> None:
    """Lines, ellipses and boxes, which are no objects."""
    for _ in range(draw.integers(0, 4)):
        colour = tuple(map(float, draw.uniform(20, 110, 3)))
        (x0, y0, x1, y1), width = map(int, draw.integers(0, SIDE, 4)), int(draw.integers(1, 3))
        shape = draw.integers(3)
        if shape == 0:
            cv2.line(canvas, (x0, y0), (x1, y1), colour, width)
        elif shape == 1:
            axes = int(draw.integers(3, 12)), int(draw.integers(3, 12))
            cv2.ellipse(
                canvas, (x0, y0), axes, float(draw.uniform(0, 180)), 0, float(draw.uniform(60, 360)), colour, width
            )
        else:
            cv2.rectangle(canvas, (x0, y0), (x0 + x1 // 5, y0 + y1 // 5), colour, width)


def _stamp(scan: Pixels, side: tuple[int, int]) -> NDArray[np.float32]:
    """A scan's opacity, scaled, without its empty margins."""
    wide: Any = cv2.resize(np.pad(scan, 1).astype(np.float32) / 255, side[::-1], interpolation=cv2.INTER_CUBIC)
    ink = wide > INK
    rows, columns = np.flatnonzero(ink.any(1)), np.flatnonzero(ink.any(0))
    if not len(rows):
        return np.zeros((1, 1), np.float32)
    stamp: NDArray[np.float32] = np.clip(wide[rows[0] : rows[-1] + 1, columns[0] : columns[-1] + 1], 0, 1)
    return stamp.astype(np.float32)


def _placed(stamp: NDArray[np.float32], top: int, left: int) -> NDArray[np.float32]:
    """A stamp on a scene of nothing; what is beyond the border is cut off."""
    alpha = np.zeros((SIDE, SIDE), np.float32)
    y, x = max(top, 0), max(left, 0)
    part = stamp[y - top :, x - left :][: SIDE - y, : SIDE - x]
    alpha[y : y + part.shape[0], x : x + part.shape[1]] = part
    return alpha


def _digit(
    scans: Pixels, labels: NDArray[np.int64], draw: np.random.Generator
) -> tuple[int, NDArray[np.float32], bool]:
    which = draw.integers(len(scans))
    height = draw.integers(*OBJECT_SIDE)
    stamp = _stamp(scans[which], (int(height), int(height * draw.uniform(0.9, 1.1))))
    # Up to a quarter of a digit is beyond the border.
    rows, columns = stamp.shape
    top = draw.integers(-rows // 4, SIDE - 3 * rows // 4)
    left = draw.integers(-columns // 4, SIDE - 3 * columns // 4)
    return int(labels[which]), _placed(stamp, int(top), int(left)), False


def _crowd(
    scans: Pixels, labels: NDArray[np.int64], draw: np.random.Generator
) -> tuple[int, NDArray[np.float32], bool]:
    """Small digits of one kind side by side."""
    label = int(draw.integers(DIGITS))
    of_label = np.flatnonzero(labels == label)
    rows, columns = draw.integers(2, 4, 2)
    top, left = (int(draw.integers(0, SIDE - CROWD_SIDE * count + 1)) for count in (rows, columns))
    alpha = np.zeros((SIDE, SIDE), np.float32)
    for row in range(rows):
        for column in range(columns):
            stamp = _stamp(scans[draw.choice(of_label)], (CROWD_SIDE, CROWD_SIDE))
            alpha = np.maximum(alpha, _placed(stamp, top + CROWD_SIDE * row, left + CROWD_SIDE * column))
    return label, alpha, True


def _paint(canvas: NDArray[np.float32], alpha: NDArray[np.float32], draw: np.random.Generator) -> None:
    """Paints in a light tint: the ground is darker."""
    tint = draw.uniform(180, 255, 3)
    canvas += alpha[..., None] * (tint.astype(np.float32) - canvas)
