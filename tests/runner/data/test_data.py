"""The batches: functions of seed, epoch, step and index alone, however they are shared and by whom they are read."""

from __future__ import annotations

from dataclasses import replace

import pytest
import torch
from PIL import Image

from runner.data.batches import (
    EvaluationBatches,
    PerImage,
    TrainingBatches,
    WholeBatch,
    choose_augmentation,
    epoch_order,
)
from runner.data.datasets import check_trainable, load_data
from runner.data.image import BadImage
from runner.data.splits import InMemoryImages
from runner.data.transforms import training_transform
from runner.machine.randomness import seed_for, seed_globally
from tests.helpers.training import setup_of


@pytest.fixture(scope="module")
def photographs(tmp_path_factory):
    """An image folder of two classes, 24 and 7 images of various shapes."""
    root = tmp_path_factory.mktemp("photographs")
    generator = torch.Generator().manual_seed(0)
    for split, count in (("train", 24), ("val", 7)):
        for i in range(count):
            path = root / split / ("cat", "dog")[i % 2] / f"{i}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            size = (40 + 3 * i, 60, 3)
            pixels = torch.randint(0, 256, size, generator=generator, dtype=torch.uint8)
            Image.fromarray(pixels.numpy()).resize((size[1], size[0]), Image.Resampling.BICUBIC).save(path)
    return root


@pytest.fixture
def batches(make_run):
    """The training batches of a run: `batches(run, rank=1, processes=2)`."""

    def make(run, split=None, rank=0, processes=1, retries=(), skip_bad=False, **changes):
        split = split if split is not None else load_data(run)[0]
        return TrainingBatches(run, split, setup_of(run, processes, **changes), rank, retries, skip_bad)

    return make


def first(batches, epoch=0, step=0):
    return next(batches.stream(epoch, step))


def folder_run(make_run, root, **recipe):
    from roadmap.data.image_folders import describe_folder

    quick = {"batch_size": 8, "image_size": 32} | recipe
    return replace(make_run("recipe", **quick), data="photographs", dataset=describe_folder(root))


FULL = {"crop": "random-resized", "randaugment": "rand-m9-mstd0.5-inc1", "interpolation": "bicubic"}


@pytest.mark.parametrize("augmentation", [{}, FULL])
def test_batches_are_functions_of_seed_epoch_and_step(batches, make_run, augmentation):
    run = make_run("recipe", batch_size=64, **augmentation)
    split = load_data(run)[0]
    there = batches(run, split)
    assert there.steps == 20
    wanted = [(0, 5), (1, 0), (0, 5), (1, 19)]
    drawn = [first(there, *place) for place in wanted]
    for place, (images, targets) in reversed(list(zip(wanted, drawn, strict=True))):
        torch.rand(7)  # whatever else is drawn in between
        again_images, again_targets = first(batches(run, split), *place)
        assert torch.equal(images, again_images) and torch.equal(targets, again_targets), place
    assert not torch.equal(first(batches(replace(run, seed=1), split), 0, 5)[0], drawn[0][0])
    assert not torch.equal(first(there, 1, 5)[0], drawn[0][0])


def test_a_stream_continues_after_the_end_of_an_epoch(batches, make_run):
    run = make_run("recipe", batch_size=256, epochs=3)
    parts = list(batches(run).stream(1, 3))
    assert len(parts) == 2 + 5
    assert torch.equal(parts[2][0], first(batches(run), 2, 0)[0])


@pytest.mark.parametrize("workers", [1, 2])
def test_the_number_of_workers_changes_nothing(batches, make_run, photographs, workers):
    run = folder_run(make_run, photographs, epochs=2, random_erasing=0.5, **FULL)
    split = load_data(run, str(photographs))[0]
    alone = list(batches(run, split).stream(0, 1))
    with_workers = list(batches(run, split, workers=workers).stream(0, 1))
    assert len(alone) == len(with_workers) == 5
    for (images, targets), (other_images, other_targets) in zip(alone, with_workers, strict=True):
        assert torch.equal(images, other_images) and torch.equal(targets, other_targets)


