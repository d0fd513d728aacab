"""COCO's and ADE20K's layouts, with what goes wrong in them."""

from __future__ import annotations

import json
import re

import cv2
import numpy as np
import pytest
from PIL import Image
from pycocotools import mask as rle

from roadmap.data.annotated_folders import describe_annotated, read_annotations
from roadmap.options import Selection, StudyOptions
from runner.data.dense.files import read_object_folder, read_region_folder
from runner.data.dense.objects import encoded
from runner.data.dense.regions import VOID, LabelRule
from runner.data.image import BadImage

SIZE = (40, 60)  # height and width


def write_image(path, size=SIZE, **more):
    path.parent.mkdir(parents=True, exist_ok=True)
    pixels = np.random.default_rng(0).integers(0, 255, (*size, 3), np.uint8)
    Image.fromarray(pixels).save(path, **more)


def annotation(number, image, category, box=(10, 5, 20, 10), **more):
    left, top, width, height = box
    polygon = [left, top, left + width, top, left + width, top + height, left, top + height]
    row = {"id": number, "image_id": image, "category_id": category, "bbox": list(box), "area": width * height}
    return row | {"segmentation": [polygon], "iscrowd": 0} | more


def write_coco(root, name, images, annotations, categories):
    rows = [{"id": number, "file_name": f"{number}.jpg", "height": SIZE[0], "width": SIZE[1]} for number in images]
    for number in images:
        write_image(root / name / f"{number}.jpg")
    path = root / "annotations" / f"instances_{name}.json"
    path.parent.mkdir(exist_ok=True, parents=True)
    path.write_text(json.dumps({"images": rows, "annotations": annotations, "categories": categories}))
    return path


@pytest.fixture
def coco(tmp_path):
    """Ids with gaps, in another order and with other numbers in the file of held-out images."""
    root = tmp_path / "things"
    crowd = np.zeros(SIZE, bool)
    crowd[:10, :10] = True
    runs = rle.encode(np.asfortranarray(crowd.astype(np.uint8)))
    train = [
        annotation(1, 7, 90),
        annotation(2, 7, 3, segmentation={"size": list(SIZE), "counts": runs["counts"].decode()}, iscrowd=1),
        annotation(5, 9, 44, segmentation=[]),
        annotation(6, 9, 44, box=(58, 5, 10, 10)),  # beyond the border
        annotation(8, 9, 44, box=(5, 5, 0, 10)),  # without width
    ]
    names = [{"id": 90, "name": "kite"}, {"id": 3, "name": "cat"}, {"id": 44, "name": "cup"}]
    write_coco(root, "train2017", [9, 7, 8], train, names)
    other_names = [{"id": 1, "name": "cup"}, {"id": 2, "name": "kite"}]
    write_coco(root, "val2017", [1, 2], [annotation(1, 1, 2)], other_names)
    return root


def test_categories_are_matched_by_name_whatever_their_ids(coco):
    train, held_out = read_object_folder(coco)
    assert train.ids.tolist() == [7, 8, 9]
    assert train.objects(0).labels.tolist() == [2, 0]  # of cat, cup, kite
    assert train.objects(2).labels.tolist() == [1, 1, 1]
    assert held_out.objects(0).labels.tolist() == [2]
    description = describe_annotated(coco)
    assert (description.classes, description.train_images, description.test_images) == (3, 3, 2)
    assert description.annotations == "objects"


def test_images_without_objects_crowds_and_degenerate_boxes(coco):
    train, held_out = read_object_folder(coco)
    assert len(train.objects(1).labels) == 0 and len(held_out.objects(1).labels) == 0
    assert train.objects(0).targets().tolist() == [0]  # not the crowd
    third = train.objects(2)
    assert third.targets().tolist() == [0, 1] and third.boxes[1].tolist() == [
        58,
        5,
        60,
        15,
    ]  # not the one without width
    masks = third.decoded_masks(third.targets(), train.size(2))
    assert masks.sum((1, 2)).tolist() == [200, 20]  # the box, where there are no polygons


