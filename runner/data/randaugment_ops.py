"""RandAugment's operations on arrays, in a third of the time of timm's, which use Pillow.

Each takes an image, uint8, H x W x 3, and returns one with the same shape, within about a grey level of Pillow's. timm
still draws the operations and their magnitudes.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
from PIL.Image import Resampling
from timm.data import auto_augment

Array = npt.NDArray[np.uint8]

LEVELS = np.arange(256)
FILTERS = {Resampling.BILINEAR: cv2.INTER_LINEAR, Resampling.BICUBIC: cv2.INTER_CUBIC}
LUMA = np.array([0.299, 0.587, 0.114])  # of red, green and blue in Pillow's grey (ITU-R 601)
SMOOTH = np.array([[1, 1, 1], [1, 5, 1], [1, 1, 1]]) / 13  # Pillow's ImageFilter.SMOOTH
# In blending, OpenCV rounds and Pillow truncates; subtracting this makes OpenCV truncate. It is less than 0.5, so that
# an unchanged colour stays unchanged.
TRUNCATION = 0.499


def _look_up(image: Array, table: npt.NDArray[Any]) -> Array:
    """Maps levels by a table of 256, or of 256 x 3 with a column for each channel; clipped to 0 and 255."""
    table = table.clip(0, 255).astype(np.uint8)
    return np.asarray(cv2.LUT(image, table if table.ndim == 1 else table[None]), np.uint8)


def _histograms(image: Array) -> npt.NDArray[np.int64]:
    """The histogram of each channel, 256 x 3."""
    channels = [cv2.calcHist([image], [channel], None, [256], [0, 256]) for channel in range(3)]
    return np.stack(channels, axis=-1).reshape(256, 3).astype(np.int64)


def auto_contrast(image: Array, **_: Any) -> Array:
    """Each channel's darkest level becomes 0 and its lightest 255."""
    occurs = _histograms(image) > 0
    low, high = occurs.argmax(0), 255 - occurs[::-1].argmax(0)
    width = np.maximum(high - low, 1)
    table = np.where(high > low, ((LEVELS[:, None] - low) * (255 / width)).astype(np.int64), LEVELS[:, None])
    return _look_up(image, table)


