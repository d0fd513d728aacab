"""Cascade Mask R-CNN: what each stage hands to the next, its losses, and a training."""

from __future__ import annotations

import pytest
import torch

from roadmap.record.folder import read_result
from roadmap.record.predictions import read_predictions
from roadmap.record.results import scalar
from runner.train.tasks.cascade import DELTAS, THRESHOLDS, _among, _box_losses, _refined
from runner.train.tasks.registry import task_of
from tests.helpers.training import train
from tests.helpers.transfers import few_scenes, transfer_of

SIZE = (64, 64)


@pytest.fixture(autouse=True)
def few(monkeypatch):
    few_scenes(monkeypatch)


@pytest.fixture
def stages():
    run = transfer_of("pico", "detection", begin="scratch", options={"transfer.cascade": True})
    return list(task_of(run).network().heads.stages)


def test_each_stage_asks_for_more_overlap(stages):
    assert [stage.proposal_matcher.high_threshold for stage in stages] == list(THRESHOLDS)
    for stage, deltas in zip(stages, DELTAS, strict=True):
        assert stage.box_coder.weights == pytest.approx([1 / scale for scale in deltas])


def test_right_deltas_have_no_loss_and_hand_on_the_right_boxes(stages):
    truth = torch.tensor([[10.0, 12, 30, 40], [5, 5, 25, 20]])
    boxes = torch.tensor([[12.0, 10, 33, 38], [4, 6, 22, 21], [40, 40, 60, 60]])
    labels, matched = torch.tensor([3, 7, 0]), torch.tensor([0, 1, 0])
    for stage in stages:
        deltas = torch.zeros(3, 11, 4)
        right = stage.box_coder.encode([truth], [boxes[:2]])[0]
        deltas[0, 3], deltas[1, 7] = right
        logits = torch.zeros(3, 11)
        logits[2, 5] = 1.0  # the likeliest of the region that is nothing, whose deltas are 0
        target = {"boxes": truth, "labels": torch.tensor([3, 7])}
        losses = _box_losses(stage, logits, deltas.flatten(1), [boxes], [matched], [labels], [target])
        assert losses["box"].item() == pytest.approx(0, abs=1e-4)
        (refined,) = _refined(stage, logits, deltas.flatten(1), [boxes], [SIZE], labels)
        assert torch.allclose(refined, torch.cat([truth, boxes[2:]]), atol=1e-4)


def test_boxes_without_overlap_have_a_loss_by_hand(stages):
    """Generalized IoU of two boxes of 10 x 10 whose hull is 10 x 30: 0 - 100 / 300. The loss is 1 + 1/3, times 10."""
    boxes, truth = torch.tensor([[0.0, 0, 10, 10]]), torch.tensor([[0.0, 20, 10, 30]])
    target = {"boxes": truth, "labels": torch.tensor([1])}
    zeros = torch.zeros(1, 11), torch.zeros(1, 44)
    losses = _box_losses(stages[0], *zeros, [boxes], [torch.tensor([0])], [torch.tensor([1])], [target])
    assert losses["box"].item() == pytest.approx(10 * (1 + 1 / 3), rel=1e-4)
    assert losses["class"].item() == pytest.approx(torch.log(torch.tensor(11.0)).item())


def test_refined_boxes_stay_within_the_image(stages):
    deltas = torch.full((1, 44), 50.0)
    (refined,) = _refined(stages[0], torch.zeros(1, 11), deltas, [torch.tensor([[30.0, 30, 60, 60]])], [SIZE])
    assert refined.min() >= 0 and refined.max() <= 64


def test_annotated_boxes_are_found_among_proposals():
    boxes = torch.tensor([[0.0, 0, 1, 1], [2, 2, 3, 3]])
    assert _among(boxes, boxes[1:]).tolist() == [False, True]
    assert _among(boxes, torch.zeros(0, 4)).tolist() == [False, False]


@pytest.mark.slow
def test_a_cascade_is_trained_and_evaluated(tmp_path):
    run = transfer_of("pico", "detection", begin="scratch", options={"transfer.cascade": True})
    train(run, tmp_path)
    result = read_result(tmp_path, run)
    assert result is not None and scalar(result.values["box_ap"]) is not None
    assert read_predictions(tmp_path) and result.parameters == task_of(run).cost().parameters
