"""Exporting a trained network, as weights or as a program that runs without this project."""

from __future__ import annotations

import io
import json
import math
import os
import shutil
import stat
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Literal

import torch
from packaging.version import Version
from torch import Tensor
from torch.nn import functional as F

from roadmap.files import make_parent
from roadmap.options import StudyOptions
from roadmap.record.run import Run, find_run
from roadmap.tasks.registry import CLASSIFICATION
from runner.measure.programs import Program, program_of
from runner.measure.trained import Trained, read_trained, untrained

Form = Literal["safetensors", "torchscript", "onnx", "timm"]
SUFFIXES: dict[Form, str] = {"safetensors": ".safetensors", "torchscript": ".pt", "onnx": ".onnx", "timm": "-timm"}
TOLERANCE = 1e-4  # of the largest output, between a network and the exported one
ONNX_OPSET = 18  # of the older exporter
ONNX_TORCH = "2.14"  # and later: tested with every rung
FOUND_IN = 8  # images on which detectors are compared
OF_ALL_TASKS: tuple[Form, ...] = ("safetensors", "onnx")
Copy = Callable[[Tensor], Sequence[Tensor]]  # what was read again: images to outputs


@dataclass(frozen=True)
class Exported:
    """An exported file, or folder for timm."""

    path: Path
    form: Form
    bytes: int
    # Of the outputs of the file, read again, over the largest; None: a detector found nothing to compare.
    largest_difference: float | None
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


def export(trained: Trained, form: Form, path: Path) -> float | None:
    """Writes a network, reads it again, and returns the largest difference of its outputs, over the largest output.

    None if a detector found nothing to compare. The file gets its name after this check. Raises ValueError if the
    difference is above TOLERANCE, for a form that the task does not have, and if a package that the form needs is not
    installed; OSError if the path can't be written.
    """
    run = trained.run
    if run.task != CLASSIFICATION and form not in OF_ALL_TASKS:
        raise ValueError(f"--to {form} takes classifiers; for a network of {run.task}: {' or '.join(OF_ALL_TASKS)}")
    program = program_of(run, trained.network)
    wanted = Path.is_dir if form == "timm" else Path.is_file
    if path.exists() and not wanted(path):  # the new file would replace, for instance, a device
        kind = "a folder" if path.is_dir() else "a file" if path.is_file() else "a special file"
        raise ValueError(f"{path} must be {'a folder' if form == 'timm' else 'a file'} (got {kind})")
    temporary = path.with_name(f"{path.name}.new")
    # Raises the system's OSError, instead of an error of the form's library.
    temporary.mkdir(exist_ok=True) if form == "timm" else temporary.open("wb").close()
    mode = stat.S_IMODE(temporary.stat().st_mode) & 0o666  # by the umask; libraries make files for the user alone
    try:
        _write(form, trained, program, temporary)
        difference = _difference(program, READERS[form](run, temporary))
        if difference is not None and not difference <= TOLERANCE:
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


def _difference(program: Program, copy: Copy) -> float | None:
    """The largest of all outputs, each over its largest value; infinite if another number of objects is found."""
    worst: list[float] = []
    for images in _probes(program):
        for expected, output in zip(program(images), copy(images), strict=True):
            if expected.shape != output.shape:
                worst.append(math.inf)
            elif expected.numel():
                worst.append(float((output - expected).abs().max() / expected.abs().max()))
    return next(filter(math.isnan, worst), max(worst, default=None))


def _probes(program: Program) -> list[Tensor]:
    """Images on which a network and its copy are compared."""
    draw, side = torch.Generator().manual_seed(0), program.size
    if not program.found:
        return [torch.rand(program.images, 3, side, side, generator=draw)]
    coarse = torch.randn(FOUND_IN, 3, 6, 6, generator=draw)  # blobs, in which a detector may find something
    return list(F.interpolate(coarse, (side, side), mode="bicubic").split(1))


def _write(form: Form, trained: Trained, program: Program, path: Path) -> None:
    """Raises OSError or ValueError with the path if the disk fails, whatever the library raises."""
    from safetensors import SafetensorError

    try:
        WRITERS[form](trained, program, path)
    except SafetensorError as error:
        raise ValueError(f"{path} can't be written: {error}") from None
    except OSError as error:
        raise OSError(error.errno, error.strerror, str(path)) from None


