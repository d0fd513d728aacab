"""Networks taken away: the file gives the same outputs, without this project where the form is a program."""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys

import pytest
import torch
from packaging.version import Version
from safetensors import safe_open

import roadmap
from roadmap.cli import main
from runner.measure.export import ONNX_TORCH
from runner.measure.trained import read_trained
from tests.helpers import ROOT
from tests.helpers.command import run_here
from tests.helpers.once import once

SHORT = ["--set", "recipe.epochs=1", "--set", "recipe.warmup_epochs=0"]
RUNGS = "pico,layer-scale"


@pytest.fixture(scope="module")
def runs(tmp_path_factory):
    chosen = ["--steps", RUNGS, "--references", "swin-t", "--set", "recipe.ema=0.9"]

    def fill(folder):
        done = run_here("run", "--seeds", "1", *chosen, "--out", folder, *SHORT)
        assert done, done.err

    # A copy, since evaluations are kept beside the runs.
    return shutil.copytree(once("runs-to-export", fill), tmp_path_factory.mktemp("export") / "runs")


@pytest.mark.parametrize("form", ["safetensors", "torchscript", "onnx", "timm"])
@pytest.mark.parametrize("rung", ["pico", "layer-scale", "swin-t"])
def test_what_is_exported_gives_the_same_outputs(runs, tmp_path, capsys, rung, form):
    path = tmp_path / "network"
    status = main(["export", f"{rung}-s0", "--to", form, "--out", str(runs), "-o", str(path)])
    if form == "onnx" and rung != "layer-scale" and Version(torch.__version__) < Version(ONNX_TORCH):
        assert status == 0 or f"--to onnx: torch {torch.__version__} with onnxscript" in capsys.readouterr().err
        return  # docs/versions.md
    assert status == 0
    assert re.search(r"its outputs differ by at most \de[-+]\d+", capsys.readouterr().out)
    assert (path / "model.safetensors" if form == "timm" else path).stat().st_size > 1e5


@pytest.mark.filterwarnings("ignore:`torch.jit.load` is deprecated")
def test_a_program_runs_without_this_project_on_any_number_of_images(runs, tmp_path):
    import onnxruntime

    (folder,) = runs.glob("pico/layer-scale-s0-*")
    network = read_trained(folder).network
    images, names = torch.rand(5, 3, 32, 32), [str(digit) for digit in range(10)]
    with torch.no_grad():
        wanted, larger = network(images), network(images.repeat(1, 1, 2, 3))
    assert main(["export", str(folder), "-o", str(tmp_path / "a.safetensors")]) == 0
    with safe_open(tmp_path / "a.safetensors", "pt") as file:
        assert json.loads(file.metadata()["class_names"]) == names
    assert main(["export", str(folder), "--to", "onnx", "-o", str(tmp_path / "a.onnx")]) == 0
    session = onnxruntime.InferenceSession(str(tmp_path / "a.onnx"))
    (found,) = session.run(None, {"images": images.numpy()})
    assert torch.allclose(torch.from_numpy(found), wanted, atol=1e-4)
    (found,) = session.run(None, {"images": images.repeat(1, 1, 2, 3).numpy()})
    assert torch.allclose(torch.from_numpy(found), larger, atol=1e-4)
    metadata = session.get_modelmeta().custom_metadata_map
    assert metadata["classes"] == "10" and json.loads(metadata["class_names"]) == names
    assert main(["export", str(folder), "--to", "torchscript", "-o", str(tmp_path / "a.pt")]) == 0
    message = {"run.json": ""}
    assert torch.allclose(torch.jit.load(tmp_path / "a.pt", _extra_files=message)(images), wanted, atol=1e-5)
    assert json.loads(json.loads(message["run.json"])["class_names"]) == names


def test_a_path_that_can_not_be_written_is_reported(runs, tmp_path, capsys):
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    for form in ("safetensors", "torchscript", "onnx"):
        for path, message in (
            (tmp_path, "must be a file (got a folder)"),
            (pipe, "must be a file (got a special file)"),
            ("/proc/nothing", "/proc/nothing.new: "),
        ):
            assert main(["export", "pico-s0", "--to", form, "--out", str(runs), "-o", str(path)]) == 2
            assert message in capsys.readouterr().err
    (file := tmp_path / "file").touch()
    assert main(["export", "pico-s0", "--to", "timm", "--out", str(runs), "-o", str(file)]) == 2
    assert "must be a folder (got a file)" in capsys.readouterr().err
    assert sorted(tmp_path.iterdir()) == [file, pipe] and pipe.is_fifo()


@pytest.mark.parametrize("form", ["safetensors", "torchscript", "onnx"])
def test_a_full_disk_leaves_what_was_exported_before(runs, tmp_path, form):
    """A limit of the size of files stands for it."""
    path = tmp_path / "network"
    path.write_text("before")
    command = [
        sys.executable,
        "-m",
        "roadmap",
        "export",
        "layer-scale-s0",
        "--to",
        form,
        "--out",
        str(runs),
        "-o",
        str(path),
    ]
    limited = "import resource, runpy, signal, sys; signal.signal(signal.SIGXFSZ, signal.SIG_IGN); "
    limited += "resource.setrlimit(resource.RLIMIT_FSIZE, (4096, 4096)); sys.argv = sys.argv[1:]; "
    limited += "runpy.run_module('roadmap', run_name='__main__')"
    done = subprocess.run([sys.executable, "-c", limited, *command[2:]], capture_output=True, text=True, cwd=ROOT)
    assert done.returncode == 2 and "Traceback" not in done.stderr and "network.new" in done.stderr, done.stderr
    assert path.read_text() == "before" and list(tmp_path.iterdir()) == [path]


