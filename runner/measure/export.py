"""Exporting a trained network, as weights or as a program that runs without this project."""

from __future__ import annotations

import io
import json
import os
import shutil
import stat
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from packaging.version import Version
from torch import Tensor, nn

from roadmap.design import Design
from roadmap.files import make_parent
from roadmap.options import StudyOptions
from roadmap.record.run import Run, find_run
from runner.measure.trained import Trained, read_trained, untrained

Form = Literal["safetensors", "torchscript", "onnx", "timm"]
SUFFIXES: dict[Form, str] = {"safetensors": ".safetensors", "torchscript": ".pt", "onnx": ".onnx", "timm": "-timm"}
TOLERANCE = 1e-4  # of the largest output, between a network and the exported one
ONNX_TORCH = "2.14"  # and later: tested with every rung
IMAGES = 2  # on which they are compared


@dataclass(frozen=True)
class Exported:
    """An exported file, or folder for timm."""

    path: Path
    form: Form
    bytes: int
    largest_difference: float  # of the outputs of the file that was read again, over the largest output
    note: str  # that the run has not finished training; empty if it has


def export_run(
    name: str | Path, form: Form, path: Path | None, *, averaged: bool, study: StudyOptions, out: Path | None
) -> Exported:
    """Writes a run's network, by default into the run's folder, and creates the folder of `path`.

    The run is named as by `find_run`. Raises the errors of `find_run`, `read_trained` and `export`.
    """
    study.study()  # loads the plug-ins that the network may need
    folder = find_run(name, study.out(out))
    trained = read_trained(folder, averaged=averaged)
    path = folder / f"network{SUFFIXES[form]}" if path is None else path
    make_parent(path)
    difference = export(trained, form, path)
    files = [path] if path.is_file() else list(path.iterdir())
    return Exported(path, form, sum(file.stat().st_size for file in files), difference, trained.note)


