"""The augmentation on arrays against timm's own, which is Pillow's: the same draws, and the same images nearly."""

from __future__ import annotations

import io
import random
from collections import Counter, defaultdict

import numpy as np
import pytest
import torch
from PIL import Image
from sklearn.datasets import load_sample_image
from timm.data import auto_augment

from roadmap.study.load import load_study
from runner.data.image import EncodedImage
from runner.data.randaugment_ops import ON_ARRAYS
from runner.data.transforms import ArrayTransform, PillowTransform, training_transform
from runner.machine.randomness import seed_globally
from tests.helpers.designs import recipe_of

IMAGENET = load_study().dataset("imagenet")
HOW = {"resample": Image.Resampling.BICUBIC, "fillcolor": (124, 116, 104)}
INCREASING = auto_augment._RAND_INCREASING_TRANSFORMS
ALL = sorted({*INCREASING, *auto_augment._RAND_TRANSFORMS} - {"Posterize"})
GEOMETRIC = ["Rotate", "ShearX", "ShearY", "TranslateXRel", "TranslateYRel"]
ENHANCING = ["BrightnessIncreasing", "ColorIncreasing", "ContrastIncreasing", "SharpnessIncreasing"]


@pytest.fixture(scope="module")
def photograph():
    """A natural image, 640 x 427 pixels."""
    return Image.fromarray(load_sample_image("flower.jpg"))


def difference(image, name, arguments, options=HOW):
    """Of each pixel, from what timm makes of the image."""
    operation = auto_augment.NAME_TO_OP[name]
    expected = np.asarray(operation(image, *arguments, **options)).astype(int)
    return ON_ARRAYS[operation](np.array(image), *arguments, **options) - expected


@pytest.mark.parametrize("seed", [0, 1, 2])  # which may turn the direction round
@pytest.mark.parametrize("magnitude", [1, 4, 7, 9, 10])
@pytest.mark.parametrize("name", ALL)
def test_an_operation_is_pillows_within_two_levels(photograph, name, magnitude, seed):
    random.seed(seed)
    to_arguments = auto_augment.LEVEL_TO_ARG[name]
    arguments = to_arguments(magnitude, {}) if to_arguments else ()
    if name.startswith("Posterize") and arguments[0] < 1:
        return  # Pillow refuses; tests/runner/data/test_augment.py has that it is black
    differences = difference(photograph.resize((224, 224)), name, arguments)
    assert np.abs(differences).mean() < (1.5 if name in GEOMETRIC else 0.5)
    if name not in GEOMETRIC:
        assert np.abs(differences).max() <= 1


@pytest.mark.parametrize("name", ["AutoContrast", "Equalize", "Contrast", "Color", "Sharpness", "Brightness"])
@pytest.mark.parametrize("levels", [(0,), (77,), (255,), (3, 4), (0, 255)])
def test_images_of_a_level_or_two(name, levels):
    """Whose histograms have next to nothing in them."""
    pixels = np.resize(np.array(levels, np.uint8), (20, 30, 3))
    arguments = () if name in ("AutoContrast", "Equalize") else (1.7,)
    assert np.abs(difference(Image.fromarray(pixels), name, arguments)).max() <= 1


@pytest.mark.parametrize("resample", [Image.Resampling.BILINEAR, Image.Resampling.BICUBIC])
@pytest.mark.parametrize("magnitude", [2, 5, 9])
@pytest.mark.parametrize("name", GEOMETRIC)
def test_geometry_is_pillows_within_a_tenth_of_a_pixel(name, magnitude, resample):
    """By the centre of a spot that is moved."""
    y, x = np.mgrid[:120, :160]
    spot = 255 * np.exp(-((x - 70) ** 2 + (y - 65) ** 2) / 50)
    image = Image.fromarray(np.repeat(spot.astype(np.uint8)[:, :, None], 3, axis=2))
    random.seed(magnitude)
    options = {"resample": resample, "fillcolor": (0, 0, 0)}
    arguments = auto_augment.LEVEL_TO_ARG[name](magnitude, {})
    operation = auto_augment.NAME_TO_OP[name]

    def centre(pixels):
        weights = np.asarray(pixels)[:, :, 0] * 1.0
        return np.array([(weights * x).sum(), (weights * y).sum()]) / weights.sum()

    expected_image = centre(operation(image, *arguments, **options))
    assert centre(ON_ARRAYS[operation](np.array(image), *arguments, **options)) == pytest.approx(
        expected_image, abs=0.1
    )
    assert np.abs(expected_image - centre(image)).max() > 0.5  # it was moved


def test_what_comes_into_view_is_filled(photograph):
    moved = ON_ARRAYS[auto_augment.translate_x_rel](np.array(photograph), 0.4, **HOW)
    assert np.array_equal(moved[:, -250:].reshape(-1, 3), np.broadcast_to(HOW["fillcolor"], (427 * 250, 3)))


@pytest.fixture(scope="module")
def jpeg(photograph):
    file = io.BytesIO()
    photograph.save(file, "JPEG", quality=90)
    return file.getvalue()


