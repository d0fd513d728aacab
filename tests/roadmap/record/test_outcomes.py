"""The record of the test images that a run classifies correctly."""

from __future__ import annotations

import numpy as np
import pytest

from roadmap.files import InvalidFile
from roadmap.record.metrics import AVERAGED
from roadmap.record.outcomes import NOT_READ, OUTCOMES_FILE, Outcomes, read_outcomes, write_outcomes

LABELS = np.array([0, 1, 2, 1], dtype=np.int32)
OUTCOMES = Outcomes(LABELS, np.array([0, 2, 2, NOT_READ], dtype=np.int32), np.array([0.9, 0.5, 1, 0], dtype=np.float16))


def test_outcomes_come_back_as_they_were_written(tmp_path):
    averaged = Outcomes(LABELS, LABELS, np.ones(4, dtype=np.float16))
    write_outcomes(tmp_path, {"": OUTCOMES, AVERAGED: averaged})
    raw = read_outcomes(tmp_path)
    assert raw.correct.tolist() == [True, False, True, False]
    assert raw.labels.tolist() == LABELS.tolist() and raw.predicted.tolist() == OUTCOMES.predicted.tolist()
    assert raw.confidence.tolist() == OUTCOMES.confidence.tolist()
    assert read_outcomes(tmp_path, averaged=True).correct.all()


def test_what_was_not_recorded_is_none(tmp_path):
    assert read_outcomes(tmp_path) is None
    write_outcomes(tmp_path, {"": OUTCOMES})
    assert read_outcomes(tmp_path, averaged=True) is None


DAMAGES = [
    "empty",
    "text",
    "cut",
    "flipped",
    "array",
    "missing array",
    "length",
    "shape",
    "text labels",
    "below 0",
    "none",
]


@pytest.mark.parametrize("damage", DAMAGES)
def test_a_damaged_record_is_named(tmp_path, damage):
    write_outcomes(tmp_path, {"": OUTCOMES})
    path = tmp_path / OUTCOMES_FILE
    content = path.read_bytes()
    written = {"empty": b"", "text": b"not an archive", "cut": content[:100]}
    written["flipped"] = content[:60] + bytes(255 - byte for byte in content[60:90]) + content[90:]
    nothing = {"labels": LABELS[:0], "predicted": LABELS[:0], "confidence": OUTCOMES.confidence[:0]}
    other = {"length": {"labels": LABELS[:2]}, "shape": {"labels": np.int32(3)}, "none": nothing}
    other |= {"text labels": {"labels": LABELS.astype(str)}, "below 0": {"predicted": LABELS - 9}}
    if damage in written:
        path.write_bytes(written[damage])
    elif damage == "array":
        with path.open("wb") as file:
            np.save(file, LABELS)
    else:
        arrays = {name: array for name, array in np.load(path).items() if name != "labels" or damage in other}
        np.savez(path, **arrays | other.get(damage, {}))
    with pytest.raises(InvalidFile, match=rf"{OUTCOMES_FILE} is not valid.*remove it"):
        read_outcomes(tmp_path)
