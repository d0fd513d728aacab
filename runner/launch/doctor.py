"""What this machine and installation have, and what would keep a run from starting."""

from __future__ import annotations

import contextlib
import importlib
import importlib.metadata
import os
import platform
import shutil
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass
from pathlib import Path

from packaging.requirements import Requirement

from roadmap.options import Selection, StudyOptions
from roadmap.text import many
from runner.data import shared_memory
from runner.data.datasets import BUILT_IN, Absent, downloads, source
from runner.launch.distributed_worker import world_of_environment
from runner.launch.local import check_memory_of_workers, parallelism, process_context
from runner.launch.plan import RunPlan
from runner.launch.slurm import slurm_cli
from runner.machine.fork_server import start
from runner.machine.lock import folder_lock
from runner.machine.resources import GPU_DRIVERS, available_cores, available_gpus, check_here, default_processes
from runner.machine.snapshot import DISTRIBUTION, PACKAGES, ROOT, version

NATIVE = ("torch", "torchvision", "timm", "cv2")  # whose import fails where versions or system libraries don't match
GIB = 2**30
LITTLE_MEMORY = 2 * GIB  # training the default study takes one
LITTLE_DISK = GIB
LITTLE_SHARED_MEMORY = GIB // 4  # Docker gives 64 MiB
MEMORY_FILE = Path("/proc/meminfo")
START_SECONDS = 120  # for a process, on a busy machine


@dataclass(frozen=True)
class Finding:
    """What one check found."""

    subject: str
    found: str  # what is there
    advice: str = ""  # what to do, if something is missing or wrong
    prevents_runs: bool = False


Findings = Iterator[Finding]


def examine(options: StudyOptions, out: Path | str | None = None) -> tuple[Finding, ...]:
    """The findings for runs of the selected part of the study in a folder. Trains nothing, and leaves no file."""
    checks: dict[str, Callable[[], Findings]] = {
        "python": _python,
        "libraries": _libraries,
        "extras": _extras,
        "packages": _other_distributions,
        "devices": _devices,
        "memory": _memory,
        "launcher": _launcher,
        "slurm": _slurm,
        "data": _data,
        "folder": lambda: _folder(options.out(out)),
        "processes": _processes,
        "study": lambda: _study(options, options.out(out)),
    }
    return tuple(finding for subject, check in checks.items() for finding in _guarded(subject, check))


def can_start(findings: tuple[Finding, ...]) -> bool:
    return not any(finding.prevents_runs for finding in findings)


def _guarded(subject: str, check: Callable[[], Findings]) -> Findings:
    """The findings of a check. One that fails is a finding too: a run would fail there."""
    try:
        yield from check()
    except (ValueError, OSError, ImportError) as error:
        reason = str(error)
        if isinstance(error, OSError) and error.filename is not None:
            reason = f"{error.filename}: {error.strerror}"
        yield Finding(subject, "a run would fail", reason, prevents_runs=True)


def _python() -> Findings:
    yield Finding("python", f"{platform.python_version()}, {sys.executable}")
    yield Finding("roadmap", f"{version() or 'not installed'}, {ROOT}")


def _requirements() -> list[Requirement]:
    return [Requirement(line) for line in importlib.metadata.requires(DISTRIBUTION) or ()] if version() else []


def _lacking(requirement: Requirement) -> str | None:
    """What keeps a requirement from being met."""
    try:
        installed = importlib.metadata.version(requirement.name)
    except importlib.metadata.PackageNotFoundError:
        return f"{requirement.name} is not installed"
    met = requirement.specifier.contains(installed, prereleases=True)
    return None if met else f"{requirement.name} {installed} is not {requirement.specifier}"


def _libraries() -> Findings:
    for module in NATIVE:
        try:
            loaded = importlib.import_module(module)
        except Exception as error:  # a broken installation can raise anything
            advice = f"{type(error).__name__}: {' '.join(str(error).split())}; install torch and torchvision as a pair"
            yield Finding(module, "can't be imported", f"{advice}: pip install torch torchvision", prevents_runs=True)
        else:
            yield Finding(module, str(loaded.__version__))
    for requirement in _requirements():
        if requirement.marker is None and (lack := _lacking(requirement)):
            yield Finding("libraries", lack, f"pip install '{requirement}'")


def _extras() -> Findings:
    lacking: dict[str, list[str]] = {}
    for requirement in _requirements():
        for extra in importlib.metadata.metadata(DISTRIBUTION).get_all("Provides-Extra") or ():
            needed = requirement.marker is not None and requirement.marker.evaluate({"extra": extra})
            if needed and extra != "test":
                lacking.setdefault(extra, []).extend(filter(None, [_lacking(requirement)]))
    for extra, lacks in lacking.items():
        advice = f"pip install '{DISTRIBUTION}[{extra}]', if you need it" if lacks else ""
        yield Finding(f"extra {extra}", ", ".join(lacks) or "installed", advice)


def _other_distributions() -> Findings:
    """Distributions that install a top-level package of the same name: they overwrite each other's files."""
    owners = importlib.metadata.packages_distributions()
    for package in PACKAGES:
        for other in sorted(set(owners.get(package, ())) - {DISTRIBUTION}):
            advice = f"uninstall {other}, or install {DISTRIBUTION} in an environment of its own"
            yield Finding("packages", f"{other} also installs a package {package!r}", advice)


