"""The Python API: a function for everything that the command does. `roadmap.__all__` lists all public names.

Each function returns its result: a pandas table, a matplotlib figure, or a dataclass. Keywords that select a part of
the study are those of `roadmap.options.StudyKeywords`, the same as on the command line. Invalid input raises ValueError
with one clear sentence. `progress=False` silences functions that take long. `runner` and `analysis` are imported when a
function that needs them is called.
"""

from __future__ import annotations

import contextlib
import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any, Literal, ParamSpec, TypeAlias, TypeVar, Unpack

from roadmap import (
    estimates,
    own_packages,  # noqa: F401  # its import decides where `runner` and `analysis` come from
)
from roadmap.data.packed_format import Damaged, Index, open_packed
from roadmap.estimates import Estimate
from roadmap.files import InvalidFile
from roadmap.options import Selection, StudyKeywords, StudyOptions
from roadmap.recipe import changes
from roadmap.record.transfers import From
from roadmap.serialization.arguments import checked
from roadmap.serialization.plain_data import Difference
from roadmap.serialization.ranges import Range
from roadmap.study.rungs import Rung
from roadmap.tasks.transfer import Frozen

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.attribution import Attribution
    from analysis.disagreement import Disagreement
    from analysis.options import Comparison, FigureKind, RunsOptions, TradeoffAxis
    from analysis.power import Power
    from analysis.proxy import Proxy
    from analysis.spaces.study import SpaceStudy
    from runner.launch.doctor import Finding
    from runner.launch.plan import PlannedRun, RunPlan
    from runner.launch.slurm.cancel import Cancelled
    from runner.launch.slurm.plan import JobPlan
    from runner.launch.slurm.resubmit import Retried
    from runner.launch.slurm.submit import Submitted
    from runner.launch.status import RunStatus, StudyStatus
    from runner.measure.pipeline import PipelineTimes

PathLike: TypeAlias = Path | str
Paths: TypeAlias = PathLike | Iterable[PathLike]
OF_SEVERAL_RUNGS = ("steps", "ablation", "references", "base", "on", "cluster")  # no keywords of one rung
PORT = Range(0, 65_535)
P = ParamSpec("P")
T = TypeVar("T")


def _checked(function: Callable[P, T]) -> Callable[P, T]:
    """The function, with its arguments checked and converted by their types."""
    return checked(function, _names_for_types)


def _names_for_types() -> dict[str, Any]:
    """What this module imports for type checkers only, of the parameters."""
    from analysis import options

    return {**vars(options), "Submitted": Any}


@dataclass(frozen=True)
class StudyRuns:
    """The result of `run`."""

    runs: tuple[PlannedRun, ...]  # each with its folder and its state: absent, begun, diverged or finished
    failed: tuple[PlannedRun, ...]  # without a result; the log in the folder of the run has the reason
    table: pd.DataFrame  # a row per rung: accuracies in percent, differences in points
    figure: Figure | None  # the roadmap figure; None if no run has finished
    submitted: Submitted | None = None  # the jobs, if the runs were submitted to Slurm

    @property
    def diverged(self) -> tuple[PlannedRun, ...]:
        """The runs whose loss or weights were not finite."""
        return tuple(planned for planned in self.runs if planned.state == "diverged")

    @property
    def is_finished(self) -> bool:
        return all(planned.state == "finished" for planned in self.runs)


@_checked
def plan(*, seeds: int | None = None, out: PathLike | None = None, **study: Unpack[StudyKeywords]) -> RunPlan:
    """The runs that `run` would train, each with its folder and its state. Starts and writes nothing.

    `seeds`: runs of each rung, with seeds 0 to seeds - 1 (default: the study's number). `out`: the folder of the runs.
    Raises ValueError for an unknown name, and for runs that can't be trained.
    """
    from runner.launch.plan import RunPlan

    options = StudyOptions.of(study)
    return RunPlan.of(Selection.of(options), seeds, options.out(out))


