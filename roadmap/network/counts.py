"""Parameters and multiply-adds of other libraries' models, by torch's own counter."""

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
from roadmap.network.library_models import build_named, find_model


def count_named(named: NamedModel, image_size: int, num_classes: int) -> tuple[int, int]:
    """Parameters and multiply-adds of one image, by torch's own counter; kept in a file for the next process.

    Counted are convolutions and matrix products, those of attention among them, one multiply-add
    as one: what the paper's tables count. Norms, activations, softmax, biases and pooling count nothing.
    Raises ValueError where the model can't be built.
    """
    arguments = json.dumps(named.arguments, sort_keys=True)
    return _counted(named.library, named.name, arguments, image_size, num_classes)


@functools.cache
def _counted(library: Any, name: str, arguments: str, image_size: int, num_classes: int) -> tuple[int, int]:
    named = NamedModel(library, name, json.loads(arguments))
    key = "; ".join([str(named), arguments, f"{image_size} pixels", f"{num_classes} classes", *_versions(named)])
    found = _read_counts().get(key)
    if found is None:
        found = Count(key, *_count(named, num_classes, image_size))
        _keep_count(found)
    return found.parameters, found.macs


def _count(named: NamedModel, num_classes: int, image_size: int) -> tuple[int, int]:
    """On shapes alone, where nothing is allocated or computed; of a user's model that asks for values, on some."""
    try:
        return _count_on("meta", named, num_classes, image_size)
    except ValueError:
        if named.library != "own":  # whose models all count so: the error is what it says
            raise
        return _count_on("cpu", named, num_classes, image_size)


def _count_on(device: str, named: NamedModel, num_classes: int, image_size: int) -> tuple[int, int]:
    import torch
    from torch.utils.flop_counter import FlopCounterMode

    with torch.device(device), _plain_attention():
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
    # A multiply-add is two of what torch counts.
    return sum(weight.numel() for weight in network.parameters()), counter.get_total_flops() // 2


@contextlib.contextmanager
def _plain_attention() -> Iterator[None]:
    """As the matrix products that the counter knows: of a CPU's fused attention it knows nothing."""
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
    """Of all that a count depends on: a user's model may be of any of them."""
    from importlib.metadata import version

    own = [find_model(named.name).code] if named.library == "own" else []
    return own + [f"{library} {version(library)}" for library in ("timm", "torchvision", "torch")]


@dataclass(frozen=True)
class Count:
    """A line of the file that keeps counts."""

    model: str  # with all that the count depends on
    parameters: int
    macs: int


FORMAT = 2  # 1 had counts of users' models without their attention


def counts_file() -> Path:
    return Path(os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")) / "roadmap" / "counts.jsonl"


def _read_counts() -> dict[str, Count]:
    try:
        return {found.model: found for found in read_records(counts_file(), Count, FORMAT)}
    except OSError:
        return {}


def _keep_count(found: Count) -> None:
    path = counts_file()
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        append_record(path, found, FORMAT)
    except OSError:  # then it is counted again
        return
