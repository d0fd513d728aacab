"""How long training takes, before it starts: from multiply-adds, and what a device was measured to do."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from roadmap.data.dataset import Dataset
from roadmap.design import Design, NamedModel
from roadmap.files import InvalidFile, read_json
from roadmap.network.cost import Cost, cost
from roadmap.options import Selection
from roadmap.recipe import Experiment
from roadmap.record.folder import read_metrics, read_run
from roadmap.serialization import Range, check, suggest
from roadmap.study.rungs import Rung
from roadmap.study.schema import SEEDS, THROUGHPUT, Study

NEWEST = 100  # runs that are looked at
# Of a training step: one forward pass, and two as much for the gradients.
PASSES = 3
CPU = "CPU cores"


@dataclass(frozen=True)
class Speed:
    """Multiply-adds a second that one device sustains: a GPU, or a core of a CPU."""

    macs_per_second: float
    source: str
    measured: Mapping[tuple[Design | NamedModel, int], float] = field(default_factory=dict)  # by design and image size

    def of(self, experiment: Experiment) -> float:
        """That of the same network, where it was measured."""
        return self.measured.get((experiment.design, experiment.recipe.image_size), self.macs_per_second)

    def device_hours(self, experiment: Experiment, dataset: Dataset) -> float:
        """Hours of one device for a run."""
        recipe = experiment.recipe
        macs = cost(experiment.design, recipe.image_size, dataset.classes).macs
        images = recipe.epochs * (PASSES * dataset.train_images + dataset.test_images)
        return macs * images / self.of(experiment) / 3600


@dataclass(frozen=True)
class RungEstimate:
    """What one rung takes."""

    rung: Rung
    cost: Cost  # of one forward pass
    device_hours: float  # of all its seeds
    repeated: bool  # the same experiment as a rung before it, and so the same run: it costs nothing


@dataclass(frozen=True)
class Estimate:
    """What a selection of rungs takes to train."""

    rungs: tuple[RungEstimate, ...]
    seeds: int  # runs of each rung
    gpus: int  # devices that share the work
    source: str  # where the speed of a device is from

    @property
    def device_hours(self) -> float:
        """Of all rungs and seeds."""
        return sum(estimate.device_hours for estimate in self.rungs)

    def seconds(self, device_hours: float) -> float:
        """On all devices, which share the work evenly."""
        return device_hours * 3600 / self.gpus


def estimate(
    selection: Selection,
    out: Path,
    *,
    seeds: int | None = None,
    gpus: int = 1,
    device: str | None = None,
    throughput: float | None = None,
) -> Estimate:
    """What the selected rungs take; `speed_for` has the speed. With no `seeds` the study's number of them is taken.

    Raises ValueError for numbers that are out of range, and for a device that the study does not know.
    """
    seeds = selection.study.defaults.seeds if seeds is None else seeds
    check(gpus, Range(1), "gpus")
    check(seeds, SEEDS, "seeds")
    speed = speed_for(selection, out, device, throughput)
    estimates, counted = [], set[Experiment]()
    for rung in {rung.name: rung for rung in selection.rungs()}.values():
        new = rung.experiment not in counted
        hours = speed.device_hours(rung.experiment, selection.dataset) * seeds if new else 0.0
        estimates.append(RungEstimate(rung, selection.cost(rung), hours, repeated=not new))
        counted.add(rung.experiment)
    return Estimate(tuple(estimates), seeds, gpus, speed.source)


def speed_for(selection: Selection, out: Path, device: str | None = None, throughput: float | None = None) -> Speed:
    """As given, else as the runs below `out` measured it, else as the study has it.

    On a cluster it is that of the profile's device; here that of whatever the newest runs were trained on. Raises
    ValueError for a device that the study does not know, and for a throughput (multiply-adds a second) below 1.
    """
    if throughput is not None:
        return speed_given(throughput)
    default = (selection.cluster and selection.cluster.device) or selection.study.regime(selection.regime).device
    measured = None if device else speed_measured(out, selection.regime, default if selection.cluster else None)
    return measured or speed_of(selection.study, device or default)


def speed_given(throughput: float) -> Speed:
    """Raises ValueError for a throughput that is out of range."""
    check(throughput, THROUGHPUT, "throughput")
    return Speed(throughput, f"{throughput:g} multiply-adds a second, as given")


def speed_of(study: Study, device: str) -> Speed:
    """That of a device of the study. Raises ValueError for an unknown one."""
    if device not in study.devices:
        raise ValueError(f"unknown device {device!r}; {suggest(study.devices, device)}; or give --throughput")
    found = study.devices[device]
    return Speed(
        found.macs_per_second, f"{device}: {found.macs_per_second:.3g} multiply-adds a second ({found.source})"
    )


def speed_measured(out: Path, regime: str, device: str | None = None) -> Speed | None:
    """What the newest runs of a regime came to; None where there is none.

    On the device of that name of the study, or where none is given on that of the newest run.
    """
    newest = sorted((out / regime).glob("*/metrics.jsonl"), key=lambda path: path.stat().st_mtime)[-NEWEST:]
    measured = [found for path in newest if (found := _measured(path.parent))]
    machines = [machine for machine, _, _ in measured if device is None or _is_called(machine, device)]
    if not machines:
        return None
    seen: dict[tuple[Design | NamedModel, int], list[float]] = {}
    for machine, network, macs_per_second in measured:
        if machine == machines[-1]:
            seen.setdefault(network, []).append(macs_per_second)
    import statistics  # imported late to keep `roadmap list` fast

    medians = {network: statistics.median(speeds) for network, speeds in seen.items()}
    median = statistics.median(medians.values())
    count = sum(map(len, seen.values()))
    runs = "1 run" if count == 1 else f"{count} runs"
    return Speed(median, f"{median:.3g} multiply-adds a second, measured by {runs} in {out} on {machines[-1]}", medians)


def _measured(folder: Path) -> tuple[str, tuple[Design | NamedModel, int], float] | None:
    """The kind of device, the network, and the multiply-adds a second of one device; None where a run tells no such."""
    try:
        manifest = read_json(folder / "manifest.json") or {}
        run, execution = read_run(manifest, folder), manifest["execution"]
        rates = [each.images_per_second for each in read_metrics(folder) if each.images_per_second]
        gpu = manifest["machine"]["gpu"]
        devices = execution["processes"] * (1 if gpu else execution["threads"])
    except (InvalidFile, KeyError, OSError):
        return None
    if not rates:
        return None
    import statistics

    design, size = run.experiment.design, run.experiment.recipe.image_size
    macs = cost(design, size, run.dataset.classes).macs
    return gpu or CPU, (design, size), PASSES * macs * statistics.median(rates) / devices


def _is_called(machine: str, device: str) -> bool:
    """Whether a device of the study is of that kind: `v100` is in `Tesla V100-SXM2-16GB`."""
    return device.startswith("cpu") if machine == CPU else device.lower() in machine.lower()