def test_averaged_weights_are_others(runs):
    (folder,) = runs.glob("pico/pico-s0-*")
    raw, averaged = read_trained(folder).network, read_trained(folder, averaged=True).network
    assert not torch.equal(raw.head.weight, averaged.head.weight)


def test_a_run_that_can_not_be_exported_is_reported(runs, tmp_path, capsys):
    for written, message in (
        ("gelu-s0", "no run is called 'gelu-s0'"),
        ("nothing", "no run is called 'nothing'"),
    ):
        assert main(["export", written, "--out", str(runs)]) == 2
        assert message in capsys.readouterr().err
    (folder,) = runs.glob("pico/pico-s0-*")
    bare = tmp_path / folder.name
    bare.mkdir()
    (bare / "manifest.json").write_text((folder / "manifest.json").read_text())
    assert main(["export", str(bare)]) == 2
    assert "has no checkpoint" in capsys.readouterr().err


@pytest.mark.parametrize("rung", roadmap.ladder("resnet-50", "resnet-50,patchify-stem,gelu,layer-scale,+patchify-stem"))
def test_every_rung_gives_maps_of_four_strides(rung):
    network = roadmap.build(rung.experiment.design, 10).eval()
    with torch.no_grad():
        found = network.maps(torch.rand(1, 3, 64, 64))
    assert [64 // each.shape[-1] for each in found] == [4, 8, 16, 32]
    assert found[-1].shape[1] == network.head.in_features


@pytest.mark.parametrize(
    ("options", "message"),
    [
        (["--set", "recipe.epochs=2"], "--set recipe.epochs=2 requires --state-dict"),
        (["--regime", "pico"], "--regime requires --state-dict"),
        (["--of", "timm/resnet50"], "--of requires --state-dict"),
        (["--state-dict", "a.pth", "--of", "timm/resnet50", "--weights", "ema"], "--weights ema requires a run"),
        (["--state-dict", "a.pth"], "--state-dict requires --of LIBRARY/NAME"),
    ],
)
def test_options_that_are_unused_in_an_evaluation_are_refused(runs, capsys, options, message):
    assert main(["evaluate", "pico-s0", "--out", str(runs), *options]) == 2
    assert message in capsys.readouterr().err


def test_a_run_is_evaluated_as_it_was_in_training(runs, capsys):
    (folder,) = runs.glob("pico/layer-scale-s0-*")
    result = json.loads((folder / "result.json").read_text())
    capsys.readouterr()
    for weights, key in (("raw", ""), ("ema", "ema_")):
        assert main(["evaluate", "layer-scale-s0", "--out", str(runs), "--weights", weights, "--json"]) == 0
        found = json.loads(capsys.readouterr().out)
        assert found["top1"] == pytest.approx(result[f"{key}top1"])
        assert found["test_loss"] == pytest.approx(result[f"{key}test_loss"], rel=1e-4)


@pytest.mark.parametrize("suffix", [".pth", ".safetensors"])
def test_a_peers_weights_are_evaluated_in_the_same_network(tmp_path, capsys, suffix):
    """torchvision's convnext_tiny of ten classes, on digits scaled to 32 pixels."""
    from safetensors.torch import save_file
    from torchvision import models

    torch.manual_seed(0)
    weights = models.convnext_tiny(num_classes=10).state_dict()
    path = tmp_path / f"weights{suffix}"
    save_file(weights, str(path)) if suffix == ".safetensors" else torch.save({"model": weights}, path)
    command = ["evaluate", "layer-scale", "--regime", "resnet-50", "--data", "digits"]
    settings = ["--set", "recipe.image_size=32", "--set", "recipe.batch_size=64"]
    assert main([*command, *settings, "--state-dict", str(path), "--of", "torchvision/convnext_tiny"]) == 0
    assert re.search(r"on 510 held-out images of digits: top-1 \d", capsys.readouterr().out)
    for other, message in (
        ("torchvision/resnet50", "is not the network of resnet50"),
        ("resnet50", "must be torchvision/NAME"),
    ):
        assert main([*command, *settings, "--state-dict", str(path), "--of", other]) == 2
        assert message in capsys.readouterr().err


@pytest.mark.parametrize("form", ["safetensors", "torchscript", "onnx"])
def test_the_umask_decides_who_reads_the_file(runs, tmp_path, form):
    before = os.umask(0o027)
    try:
        assert run_here("export", "layer-scale-s0", "--to", form, "--out", runs, "-o", tmp_path / "network")
    finally:
        os.umask(before)
    assert oct((tmp_path / "network").stat().st_mode)[-3:] == "640"