def both(recipe, data, seed):
    images = []
    for transform in (PillowTransform(training_transform(recipe, IMAGENET)), ArrayTransform(recipe, IMAGENET)):
        seed_globally(seed)
        images.append(transform(EncodedImage(data)).numpy().astype(int))
    return images


@pytest.mark.parametrize(
    "changes",
    [
        {"randaugment": None},
        {"randaugment": None, "interpolation": "bilinear"},
        {"randaugment": None, "image_size": 64},  # decoded at a half
        {"randaugment": None, "crop": "padded", "crop_padding": 8, "image_size": 96},
    ],
)
def test_crops_are_pillows(jpeg, changes):
    """The same random numbers give the same crop and flip."""
    recipe = recipe_of("recipe", **changes)
    for seed in range(40):
        expected_image, ours = both(recipe, jpeg, seed)
        assert ours.shape == expected_image.shape
        assert np.abs(ours - expected_image).mean() < (1 if recipe.image_size == 224 else 2)


@pytest.mark.parametrize("written", ["rand-m9-mstd0.5-inc1", "rand-m5-n3-p0.8", "rand-m15-mmax20-mstd1-inc1"])
def test_samples_are_timms_of_the_same_random_numbers(jpeg, written):
    """Some levels apart, but where a posterized level's border lies between: that is a step of half the range."""
    recipe, mean_differences = recipe_of("recipe", randaugment=written), []
    for seed in range(150):
        expected_image, ours = both(recipe, jpeg, seed)
        mean_differences.append(np.abs(ours - expected_image).mean())
    assert np.median(mean_differences) < 1
    assert np.quantile(mean_differences, 0.9) < 4
    assert max(mean_differences) < 20


def drawn(recipe, count):
    """How often each operation was done, and its arguments: pixels are left alone."""
    transform, arguments = ArrayTransform(recipe, IMAGENET), defaultdict(list)
    (randaugment,) = transform.randaugment
    for operation in randaugment.ops:

        def noted(image, *level, name=operation.name, **options):
            arguments[name].append(level[0] if level else None)
            return image

        operation.aug_fn = noted
    image = np.zeros((2, 2, 3), np.uint8)
    for index in range(count):
        seed_globally(index)
        randaugment(image)
    return arguments


@pytest.mark.slow
def test_probabilities_and_magnitudes_over_a_hundred_thousand_draws():
    """Two of fifteen operations, each with probability a half; magnitudes normal about 9, cut off at 10."""
    count = 100_000
    arguments = drawn(recipe_of("recipe"), count)
    assert sorted(arguments) == sorted(INCREASING)
    for name, values in arguments.items():
        expected = count * 2 * 0.5 / 15
        assert len(values) == pytest.approx(expected, abs=5 * expected**0.5), name
    signed = dict(zip(GEOMETRIC, (30, 0.3, 0.3, 0.45, 0.45), strict=True)) | dict.fromkeys(ENHANCING, 0.9)
    for name, most in signed.items():
        values = np.array(arguments[name]) - (name in ENHANCING)  # 1 leaves an image as it is
        assert (values > 0).mean() == pytest.approx(0.5, abs=0.04)
        # A normal distribution about 9 of deviation 0.5, with the 2.3 % beyond 10 at 10.
        assert np.abs(values).mean() / most == pytest.approx(0.8996, abs=0.005)
        assert np.abs(values).std() / most == pytest.approx(0.0493, abs=0.004)
        assert np.abs(values).max() == pytest.approx(most)
    for name, least, grows in (("SolarizeIncreasing", 256, -256), ("SolarizeAdd", 0, 110)):
        values = (np.array(arguments[name]) - least) / grows
        assert values.mean() == pytest.approx(0.8996, abs=0.006)
        assert values.std() == pytest.approx(0.0493, abs=0.004)
    bits = Counter(arguments["PosterizeIncreasing"])  # 4 less the whole of 0.4 of the magnitude: below 7.5, and at 10
    assert bits.keys() <= {0, 1, 2}
    assert bits[0] / bits.total() == pytest.approx(0.0228, abs=0.008)
    assert bits[2] / bits.total() == pytest.approx(0.0013, abs=0.002)


def test_a_sample_is_the_same_whatever_was_drawn_before(jpeg):
    transform = ArrayTransform(recipe_of("recipe"), IMAGENET)
    seed_globally(7)
    once = transform(EncodedImage(jpeg))
    transform(EncodedImage(jpeg))
    seed_globally(7)
    assert torch.equal(transform(EncodedImage(jpeg)), once)


@pytest.mark.parametrize("size", [(1, 1), (1, 2), (3, 1), (2, 40)])
@pytest.mark.parametrize("crop", ["random-resized", "padded"])
def test_images_of_a_pixel_or_two_are_taken(size, crop):
    recipe = recipe_of("recipe", crop=crop, image_size=32)
    transform = ArrayTransform(recipe, IMAGENET)
    for seed in range(30):
        seed_globally(seed)
        assert transform(EncodedImage(Image.new("RGB", size, (9, 99, 199)))).shape == (32, 32, 3)
