"""Exporting a trained network, as weights or as a program that runs without this project."""

from __future__ import annotations

import io
import json
import os
import warnings
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from torch import Tensor, nn

from roadmap.files import make_parent
from roadmap.record.run import Run
from runner.measure.trained import Trained, untrained

Form = Literal["safetensors", "torchscript", "onnx"]
SUFFIXES: dict[Form, str] = {"safetensors": ".safetensors", "torchscript": ".pt", "onnx": ".onnx"}
TOLERANCE = 1e-4  # of the largest output, between a network and the exported one
ONNX_TORCH = "2.14"  # and later: tested with every rung
IMAGES = 2  # on which they are compared


@dataclass(frozen=True)
class Exported:
    """An exported file."""

    path: Path
    form: Form
    bytes: int
    largest_difference: float  # of the outputs of the file that was read again, over the largest output


def export_network(trained: Trained, form: Form, path: Path) -> Exported:
    """Writes a run's network, and creates the folder. Raises the errors of `export`."""
    make_parent(path)
    difference = export(trained.run, trained.network, form, path)
    return Exported(path, form, path.stat().st_size, difference)


def export(run: Run, network: nn.Module, form: Form, path: Path) -> float:
    """Writes a network, reads it again, and returns the largest difference of its outputs, over the largest output.

    The file gets its name after this check. Raises ValueError if the difference is above TOLERANCE or if a package that
    the form needs is not installed, and OSError if the path can't be written.
    """
    size = run.experiment.recipe.image_size
    images = torch.rand(IMAGES, 3, size, size, generator=torch.Generator().manual_seed(0))
    expected = _outputs(network, images)
    if path.exists() and not path.is_file():  # the new file would replace, for instance, a device
        raise ValueError(f"{path} must be a file (got {'a folder' if path.is_dir() else 'a special file'})")
    temporary = path.with_name(f"{path.name}.new")
    temporary.open("wb").close()  # raises the system's OSError, instead of an error of the form's library
    try:
        _write(form, run, network, images, temporary)
        outputs = READERS[form](run, temporary)(images)
        difference = float((outputs - expected).abs().max() / expected.abs().max())
        if not difference <= TOLERANCE:
            raise ValueError(f"{path}: its outputs must differ by at most {TOLERANCE:.0e} (got {difference:.1e})")
        os.replace(temporary, path)
    finally:
        temporary.unlink(missing_ok=True)
    return difference


def _write(form: Form, run: Run, network: nn.Module, images: Tensor, path: Path) -> None:
    """Raises OSError or ValueError with the path if the disk fails, whatever the library raises."""
    from safetensors import SafetensorError

    try:
        WRITERS[form](run, network, images, path)
    except SafetensorError as error:
        raise ValueError(f"{path} can't be written: {error}") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


@torch.no_grad()
def _outputs(network: nn.Module, images: Tensor) -> Tensor:
    outputs: Tensor = network(images)
    return outputs


def _describe(run: Run) -> dict[str, str]:
    """The metadata of the file."""
    data, recipe = run.dataset, run.experiment.recipe
    return {
        "run": f"{run.name}-{run.identity}",
        "input": f"N x 3 x {recipe.image_size} x {recipe.image_size}, scaled to 0..1, less mean, over std",
        "mean": str(list(data.mean)),
        "std": str(list(data.std)),
        "classes": str(data.classes),
    }


def _write_safetensors(run: Run, network: nn.Module, images: Tensor, path: Path) -> None:
    from safetensors.torch import save_model

    save_model(network, str(path), _describe(run))


def _read_safetensors(run: Run, path: Path) -> Callable[[Tensor], Tensor]:
    from safetensors.torch import load_model

    network = untrained(run)
    load_model(network, str(path))
    return lambda images: _outputs(network, images)


def _write_torchscript(run: Run, network: nn.Module, images: Tensor, path: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():  # about values traced as constants, such as image sizes
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(network, images, check_trace=False)
        content = io.BytesIO()  # if torch wrote to a full disk itself, the process would abort
        torch.jit.save(traced, content, _extra_files={"run.json": json.dumps(_describe(run))})
        path.write_bytes(content.getvalue())


def _read_torchscript(run: Run, path: Path) -> Callable[[Tensor], Tensor]:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.load(str(path))
    return lambda images: _outputs(network, images)


def _write_onnx(run: Run, network: nn.Module, images: Tensor, path: Path) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript
    except ImportError as error:
        raise ValueError(f"--to onnx requires the package {error.name}: pip install 'roadmap-convnext[onnx]'") from None
    try:
        torch.onnx.export(
            network,
            (images,),
            str(path),
            input_names=["images"],
            output_names=["logits"],
            dynamic_shapes=({0: torch.export.Dim("batch")},),
            external_data=False,
            verbose=False,
            dynamo=True,  # the default of newer versions
        )
    except (
        RuntimeError
    ) as error:  # of torch's exporter, or of onnxscript, which each support some versions of the other
        raise ValueError(
            f"--to onnx: torch {torch.__version__} with onnxscript {onnxscript.__version__} can't write {run.name} "
            f"({type(error).__name__}); torch {ONNX_TORCH} can: pip install --upgrade torch torchvision onnxscript"
        ) from error
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, _describe(run))
    onnx.save(model, str(path))


def _read_onnx(run: Run, path: Path) -> Callable[[Tensor], Tensor]:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: torch.from_numpy(session.run(None, {"images": images.numpy()})[0])


WRITERS = {"safetensors": _write_safetensors, "torchscript": _write_torchscript, "onnx": _write_onnx}
READERS = {"safetensors": _read_safetensors, "torchscript": _read_torchscript, "onnx": _read_onnx}