@_checked
def run(
    *,
    seeds: int | None = None,
    out: PathLike | None = None,
    pack: int | None = None,
    max_running: int | None = None,
    rounds: int | None = None,
    keep: str | float | None = None,
    progress: bool = True,
    **study: Unpack[StudyKeywords],
) -> StudyRuns:
    """Trains the selected rungs and returns their results. Runs that have finished are not trained again.

    `seeds` and `out` are as in `plan`. With `on="slurm"` the runs are submitted, `pack` runs in a job and at most
    `max_running` jobs at a time, and the results are those of runs that have finished already. Designs of a `space` may
    be trained in `rounds` of successive halving: after each but the last a share `keep` of them (default: 1/3) goes on.
    On Slurm a call submits the round that is due. Without `progress` nothing is printed.

    A run that fails or diverges does not raise an error: the result has it. A warning names each new run of which an
    earlier one used other files of the data set's folder. Works in any thread and in notebooks. A script must call it
    below `if __name__ == "__main__":`, because runs are trained in separate processes.

    Raises ValueError for invalid input, and runner.launch.slurm.slurm_cli.SlurmError for an error of Slurm. On
    KeyboardInterrupt the runs in training save their state; the same call resumes them.
    """
    from analysis.report.summary import summarize
    from runner.launch.plan import check_local
    from runner.launch.rounds import Halving, due_round

    halving = Halving.of(rounds, keep if keep is None else str(keep))
    check_local(StudyOptions.of(study), pack, max_running)
    planned, submitted = plan(seeds=seeds, out=out, **study), None
    for message in planned.of_other_files():
        warnings.warn(message, stacklevel=3)
    failed: tuple[PlannedRun, ...] = ()
    due = due_round(planned, halving).plan if halving else planned
    if planned.selection.cluster:
        submitted = _submit(due, pack, max_running, study)
    else:
        from roadmap.progress import shown
        from runner.launch.train_plan import train_plan, train_rounds

        with shown(progress):
            trained = train_rounds(planned, halving) if halving else train_plan(planned)
        failed = trained.failed if trained else ()  # None: only rank 0 of torchrun has them
    summary = summarize(planned.selection, planned.out)
    return StudyRuns(planned.refreshed().runs, failed, summary.table, summary.figure, submitted)


@dataclass(frozen=True)
class TransferredRuns:
    """The result of `transfer`."""

    runs: tuple[PlannedRun, ...]  # each with its folder and its state
    failed: tuple[PlannedRun, ...]  # without a result; the log in the folder of the run has the reason
    table: pd.DataFrame  # a row per rung, as `table(transfer=True)`; empty if no run has finished

    @property
    def is_finished(self) -> bool:
        return all(planned.state == "finished" for planned in self.runs)


@_checked
def transfer(
    runs: Sequence[PathLike] = (),
    *,
    to: str,
    begin: From = "run",
    frozen: Frozen = "none",
    recipe: str | None = None,
    state_dict: PathLike | None = None,
    of: str | None = None,
    out: PathLike | None = None,
    progress: bool = True,
    **study: Unpack[StudyKeywords],
) -> TransferredRuns:
    """Trains finished runs on the task `to`, each with its own seed, and returns their results.

    `runs` are names as in `status` (default: all finished runs of the regime). They begin with the weights of the run,
    its averaged ones (`begin="ema"`), new ones (`begin="scratch"`), or those of the file `state_dict`, which is of the
    network `of`, LIBRARY/NAME. `frozen` is the part of the backbone that is not trained, and `recipe` a transfer recipe
    of the study. Raises ValueError as `run` does, and if there is nothing to transfer.
    """
    import pandas as pd

    from analysis.options import RunsOptions
    from analysis.tables.transfer import transfer_table
    from analysis.transfer import transfer_studies
    from roadmap.progress import shown
    from roadmap.record.transfers import TransferOptions, Transfers
    from runner.launch.train_plan import train_plan
    from runner.launch.transfer_plan import transfer_plan

    options, wanted = StudyOptions.of(study), TransferOptions(to, begin, frozen, recipe, _path(state_dict), of)
    transfers = Transfers.of(wanted, options)
    planned = transfer_plan(list(map(str, runs)), transfers, options.out(out))
    if not planned.runs:
        raise ValueError(f"{planned.out}: no finished run of {transfers.selection.regime}; `roadmap.run` trains them")
    with shown(progress):
        trained = train_plan(planned)
    after = planned.refreshed().runs
    finished = any(run.state == "finished" for run in after)
    regime = replace(options, regime=transfers.selection.regime)
    studies = transfer_studies(RunsOptions(regime, planned.out), to, recipe) if finished else []
    table = transfer_table(studies[0]) if studies else pd.DataFrame()
    return TransferredRuns(after, trained.failed if trained else (), table)


