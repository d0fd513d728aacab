"""Estimates of training time, from multiply-adds and the speed of a device."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path

from roadmap.data.dataset import Dataset
from roadmap.design import Design, NamedModel
from roadmap.files import InvalidFile
from roadmap.network.cost import PASSES, Cost, cost, depthwise
from roadmap.options import Selection
from roadmap.recipe import Experiment
from roadmap.record.folder import read_manifest, read_metrics
from roadmap.serialization.ranges import Range, check
from roadmap.study.references import as_published, reference_network
from roadmap.study.rungs import Rung, StudyContext
from roadmap.study.schema import SEEDS, THROUGHPUT, Study
from roadmap.tasks.registry import CLASSIFICATION
from roadmap.text import suggest

NEWEST = 100  # runs that are read
CPU = "CPU cores"
PUBLISHED_SIZE = 224  # pixels, of `Device.images_per_second`

Workload = tuple[Design | NamedModel, int]  # a network, and the image size


@dataclass(frozen=True)
class Speed:
    """The multiply-adds per second that one device sustains: a GPU, or a core of a CPU.

    Networks of unknown speed take it without their depthwise convolutions, which take the time of moving their values
    where the memory's speed is known.
    """

    macs_per_second: float
    source: str
    measured: Mapping[Workload, float] = field(default_factory=dict)  # multiply-adds per second
    published: Mapping[Workload, float] = field(default_factory=dict)  # images/s in inference; counted when asked for
    range: tuple[float, float] | None = None  # of the slowest and the fastest known network; None: unknown
    values_per_second: float | None = None  # that the memory moves; None: depthwise layers are like others

    def of(self, experiment: Experiment) -> float:
        """The measured or published speed of that network; of others the general one."""
        workload = _workload(experiment)
        if (rate := self.published.get(workload)) is not None:
            return rate * cost(*workload).macs
        return self.measured.get(workload, self.macs_per_second)

    def device_hours(self, experiment: Experiment, dataset: Dataset, macs: float | None = None) -> float:
        """The hours that one device takes for a run. `macs`: of an image, if the network has other heads."""
        return self._hours(experiment, dataset, self.of(experiment), macs)

    def hours_range(self, experiment: Experiment, dataset: Dataset) -> tuple[float, float]:
        """The least and the most hours, if the network is as fast as the fastest or the slowest known one."""
        speeds = (self.of(experiment),) * 2
        if self.range and not self._knows(experiment):
            speeds = self.range
        slowest, fastest = sorted(speeds)
        return self._hours(experiment, dataset, fastest), self._hours(experiment, dataset, slowest)

    def _knows(self, experiment: Experiment) -> bool:
        return _workload(experiment) in self.measured or _workload(experiment) in self.published

    def _hours(
        self, experiment: Experiment, dataset: Dataset, macs_per_second: float, macs: float | None = None
    ) -> float:
        recipe = experiment.recipe
        if macs is None:
            macs = cost(experiment.design, recipe.image_size, dataset.classes).macs
        seconds = macs / macs_per_second
        if self.values_per_second and not self._knows(experiment):
            layers = depthwise(experiment.design, recipe.image_size)
            seconds += layers.values / self.values_per_second - layers.macs / macs_per_second
        # of training, and of evaluation after each epoch
        return seconds * recipe.epochs * (PASSES * dataset.train_images + dataset.test_images) / 3600


def _workload(experiment: Experiment) -> Workload:
    return experiment.design, experiment.recipe.image_size


@dataclass(frozen=True)
class RungEstimate:
    """The cost of training one rung."""

    rung: Rung
    cost: Cost  # of one forward pass
    device_hours: float  # of all its seeds
    hours_range: tuple[float, float]  # the least and the most, over the networks whose speed is known
    repeated: bool  # the experiment is that of an earlier rung, so it is the same run and costs nothing


@dataclass(frozen=True)
class Estimate:
    """The cost of training the selected rungs."""

    rungs: tuple[RungEstimate, ...]
    seeds: int  # runs of each rung
    gpus: int  # devices that share the work
    source: str  # of the speed of the device

    @property
    def device_hours(self) -> float:
        """The sum over all rungs and seeds."""
        return sum(estimate.device_hours for estimate in self.rungs)

    @property
    def hours_range(self) -> tuple[float, float]:
        """The least and the most of `device_hours`."""
        least, most = (sum(estimate.hours_range[end] for estimate in self.rungs) for end in (0, 1))
        return least, most

    def seconds(self, device_hours: float) -> float:
        """The time on all devices, which share the work evenly."""
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
    """The cost of the selected rungs at the speed of `speed_for`. Default of `seeds`: the number of the study.

    Raises ValueError for a number out of range and for an unknown device.
    """
    seeds = selection.seeds if seeds is None else seeds
    check(gpus, Range(1), "gpus")
    check(seeds, SEEDS, "seeds")
    speed = speed_for(selection, out, device, throughput)
    estimates, counted = [], set[Experiment]()
    for rung in {rung.name: rung for rung in selection.rungs()}.values():
        new = rung.experiment not in counted
        runs = seeds if new else 0
        hours = speed.device_hours(rung.experiment, selection.dataset) * runs
        least, most = speed.hours_range(rung.experiment, selection.dataset)
        estimates.append(RungEstimate(rung, selection.cost(rung), hours, (least * runs, most * runs), not new))
        counted.add(rung.experiment)
    return Estimate(tuple(estimates), seeds, gpus, speed.source)


def speed_for(selection: Selection, out: Path, device: str | None = None, throughput: float | None = None) -> Speed:
    """The `throughput` in multiply-adds per second, else the speed that runs in `out` measured, else that of the study.

    On a cluster only runs on the device of the profile count, here those on the device of the newest run. Raises
    ValueError for an unknown device, a throughput below 1, and for both together.
    """
    if throughput is not None:
        if device is not None:
            raise ValueError(f"--device does not apply to --throughput (got {device})")
        return speed_given(throughput)
    default = (selection.cluster and selection.cluster.device) or selection.study.regime(selection.regime).device
    measured = None if device else speed_measured(out, selection.regime, default if selection.cluster else None)
    return measured or speed_of(selection.study, device or default, selection.regime)


def speed_given(throughput: float) -> Speed:
    """Raises ValueError for a throughput that is out of range."""
    check(throughput, THROUGHPUT, "throughput")
    return Speed(throughput, f"{throughput:g} multiply-adds per second, as given")


def speed_of(study: Study, device: str, regime: str) -> Speed:
    """The speed of a device of the study, and of the regime's references on it.

    Raises ValueError for an unknown device.
    """
    if device not in study.devices:
        raise ValueError(f"unknown device {device!r}; {suggest(study.devices, device)}; or give --throughput")
    entry = study.devices[device]
    source = f"{device}: {entry.macs_per_second:.3g} multiply-adds per second ({entry.source})"
    context = StudyContext.of(regime, study=study)
    published = {
        (reference_network(context, name), PUBLISHED_SIZE): rate
        for name, rate in entry.images_per_second.items()
        if as_published(study, regime, name)
    }
    moved = entry.bytes_per_second and entry.bytes_per_second / entry.bytes_per_value
    return Speed(entry.macs_per_second, source, published=published, range=entry.range, values_per_second=moved)


def speed_measured(out: Path, regime: str, device: str | None = None) -> Speed | None:
    """The speed that the newest runs of a regime measured; None if there is none.

    Only runs on the given device of the study count, by default those on the device of the newest run.
    """
    files = [path for path in (out / regime).glob("*/metrics.jsonl") if path.is_file()]
    newest = sorted(files, key=lambda path: path.stat().st_mtime)[-NEWEST:]
    measured = [speed for path in newest if (speed := _measured(path.parent))]
    machines = [machine for machine, _, _ in measured if device is None or _is_called(machine, device)]
    if not machines:
        return None
    speeds_of: dict[Workload, list[float]] = {}
    for machine, network, macs_per_second in measured:
        if machine == machines[-1]:
            speeds_of.setdefault(network, []).append(macs_per_second)
    import statistics  # imported late to keep `roadmap list` fast

    medians = {network: statistics.median(speeds) for network, speeds in speeds_of.items()}
    median = statistics.median(medians.values())
    count = sum(map(len, speeds_of.values()))
    runs = "1 run" if count == 1 else f"{count} runs"
    source = f"{median:.3g} multiply-adds per second, measured by {runs} in {out} on {machines[-1]}"
    return Speed(median, source, medians, range=(min(medians.values()), max(medians.values())))


def _measured(folder: Path) -> tuple[str, Workload, float] | None:
    """Kind of device, network, and multiply-adds per second of one device; None if the run has no valid record."""
    try:
        manifest = read_manifest(folder)
        rates = [epoch.images_per_second for epoch in read_metrics(folder) if epoch.images_per_second]
    except (InvalidFile, OSError):
        return None
    if manifest is None or not rates or not (devices := manifest.environment.devices):
        return None
    if manifest.run.task != CLASSIFICATION:  # its heads are slower or faster than the network
        return None
    import statistics

    run, gpu = manifest.run, manifest.environment.gpu
    design, size = run.experiment.design, run.experiment.recipe.image_size
    macs = cost(design, size, run.dataset.classes).macs
    return gpu or CPU, (design, size), PASSES * macs * statistics.median(rates) / devices


def _is_called(machine: str, device: str) -> bool:
    """Whether a device of the study is of that kind: `v100` is in `Tesla V100-SXM2-16GB`."""
    return device.startswith("cpu") if machine == CPU else device.lower() in machine.lower()
