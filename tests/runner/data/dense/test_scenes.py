"""The embedded scenes: what they show, and what they are made of."""

from __future__ import annotations

import numpy as np
import pytest

from roadmap.study.load import load_study
from runner.data.datasets import BUILT_IN, _scans
from runner.data.dense.embedded import COUNTS, class_map, object_splits, region_splits, scenes
from runner.data.dense.regions import VOID, LabelRule

DIGITS = BUILT_IN["digits"].find(None)


@pytest.fixture(scope="module")
def scans():
    return _scans(DIGITS)


@pytest.fixture(scope="module")
def training(scans):
    return scenes(scans[0], "train")


def test_scenes_depend_on_split_and_index_alone(scans, training):
    again = scenes(scans[0], "train")
    assert all(np.array_equal(a.image, b.image) for a, b in zip(training[:50], again[:50], strict=True))
    held_out = scenes(scans[1], "test")
    assert not any(np.array_equal(a.image, b.image) for a, b in zip(training, held_out, strict=False))


def test_training_scenes_have_training_scans_only(scans):
    blank = np.zeros_like(scans[1][0]), scans[1][1]
    with_blank = scenes(blank, "test")
    assert not any(scene.things for scene in with_blank)  # nothing of the training scans is in them


def test_a_fifth_of_the_scenes_is_empty_and_some_have_crowds(training):
    assert len(training) == COUNTS["train"]
    empty = np.mean([not scene.things for scene in training])
    crowded = np.mean([any(thing.crowd for thing in scene.things) for scene in training])
    assert 0.15 < empty < 0.3 and 0.05 < crowded < 0.2


def test_objects_fit_their_masks(scans):
    for split in object_splits(*scans):
        description = load_study().dataset("scenes")
        assert len(split) in (description.train_images, description.test_images)
        for index in range(0, len(split), 7):
            objects = split.objects(index)
            masks = objects.decoded_masks(np.arange(len(objects.labels)), split.size(index))
            for box, area, mask in zip(objects.boxes, objects.areas, masks, strict=True):
                rows, columns = np.nonzero(mask)
                assert list(box) == [columns.min(), rows.min(), columns.max() + 1, rows.max() + 1]
                assert area == mask.sum() and not (masks.sum(0) > 1).any()  # each pixel is of one object
            assert not objects.crowd[objects.targets()].any()


def test_the_pixels_of_crowds_have_no_class(scans, training):
    split = region_splits(*scans)[0]
    number = next(i for i, scene in enumerate(training) if any(thing.crowd for thing in scene.things))
    crowd = next(thing for thing in training[number].things if thing.crowd)
    assert (split.read_classes(number)[crowd.mask] == VOID).all()
    assert np.array_equal(split.read_classes(number), class_map(training[number]))


def test_labels_are_read_by_one_rule_and_written_back():
    ade, plain = LabelRule(1, 150), LabelRule(0, 3)
    assert ade.read(np.array([0, 1, 150, 255]), "x.png").tolist() == [VOID, 0, 149, VOID]
    assert ade.write(np.array([VOID, 0, 149], np.uint8)).tolist() == [0, 1, 150]
    assert plain.read(np.array([0, 2, 255]), "x.png").tolist() == [0, 2, VOID]
    assert plain.write(np.array([VOID, 0, 2], np.uint8)).tolist() == [VOID, 0, 2]
    with pytest.raises(ValueError, match=r"x.png: label 151 is none of 150 classes, 1 to 150, or 255"):
        ade.read(np.array([151]), "x.png")
    with pytest.raises(ValueError, match="label 3 is none of 3 classes, 0 to 2"):
        plain.read(np.array([3]), "x.png")