def _submit(planned: RunPlan, pack: int | None, max_running: int | None, study: StudyKeywords) -> Submitted | None:
    """Submits the runs. None if nothing is left to train."""
    from analysis.report.summary import conclude
    from runner.launch.slurm.plan import check_submission
    from runner.launch.slurm.submission import SubmitOptions
    from runner.launch.slurm.submit import submit

    options = SubmitOptions.of(planned.selection, _call(study), pack, max_running)
    runs, out = check_submission(planned, options), planned.out.resolve()
    if not runs:
        return None
    planned.find_data()
    return submit(runs, out, options, functools.partial(conclude, planned.selection, out))


@_checked
def plan_jobs(
    *,
    seeds: int | None = None,
    out: PathLike | None = None,
    pack: int | None = None,
    max_running: int | None = None,
    **study: Unpack[StudyKeywords],
) -> JobPlan:
    """The jobs that `run` with `on="slurm"` would submit, with batch scripts and device-hours. Submits nothing.

    The arguments are those of `run`. Raises ValueError as `run` does, and without `on="slurm"`.
    """
    from runner.launch.slurm import plan as slurm_plan
    from runner.launch.slurm.submission import SubmitOptions

    if study.get("on") != "slurm":
        raise ValueError('plan_jobs requires on="slurm"')
    planned = plan(seeds=seeds, out=out, **study)
    options = SubmitOptions.of(planned.selection, _call(study), pack, max_running)
    runs = slurm_plan.check_submission(planned, options)
    return slurm_plan.plan_jobs(planned, runs, options, estimates.speed_for(planned.selection, planned.out))


def _call(study: StudyKeywords) -> tuple[str, ...]:
    """What is recorded instead of a command line."""
    return ("roadmap.run", *(f"{name}={value!r}" for name, value in study.items()))


@_checked
def status(runs: Sequence[PathLike] = (), *, out: PathLike | None = None) -> StudyStatus:
    """The status of every run below a folder, or of the given runs. Its `str` is the text of `roadmap status`.

    `runs`: rungs, RUNG-sSEED, identities, folders or jobs. The state of submitted jobs comes from Slurm. Raises
    ValueError for a name without a run, and for a folder that does not exist.
    """
    from runner.launch.named import runs_named
    from runner.launch.status import collect_status

    study_status = collect_status(_existing(out))
    return replace(study_status, runs=runs_named(study_status.runs, list(map(str, runs))))


@_checked
def run_status(run: PathLike, *, out: PathLike | None = None) -> RunStatus:
    """The status of one run, by a name as in `status`. Raises ValueError if no run, or several, have the name."""
    from runner.launch.named import run_named
    from runner.launch.status import collect_status

    return run_named(collect_status(_existing(out)).runs, str(run))


@_checked
def logs(run: PathLike, *, out: PathLike | None = None) -> str:
    """The log of a run, by a name as in `status`. Before there is a log, the output of its job, or nothing.

    Raises ValueError if no run, or several, have the name.
    """
    path = run_status(run, out=out).log
    return path.read_text(encoding="utf-8", errors="replace") if path else ""


@_checked
def cancel(runs: Sequence[PathLike] = (), *, out: PathLike | None = None) -> Cancelled:
    """Cancels the Slurm jobs of runs; without `runs` all jobs of the folder, including that of the figure.

    Each run saves its state. Raises ValueError for a name without a run and for a job that also has another run, and
    runner.launch.slurm.slurm_cli.SlurmError if Slurm does not answer.
    """
    from runner.launch.slurm.cancel import cancel as cancel_runs
    from runner.launch.status import collect_status

    return cancel_runs(collect_status(_existing(out)), list(map(str, runs)))


@_checked
def retry(
    runs: Sequence[PathLike] = (),
    *,
    out: PathLike | None = None,
    report: Callable[[Submitted], object] | None = None,
) -> Retried:
    """Submits runs to Slurm again, with the same options; without `runs` all failed runs.

    `report` is called with each submission after it is made. Raises ValueError for a name without a run and for a run
    that has not failed, and runner.launch.slurm.slurm_cli.SlurmError if Slurm does not answer.
    """
    from runner.launch.slurm.resubmit import retry as retry_runs
    from runner.launch.status import collect_status

    return retry_runs(collect_status(_existing(out)), list(map(str, runs)), report)