def test_a_mask_may_be_polygons_numbers_or_text(coco):
    train = read_object_folder(coco)[0]
    polygon, crowd = (train.objects(0).decoded_masks(np.array([i]), SIZE)[0] for i in (0, 1))
    assert polygon[5:15, 10:30].all() and polygon.sum() == 200 and crowd[:10, :10].all() and crowd.sum() == 100
    plain = [0, *encoded_runs(crowd)]
    path = coco / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    content["annotations"] = [annotation(1, 7, 3, segmentation={"size": list(SIZE), "counts": plain}, iscrowd=1)]
    path.with_name("instances_train2018.json").write_text(json.dumps(content))
    path.unlink()
    (coco / "train2017").rename(coco / "train2018")
    again = read_object_folder(coco)[0].objects(0).decoded_masks(np.array([0]), SIZE)[0]
    assert np.array_equal(again, crowd)


def encoded_runs(mask):
    """The lengths of runs, down the columns, the first of ones."""
    flat = mask.T.flatten().astype(bool)
    changes = np.flatnonzero(np.diff(flat)) + 1
    return np.diff([0, *changes, len(flat)]).tolist()


def test_orientation_is_ignored_and_sizes_are_checked(coco):
    exif = Image.Exif()
    exif[0x0112] = 6  # turned by a quarter
    write_image(coco / "train2017" / "7.jpg", exif=exif)
    train = read_object_folder(coco)[0]
    assert train.read(0).shape == (*SIZE, 3)
    write_image(coco / "train2017" / "8.jpg", size=(60, 40))
    with pytest.raises(BadImage, match=r"8.jpg: 40 x 60 pixels, and its annotation says 60 x 40"):
        train.read(1)
    (coco / "train2017" / "9.jpg").unlink()
    with pytest.raises(BadImage, match=r"9.jpg: no such file"):
        train.read(2)


def test_a_category_of_held_out_images_alone_is_refused(coco):
    write_coco(coco, "val2017", [1], [], [{"id": 1, "name": "dog"}])
    with pytest.raises(ValueError, match=r"instances_val2017.json: category 'dog' is not among those of training"):
        read_object_folder(coco)


def test_a_folder_of_objects_is_data_of_detection(coco):
    selection = Selection.of(StudyOptions(data=str(coco)))
    assert selection.dataset.annotations == "objects" and selection.context.data == "things"
    from roadmap.record.transfers import TransferOptions, Transfers

    transfers = Transfers.of(TransferOptions("detection", "scratch"), StudyOptions(data=str(coco)))
    assert transfers.run(selection.run(selection.rung("pico"))).dataset.classes == 3
    with pytest.raises(ValueError, match=r"--data things has objects for each image, and segmentation needs regions"):
        Transfers.of(TransferOptions("segmentation"), StudyOptions(data=str(coco)))


@pytest.fixture
def regions(tmp_path):
    root = tmp_path / "places"
    for split, count in (("training", 3), ("validation", 2)):
        for number in range(count):
            write_image(root / "images" / split / f"{number}.jpg")
            path = root / "annotations" / split / f"{number}.png"
            path.parent.mkdir(parents=True, exist_ok=True)
            cv2.imwrite(str(path), np.full(SIZE, number, np.uint8))
    return root


def test_maps_of_classes_are_read_by_their_rule(regions):
    train, held_out = read_region_folder(regions, LabelRule(1, 150))
    assert (len(train), len(held_out), train.size(0)) == (3, 2, SIZE)
    assert [int(train.read_classes(i)[0, 0]) for i in range(3)] == [VOID, 0, 1]
    assert train.read(0).shape == (*SIZE, 3)
    # No bad image, which could be skipped: the number of classes is wrong.
    with pytest.raises(ValueError, match=r"training/2.png: label 2 is none of 2 classes, 0 to 1, or 255"):
        read_region_folder(regions, LabelRule(0, 2))[0].read_classes(2)


