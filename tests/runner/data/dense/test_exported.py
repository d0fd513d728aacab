"""`roadmap data scenes`: what is read from its files is what the embedded data sets have."""

from __future__ import annotations

import json

import numpy as np
import pytest

from roadmap.cli import main
from roadmap.data.annotated_folders import describe_annotated
from runner.data.datasets import BUILT_IN
from runner.data.dense.files import read_object_folder, read_region_folder
from runner.data.dense.regions import LabelRule
from tests.helpers.transfers import IMAGES, few_scenes


def embedded(name):
    source = BUILT_IN[name]
    return source.read(source.find(None))


@pytest.fixture
def written(tmp_path, monkeypatch, capsys):
    few_scenes(monkeypatch)
    assert main(["data", "scenes", str(tmp_path / "scenes")]) == 0
    assert f"--data {tmp_path / 'scenes' / 'objects'}" in capsys.readouterr().out
    return tmp_path / "scenes"


def test_objects_are_those_of_the_embedded_scenes(written):
    for read, expected in zip(read_object_folder(written / "objects"), embedded("scenes"), strict=True):
        assert len(read) == len(expected)
        for index in range(len(read)):
            np.testing.assert_array_equal(read.read(index), expected.read(index))
            ours, theirs = read.objects(index), expected.objects(index)
            for name in ("boxes", "labels", "crowd", "areas"):
                np.testing.assert_array_equal(getattr(ours, name), getattr(theirs, name))
            assert ours.masks == theirs.masks


def test_ids_have_gaps_and_differ_between_the_files(written):
    ids = {}
    for name in ("train", "val"):
        content = json.loads((written / "objects" / "annotations" / f"instances_{name}.json").read_text())
        ids[name] = {own["name"]: own["id"] for own in content["categories"]}
        assert max(ids[name].values()) > len(ids[name])
        assert max(own["id"] for own in content["images"]) > len(content["images"])
    assert all(ids["train"][name] != ids["val"][name] for name in ids["train"])
    assert sorted(ids["val"], key=ids["val"].get) != sorted(ids["train"], key=ids["train"].get)


def test_regions_are_those_of_the_embedded_scenes(written):
    description = describe_annotated(written / "regions")
    assert (description.classes, description.train_images, description.test_images) == (11, *IMAGES.values())
    read = read_region_folder(written / "regions", LabelRule(0, description.classes))
    for ours, theirs in zip(read, embedded("scene-regions"), strict=True):
        for index in range(len(ours)):
            np.testing.assert_array_equal(ours.read(index), theirs.read(index))
            np.testing.assert_array_equal(ours.read_classes(index), theirs.read_classes(index))


def test_a_folder_with_files_is_refused(tmp_path, capsys):
    (tmp_path / "notes.txt").write_text("mine")
    assert main(["data", "scenes", str(tmp_path)]) == 2
    assert f"{tmp_path} must be a new or an empty folder" in capsys.readouterr().err