def _existing(out: PathLike | None) -> Path:
    """The absolute path of the folder of the runs. Raises ValueError if it does not exist."""
    folder = StudyOptions().out(out)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of runs (`roadmap run` creates it)")
    return folder.resolve()


@_checked
def doctor(*, out: PathLike | None = None, **study: Unpack[StudyKeywords]) -> tuple[Finding, ...]:
    """What this machine and installation have, and what would keep a run from starting, as `roadmap doctor`.

    Each finding has a `subject`, what was `found`, `advice` if something is missing, and `prevents_runs`. `out` is the
    folder of the runs. Starts a process, trains nothing and leaves no file.
    """
    from runner.launch.doctor import examine

    return examine(StudyOptions.of(study), out)


@_checked
def rungs(**study: Unpack[StudyKeywords]) -> pd.DataFrame:
    """The selected rungs, then the references, as `roadmap list`: a row for each.

    Parameters and multiply-adds (`macs`) are for the image size of the recipe. `published_top1` and
    `published_top1_std` are in percent, `published_gmacs` in 1e9 multiply-adds at 224 pixels (Tables 10 and 11 of the
    paper).
    """
    import pandas as pd

    from analysis.tables.counting import count_rungs

    rows = []
    for row in count_rungs(Selection.of(_options_here(study))):
        names = ("name", "title", "group", "adopted", "no_effect")
        published = {
            f"published_{name}": getattr(row.published, field, None)
            for name, field in (("top1", "top1_mean"), ("top1_std", "top1_std"), ("gmacs", "gmacs"))
        }
        counts = {"parameters": row.cost.parameters, "macs": row.cost.macs}
        rows.append({name: getattr(row.rung, name) for name in names} | counts | published)
    return pd.DataFrame(rows)


@_checked
def show(step: str, *, output: Paths = (), **study: Unpack[StudyKeywords]) -> Rung:
    """A rung by its name, a variant such as kernel-size=13, or a combination of steps: gelu+layer-norm.

    Its `experiment` has the design and the recipe. Keywords for several rungs, such as `steps`, are not allowed. Its
    block is also drawn into each path of `output`, a .png, .svg or .pdf.
    """
    rung = _selection_of_one(study).rung(step)
    _draw_blocks([rung], output)
    return rung


@_checked
def diff(before: str, after: str, *, output: Paths = (), **study: Unpack[StudyKeywords]) -> list[Difference]:
    """The differences between two rungs, each with a path and the values before and after.

    Both blocks are also drawn, side by side, into each path of `output`, a .png, .svg or .pdf.
    """
    selection = _selection_of_one(study)
    rungs = [selection.rung(before), selection.rung(after)]
    _draw_blocks(rungs, output)
    return changes(*(rung.experiment for rung in rungs))


def _draw_blocks(rungs: Sequence[Rung], output: Paths) -> None:
    if paths := _paths(output):
        from analysis.figures.blocks import save_rungs

        save_rungs(rungs, paths)


@_checked
def estimate(
    *,
    seeds: int | None = None,
    gpus: int = 1,
    device: str | None = None,
    throughput: float | None = None,
    out: PathLike | None = None,
    **study: Unpack[StudyKeywords],
) -> Estimate:
    """Estimates the device-hours of the selected rungs, as `roadmap cost`.

    The speed of a device is `throughput` (multiply-adds per second), else that of a `device` of the study, else the
    speed that runs below `out` measured. `gpus` devices share the work. `seeds` is the number of runs of each rung.
    """
    options = StudyOptions.of(study)
    return estimates.estimate(
        Selection.of(options), options.out(out), seeds=seeds, gpus=gpus, device=device, throughput=throughput
    )