def test_a_folder_of_maps_needs_names_and_a_map_for_each_image(regions):
    with pytest.raises(ValueError, match=r"classes.txt: missing: the name of each class, a line each"):
        describe_annotated(regions)
    (regions / "classes.txt").write_text("sky\nsea\nsand\n")
    description = describe_annotated(regions)
    assert (description.classes, description.train_images, description.annotations) == (3, 3, "regions")
    (regions / "annotations" / "training" / "1.png").unlink()
    with pytest.raises(ValueError, match=r"annotations/training/1.png: missing: each image needs a map of classes"):
        describe_annotated(regions)


def test_a_mask_survives_being_encoded():
    mask = np.random.default_rng(0).random(SIZE) < 0.3
    assert np.array_equal(rle.decode(encoded(mask)).astype(bool), mask)


@pytest.mark.parametrize(
    ("edit", "message"),
    [
        (lambda content: content["images"][0].pop("height"), "images[0]: 'height' must be a whole number"),
        (lambda content: content["images"][0].pop("file_name"), "images[0]: 'file_name' must be a text"),
        (lambda content: content.update(images=["a"]), "images[0]: 'id' must be a whole number"),
        (lambda content: content["images"].append(content["images"][0]), "is listed twice"),
        (lambda content: content["categories"][0].pop("name"), "categories[0]: 'name' must be a text"),
        (lambda content: content["categories"][0].update(id="1"), "categories[0]: 'id' must be a whole number"),
        (lambda content: content["categories"][0].update(id=3), "two categories have the id 3"),
        (lambda content: content["categories"][0].update(name="cat"), "two categories have the name 'cat'"),
        (lambda content: content["annotations"][0].pop("bbox"), "annotation 1: 'bbox' must be a list"),
        (lambda content: content["annotations"][0].update(bbox=[1, 2]), "annotation 1: bbox must be left, top"),
        (lambda content: content["annotations"][0].update(bbox=[float("nan"), 1, 2, 3]), "annotation 1: bbox must be"),
        (lambda content: content["annotations"][0].update(image_id=99), "annotation 1: no image has the id 99"),
        (lambda content: content["annotations"][0].update(segmentation="zz"), "annotation 1: segmentation must be"),
        (lambda content: content["annotations"][0].update(segmentation=[["a"] * 6]), "annotation 1: the corners of"),
        (
            lambda content: content["annotations"][0].update(segmentation={"size": [9, 9], "counts": "abc"}),
            "annotation 1: segmentation must be a run-length code of 40 x 60 pixels",
        ),
        (
            lambda content: content["annotations"][0].update(segmentation={"size": list(SIZE), "counts": "abc"}),
            "annotation 1: ",
        ),
    ],
)
def test_what_is_not_coco_is_refused_with_its_place(coco, edit, message):
    path = coco / "annotations" / "instances_train2017.json"
    content = json.loads(path.read_text())
    edit(content)
    path.write_text(json.dumps(content))
    read_annotations.cache_clear()
    with pytest.raises(ValueError, match=re.escape(message)) as refused:
        read_object_folder(coco)
    assert str(path) in str(refused.value)


def test_maps_of_a_palette_have_its_indices(tmp_path):
    root = tmp_path / "maps"
    for split in ("training", "validation"):
        write_image(root / "images" / split / "a.png")
        (root / "annotations" / split).mkdir(parents=True)
        indices = Image.fromarray(np.arange(SIZE[0] * SIZE[1]).reshape(SIZE).astype(np.uint8) % 2, "P")
        indices.putpalette([0, 0, 0, 200, 10, 10])
        indices.save(root / "annotations" / split / "a.png")
    train, _ = read_region_folder(root, LabelRule(0, 2))
    assert set(np.unique(train.read_classes(0))) == {0, 1}
