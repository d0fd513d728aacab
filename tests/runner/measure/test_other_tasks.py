"""Networks of detection and segmentation: evaluated again, and exported."""

from __future__ import annotations

import json

import numpy as np
import pytest
import torch

from roadmap.cli import main
from roadmap.record.folder import read_result
from roadmap.record.results import scalar
from runner.measure.export import _difference
from runner.measure.programs import program_of
from runner.train.tasks.registry import task_of
from tests.helpers.training import train
from tests.helpers.transfers import few_scenes, transfer_of

OPTIONS = {"detection": {"transfer.score_threshold": 0.0}, "segmentation": {}}  # 0: few epochs find something too
METRIC = {"detection": "box_ap", "segmentation": "miou"}


@pytest.fixture(scope="module", params=["detection", "segmentation"])
def trained(request, tmp_path_factory):
    """A run that was trained on few scenes, and its folder."""
    with pytest.MonkeyPatch.context() as patch:
        few_scenes(patch)
        run = transfer_of("layer-scale", request.param, begin="scratch", options=OPTIONS[request.param])
        folder = run.folder(tmp_path_factory.mktemp("runs"))
        train(run, folder)
        yield run, folder


def test_evaluating_again_gives_what_the_run_recorded(trained, capsys):
    run, folder = trained
    assert main(["evaluate", str(folder), "--json"]) == 0
    values = json.loads(capsys.readouterr().out)
    result = read_result(folder, run)
    assert values[METRIC[run.task]] == pytest.approx(scalar(result.values[METRIC[run.task]]))
    assert main(["evaluate", str(folder)]) == 0
    assert "6 held-out images" in capsys.readouterr().out


def test_data_with_other_annotations_is_refused(trained, capsys):
    run, folder = trained
    assert main(["evaluate", str(folder), "--data", "digits"]) == 2
    needed = "objects" if run.task == "detection" else "regions"
    assert f"--data digits has classes for each image; {run.name} needs {needed}" in capsys.readouterr().err


def test_weights_are_exported_and_read_back(trained, tmp_path, capsys):
    from safetensors.torch import load_file

    run, folder = trained
    assert main(["export", str(folder), "-o", str(tmp_path / "n.safetensors")]) == 0
    assert "its outputs differ by at most 0e+00" in capsys.readouterr().out
    network = task_of(run).network()
    network.load_state_dict(load_file(tmp_path / "n.safetensors"), strict=False)
    assert main(["export", str(folder), "--to", "timm", "-o", str(tmp_path / "t")]) == 2
    expected = f"--to timm takes classifiers; for a network of {run.task}: safetensors or onnx"
    assert expected in capsys.readouterr().err


@pytest.mark.slow
def test_onnx_gives_the_same_for_other_images(trained, tmp_path, capsys):
    onnxruntime = pytest.importorskip("onnxruntime")
    run, folder = trained
    path = tmp_path / "n.onnx"
    assert main(["export", str(folder), "--to", "onnx", "-o", str(path)]) == 0
    assert "its outputs differ by at most" in capsys.readouterr().out
    from runner.measure.trained import read_trained

    program = program_of(run, read_trained(folder).network)
    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    assert [output.name for output in session.get_outputs()] == list(program.outputs)
    sizes = [(64, 96), (128, 64)] if run.task == "detection" else [(64, 64)]
    for size in sizes:
        images = torch.randn(1, 3, *size, generator=torch.Generator().manual_seed(1))
        for expected, output in zip(program(images), session.run(None, {"images": images.numpy()}), strict=True):
            np.testing.assert_allclose(output, expected.numpy(), atol=1e-3)


def test_another_network_is_seen_in_the_outputs(trained):
    """So that the check of an export can fail."""
    run, _ = trained
    torch.manual_seed(0)
    first, second = (program_of(run, task_of(run).network().eval()) for _ in range(2))
    assert _difference(first, first) == 0
    assert _difference(first, second) > 1e-2