@_checked
def bench(
    *,
    batch: int | None = None,
    rounds: int = 5,
    warm_up: int | None = None,
    seconds: float = 1.0,
    only: Literal["training", "inference"] | None = None,
    cuda_graphs: bool = False,
    out: PathLike | None = None,
    output: Paths = (),
    progress: bool = True,
    **study: Unpack[StudyKeywords],
) -> pd.DataFrame:
    """Measures speed and memory of the selected networks on this machine: a row for each rung that could be measured.

    Columns, for training and inference: images/s, their spread (half the range of the rounds), peak bytes,
    multiply-adds per second, and their share of the multiply-adds per second of a matrix product. A warning names each
    network that failed. Every measurement is kept in bench.jsonl of `out`, the folder of the runs. `batch` is the
    number of images in a batch, `warm_up` the number of steps before the clock starts, `seconds` the minimum time of a
    measurement. The images/s are also drawn as bars into each path of `output`, a .png, .svg or .pdf. A script must
    call it below `if __name__ == "__main__":`, because each network is measured in a separate process.
    """
    import pandas as pd

    from analysis.figures import prepare_files
    from analysis.figures.kinds import save_rates
    from analysis.tables.bench import measured_rungs, rate_row
    from roadmap.progress import shown
    from runner.measure.networks import NetworkBench
    from runner.measure.plan import BenchOptions

    options = BenchOptions(batch, rounds, warm_up, seconds, only, cuda_graphs)
    networks = NetworkBench.of(_options_here(study), options, _path(out))
    prepare_files(_paths(output))
    results = []
    with shown(progress), contextlib.closing(networks.measure()) as measurements:
        for measurement in measurements:
            if measurement.result:
                results.append(measurement.result)
            else:
                warnings.warn(f"{measurement.run.rung} failed: {measurement.failure}", stacklevel=3)
    rows = measured_rungs(networks.selection, results)
    save_rates(networks.selection, rows, only, _paths(output))
    return pd.DataFrame([rate_row(row) for row in rows])


@_checked
def bench_data(
    *,
    rounds: int = 5,
    seconds: float = 1.0,
    rate: float | None = None,
    out: PathLike | None = None,
    progress: bool = True,
    **study: Unpack[StudyKeywords],
) -> PipelineTimes:
    """Measures the time of each stage of the input pipeline on one core, for the last of the selected rungs.

    `rate` is the images/s of a device in training; from it follows the number of workers that keep it busy. Default:
    the rate of the fastest rung that `bench` measured in `out`.
    """
    from roadmap.progress import shown
    from runner.measure.pipeline import measure_pipeline

    with shown(progress):
        *_, times = measure_pipeline(_options_here(study), rounds, seconds, rate, _path(out))
    return times


@_checked
def evaluate(
    *runs: PathLike,
    weights: Literal["raw", "ema"] = "raw",
    state_dict: PathLike | None = None,
    peer: str | None = None,
    out: PathLike | None = None,
    progress: bool = True,
    **study: Unpack[StudyKeywords],
) -> pd.DataFrame:
    """Evaluates trained networks on held-out images, or on `data`: a row for each network, accuracies in percent.

    `runs`: rungs, RUNG-sSEED, identities or folders. For images of another distribution (ImageNet-A, -R, -Sketch, -C,
    or any folder with the same classes) there is a row for each part, and for ImageNet-C the mean corruption error
    `mce`. These results are kept in the folder of the run and not measured again. `state_dict` is a file with the
    weights of `peer` (LIBRARY/NAME); it requires one rung, of the same network.
    """
    import pandas as pd

    from analysis.tables.robustness import evaluation_rows
    from roadmap.progress import shown
    from runner.measure.evaluate import EvaluateOptions, HeldOut
    from runner.measure.evaluate import evaluate as evaluate_networks

    options = EvaluateOptions(runs, _options_of_one(study), _path(out), weights, _path(state_dict), peer)
    rows = []
    with shown(progress):
        for result in evaluate_networks(options):
            for note in result.notes:
                warnings.warn(note, stacklevel=3)
            if isinstance(result, HeldOut):
                rows.append(result.record)
            else:
                rows += evaluation_rows(result.trained.run.name, result.shifted, result.evaluations)
    return pd.DataFrame(rows)


@_checked
def export(
    run: PathLike,
    to: Literal["safetensors", "torchscript", "onnx", "timm"] = "safetensors",
    *,
    output: PathLike | None = None,
    weights: Literal["raw", "ema"] = "raw",
    out: PathLike | None = None,
    plugins: Sequence[PathLike] = (),
) -> Path:
    """Writes a run's network as a file for other programs, by default in the run's folder, and returns its path.

    For timm it is a folder with weights and config.json. What was written is read back. Raises ValueError if the
    outputs differ.
    """
    from runner.measure.export import export_run

    averaged, study = weights == "ema", StudyOptions.of({"plugins": plugins})
    written = export_run(run, to, _path(output), averaged=averaged, study=study, out=_path(out))
    if written.note:
        warnings.warn(written.note, stacklevel=3)
    return written.path