@pytest.mark.parametrize("layout", [(1, 4), (2, "auto"), (2, 8), (4, "auto")])
def test_processes_and_parts_share_the_same_batch(batches, make_run, layout):
    """Mixed, erased and augmented alike: a batch in one piece and in several has the same images and targets."""
    processes, device_batch = layout
    run = make_run("recipe", batch_size=32, mix_group=8, random_erasing=0.5)
    split = load_data(run)[0]
    whole, targets = first(batches(run, split), 1, 3)
    parts = []
    for rank in range(processes):
        each = batches(run, split, rank, processes, device_batch=device_batch)
        stream = each.stream(1, 3)
        parts += [next(stream) for _ in range(each.setup.accumulation)]
    shared, shared_targets = (torch.cat(tensors) for tensors in zip(*parts, strict=True))
    assert len(shared) == 32
    # Pairs lie differently within a part; as sets they are the same.
    key = lambda images: images.flatten(1).double().sum(1).argsort()  # noqa: E731
    assert torch.equal(whole[key(whole)], shared[key(shared)])
    assert torch.equal(targets[key(whole)], shared_targets[key(shared)])


def test_what_happens_to_an_image_does_not_depend_on_its_batch(batches, make_run):
    """The same image, in batches of two sizes, comes out the same (mixing aside, which pairs a batch)."""
    small, large = (make_run("recipe", mix_probability=0.0, batch_size=size) for size in (32, 128))
    in_large = first(batches(large), 1, 0)[0]
    stream = batches(small).stream(1, 0)
    assert torch.equal(torch.cat([next(stream)[0] for _ in range(4)]), in_large)


def test_an_epoch_takes_no_image_twice_also_after_retries():
    for retries in ((), ((4, 3),), ((4, 0), (4, 7))):
        assert epoch_order(1343, 0, 4, 64, retries).sort().values.tolist() == list(range(1343))


def test_a_retry_changes_what_is_left_of_its_epoch_alone():
    plain, retried = epoch_order(640, 0, 4, 64), epoch_order(640, 0, 4, 64, ((4, 3),))
    assert torch.equal(plain[: 3 * 64], retried[: 3 * 64])
    assert not torch.equal(plain[3 * 64 : 4 * 64], retried[3 * 64 : 4 * 64])
    assert torch.equal(epoch_order(640, 0, 5, 64), epoch_order(640, 0, 5, 64, ((4, 3),)))
    assert not torch.equal(retried, epoch_order(640, 0, 4, 64, ((4, 3), (4, 3))))


def test_mixed_targets_are_probabilities_with_smoothing(batches, make_run):
    _, targets = first(batches(make_run("recipe", batch_size=64)))
    assert targets.shape == (64, 10)
    assert torch.allclose(targets.sum(1), torch.ones(64))
    assert targets.min().item() == pytest.approx(0.01)  # a tenth of smoothing over ten classes


def test_without_mixing_targets_are_classes(batches, make_run):
    _, targets = first(batches(make_run("recipe", mix_probability=0.0)))
    assert targets.dtype == torch.int64 and targets.shape == (256,)


def test_seeds_may_share_the_order_of_the_images(batches, make_run):
    """As in the authors' ablation code; the augmentation still differs."""
    for order_seed, same in ((None, False), (0, True)):
        drawn = [first(batches(make_run("pico", seed, order_seed=order_seed))) for seed in (0, 1)]
        assert torch.equal(drawn[0][1], drawn[1][1]) == same
        assert not torch.equal(drawn[0][0], drawn[1][0])


def test_erasing_takes_its_share(batches, make_run):
    changed = torch.zeros(())
    for epoch in range(8):
        before, after = (
            first(batches(make_run("recipe", epochs=8, mix_probability=0.0, random_erasing=share)), epoch)[0]
            for share in (0.0, 0.25)
        )
        changed += (before != after).flatten(1).any(1).float().mean() / 8
    assert changed.item() == pytest.approx(0.25, abs=0.04)


def test_small_images_are_cropped_and_flipped_by_whole_pixels(batches, make_run):
    """Every image of a batch is a crop of the image in a black frame, flipped or not."""
    run = make_run("pico", batch_size=32, crop_padding=2, horizontal_flip=0.5, image_size=8)
    split = load_data(run)[0]
    mean, std = (torch.tensor(run.dataset.mean[:1]) * 255, torch.tensor(run.dataset.std[:1]) * 255)
    images, labels = first(batches(run, split))
    pixels = (images[:, 0] * std + mean).round()
    order = epoch_order(len(split), 0, 0, 32)[:32]
    assert torch.equal(labels, split.labels[order])
    mirrored = 0
    for image, original in zip(pixels, split.images[order], strict=True):
        wide = torch.nn.functional.pad(original[0].float(), (2,) * 4)
        crops = torch.stack([wide[y : y + 8, x : x + 8] for y in range(5) for x in range(5)])
        straight, flipped = ((crops - other).abs().amax((1, 2)).min() == 0 for other in (image, image.flip(1)))
        assert straight or flipped
        mirrored += int(flipped and not straight)
    assert 8 <= mirrored <= 24


