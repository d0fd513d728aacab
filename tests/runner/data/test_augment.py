"""The augmentation against timm's own, which the paper's recipe was trained with."""

from __future__ import annotations

import random
from collections import Counter

import numpy as np
import pytest
import torch
from PIL import Image
from timm.data import create_transform
from timm.data.mixup import Mixup
from timm.data.random_erasing import RandomErasing

from roadmap.study.load import load_study
from runner.data.augmentation import Erasing, Mixing, Normalization, resized
from runner.data.transforms import evaluation_transform, training_transform
from runner.machine.randomness import seed_for, seed_globally
from tests.helpers.designs import recipe_of

IMAGENET = load_study().dataset("imagenet")


@pytest.fixture(scope="module")
def photograph():
    """500 x 375 pixels, smooth with edges, as photographs are."""
    y, x = np.mgrid[:375, :500] / 100
    waves = np.stack([np.sin(3 * x + y), np.cos(2 * y * x), np.sin(x - 4 * y)], 2)
    pixels = 127 + 100 * waves + 27 * (np.hypot(x - 2, y - 2) < 1)[:, :, None]
    return Image.fromarray(pixels.clip(0, 255).astype(np.uint8))


def pixels_of(transform, image, seed):
    seed_globally(seed)
    return np.asarray(transform(image))


@pytest.mark.parametrize("rung", ["resnet-50", "recipe"])
def test_training_images_are_timms(photograph, rung):
    """Crop, flip and RandAugment draw the same numbers, and give the same pixels, as timm's factory."""
    words = {
        "resnet-50": {"interpolation": "bilinear"},
        "recipe": {"interpolation": "bicubic", "auto_augment": "rand-m9-mstd0.5-inc1"},
    }[rung]
    theirs = create_transform(224, is_training=True, color_jitter=None, normalize=False, **words)
    ours = training_transform(recipe_of(rung), IMAGENET)
    for seed in range(40):
        if (expected := _unless_posterized_away(theirs, photograph, seed)) is not None:
            assert np.array_equal(pixels_of(ours, photograph, seed), expected)
    assert pixels_of(ours, photograph, 0).shape == (3, 224, 224)


def _unless_posterized_away(transform, image, seed):
    try:
        return pixels_of(transform, image, seed)
    except ValueError:  # timm's own transform asks Pillow 13 for 0 bits, and fails
        return None


def test_the_recipes_operations_are_timms_increasing_ones_at_magnitude_nine(photograph):
    """By name, and by the magnitudes that are drawn: a normal distribution around 9, cut off at 10."""
    _, randaugment, _ = training_transform(recipe_of("recipe"), IMAGENET).transforms
    (operations,) = randaugment.transforms
    assert operations.num_layers == 2
    names = "AutoContrast Equalize Invert Rotate PosterizeIncreasing SolarizeIncreasing SolarizeAdd ColorIncreasing "
    names += "ContrastIncreasing BrightnessIncreasing SharpnessIncreasing ShearX ShearY TranslateXRel TranslateYRel"
    assert [operation.name for operation in operations.ops] == names.split()
    for operation in operations.ops:
        assert (operation.prob, operation.magnitude, operation.magnitude_std) == (0.5, 9, 0.5)
        assert operation.hparams["img_mean"] == (124, 116, 104)  # what is uncovered is filled with
        assert operation.kwargs["resample"] == Image.Resampling.BICUBIC


def test_operations_are_drawn_alike(monkeypatch):
    _, randaugment, _ = training_transform(recipe_of("recipe"), IMAGENET).transforms
    (operations,) = randaugment.transforms
    drawn = Counter()
    for operation in operations.ops:
        monkeypatch.setattr(operation, "aug_fn", lambda image, *_, name=operation.name, **__: drawn.update([name]))
    seed_globally(0)
    for _ in range(3000):
        operations(None)
    assert sum(drawn.values()) == pytest.approx(3000, rel=0.05)  # two of 15 operations, each with probability 1/2
    assert all(count == pytest.approx(200, rel=0.3) for count in drawn.values()) and len(drawn) == 15


def test_posterizing_to_no_bits_gives_black_and_ends_no_run(photograph, monkeypatch):
    """timm asks Pillow for 0 bits once in 300 images or so; Pillow 13 raises."""
    _, randaugment, _ = training_transform(recipe_of("recipe"), IMAGENET).transforms
    (operations,) = randaugment.transforms
    posterize = next(operation for operation in operations.ops if operation.name == "PosterizeIncreasing")
    monkeypatch.setattr(posterize, "prob", 1.0)
    monkeypatch.setattr(random, "gauss", lambda mean, std: 10.5)
    assert np.asarray(posterize(photograph)).max() == 0
    monkeypatch.setattr(random, "gauss", lambda mean, std: 9.0)
    assert len(np.unique(np.asarray(posterize(photograph)))) == 2  # one bit


@pytest.mark.slow
def test_no_image_of_ten_thousand_ends_the_run(photograph):
    transform = training_transform(recipe_of("recipe", image_size=32), IMAGENET)
    small = photograph.resize((48, 40))
    for index in range(10_000):
        seed_globally(seed_for(0, "augment", 0, index))
        assert transform(small).shape == (3, 32, 32)


def test_padded_crops_with_randaugment_are_of_the_training_size(photograph):
    recipe = recipe_of("recipe", crop="padded", crop_padding=4, image_size=32)
    for seed in range(5):
        assert pixels_of(training_transform(recipe, IMAGENET), photograph, seed).shape == (3, 32, 32)