def _describe(trained: Trained, program: Program, sizes: str | None = None) -> dict[str, str]:
    """The metadata of the file. `sizes`: of the images that it takes, by default those of the recipe."""
    run = trained.run
    data, size, batch = run.dataset, program.size, "N" if program.images > 1 else program.images
    return {
        "run": f"{run.name}-{run.identity}",
        "input": f"{batch} x 3 x {sizes or f'{size} x {size}'}, scaled to 0..1, less mean, over std",
        "mean": str(list(data.mean)),
        "std": str(list(data.std)),
        "outputs": ", ".join(program.outputs),
        "classes": str(data.classes),
        "class_names": json.dumps(trained.known_class_names, ensure_ascii=False),  # in the order of the outputs
    }


def _write_safetensors(trained: Trained, program: Program, path: Path) -> None:
    from safetensors.torch import save_model

    save_model(trained.network, str(path), _describe(trained, program))


def _read_safetensors(run: Run, path: Path) -> Copy:
    from safetensors.torch import load_model

    network = untrained(run)
    load_model(network, str(path))
    return program_of(run, network)


def _write_torchscript(trained: Trained, program: Program, path: Path) -> None:
    with torch.no_grad(), warnings.catch_warnings():  # about values traced as constants, such as image sizes
        warnings.simplefilter("ignore")
        traced = torch.jit.trace(trained.network, _probes(program)[0], check_trace=False)
        content = io.BytesIO()  # if torch wrote to a full disk itself, the process would abort
        torch.jit.save(traced, content, _extra_files={"run.json": json.dumps(_describe(trained, program))})
        path.write_bytes(content.getvalue())


def _read_torchscript(run: Run, path: Path) -> Copy:
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        network = torch.jit.load(str(path))
    return program_of(run, network)


def _write_onnx(trained: Trained, program: Program, path: Path) -> None:
    try:
        import onnx
        import onnxruntime  # noqa: F401
        import onnxscript
    except ImportError as error:
        raise ValueError(f"--to onnx requires the package {error.name}: pip install 'roadmap-convnext[onnx]'") from None
    images = _probes(program)[0]
    try:
        (_trace_onnx if program.found else _export_onnx)(program, images, path)
    except RuntimeError as error:  # of torch's exporter or onnxscript: each supports some versions of the other
        versions = f"torch {torch.__version__} with onnxscript {onnxscript.__version__}"
        is_old = Version(torch.__version__) < Version(ONNX_TORCH)
        advice = f"torch {ONNX_TORCH} can: pip install --upgrade torch torchvision onnxscript" if is_old else ""
        reason = advice or " ".join(str(error.__cause__ or error).split())[:300]
        raise ValueError(f"--to onnx: {versions} can't write {trained.run.name}: {reason}") from error
    model = onnx.load(str(path))
    onnx.helper.set_model_props(model, _describe(trained, program, "height x width" if program.any_size else None))
    onnx.save(model, str(path))


def _export_onnx(program: Program, images: Tensor, path: Path) -> None:
    batch, size = torch.export.Dim("batch"), torch.export.Dim.DYNAMIC
    if program.any_size:  # with maps of a single pixel the exporter would take their size as constant
        images = images.repeat(1, 1, 2, 2)
    torch.onnx.export(
        program.network,
        (images,),
        str(path),
        input_names=["images"],
        output_names=list(program.outputs),
        dynamic_shapes=({0: batch, 2: size, 3: size} if program.any_size else {0: batch},),
        dynamo=True,  # the default of newer versions
        external_data=False,
        verbose=False,
    )


def _trace_onnx(program: Program, images: Tensor, path: Path) -> None:
    """By torch's older exporter: the newer one takes no network whose outputs are as many as what it finds."""
    with warnings.catch_warnings():  # that it is older, and about values traced as constants
        warnings.simplefilter("ignore")
        torch.onnx.export(
            program.network,
            (images,),
            str(path),
            input_names=["images"],
            output_names=list(program.outputs),
            dynamic_axes={"images": {2: "height", 3: "width"}, **{name: {0: "objects"} for name in program.outputs}},
            opset_version=ONNX_OPSET,
            dynamo=False,
        )


def _read_onnx(run: Run, path: Path) -> Copy:
    import onnxruntime

    session = onnxruntime.InferenceSession(str(path), providers=["CPUExecutionProvider"])
    return lambda images: [torch.from_numpy(output) for output in session.run(None, {"images": images.numpy()})]


def _write_timm(trained: Trained, program: Program, path: Path) -> None:
    from roadmap.timm.hub import write_folder

    write_folder(trained.run, trained.network, trained.known_class_names, path)


def _read_timm(run: Run, path: Path) -> Copy:
    from roadmap.timm.hub import read_folder

    return program_of(run, read_folder(path))


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