@pytest.mark.parametrize("processes", [1, 2, 3])
@pytest.mark.parametrize("workers", [0, 2])
def test_every_held_out_image_is_in_one_share_once(make_run, processes, workers):
    run = make_run(batch_size=240)
    held_out = load_data(run)[1]
    numbered, setup = replace(held_out, labels=torch.arange(len(held_out))), setup_of(run, processes, workers=workers)
    shares = [list(EvaluationBatches(run, numbered, setup, rank)) for rank in range(processes)]
    assert len({len(share) for share in shares}) == 1  # as many rounds on each process
    all_labels = torch.cat([labels for share in shares for _, labels, _ in share])
    assert all_labels.sort().values.tolist() == list(range(len(held_out)))


def test_a_damaged_image_ends_the_run_or_is_skipped_and_counted(batches, make_run, photographs, tmp_path):
    import shutil

    root = shutil.copytree(photographs, tmp_path / "photographs")
    broken = root / "train" / "cat" / "4.png"
    broken.write_bytes(broken.read_bytes()[:700])
    (root / "val" / "dog" / "1.png").write_bytes(b"nothing of the kind")
    run = folder_run(make_run, root, epochs=1, **FULL)
    train, held_out = load_data(run, str(root))
    for workers in (0, 2):
        with pytest.raises(BadImage, match=r"cat/4\.png can't be read as an image: .*bad_images=skip"):
            list(batches(run, train, workers=workers).stream(0, 0))
        with pytest.raises(BadImage, match=r"dog/1\.png can't be read as an image"):
            list(EvaluationBatches(run, held_out, setup_of(run, workers=workers), 0))
        skipping = batches(run, train, skip_bad=True, workers=workers)
        assert [len(images) for images, _ in skipping.stream(0, 0)] == [8, 8, 8]
        assert skipping.bad.count == 1
        evaluation = EvaluationBatches(run, held_out, setup_of(run, workers=workers), 0, skip_bad=True)
        assert sum(len(labels) for _, labels, _ in evaluation) == 6 and evaluation.bad.count == 1
        assert [message.count("4.png can't be read") for message in skipping.bad.unreported()] == [1]
        assert not skipping.bad.unreported()  # told of once


def test_a_folder_of_damaged_images_ends_also_where_they_are_skipped(batches, make_run, photographs, tmp_path):
    import shutil

    root = shutil.copytree(photographs, tmp_path / "photographs")
    for path in (root / "train").rglob("*.png"):
        path.write_bytes(b"")
    run = folder_run(make_run, root, epochs=1, **FULL)
    with pytest.raises(BadImage, match="the 16 images before it can't be read either"):
        first(batches(run, load_data(run, str(root))[0], skip_bad=True))


def test_a_batch_larger_than_the_data_is_refused(make_run):
    with pytest.raises(ValueError, match=r"at most 1287, the training images of digits \(got 4096\)"):
        check_trainable(make_run("recipe", batch_size=4096))


def test_an_odd_batch_can_not_be_mixed(make_run):
    with pytest.raises(ValueError, match="must be even"):
        make_run("recipe", batch_size=63)


def test_splits_know_their_length():
    assert len(InMemoryImages(torch.zeros(3, 1, 2, 2, dtype=torch.uint8), torch.zeros(3, dtype=torch.int64))) == 3


@pytest.mark.parametrize("augment", ["fast", "reference"])
def test_the_reference_is_timms_pixel_for_pixel_and_the_fast_one_nearly(make_run, photographs, augment):
    run = folder_run(make_run, photographs, **FULL)
    split, recipe = load_data(run, str(photographs))[0], run.experiment.recipe
    batch = choose_augmentation(run, split, augment)([(1, 0), (1, 3)])
    transform = training_transform(recipe, run.dataset)
    for image, index in zip(batch.images, (0, 3), strict=True):
        seed_globally(seed_for(run.seed, "augment", 1, index))
        expected = torch.as_tensor(transform(split.image(index).rgb()))
        assert torch.equal(image, expected) == (augment == "reference")
        assert (image.int() - expected.int()).abs().float().mean() < 20


def test_the_reference_is_done_one_by_one_for_small_images_too(make_run):
    run = make_run("recipe")
    split = load_data(run)[0]
    kinds = [type(choose_augmentation(run, split, augment)) for augment in ("fast", "reference")]
    assert kinds == [WholeBatch, PerImage]
