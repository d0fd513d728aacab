"""The data, and an augmentation that depends on seed, epoch and index alone."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch

from runner.data import TrainingBatches, crop_and_flip
from runner.sources import Split, check_trainable, source


@pytest.fixture(scope="module")
def digits():
    return source("digits")(32)


def test_digits_are_real_scans_with_a_held_out_split(digits, make_run):
    train, test = digits
    dataset = make_run().dataset
    assert (len(train), len(test)) == (dataset.train_images, dataset.test_images) == (1343, 454)
    assert train.images.shape == (1343, 1, 32, 32) and train.images.dtype == torch.uint8
    assert test.labels.bincount().min() >= 44  # every digit is held out alike
    pixels = {image.numpy().tobytes() for image in train.images}
    assert not any(image.numpy().tobytes() in pixels for image in test.images)


def test_digits_statistics_are_those_of_the_study(digits, make_run):
    scaled, dataset = digits[0].images.float() / 255, make_run().dataset
    assert scaled.mean().item() == pytest.approx(dataset.mean[0], abs=0.01)
    assert scaled.std().item() == pytest.approx(dataset.std[0], abs=0.01)


@pytest.mark.parametrize("rung", ["pico", "recipe"])
def test_batches_are_functions_of_seed_epoch_and_step(digits, make_run, rung):
    run = make_run(rung, batch_size=64)
    there, again = (TrainingBatches(run, digits[0]) for _ in range(2))
    assert there.steps == 20
    wanted = [(0, 5), (3, 0), (0, 5), (1, 19)]
    first = [there(*place) for place in wanted]
    for place, (images, targets) in reversed(list(zip(wanted, first, strict=True))):
        torch.rand(7)  # whatever else is drawn in between
        again_images, again_targets = again(*place)
        assert torch.equal(images, again_images) and torch.equal(targets, again_targets), place
    other = TrainingBatches(replace(run, seed=1), digits[0])
    assert not torch.equal(other(0, 5)[0], first[0][0])
    assert not torch.equal(there(1, 5)[0], first[0][0])


def test_what_happens_to_an_image_does_not_depend_on_its_batch(digits, make_run):
    """The same image, in batches of two sizes, comes out the same (mixing aside, which pairs a batch)."""
    run = make_run("recipe", mix_probability=0.0)
    small = replace(run, experiment=replace(run.experiment, recipe=replace(run.experiment.recipe, batch_size=32)))
    large = replace(run, experiment=replace(run.experiment, recipe=replace(run.experiment.recipe, batch_size=128)))
    in_large = TrainingBatches(large, digits[0])(2, 0)[0]
    batches = TrainingBatches(small, digits[0])
    in_small = torch.cat([batches(2, step)[0] for step in range(4)])
    assert torch.equal(in_small, in_large)


def test_an_epoch_takes_no_image_twice(digits, make_run):
    batches = TrainingBatches(make_run("pico", batch_size=64), digits[0])
    batches(4, 0)
    assert batches.order.sort().values.tolist() == list(range(1343))


def test_mixed_targets_are_probabilities_with_smoothing(digits, make_run):
    _, targets = TrainingBatches(make_run("recipe", batch_size=64), digits[0])(0, 0)
    assert targets.shape == (64, 10)
    assert torch.allclose(targets.sum(1), torch.ones(64))
    assert targets.min().item() == pytest.approx(0.01)  # a tenth of smoothing over ten classes


def test_without_mixing_targets_are_classes(digits, make_run):
    _, targets = TrainingBatches(make_run("recipe", mix_probability=0.0), digits[0])(0, 0)
    assert targets.dtype == torch.int64 and targets.shape == (256,)


def test_erasing_takes_its_share(digits, make_run):
    plain = make_run("recipe", mix_probability=0.0, random_erasing=0.0)
    erased = make_run("recipe", mix_probability=0.0, random_erasing=0.25)
    changed = torch.zeros(())
    for epoch in range(8):
        before, after = (TrainingBatches(run, digits[0])(epoch, 0)[0] for run in (plain, erased))
        changed += (before != after).flatten(1).any(1).float().mean() / 8
    assert changed.item() == pytest.approx(0.25, abs=0.04)


def test_padded_crop_shifts_by_whole_pixels(make_run):
    recipe = make_run(crop_padding=2).experiment.recipe
    image = torch.arange(16 * 16, dtype=torch.uint8).view(1, 1, 16, 16)
    middle = crop_and_flip(image, torch.tensor([[0.5, 0.5, 0, 0, 0.9]]), recipe)
    assert torch.equal(middle, image.float())
    corner = crop_and_flip(image, torch.tensor([[0.0, 0.999, 0, 0, 0.9]]), recipe)  # two up, two right
    assert torch.equal(corner[0, 0, 2:, :-2], image[0, 0, :-2, 2:].float())
    assert corner[0, 0, :2].abs().sum() == 0


def test_mirror_images_come_with_the_recipes_probability(make_run):
    recipe = make_run(crop_padding=0, horizontal_flip=0.5).experiment.recipe
    image = torch.arange(9, dtype=torch.uint8).view(1, 1, 3, 3).repeat(2, 1, 1, 1)
    flipped, kept = crop_and_flip(image, torch.tensor([[0, 0, 0, 0, 0.49], [0, 0, 0, 0, 0.51]]), recipe)
    assert torch.equal(flipped, image[0].float().flip(2)) and torch.equal(kept, image[1].float())


def test_random_resized_crop_takes_the_area_it_says(make_run):
    ramp = torch.arange(32, dtype=torch.uint8).repeat(32, 1).view(1, 1, 32, 32)
    recipe = make_run(crop="random-resized", crop_scale=(0.25, 0.25), crop_ratio=(1.0, 1.0)).experiment.recipe
    crop = crop_and_flip(ramp, torch.tensor([[0.0, 0.0, 0.3, 0.3, 0.9]]), recipe)  # the upper left quarter
    assert crop.shape == ramp.shape
    assert crop[0, 0, 5].max().item() == pytest.approx(15.5, abs=0.5)
    whole = make_run(crop="random-resized", crop_scale=(1.0, 1.0), crop_ratio=(1.0, 1.0)).experiment.recipe
    assert torch.allclose(crop_and_flip(ramp, torch.rand(1, 5) * 0 + 0.7, whole), ramp.float(), atol=1e-3)


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({"randaugment": "rand-m9-mstd0.5-inc1"}, "--set recipe.randaugment=null trains without it"),
        ({"batch_size": 4096}, "4096 is more than the 1343 training images"),
    ],
)
def test_recipes_that_are_not_done_are_refused(make_run, changes, message):
    with pytest.raises(ValueError, match=message):
        check_trainable(make_run("recipe", **changes))


def test_data_sets_that_can_not_be_read_are_refused(make_run):
    with pytest.raises(ValueError, match=r"'imagenet' can't be read by this version; .*digits"):
        check_trainable(replace(make_run(), data="imagenet"))


def test_an_odd_batch_can_not_be_mixed(make_run):
    with pytest.raises(ValueError, match="even number"):
        make_run("recipe", batch_size=63)


def test_splits_know_their_length():
    assert len(Split(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))) == 3