def export(trained: Trained, form: Form, path: Path) -> float:
    """Writes a network, reads it again, and returns the largest difference of its outputs, over the largest output.

    The file gets its name after this check. Raises ValueError if the difference is above TOLERANCE or if a package that
    the form needs is not installed, and OSError if the path can't be written.
    """
    run, network = trained.run, trained.network
    size = run.experiment.recipe.image_size
    images = torch.rand(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = _outputs(network, images)
    wanted = Path.is_dir if form == "timm" else Path.is_file
    if path.exists() and not wanted(path):  # the new file would replace, for instance, a device
        kind = "a folder" if path.is_dir() else "a file" if path.is_file() else "a special file"
        raise ValueError(f"{path} must be {'a folder' if form == 'timm' else 'a file'} (got {kind})")
    temporary = path.with_name(f"{path.name}.new")
    # Raises the system's OSError, instead of an error of the form's library.
    temporary.mkdir(exist_ok=True) if form == "timm" else temporary.open("wb").close()
    mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666  # by the umask; libraries make files for the user alone
    try:
        _write(form, trained, images, temporary)
        outputs = READERS[form](run, temporary)(images)
        difference = float((outputs - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCE:
            raise ValueError(f"{path}: its outputs must differ by at most {TOLERANCE:.0e} (got {difference:.1e})")
        for file in temporary.iterdir() if form == "timm" else [temporary]:
            file.chmod(mode)
        _rename(temporary, path)
    finally:
        shutil.rmtree(temporary, ignore_errors=True) if form == "timm" else temporary.unlink(missing_ok=True)
    return difference


def _rename(written: Path, path: Path) -> None:
    """Gives the files of a folder their names one by one: other files there, such as a README.md, stay."""
    if written.is_dir():
        path.mkdir(exist_ok=True)
    for file in sorted(written.iterdir()) if written.is_dir() else [written]:
        os.replace(file, path / file.name if written.is_dir() else path)


def _write(form: Form, trained: Trained, images: Tensor, path: Path) -> None:
    """Raises OSError or ValueError with the path if the disk fails, whatever the library raises."""
    from safetensors import SafetensorError

    try:
        WRITERS[form](trained, images, path)
    except SafetensorError as error:
        raise ValueError(f"{path} can't be written: {error}") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@torch.no_grad()
def _outputs(network: nn.Module, images: Tensor) -> Tensor:
    outputs: Tensor = network(images)
    return outputs


def _describe(trained: Trained, sizes: str | None = None) -> dict[str, str]:
    """The metadata of the file. `sizes`: of the images that it takes, by default those of the recipe."""
    run = trained.run
    data, size = run.dataset, run.experiment.recipe.image_size
    return {
        "run": f"{run.name}-{run.identity}",
        "input": f"N x 3 x {sizes or f'{size} x {size}'}, scaled to 0..1, less mean, over std",
        "mean": str(list(data.mean)),
        "std": str(list(data.std)),
        "classes": str(data.classes),
        "class_names": json.dumps(trained.known_class_names, ensure_ascii=False),  # in the order of the outputs
    }


def _write_safetensors(trained: Trained, images: Tensor, path: Path) -> None:
    from safetensors.torch import save_model

    save_model(trained.network, str(path), _describe(trained))


def _read_safetensors(run: Run, path: Path) -> Callable[[Tensor], Tensor]:
    from safetensors.torch import load_model

    network = untrained(run)
    load_model(network, str(path))
    return lambda images: _outputs(network, images)


def _write_torchscript(trained: Trained, images: Tensor, path: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():  # about values traced as constants, such as image sizes
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(trained.network, images, check_trace=False)
        content = io.BytesIO()  # if torch wrote to a full disk itself, the process would abort
        torch.jit.save(traced, content, _extra_files={"run.json": json.dumps(_describe(trained))})
        path.write_bytes(content.getvalue())


def _read_torchscript(run: Run, path: Path) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.load(str(path))
    return lambda images: _outputs(network, images)


def _write_onnx(trained: Trained, images: Tensor, path: Path) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript
    except ImportError as error:
        raise ValueError(f"--to onnx requires the package {error.name}: pip install 'roadmap-convnext[onnx]'") from None
    any_size = isinstance(trained.run.experiment.design, Design)  # models of other libraries may need a certain one
    batch, size = torch.export.Dim("batch"), torch.export.Dim.DYNAMIC
    if any_size:  # with maps of a single pixel the exporter would take their size as constant
        images = images.repeat(1, 1, 2, 2)
    try:
        torch.onnx.export(
            trained.network,
            (images,),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: batch, 2: size, 3: size} if any_size else {0: batch},),
            dynamo=True,  # the default of newer versions
            external_data=False,
            verbose=False,
        )
    except RuntimeError as error:  # of torch's exporter or onnxscript: each supports some versions of the other
        versions = f"torch {torch.__version__} with onnxscript {onnxscript.__version__}"
        is_old = Version(torch.__version__) < Version(ONNX_TORCH)
        advice = f"torch {ONNX_TORCH} can: pip install --upgrade torch torchvision onnxscript" if is_old else ""
        reason = advice or " ".join(str(error.__cause__ or error).split())[:300]
        raise ValueError(f"--to onnx: {versions} can't write {trained.run.name}: {reason}") from error
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, _describe(trained, "height x width" if any_size else None))
    onnx.save(model, str(path))


def _read_onnx(run: Run, path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


def _write_timm(trained: Trained, images: Tensor, path: Path) -> None:
    from roadmap.timm.hub import write_folder

    write_folder(trained.run, trained.network, trained.known_class_names, path)


def _read_timm(run: Run, path: Path) -> Callable[[Tensor], Tensor]:
    from roadmap.timm.hub import read_folder

    network = read_folder(path)
    return lambda images: _outputs(network, images)


WRITERS = {
    "safetensors": _write_safetensors,
    "torchscript": _write_torchscript,
    "onnx": _write_onnx,
    "timm": _write_timm,
}
READERS = {
    "safetensors": _read_safetensors,
    "torchscript": _read_torchscript,
    "onnx": _read_onnx,
    "timm": _read_timm,
}
