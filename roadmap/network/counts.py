"""Parameters and multiply-adds of other libraries' models, by torch's counter."""

from __future__ import annotations

import contextlib
import functools
import json
import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from roadmap.design import NamedModel
from roadmap.files import append_record, read_records
from roadmap.network.library_models import build_named, builder_of, find_model


def count_named(named: NamedModel, image_size: int, num_classes: int) -> tuple[int, int]:
    """Parameters and multiply-adds of one image, by torch's counter. A file caches the counts.

    As in the paper's tables, multiply-adds are those of convolutions and matrix products, including attention. Norms,
    activations, softmax, biases and pooling are not counted. Raises ValueError if the model can't be built.
    """
    arguments = json.dumps(named.arguments, sort_keys=True)
    return _counted(named.library, named.name, arguments, image_size, num_classes)


@functools.cache
def _counted(library: Any, name: str, arguments: str, image_size: int, num_classes: int) -> tuple[int, int]:
    named = NamedModel(library, name, json.loads(arguments))
    key = "; ".join([str(named), arguments, f"{image_size} pixels", f"{num_classes} classes", *_versions(named)])
    count = _read_counts().get(key)
    if count is None:
        count = Count(key, *_count(named, num_classes, image_size))
        _keep_count(count)
    return count.parameters, count.macs


def _count(named: NamedModel, num_classes: int, image_size: int) -> tuple[int, int]:
    """Counts on the meta device, without values. A model that needs values, on the CPU."""
    try:
        return _count_on("meta", named, num_classes, image_size)
    except ValueError:
        return _count_on("cpu", named, num_classes, image_size)


def _count_on(device: str, named: NamedModel, num_classes: int, image_size: int) -> tuple[int, int]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    builder_of(named)  # imports the library here: torchvision 0.21 computes while it is imported, which needs values
    with torch.device(device), _unfused_attention():
        network = build_named(named, num_classes, image_size, 0.0).eval()
        images = torch.zeros(1, 3, image_size, image_size)
        with FlopCounterMode(display=False) as counter, torch.no_grad():
            try:
                logits = network(images)
            except Exception as error:
                raise ValueError(f"{named} takes no image of {image_size} pixels: {error}") from error
    shape = list(logits.shape) if isinstance(logits, torch.Tensor) else f"a {type(logits).__name__}"
    if shape != [1, num_classes]:
        raise ValueError(f"{named} gives {shape} for one image; logits of {num_classes} classes are expected")
    # torch counts a multiply-add as two.
    return sum(weight.numel() for weight in network.parameters()), counter.get_total_flops() // 2


@contextlib.contextmanager
def _unfused_attention() -> Iterator[None]:
    """Computes attention by matrix products, because the counter does not count fused attention on a CPU."""
    import torch
    from torch.nn.attention import SDPBackend, sdpa_kernel

    before = torch.backends.mha.get_fastpath_enabled()
    torch.backends.mha.set_fastpath_enabled(False)
    try:
        with sdpa_kernel(SDPBackend.MATH):
            yield
    finally:
        torch.backends.mha.set_fastpath_enabled(before)


def _versions(named: NamedModel) -> list[str]:
    """The versions that a count depends on; a custom model may use any library."""
    from importlib.metadata import version

    code = [find_model(named.name).code] if named.library == "own" else []
    return code + [f"{library} {version(library)}" for library in ("timm", "torchvision", "torch")]


@dataclass(frozen=True)
class Count:
    """A line of the file of counts."""

    model: str  # with everything that the count depends on
    parameters: int
    macs: int


SHIPPED = Path(__file__).with_name("counts.jsonl")  # of the references, by scripts/count_references.py
FORMAT = 2  # format 1 had counts of custom models without attention


def counts_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "roadmap" / "counts.jsonl"


def _read_counts() -> dict[str, Count]:
    """Those that ship with us, for the versions with which they were made, and those of the user's cache."""
    found: dict[str, Count] = {}
    for path in (SHIPPED, counts_file()):
        with contextlib.suppress(OSError):
            found |= {count.model: count for count in read_records(path, Count, FORMAT)}
    return found


def _keep_count(count: Count) -> None:
    path = counts_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append_record(path, count, FORMAT)
    except OSError:  # the next process counts again
        return
