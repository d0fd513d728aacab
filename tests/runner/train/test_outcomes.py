"""What training records of each test image."""

from __future__ import annotations

import numpy as np
import pytest

from roadmap.record.outcomes import read_outcomes
from runner.train import training
from tests.helpers.training import train


@pytest.mark.parametrize("ema", [None, 0.9])
def test_the_record_agrees_with_the_result(tiny_run, tmp_path, ema):
    run = tiny_run("recipe", ema=ema)
    result = train(run, tmp_path / "run")
    for prefix, averaged in (("", False), ("ema_", True)):
        outcomes = read_outcomes(tmp_path / "run", averaged=averaged)
        if averaged and ema is None:
            assert outcomes is None
            continue
        assert len(outcomes.labels) == run.dataset.test_images
        assert 100 * outcomes.correct.mean() == pytest.approx(result.values[f"{prefix}top1"])
        assert ((outcomes.confidence >= 0.0999) & (outcomes.confidence <= 1)).all()


def test_an_interruption_before_the_result_leaves_the_record(tiny_run, tmp_path, monkeypatch):
    run = tiny_run("recipe")
    train(run, tmp_path / "whole")

    def killed(*args):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch:
        patch.setattr(training.Training, "_result", killed)
        with pytest.raises(KeyboardInterrupt):
            train(run, tmp_path / "killed")
    train(run, tmp_path / "killed")
    whole, resumed = (read_outcomes(tmp_path / name) for name in ("whole", "killed"))
    assert np.array_equal(whole.predicted, resumed.predicted)
    assert np.array_equal(whole.confidence, resumed.confidence)