def equalize(image: Array, **_: Any) -> Array:
    """Maps each channel's levels so that all are about equally frequent."""
    counts = _histograms(image)
    lightest = counts[255 - (counts[::-1] > 0).argmax(0), range(3)]
    step = (counts.sum(0) - lightest) // 255
    below = counts.cumsum(0) - counts
    table = np.where(step > 0, (step // 2 + below) // np.maximum(step, 1), LEVELS[:, None])
    return _look_up(image, table)


def invert(image: Array, **_: Any) -> Array:
    return 255 - image


def posterize(image: Array, bits_to_keep: int, **_: Any) -> Array:
    """With 0 bits or fewer the image becomes black."""
    return image & np.uint8(256 - 2 ** (8 - min(max(bits_to_keep, 0), 8)))


def solarize(image: Array, threshold: int, **_: Any) -> Array:
    return _look_up(image, np.where(threshold > LEVELS, LEVELS, 255 - LEVELS))


def solarize_add(image: Array, add: int, threshold: int = 128, **_: Any) -> Array:
    return _look_up(image, np.where(threshold > LEVELS, LEVELS + add, LEVELS))


def brightness(image: Array, factor: float, **_: Any) -> Array:
    return _look_up(image, factor * LEVELS)


def contrast(image: Array, factor: float, **_: Any) -> Array:
    """Moves levels away from the mean grey of the image, or towards it."""
    mean = int(cv2.mean(cv2.cvtColor(image, cv2.COLOR_RGB2GRAY))[0] + 0.5)
    return _look_up(image, mean + factor * (LEVELS - mean))


def color(image: Array, factor: float, **_: Any) -> Array:
    """Moves colours away from each pixel's grey, or towards it."""
    blend = factor * np.eye(3) + (1 - factor) * LUMA
    return np.asarray(cv2.transform(image, np.column_stack((blend, [-TRUNCATION] * 3))), np.uint8)


def sharpness(image: Array, factor: float, **_: Any) -> Array:
    """Moves pixels away from the smoothed image, or towards it; the outermost pixels are unchanged."""
    kernel = (1 - factor) * SMOOTH
    kernel[1, 1] += factor
    result = np.asarray(cv2.filter2D(image, -1, kernel, delta=-TRUNCATION), np.uint8)
    for edge in (np.s_[0], np.s_[-1], np.s_[:, 0], np.s_[:, -1]):
        result[edge] = image[edge]
    return result


def _affine(image: Array, matrix: tuple[float, ...], resample: Resampling, fillcolor: tuple[int, ...]) -> Array:
    """As Pillow's Image.transform: `matrix` maps a position in the result to one in the image.

    At whole numbers Pillow has the corners of pixels, OpenCV their centres.
    """
    a, b, c, d, e, f = matrix
    centred = np.array([[a, b, c + (a + b - 1) / 2], [d, e, f + (d + e - 1) / 2]])
    flags = FILTERS[resample] | cv2.WARP_INVERSE_MAP
    size = image.shape[1::-1]
    return np.asarray(cv2.warpAffine(image, centred, size, flags=flags, borderValue=fillcolor), np.uint8)


def rotate(image: Array, degrees: float, **options: Any) -> Array:
    """Rotates about the centre."""
    y, x = image.shape[0] / 2, image.shape[1] / 2
    cos, sin = math.cos(math.radians(degrees)), math.sin(math.radians(degrees))
    return _affine(image, (cos, -sin, x - cos * x + sin * y, sin, cos, y - sin * x - cos * y), **options)


def shear_x(image: Array, factor: float, **options: Any) -> Array:
    return _affine(image, (1, factor, 0, 0, 1, 0), **options)


def shear_y(image: Array, factor: float, **options: Any) -> Array:
    return _affine(image, (1, 0, 0, factor, 1, 0), **options)


def translate_x(image: Array, share: float, **options: Any) -> Array:
    return _shifted(image, share * image.shape[1], axis=1, **options)


def translate_y(image: Array, share: float, **options: Any) -> Array:
    return _shifted(image, share * image.shape[0], axis=0, **options)


def _shifted(image: Array, pixels: float, axis: int, resample: Resampling, fillcolor: tuple[int, ...]) -> Array:
    """A translation, in a fifth of _affine's time: a filter along the axis, and a shift by whole pixels."""
    if axis == 1:
        transposed = _shifted(np.asarray(cv2.transpose(image), np.uint8), pixels, 0, resample, fillcolor)
        return np.asarray(cv2.transpose(transposed), np.uint8)
    whole, part = divmod(pixels, 1)
    padded = cv2.copyMakeBorder(image, 1, 0, 0, 0, cv2.BORDER_REPLICATE)  # for half a pixel that lies outside
    filtered = cv2.filter2D(
        padded, -1, _weights(part, resample), anchor=(0, 1), delta=-TRUNCATION, borderType=cv2.BORDER_REPLICATE
    )
    # The rows of the image that give rows of the result: their positions are less than half a pixel outside it.
    first, last = (-1, len(image) - 2) if part >= 0.5 else (0, len(image) - 1)
    top, bottom = max(0, first - int(whole)), min(len(image) - 1, last - int(whole))
    if top > bottom:
        return np.full_like(image, fillcolor)
    visible = filtered[top + int(whole) + 1 : bottom + int(whole) + 2]
    borders = (top, len(image) - 1 - bottom, 0, 0)
    return np.asarray(cv2.copyMakeBorder(visible, *borders, cv2.BORDER_CONSTANT, value=fillcolor), np.uint8)


def _weights(part: float, resample: Resampling) -> npt.NDArray[np.float64]:
    """The weights of pixels -1, 0, 1 and 2 at a position between 0 and 1. Pillow's cubic has slope -1."""
    if resample == Resampling.BILINEAR:
        weights = [0, 1 - part, part, 0]
    else:
        middle = 1 + part * (1 - part)
        weights = [-part * (1 - part) ** 2, (1 - part) * middle, part * middle, -(part**2) * (1 - part)]
    return np.array(weights)[:, None]


ON_ARRAYS: dict[Callable[..., Any], Callable[..., Array]] = {
    auto_augment.auto_contrast: auto_contrast,
    auto_augment.equalize: equalize,
    auto_augment.invert: invert,
    auto_augment.posterize: posterize,
    auto_augment.solarize: solarize,
    auto_augment.solarize_add: solarize_add,
    auto_augment.brightness: brightness,
    auto_augment.contrast: contrast,
    auto_augment.color: color,
    auto_augment.sharpness: sharpness,
    auto_augment.rotate: rotate,
    auto_augment.shear_x: shear_x,
    auto_augment.shear_y: shear_y,
    auto_augment.translate_x_rel: translate_x,
    auto_augment.translate_y_rel: translate_y,
}