@_checked
def pack(
    source: PathLike,
    destination: PathLike,
    *,
    resize: int | None = None,
    quality: int | None = None,
    bad_images: Literal["stop", "skip"] = "stop",
    shard_megabytes: int = 256,
    jobs: int | None = None,
    progress: bool = True,
) -> Index:
    """Packs an image folder into a few large files, as `roadmap data pack`; returns the index of what was written.

    `source` is a folder, NAME=PATH, or a name below $ROADMAP_DATA. `resize` is the largest shorter side of an image in
    pixels, `quality` the JPEG quality of resized images, `jobs` the number of processes. After an interruption the same
    call resumes.
    """
    from roadmap.progress import counting, shown
    from runner.data import packed_writer

    options = packed_writer.pack_options(resize, quality, shard_megabytes, bad_images)
    folder = packed_writer.source_folder(str(source))
    with shown(progress), counting("packing", "images") as report:
        return packed_writer.pack(folder, Path(destination), options, jobs, report)


@_checked
def check_packed(folder: PathLike, *, progress: bool = True) -> list[str]:
    """Reads a packed data set back, as `roadmap data check`, and returns a sentence for each damage.

    Raises ValueError if the folder is not packed, or if packing was not finished.
    """
    from roadmap.progress import counting, shown
    from runner.data.packed_reader import damage

    try:
        index = open_packed(Path(folder))
    except (Damaged, InvalidFile) as error:
        return [str(error)]
    with shown(progress), counting("checking", "images") as report:
        return list(damage(Path(folder), index, report))


@_checked
def collect(out: PathLike | None = None, *, output: Paths = (), images: bool = False) -> pd.DataFrame:
    """Every run below the folder `out` (default: the study's) as a row, with `analysis.collection.COLUMNS`.

    With `images` the finished runs also have `correct` (bool) and `confidence` (float16), arrays of all test images;
    None where a run did not record them. The table is also written to each path of `output`, a .csv or .parquet,
    without these two. Raises ValueError if there is no such folder, and for another suffix.
    """
    from analysis.collection import collect as collect_runs
    from analysis.collection import with_outcomes, write_table

    folder = StudyOptions().out(out)
    table = collect_runs(folder)
    for path in _paths(output):
        write_table(table, path)
    return with_outcomes(table, folder) if images else table


@_checked
def figure(
    out: PathLike | None = None,
    *,
    kind: FigureKind = "roadmap",
    metric: str = "top1",
    published: bool = False,
    compare: Comparison | None = None,
    against: str | None = None,
    x: TradeoffAxis | None = None,
    throughput: bool = False,
    columns: Literal[1, 2] = 2,
    to: str | None = None,
    recipe: str | None = None,
    output: Paths = (),
    **study: Unpack[StudyKeywords],
) -> Figure:
    """The roadmap figure or another kind, of the finished runs below the folder `out` (default: the study's).

    With `published` the figure shows the paper's tables and needs no run. `compare` draws the paper's roadmap beside
    that of the runs, or the difference; `against` names the regime of the published table. `x` is the horizontal axis
    of a tradeoff (default: macs). `throughput` writes the images/s that `roadmap bench` measured beside each bar. The
    width is `columns` columns of a page. `to` and `recipe` are the task and the recipe of a transfer. The figure is
    also written to each path of `output`, a .png, .svg or .pdf. Raises ValueError for an option that the figure does
    not use, and if there is nothing to draw.
    """
    from analysis.figures import save_figure
    from analysis.figures.kinds import draw
    from analysis.options import FigureOptions

    options = FigureOptions(
        _options_here(study), _path(out), metric, kind, published, compare, against, x, throughput, columns, to, recipe
    )
    drawn = draw(options)
    save_figure(drawn, _paths(output))
    return drawn


