"""How long training takes, before it is begun: from multiply-adds, and what a device was seen to do."""

from __future__ import annotations

import statistics
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Literal

from roadmap.costs import cost
from roadmap.design import Design
from roadmap.plain import LARGEST, choices
from roadmap.recipe import Experiment
from roadmap.record import ForeignFolder, read_json, read_metrics, read_run
from roadmap.study import Dataset, Study

NEWEST = 100  # runs that are looked at
# Of a training step: one forward pass, and two as much for the gradients.
PASSES = 3


@dataclass(frozen=True)
class Speed:
    """Multiply-adds a second that one device sustains: a GPU, or a core of a CPU."""

    macs_per_second: float
    source: str
    measured: Mapping[tuple[Design, int], float] = field(default_factory=dict)  # by design and image size

    def of(self, experiment: Experiment) -> float:
        """That of the same network, where it was measured."""
        return self.measured.get((experiment.design, experiment.recipe.image_size), self.macs_per_second)

    def device_hours(self, experiment: Experiment, dataset: Dataset) -> float:
        """Hours of one device for a run."""
        recipe = experiment.recipe
        macs = cost(experiment.design, recipe.image_size, dataset.classes).macs
        images = recipe.epochs * (PASSES * dataset.train_images + dataset.test_images)
        return macs * images / self.of(experiment) / 3600


def speed_given(throughput: float) -> Speed:
    """Raises ValueError for what is no speed."""
    if not 1 <= throughput < LARGEST * 1e6:
        raise ValueError(f"--throughput {throughput:g} is not valid: multiply-adds a second, 1 or more, are")
    return Speed(throughput, f"{throughput:g} multiply-adds a second, as given")


def speed_of(study: Study, device: str) -> Speed:
    """That of a device of the study. Raises ValueError for an unknown one."""
    if device not in study.devices:
        raise ValueError(f"unknown device {device!r}; {choices(study.devices, device)}; or give --throughput")
    found = study.devices[device]
    return Speed(
        found.macs_per_second, f"{device}: {found.macs_per_second:.3g} multiply-adds a second ({found.source})"
    )


def speed_measured(out: Path, regime: str, kind: Literal["cpu", "cuda"] | None = None) -> Speed | None:
    """What the newest runs of a regime came to, on devices of a kind where one is given; None where there is none."""
    newest = sorted((out / regime).glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)[-NEWEST:]
    seen: dict[tuple[Design, int], list[float]] = {}
    machines: set[str] = set()
    for path in newest:
        try:
            manifest = read_json(path.parent / "manifest.json") or {}
            run, execution = read_run(manifest, path.parent), manifest["execution"]
            rates = [row["images_per_second"] for row in read_metrics(path.parent) if row["images_per_second"]]
            devices = execution["processes"] * (1 if execution["device"] == "cuda" else execution["threads"])
        except (ForeignFolder, KeyError, OSError):
            continue
        if not rates or kind not in (None, execution["device"]):
            continue
        design, size = run.experiment.design, run.experiment.recipe.image_size
        macs = cost(design, size, run.dataset.classes).macs
        seen.setdefault((design, size), []).append(PASSES * macs * statistics.median(rates) / devices)
        machines.add(manifest.get("machine", {}).get("gpu") or "CPU cores")
    if not seen:
        return None
    measured = {key: statistics.median(speeds) for key, speeds in seen.items()}
    median = statistics.median(measured.values())
    runs = sum(map(len, seen.values()))
    source = f"{median:.3g} multiply-adds a second, measured by {runs} runs in {out} on {', '.join(sorted(machines))}"
    return Speed(median, source, measured)
