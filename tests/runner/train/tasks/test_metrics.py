"""AP and mean IoU against what is worked out by hand, and against another program."""

from __future__ import annotations

import contextlib
import io

import numpy as np
import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st

from roadmap.record.metrics import COCO_NAMES
from runner.data.dense.objects import Annotation, ObjectSplit, encoded
from runner.train.tasks.coco import Detection, _annotations, _detections, _images, coco_metrics
from runner.train.tasks.segmentation import region_metrics

SIDE = 100
BOX = (10.0, 10.0, 50.0, 50.0)


def filled(box):
    mask = np.zeros((SIDE, SIDE), bool)
    left, top, right, bottom = map(int, box)
    mask[top:bottom, left:right] = True
    return encoded(mask)


def annotation(box=BOX, label=0, crowd=False):
    area = (box[2] - box[0]) * (box[3] - box[1])
    return Annotation(label, box, area, filled(box), crowd)


def split_of(*annotations):
    """An image for each list of annotations."""
    return ObjectSplit.of(lambda index: np.zeros((SIDE, SIDE, 3), np.uint8), [(SIDE, SIDE)] * len(annotations),
                          range(len(annotations)), annotations)  # fmt: skip


def found(index, *objects):
    """(box, label, score) of what is found in an image."""
    boxes = np.array([box for box, _, _ in objects], np.float32).reshape(-1, 4)
    labels = np.array([label for _, label, _ in objects], np.int64)
    scores = np.array([score for _, _, score in objects], np.float32)
    return Detection(index, boxes, labels, scores, [filled(box) for box, _, _ in objects])


def test_ap_of_ten_images_by_hand():
    """Nine of ten objects are found, with two false alarms: one above and one below all of them in score.

    By rank, precision is 0, 1/2, 2/3, ..., 9/10 and recall grows by a tenth with each object. The precision at a
    recall is the largest from there on: 0.9 up to a recall of 0.9, and 0 beyond. COCO takes it at 101 recalls, of
    which 91 are at most 0.9.
    """
    split = split_of(*([annotation()] for _ in range(10)))
    elsewhere = (60.0, 60.0, 90.0, 90.0)
    detections = [found(i, (BOX, 0, 0.8 - 0.01 * i)) for i in range(9)]
    detections[0] = found(0, (BOX, 0, 0.8), (elsewhere, 0, 0.9))
    detections.append(found(9, (elsewhere, 0, 0.1)))
    values = coco_metrics(split, detections)
    expected = 100 * 0.9 * 91 / 101
    assert values["box_ap"] == pytest.approx(expected) and values["mask_ap"] == pytest.approx(expected)
    assert values["box_ap50"] == pytest.approx(expected) and values["box_ar100"] == pytest.approx(90)
    # 40 x 40 pixels are medium. The false alarms, of 30 x 30, are small: none among the medium.
    assert values["box_ap_medium"] == pytest.approx(100 * 91 / 101)
    assert values["box_ap_small"] is None and values["box_ap_large"] is None


def test_a_shifted_box_counts_up_to_its_overlap():
    """30 of 40 columns overlap: an IoU of 30 / 50, so that three of the ten thresholds, 0.5 to 0.6, are met."""
    split = split_of([annotation()])
    values = coco_metrics(split, [found(0, ((20.0, 10.0, 60.0, 50.0), 0, 0.9))])
    assert values["box_ap"] == pytest.approx(30) and values["box_ap75"] == 0
    assert values["box_ap50"] == pytest.approx(100)


def test_nothing_found_is_zero_and_not_an_error():
    values = coco_metrics(split_of([annotation()], []), [found(0), found(1)])
    assert values["box_ap"] == 0 and values["mask_ap"] == 0 and values["box_ar100"] == 0


def test_what_is_found_in_a_crowd_is_no_error_and_no_success():
    crowd = annotation((50.0, 50.0, 100.0, 100.0), crowd=True)
    within = ((60.0, 60.0, 80.0, 80.0), 0, 0.95)
    values = coco_metrics(split_of([annotation(), crowd]), [found(0, (BOX, 0, 0.9), within)])
    assert values["box_ap"] == pytest.approx(100)
    without = coco_metrics(split_of([annotation()]), [found(0, (BOX, 0, 0.9), within)])
    assert without["box_ap"] == pytest.approx(50)


def test_an_image_without_objects_counts_what_is_found_in_it():
    values = coco_metrics(split_of([annotation()], []), [found(0, (BOX, 0, 0.5)), found(1, (BOX, 0, 0.9))])
    assert values["box_ap"] == pytest.approx(50)


def test_another_program_gives_the_same_figures():
    from faster_coco_eval import COCO, COCOeval_faster

    draw = np.random.default_rng(0)

    def random_box():
        left, top = draw.uniform(0, 60, 2)
        return (left, top, left + draw.uniform(8, 40), top + draw.uniform(8, 40))

    annotations = [
        [annotation(random_box(), int(draw.integers(3)), draw.random() < 0.1) for _ in range(draw.integers(0, 6))]
        for _ in range(30)
    ]
    split = split_of(*annotations)
    detections = []
    for index, of_image in enumerate(annotations):
        near = [
            (tuple(np.array(own.box) + draw.uniform(-5, 5, 4)), own.label, float(draw.random()))
            for own in of_image
            if draw.random() < 0.8
        ]
        detections.append(found(index, *near, (random_box(), int(draw.integers(3)), float(draw.random()))))
    values = coco_metrics(split, detections)
    everything = range(len(split))
    with contextlib.redirect_stdout(io.StringIO()):
        truth = COCO({"images": _images(split, everything), **_annotations(split, everything)})
        rows = [row for own in detections for row in _detections(own)]
        for region, kind, other in (("box", "bbox", "segmentation"), ("mask", "segm", "bbox")):
            # With both, areas of masks are those of boxes.
            results = truth.loadRes([{key: value for key, value in row.items() if key != other} for row in rows])
            evaluation = COCOeval_faster(truth, results, kind)
            evaluation.evaluate()
            evaluation.accumulate()
            evaluation.summarize()
            theirs = [None if value < 0 else 100 * value for value in evaluation.stats[:12]]
            assert [values[f"{region}_{name}"] for name in COCO_NAMES] == pytest.approx(theirs)


def test_mean_iou_by_hand_leaves_absent_classes_out():
    """Class 0: 6 of 8 pixels right and 2 others taken for it; class 1: 1 of 3 right and 2 others; 2 is nowhere."""
    confusion = torch.tensor([[6.0, 2.0, 0.0], [2.0, 1.0, 0.0], [0.0, 0.0, 0.0]])
    values = region_metrics(confusion)
    assert values["iou_by_class"] == (pytest.approx(60), pytest.approx(20), None)
    assert values["miou"] == pytest.approx(40)
    assert values["pixel_accuracy"] == pytest.approx(100 * 7 / 11)
    assert values["class_accuracy"] == pytest.approx((75 + 100 / 3) / 2)


def test_a_class_that_is_only_predicted_counts_as_zero():
    values = region_metrics(torch.tensor([[4.0, 4.0], [0.0, 0.0]]))
    assert values["iou_by_class"] == (50.0, 0.0) and values["miou"] == 25


@given(st.lists(st.lists(st.integers(0, 50), min_size=4, max_size=4), min_size=4, max_size=4))
def test_mean_iou_is_between_the_classes(rows):
    confusion = torch.tensor(rows, dtype=torch.float64)
    if confusion.sum():
        values = region_metrics(confusion)
        known = [value for value in values["iou_by_class"] if value is not None]
        assert min(known) - 1e-9 <= values["miou"] <= max(known) + 1e-9