@pytest.mark.parametrize(
    ("rung", "interpolation"), [("resnet-50", Image.Resampling.BILINEAR), ("recipe", Image.Resampling.BICUBIC)]
)
def test_evaluation_resizes_to_256_and_crops_the_centre(photograph, rung, interpolation):
    ours = np.asarray(evaluation_transform(recipe_of(rung))(photograph))
    resized_by_hand = photograph.resize((341, 256), interpolation)
    left, top = round((341 - 224) / 2), 16
    by_hand = np.asarray(resized_by_hand.crop((left, top, left + 224, top + 224))).transpose(2, 0, 1)
    assert np.array_equal(ours, by_hand)


def test_evaluation_takes_the_whole_image_from_384_pixels_on(photograph):
    ours = np.asarray(evaluation_transform(recipe_of("recipe", image_size=384))(photograph))
    assert np.array_equal(ours, np.asarray(photograph.resize((384, 384), Image.Resampling.BICUBIC)).transpose(2, 0, 1))


def test_erasing_is_timms_by_pixel():
    recipe, images = recipe_of("recipe", random_erasing=1.0), torch.zeros(6, 3, 32, 32)
    ours, theirs = images.clone(), images.clone()
    Erasing(recipe, 0, "cpu")(ours, 3, [5, 6, 7, 8, 9, 10])
    for image, index in zip(theirs, range(5, 11), strict=True):
        seed_globally(seed_for(0, "erase", 3, index))
        RandomErasing(1.0, mode="pixel", device="cpu")(image)
    assert torch.equal(ours, theirs) and (ours != 0).any(dim=0).any()
    shares = (ours != 0).float().mean((1, 2, 3))
    assert 0.01 < shares.min() and shares.max() < 0.4  # 2 to 33 % of an image


@pytest.mark.parametrize("size", [8, 200])  # some images fit in a core's cache, or not even one
@pytest.mark.parametrize("recipe", [{}, {"mixup": 0.0}, {"cutmix": 0.0}, {"mix_probability": 0.5}])
def test_mixing_is_timms_on_pairs_of_neighbours(recipe, size):
    chosen = recipe_of("recipe", mix_group=8, **recipe)
    theirs = Mixup(chosen.mixup, chosen.cutmix, None, chosen.mix_probability, 0.5, label_smoothing=0.1, num_classes=10)
    order = torch.tensor([0, 2, 4, 6, 7, 5, 3, 1])  # timm mixes the first with the last
    for step in range(4):
        images, labels = torch.rand(16, 3, size, size), torch.arange(16) % 10
        mixed = images.clone()
        targets = Mixing(chosen, 10, 0)(mixed, labels, 2, step, first=0)
        for group in (slice(0, 8), slice(8, 16)):
            seed_globally(seed_for(0, "mix", 2, step, group.start // 8))
            expected, expected_targets = theirs(images[group][order], labels[group][order])
            assert torch.allclose(mixed[group][order], expected, atol=1e-6)
            assert torch.allclose(targets[group][order], expected_targets, atol=1e-6)


def test_mixup_and_cutmix_come_half_and_half():
    mixing, counts = Mixing(recipe_of("recipe", mix_group=2), 10, 0), Counter()
    for step in range(200):
        images = torch.stack((torch.zeros(3, 16, 16), torch.ones(3, 16, 16)))
        mixing(images, torch.tensor([0, 1]), 0, step, first=0)
        counts["mixup" if ((images > 0) & (images < 1)).any() else "cutmix or none"] += 1
    assert counts["mixup"] == pytest.approx(100, abs=25)


def test_normalization_is_by_the_data_sets_statistics():
    images = torch.randint(0, 256, (2, 3, 4, 4), dtype=torch.uint8)
    mean, std = (torch.tensor(values).view(3, 1, 1) for values in (IMAGENET.mean, IMAGENET.std))
    assert torch.allclose(Normalization(IMAGENET, "cpu")(images), (images / 255 - mean) / std, atol=1e-5)


@pytest.mark.parametrize("size", [4, 300])
def test_the_order_in_memory_does_not_change_what_is_normalized(size):
    images = torch.randint(0, 256, (3, 3, size, size), dtype=torch.uint8)
    normalize = Normalization(IMAGENET, "cpu")
    last = normalize(images.contiguous(memory_format=torch.channels_last))
    assert last.is_contiguous(memory_format=torch.channels_last)
    assert torch.equal(last, normalize(images))


def test_small_images_grow_to_the_training_size():
    images = torch.full((2, 1, 8, 8), 77, dtype=torch.uint8)
    grown = resized(images, recipe_of("recipe", "pico"))
    assert grown.shape == (2, 1, 32, 32) and grown.dtype == torch.uint8 and bool((grown == 77).all())


@pytest.mark.parametrize("written", ["rand-m9-mstd0.5-inc1", "rand-m12-n3-p0.8-mmax12", "rand"])
def test_timms_notation_is_taken(written):
    training_transform(recipe_of("recipe", randaugment=written), IMAGENET)


@pytest.mark.parametrize(
    "written", ["rand-x9", "augmix-m5", "m9", "rand-m", "rand-m9-wuff", "original", "rand-m11", "rand-m9-m5"]
)
def test_what_timm_would_pass_over_or_we_do_not_mean_is_refused(written):
    with pytest.raises(ValueError, match=r"randaugment must be timm's notation"):
        recipe_of("recipe", randaugment=written)