@_checked
def table(
    out: PathLike | None = None,
    *,
    metric: str = "top1",
    published: bool = False,
    robustness: bool = False,
    transfer: bool = False,
    to: str | None = None,
    recipe: str | None = None,
    **study: Unpack[StudyKeywords],
) -> pd.DataFrame:
    """The paper's table beside that of the finished runs below the folder `out` (default: the study's): a row per rung.

    Accuracies are in percent, differences in points. The column `study` is the title of the regime. With `published` it
    is only the paper's table and needs no run. With `robustness` it is ImageNet-C, -A, -R and -Sketch of the evaluated
    runs, above the paper's Table 8. With `transfer` it is what the rungs reach in other tasks, or in the task `to`, by
    the transfer `recipe`. Raises ValueError if no run has finished, and for an option that is not used.
    """
    from analysis.options import TableOptions
    from analysis.tables.selected import combined, tables_of

    options = (published, robustness, transfer, to, recipe)
    return combined(tables_of(TableOptions(_options_here(study), _path(out), metric, *options)))


@_checked
def report(
    out: PathLike | None = None,
    *,
    output: PathLike | None = None,
    metric: str = "top1",
    **study: Unpack[StudyKeywords],
) -> Path:
    """Writes one HTML page about the runs below the folder `out` (default: the study's), and returns its path.

    The path is `output`, by default report.html in the folder of the runs. Raises ValueError if there is no folder of
    runs, and for another suffix than .html.
    """
    from analysis.report.building import write_report

    return write_report(_runs(out, metric, study), _path(output), contact_sheet=_contact_sheet_png)


@_checked
def report_server(
    out: PathLike | None = None, *, port: Annotated[int, PORT] = 0, metric: str = "top1", **study: Unpack[StudyKeywords]
) -> ThreadingHTTPServer:
    """A server of the page of `report` on this machine, which updates it when runs change. Port 0: any free port.

    Call its `serve_forever`, directly or in a thread. Raises ValueError as `report` does, and for a port in use.
    """
    from analysis.report.building import report_server as server_of

    return server_of(_runs(out, metric, study), port, contact_sheet=_contact_sheet_png)


@_checked
def disagree(
    first: str, second: str, out: PathLike | None = None, *, output: Paths = (), **study: Unpack[StudyKeywords]
) -> Disagreement:
    """The test images and classes on which two rungs differ, by their finished runs below the folder `out`.

    Each path of `output` gets the images: a contact sheet as .png, .svg or .pdf, or all of them as .csv. The contact
    sheet reads the test images, which must be on this machine. Raises ValueError for an unknown rung, without finished
    runs of both, if a run has no record of its test images, and for another suffix.
    """
    from analysis.disagreement import disagreement_of
    from analysis.figures import check_suffixes, save_figure
    from analysis.options import RunsOptions
    from roadmap.files import make_parent, write_atomic

    paths = _paths(output)
    sheets = [path for path in paths if path.suffix.lower() != ".csv"]
    try:
        check_suffixes(sheets)
    except ValueError as error:
        raise ValueError(f"{error}; or in .csv, for a table of the images") from None
    options = RunsOptions(_options_of_one(study), _path(out))
    result = disagreement_of(options, first, second)
    if sheets:
        save_figure(_contact_sheet(result), sheets)
    for path in paths:
        if path not in sheets:
            make_parent(path)
            write_atomic(path, result.images.to_csv(index=False).encode())
    return result


def _contact_sheet(disagreement: Disagreement) -> Figure:
    from analysis.figures import draw_contact_sheet
    from analysis.figures.contact_sheet import MOST
    from runner.data.pictures import held_out_pictures

    indices = disagreement.images["index"].head(MOST).tolist()
    pictures = held_out_pictures(disagreement.run, disagreement.data_path, disagreement.labels.tolist(), indices)
    return draw_contact_sheet(disagreement, pictures)


def _contact_sheet_png(disagreement: Disagreement) -> bytes:
    from analysis.figures.parts.style import png

    return png(_contact_sheet(disagreement))


@_checked
def power(
    out: PathLike | None = None,
    *,
    differences: Sequence[float] | None = None,
    noise: float | None = None,
    metric: str = "top1",
    **study: Unpack[StudyKeywords],
) -> Power:
    """The number of seeds that detects differences, in points of the metric (default: 0.1, 0.2, 0.5 and 1).

    `noise` is the standard deviation of a run in points; by default that of the runs below the folder `out`, or of the
    paper if there are no runs. Raises ValueError for numbers out of range, and if the noise is not known.
    """
    from analysis.options import RunsOptions
    from analysis.power import DIFFERENCES, power_of_study

    options = RunsOptions(StudyOptions.of(study), _path(out), metric)
    return power_of_study(options, differences or DIFFERENCES, noise)