def _devices() -> Findings:
    import torch

    yield Finding("cores", f"{available_cores()} of {os.cpu_count()}")
    gpus = torch.cuda.device_count()
    for number in range(gpus):
        properties = torch.cuda.get_device_properties(number)
        found = f"{properties.name}, {properties.total_memory / GIB:.0f} GiB"
        try:
            torch.ones(1, device=f"cuda:{number}").add_(1)
        except RuntimeError as error:  # no kernels for this kind, or another process has it for itself
            advice = f"{str(error).splitlines()[0]}; --set execution.device=cpu trains without it"
            yield Finding(f"gpu {number}", found, advice, prevents_runs=True)
        else:
            yield Finding(f"gpu {number}", found)
    if not gpus:
        driver = next((driver for driver in GPU_DRIVERS if driver.exists()), None)
        built = torch.version.cuda or getattr(torch.version, "hip", None)
        reason = f"torch was built for {built or 'CPUs only'}, or CUDA_VISIBLE_DEVICES hides the GPUs"
        advice = f"{driver} exists, but torch sees no device: {reason}" if driver else ""
        yield Finding("gpus", "none; runs use the CPU", advice)


def _memory() -> Findings:
    if MEMORY_FILE.exists():
        lines = dict(line.split(":", 1) for line in MEMORY_FILE.read_text().splitlines())
        total, free = (int(lines[name].split()[0]) * 1024 for name in ("MemTotal", "MemAvailable"))
        advice = "a run of the default study needs 1 GiB" if free < LITTLE_MEMORY else ""
        yield Finding("memory", f"{free / GIB:.1f} of {total / GIB:.1f} GiB free", advice)
    free_shared = shared_memory.free_bytes()
    if free_shared is not None:
        advice = f"data workers pass images through it: {shared_memory.LARGER}, or --set execution.workers=0"
        little = free_shared < LITTLE_SHARED_MEMORY
        yield Finding(str(shared_memory.FOLDER), f"{_size(free_shared)} free", advice if little else "")


def _size(number: int) -> str:
    return f"{number / GIB:.1f} GiB" if number >= GIB else f"{number / 2**20:.1f} MiB"


def _launcher() -> Findings:
    world = world_of_environment()
    if world:
        found = f"this is process {world.rank} of {world.size} that torchrun or srun started"
        yield Finding("launcher", found, "a run waits for the others; unset RANK and WORLD_SIZE if there are none")


def _slurm() -> Findings:
    if not shutil.which("sbatch"):
        yield Finding("slurm", "not installed: runs are trained on this machine only")
        return
    try:
        release = slurm_cli.call("sbatch", "--version").strip()
        yield Finding("slurm", f"{release}, arrays of at most {slurm_cli.limits().array} jobs")
    except slurm_cli.SlurmError as error:
        yield Finding("slurm", "installed", f"{error}; only --on slurm needs it")


def _data() -> Findings:
    for name, data in BUILT_IN.items():
        try:
            place = data.look(None)
        except Absent as absent:
            yield Finding(f"data {name}", f"{absent}; the first run downloads it to {downloads()}/")
        except ValueError as error:
            yield Finding(f"data {name}", f"not here: {error}")
        else:
            yield Finding(f"data {name}", f"found, {place}")


def _folder(out: Path) -> Findings:
    parent = next(path for path in (out, *out.absolute().parents) if path.is_dir())
    try:
        with tempfile.TemporaryDirectory(prefix=".roadmap-doctor-", dir=parent) as scratch:
            with folder_lock(Path(scratch)):  # some network file systems have no locks
                (Path(scratch) / "file").write_bytes(b"\0" * 4096)
    except OSError as error:
        advice = f"{parent}: {error.strerror}; --out FOLDER names another"
        yield Finding("folder", f"{out} can't be written", advice, prevents_runs=True)
        return
    free = shutil.disk_usage(parent).free
    new = "" if parent == out else ", which a run creates"
    yield Finding(
        "folder", f"{out}{new}: can be written, {_size(free)} free", "" if free > LITTLE_DISK else "free space"
    )


def _processes() -> Findings:
    """Starts a process as a run does: sockets, the fork server and this package must be usable there."""
    process = process_context().Process(target=_answer)  # type: ignore[attr-defined]
    start(process)
    process.join(START_SECONDS)
    status = process.exitcode
    process.kill()
    if status != 0:
        raise ValueError(f"a process of a run ended with status {status}, after at most {START_SECONDS} s")
    yield Finding("processes", f"start, with temporary files in {tempfile.gettempdir()}")


def _answer() -> None:
    import runner.launch.job  # noqa: F401


def _study(options: StudyOptions, out: Path) -> Findings:
    """Everything that `run` checks before it trains."""
    plan = RunPlan.of(Selection.of(options), None, out)
    runs = [planned.run for planned in plan.runs]
    recipes = [run.experiment.recipe for run in runs]
    processes = default_processes(plan.execution, recipes)
    check_here(plan.execution, recipes, processes)
    at_once = parallelism(runs, available_cores(), processes, available_gpus(plan.execution))
    check_memory_of_workers(runs, plan.execution, processes, at_once)
    for planned in plan.waiting[:1]:  # all have the same data
        data, path = source(planned.run), plan.execution.data_path
        with contextlib.suppress(*([Absent] if data.fetch else [])):
            data.look(Path(path) if path else None)
    title = f"{plan.selection.regime} on {plan.selection.context.data}"
    yield Finding("study", f"{title}: {many(len(plan.runs), 'run')}, {plan.count('finished')} finished")