@_checked
def attribution(out: PathLike | None = None, *, metric: str = "top1", **study: Unpack[StudyKeywords]) -> Attribution:
    """The effect of each step over many orders of the steps, from all ablations below the folder `out`.

    Raises ValueError if no run of the start, or of all steps, has finished, and for the keyword `ablation`.
    """
    from analysis.attribution import attribution_of_runs

    return attribution_of_runs(_runs(out, metric, study))


@_checked
def sample(**study: Unpack[StudyKeywords]) -> pd.DataFrame:
    """Designs that are drawn from a `space`, as `roadmap sample`: a row for each, at equal cost.

    `samples` is their number (default: 20), and another `sample_seed` draws other ones. Columns: the name, by which
    `steps` takes the design, parameters, multiply-adds (`macs`) and identity, the drawn `values` by parameter, and the
    blocks (`depths`) and channels (`widths`) of each stage. Raises ValueError without a space, and for one without so
    many designs.
    """
    import pandas as pd

    from analysis.spaces.drawn import drawn_designs

    return pd.DataFrame(drawn_designs(Selection.of(StudyOptions.of(study))))


@_checked
def space(
    name: str,
    out: PathLike | None = None,
    *,
    metric: str = "top1",
    output: Paths = (),
    **study: Unpack[StudyKeywords],
) -> SpaceStudy:
    """What the finished designs of a space below the folder `out` (default: the study's) say, as `roadmap space`.

    The result has the designs with their errors, their distribution, the best value of each parameter and its interval,
    and a surface of the parameters. It is also drawn into each path of `output`, a .png, .svg or .pdf. Raises
    ValueError for an unknown space, and without finished designs.
    """
    from analysis.spaces.conclusion import save_spaces
    from analysis.spaces.study import space_studies

    (found,) = space_studies(_runs(out, metric, study), [name])
    if paths := _paths(output):
        save_spaces([found], found.out, paths)
    return found


@_checked
def compare_spaces(
    names: Sequence[str], out: PathLike | None = None, *, metric: str = "top1", **study: Unpack[StudyKeywords]
) -> pd.DataFrame:
    """Compares the distributions of the errors of spaces, in pairs, by Kolmogorov and Smirnov's test.

    Columns: two `spaces`, the largest `distance` of their distributions, `p`, and `corrected_p` for all pairs, after
    Holm. The other arguments, and errors, are those of `space`; the spaces must have the same recipe and data.
    """
    import pandas as pd

    from analysis.spaces.study import space_studies
    from analysis.spaces.table import compared

    return pd.DataFrame(compared(space_studies(_runs(out, metric, study), names)))


@_checked
def proxy(
    out: PathLike | None = None,
    *,
    against: PathLike = "resnet-50",
    metric: str = "top1",
    **study: Unpack[StudyKeywords],
) -> Proxy:
    """Compares the ranking of the steps by the study below the folder `out` with that by another study.

    `against` is a regime with a published table, or a CSV file that `roadmap table` wrote. Raises ValueError if no run
    has finished, and if the two have fewer than four steps in common.
    """
    from analysis.proxy import proxy_of

    return proxy_of(_runs(out, metric, study), str(against))


def _runs(out: PathLike | None, metric: str, study: StudyKeywords) -> RunsOptions:
    from analysis.options import RunsOptions

    return RunsOptions(_options_here(study), _path(out), metric)


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _paths(paths: Paths) -> list[Path]:
    return [Path(paths)] if isinstance(paths, Path | str) else [Path(path) for path in paths]


def _options_here(study: StudyKeywords) -> StudyOptions:
    """The options of a function that trains nothing. Raises ValueError for keywords that choose where to train."""
    for name in ("on", "cluster"):
        if name in study:
            raise ValueError(f"{name} applies only to plan, run, estimate and power")
    return StudyOptions.of(study)


def _options_of_one(study: StudyKeywords) -> StudyOptions:
    """The options of a function for one rung. Raises ValueError for keywords that apply only to several rungs."""
    for name in OF_SEVERAL_RUNGS:
        if name in study:
            raise ValueError(f"{name} applies only to functions for several rungs")
    return StudyOptions.of(study)


def _selection_of_one(study: StudyKeywords) -> Selection:
    return Selection.of(_options_of_one(study))
