"""The Python API: a function for everything that the command does. See `roadmap.__all__` for the whole of it.

Each returns its result as a value: a pandas table, a matplotlib figure, or a dataclass. Options that choose a part of
the study are the keywords of `roadmap.options.StudyKeywords`, the same as on the command line. Bad input raises
ValueError with one clear sentence. `runner` and `analysis` are imported when a function that needs them is called.
"""

from __future__ import annotations

import functools
import warnings
from collections.abc import Callable, Iterable, Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack

from roadmap.data.packed_format import Damaged, Index, open_packed
from roadmap.files import InvalidFile
from roadmap.options import Selection, StudyKeywords, StudyOptions
from roadmap.recipe import changes
from roadmap.record import estimates
from roadmap.record.estimates import Estimate
from roadmap.record.run import find_run
from roadmap.serialization import Difference
from roadmap.study.rungs import Rung

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.attribution import Attribution
    from analysis.options import Comparison, FigureKind, RunsOptions, TradeoffAxis
    from analysis.power import Power
    from analysis.proxy import Proxy
    from runner.launch.plan import PlannedRun, RunPlan
    from runner.launch.slurm.cancel import Cancelled
    from runner.launch.slurm.resubmit import Retried
    from runner.launch.slurm.submit import Submitted
    from runner.launch.status import RunStatus, StudyStatus
    from runner.measure.pipeline import PipelineTimes

PathLike: TypeAlias = Path | str
Paths: TypeAlias = PathLike | Iterable[PathLike]
OF_SEVERAL_RUNGS = ("steps", "ablation", "references", "base", "on", "cluster")  # keywords of the study


@dataclass(frozen=True)
class StudyRuns:
    """What `run` returns."""

    runs: tuple[PlannedRun, ...]  # each with its folder and its state: absent, begun, diverged or finished
    failed: tuple[PlannedRun, ...]  # came to no result; the log in each one's folder says why
    table: pd.DataFrame  # a row a rung: accuracies in percent, differences in points
    figure: Figure | None  # the roadmap figure; None where no run has finished
    submitted: Submitted | None = None  # the jobs, where the runs were submitted to Slurm

    @property
    def diverged(self) -> tuple[PlannedRun, ...]:
        """The runs whose loss became no finite number."""
        return tuple(planned for planned in self.runs if planned.state == "diverged")

    @property
    def is_finished(self) -> bool:
        return all(planned.state == "finished" for planned in self.runs)


def plan(*, seeds: int | None = None, out: Path | str | None = None, **study: Unpack[StudyKeywords]) -> RunPlan:
    """The runs that `run` would train, each with its folder and its state. Nothing is started or written.

    `seeds`: runs of each rung, with seeds 0 to seeds - 1 (default: the study's number). `out`: the folder of the runs.
    Raises ValueError for a name that the study does not know, and for runs that can't be trained.
    """
    from runner.launch.plan import RunPlan

    options = StudyOptions.of(study)
    return RunPlan.of(Selection.of(options), seeds, options.out(out))


def run(
    *,
    seeds: int | None = None,
    out: Path | str | None = None,
    pack: int | None = None,
    max_running: int | None = None,
    **study: Unpack[StudyKeywords],
) -> StudyRuns:
    """Trains the selected rungs and returns their results. Runs that have finished are not trained again.

    `seeds` and `out` are as in `plan`. With `on="slurm"` the runs are submitted instead, `pack` of them in a job and at
    most `max_running` jobs at a time, and the results are those that exist already.

    A run that fails or diverges does not raise: it is reported in the result. May be called from any thread, and in a
    notebook; a script calls it below `if __name__ == "__main__":`, since runs are trained in processes of their own.

    Raises ValueError for bad input, and runner.launch.slurm.slurm_cli.SlurmError where Slurm refuses. KeyboardInterrupt
    saves the state of the runs in training; the same call resumes them.
    """
    from analysis.report.summary import summarize
    from runner.launch.plan import check_local

    check_local(StudyOptions.of(study), pack, max_running)
    planned, submitted = plan(seeds=seeds, out=out, **study), None
    failed: tuple[PlannedRun, ...] = ()
    if planned.selection.cluster:
        submitted = _submit(planned, pack, max_running, study)
    else:
        from runner.launch.train_plan import train_plan

        trained = train_plan(planned)
        failed = trained.failed if trained else ()  # None: the first process of torchrun's reports them
    summary = summarize(planned.selection, planned.out)
    return StudyRuns(planned.refreshed().runs, failed, summary.table, summary.figure, submitted)


def _submit(planned: RunPlan, pack: int | None, max_running: int | None, study: StudyKeywords) -> Submitted | None:
    """None where nothing is left to train."""
    from runner.launch.slurm.plan import check_submission
    from runner.launch.slurm.submission import SubmitOptions
    from runner.launch.slurm.submit import submit

    call = ("roadmap.run", *(f"{name}={value!r}" for name, value in study.items()))  # in the place of a command
    options = SubmitOptions.of(planned.selection, call, pack, max_running)
    runs, out = check_submission(planned, options), planned.out.resolve()
    if not runs:
        return None
    planned.find_data()
    return submit(runs, out, options, functools.partial(conclude, planned.selection, out))


def conclude(selection: Selection, out: Path) -> None:
    """Prints the table of the selected rungs and saves the figure in `out`, when their runs have ended."""
    import sys

    from analysis.report.summary import summarize

    summary = summarize(selection, out)
    print(f"\n{summary}\n")
    if summary.figure is None:
        print("no run has finished: no figure", file=sys.stderr)
    for path in summary.save_figure(out):
        print(f"figure: {path}")


def status(runs: Sequence[str] = (), *, out: Path | str | None = None) -> StudyStatus:
    """The status of every run below a folder, or of those named; printed, it is the text of `roadmap status`.

    `runs`: rungs, RUNG-sSEED, identities, folders or jobs. Slurm is asked about what was submitted. Raises ValueError
    for a name that no run has, and for a folder that does not exist.
    """
    from runner.launch.named import runs_named
    from runner.launch.status import collect_status

    whole = collect_status(_existing(out))
    return replace(whole, runs=runs_named(whole.runs, runs))


def run_status(run: str, *, out: Path | str | None = None) -> RunStatus:
    """The status of one run, by a name as in `status`. Raises ValueError where the name means none or several."""
    from runner.launch.named import run_named
    from runner.launch.status import collect_status

    return run_named(collect_status(_existing(out)).runs, run)


def logs(run: str, *, out: Path | str | None = None) -> str:
    """The log of a run, by a name as in `status`; before it has one, what its job printed, or nothing.

    Raises ValueError where the name means no run, or several.
    """
    path = run_status(run, out=out).log
    return path.read_text(encoding="utf-8", errors="replace") if path else ""


def cancel(runs: Sequence[str] = (), *, out: Path | str | None = None) -> Cancelled:
    """Takes the jobs of runs out of Slurm's queue; without a name all jobs below the folder, the figure's too.

    Each run saves its state. Raises ValueError for a name that no run has and for a job that has another run too, and
    runner.launch.slurm.slurm_cli.SlurmError where Slurm does not answer.
    """
    from runner.launch.slurm.cancel import cancel as cancel_runs
    from runner.launch.status import collect_status

    return cancel_runs(collect_status(_existing(out)), runs)


def retry(
    runs: Sequence[str] = (),
    *,
    out: Path | str | None = None,
    report: Callable[[Submitted], object] | None = None,
) -> Retried:
    """Submits runs to Slurm again, as they were submitted before; without a name all that failed.

    `report` is called with each submission once it is made. Raises ValueError for a name that no run has and for a run
    that has not failed, and runner.launch.slurm.slurm_cli.SlurmError where Slurm does not answer.
    """
    from runner.launch.slurm.resubmit import retry as retry_runs
    from runner.launch.status import collect_status

    return retry_runs(collect_status(_existing(out)), runs, report)


def _existing(out: Path | str | None) -> Path:
    """The folder of the runs, absolute. Raises ValueError where there is none."""
    folder = StudyOptions().out(out)
    if not folder.is_dir():
        raise ValueError(f"{folder}: no such folder of runs; --out names another")
    return folder.resolve()


def rungs(**study: Unpack[StudyKeywords]) -> pd.DataFrame:
    """The selected rungs, then the references, as `roadmap list`: a row for each.

    Parameters and multiply-adds (`macs`) are of the recipe's image size. `published_top1` and `published_top1_std` are
    percent, `published_gmacs` 1e9 multiply-adds at 224 pixels; the paper's Tables 10 and 11 have them.
    """
    import pandas as pd

    from analysis.tables.counting import count_rungs

    rows = []
    for row in count_rungs(Selection.of(StudyOptions.of(study))):
        names = ("name", "title", "group", "adopted", "no_effect")
        published = {
            f"published_{name}": getattr(row.published, field, None)
            for name, field in (("top1", "top1_mean"), ("top1_std", "top1_std"), ("gmacs", "gmacs"))
        }
        counts = {"parameters": row.cost.parameters, "macs": row.cost.macs}
        rows.append({name: getattr(row.rung, name) for name in names} | counts | published)
    return pd.DataFrame(rows)


def show(step: str, **study: Unpack[StudyKeywords]) -> Rung:
    """A rung by its name, a variant such as kernel-size=13, or steps alone: gelu+layer-norm.

    Its `experiment` has the design and the recipe. Keywords of several rungs, such as `steps`, do not apply.
    """
    return _selection_of_one(study).rung(step)


def diff(before: str, after: str, **study: Unpack[StudyKeywords]) -> list[Difference]:
    """What changes from one rung to another; each difference has a path and the values before and after."""
    selection = _selection_of_one(study)
    return changes(selection.rung(before).experiment, selection.rung(after).experiment)


def estimate(
    *,
    seeds: int | None = None,
    gpus: int = 1,
    device: str | None = None,
    throughput: float | None = None,
    out: Path | str | None = None,
    **study: Unpack[StudyKeywords],
) -> Estimate:
    """Device-hours of the selected rungs before anything is submitted, as `roadmap cost`.

    The speed of a device is `throughput` (multiply-adds a second), else that of a `device` of the study, else as the
    runs below `out` measured it. `gpus` devices share the work, `seeds` are the runs of each rung.
    """
    options = StudyOptions.of(study)
    speed = {"device": device, "throughput": throughput}
    return estimates.estimate(Selection.of(options), options.out(out), seeds=seeds, gpus=gpus, **speed)  # type: ignore[arg-type]


def bench(
    *,
    batch: int | None = None,
    rounds: int = 5,
    warm_up: int | None = None,
    seconds: float = 1.0,
    only: Literal["training", "inference"] | None = None,
    cuda_graphs: bool = False,
    out: Path | str | None = None,
    **study: Unpack[StudyKeywords],
) -> pd.DataFrame:
    """Measures how fast the selected networks are here, and their memory: a row for each rung that could be measured.

    Columns: images/s, their spread (half the range of the rounds), peak bytes, multiply-adds a second, and their share
    of a matrix product's, in training and inference. A warning names each network that failed. `out`, the folder of the
    runs, keeps every measurement in its bench.jsonl. `batch` is images at a time, `warm_up` steps before the clock
    starts, `seconds` what each measurement takes at least. Call it below `if __name__ == "__main__"` in a script: each
    network is measured in a process of its own.
    """
    import pandas as pd

    from analysis.tables.bench import measured_rungs, rate_row
    from roadmap.progress import show_count
    from runner.measure.networks import distinct_networks, measure_networks
    from runner.measure.plan import BenchOptions, check_settings, make_plan

    options = StudyOptions.of(study)
    how = BenchOptions(batch, rounds, warm_up, seconds, only, cuda_graphs)
    check_settings(options.settings, "networks")
    selection, folder = Selection.of(options), options.out(out)
    runs = distinct_networks(selection)
    plan = make_plan(runs, selection.execution, how)
    results = []
    with show_count(len(runs) * rounds, selection.title) as report:
        for measurement in measure_networks(runs, plan, folder):
            report(f"{measurement.run.rung}, round {measurement.number} of {rounds}: {measurement}")
            if measurement.result:
                results.append(measurement.result)
            else:
                warnings.warn(f"{measurement.run.rung} failed: {measurement.failure}", stacklevel=2)
    return pd.DataFrame([rate_row(row) for row in measured_rungs(selection, results)])


def bench_data(
    *,
    rounds: int = 5,
    seconds: float = 1.0,
    rate: float | None = None,
    out: Path | str | None = None,
    **study: Unpack[StudyKeywords],
) -> PipelineTimes:
    """Measures where the input pipeline's time goes on one core, for the last of the selected rungs.

    `rate` is a device's images/s in training, for the number of workers that keep it busy; by default as `bench`
    measured the fastest of the rungs in `out`.
    """
    from roadmap.progress import show_count
    from runner.measure.pipeline import device_rate, pipeline_times, stage_seconds
    from runner.measure.plan import check_clock, check_settings

    options = StudyOptions.of(study)
    check_clock(rounds, seconds)
    check_settings(options.settings, "data")
    selection = Selection.of(options)
    device = device_rate(selection, options.out(out), rate)
    rung = selection.rungs()[-1]
    measured = []
    with show_count(rounds, f"{selection.title}, {rung.name}") as report:
        for times in stage_seconds(selection.run(rung), selection.execution, rounds, seconds):
            measured.append(times)
            report(f"round {len(measured)} of {rounds}")
    return pipeline_times(rung.name, measured, device)


def evaluate(
    *runs: str | Path,
    weights: Literal["raw", "ema"] = "raw",
    state_dict: Path | str | None = None,
    peer: str | None = None,
    out: Path | str | None = None,
    **study: Unpack[StudyKeywords],
) -> pd.DataFrame:
    """Trained networks on the held-out images of their data, or of other `data`: a row for each, accuracies in percent.

    Runs are given by rung, rung-sSEED, identity or folder. On images of another distribution (ImageNet-A, -R, -Sketch,
    -C, or any folder of the same classes) there is a row for each part, and of ImageNet-C the mean corruption error
    `mce`; the run's folder keeps them, so they are not measured again. With `state_dict`, a file with the weights of
    the same network of `peer` (LIBRARY/NAME), one rung is given.
    """
    import pandas as pd

    from analysis.tables.robustness import evaluation_rows
    from roadmap.progress import counting
    from runner.measure.evaluate import evaluate_held_out, evaluate_on_shifted, load_subject, shifted_data

    options, shifted = shifted_data(_options_of_one(study))
    file, folder = (None if path is None else Path(path) for path in (state_dict, out))
    if file and len(runs) > 1:
        raise ValueError(f"--state-dict takes one rung (got {len(runs)})")
    rows = []
    for run in runs:
        subject = load_subject(run, options, folder, weights=weights, state_dict=file, peer=peer)
        _warn_if_unfinished(subject.trained.run.name, subject.trained.unfinished)
        with counting("evaluating", "images") as report:
            if shifted is None:
                rows.append(evaluate_held_out(subject, report).record)
            else:
                rows += evaluation_rows(
                    subject.trained.run.name, shifted, evaluate_on_shifted(subject, shifted, report)
                )
    return pd.DataFrame(rows)


def export(
    run: str | Path,
    to: Literal["safetensors", "torchscript", "onnx"] = "safetensors",
    *,
    output: Path | str | None = None,
    weights: Literal["raw", "ema"] = "raw",
    out: Path | str | None = None,
    plugins: Sequence[Path | str] = (),
) -> Path:
    """Writes a run's network as a file for other programs, by default in the run's folder, and returns its path.

    The file is read back; raises ValueError where its outputs differ.
    """
    from runner.measure.export import SUFFIXES, export_network
    from runner.measure.trained import read_trained

    study = StudyOptions.of({"plugins": plugins}).study()
    folder = find_run(run, Path(study.defaults.out if out is None else out))
    trained = read_trained(folder, averaged=weights == "ema")
    _warn_if_unfinished(trained.run.name, trained.unfinished)
    return export_network(trained, to, folder / f"network{SUFFIXES[to]}" if output is None else Path(output)).path


def pack(
    source: Path | str,
    destination: Path | str,
    *,
    resize: int | None = None,
    quality: int | None = None,
    bad_images: Literal["stop", "skip"] = "stop",
    shard_megabytes: int = 256,
    jobs: int | None = None,
) -> Index:
    """Packs an image folder into a few large files, as `roadmap data pack`; returns the index of what was written.

    `source` is a folder, NAME=PATH, or a name below $ROADMAP_DATA. `resize` is the pixels that an image's shorter side
    has at most, `quality` JPEG's of images that are resized, `jobs` the number of processes. The same call resumes.
    """
    from roadmap.progress import counting
    from runner.data import packed_writer

    options = packed_writer.pack_options(resize, quality, shard_megabytes, bad_images)
    folder = packed_writer.source_folder(str(source))
    with counting("packing", "images") as report:
        return packed_writer.pack(folder, Path(destination), options, jobs, report)


def check_packed(folder: Path | str) -> list[str]:
    """Reads a packed data set back, as `roadmap data check`: a sentence for each damage, none where it is whole.

    Raises ValueError where the folder is not packed, or its packing was not finished.
    """
    from roadmap.progress import counting
    from runner.data.packed_reader import damage

    try:
        index = open_packed(Path(folder))
    except (Damaged, InvalidFile) as error:
        return [str(error)]
    with counting("checking", "images") as report:
        return list(damage(Path(folder), index, report))


def _options_of_one(study: StudyKeywords) -> StudyOptions:
    """Raises ValueError for keywords that apply to functions of several rungs only."""
    for name in OF_SEVERAL_RUNGS:
        if name in study:
            raise ValueError(f"{name} applies to functions of several rungs only")
    return StudyOptions.of(study)


def _selection_of_one(study: StudyKeywords) -> Selection:
    return Selection.of(_options_of_one(study))


def _warn_if_unfinished(run: str, progress: str) -> None:
    if progress:
        warnings.warn(f"{run} has not finished training: {progress}", stacklevel=3)


def collect(out: PathLike | None = None, *, output: Paths = ()) -> pd.DataFrame:
    """Every run below the folder `out` (default: the study's) as a row, with `analysis.collection.COLUMNS`.

    The table is also written to each path of `output`, a .csv or .parquet. Raises ValueError where there is no such
    folder, and for another suffix.
    """
    from analysis.collection import collect as collect_runs
    from analysis.collection import write_table

    table = collect_runs(StudyOptions().out(out))
    for path in _paths(output):
        write_table(table, path)
    return table


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
    output: Paths = (),
    **study: Unpack[StudyKeywords],
) -> Figure:
    """The roadmap figure or another kind, of the finished runs below the folder `out` (default: the study's).

    With `published` it is drawn from the paper's tables, without any run. `compare` draws the paper's roadmap beside
    the runs', or the difference to it; `against` names the regime whose published table that is. `x` is what a
    tradeoff holds the metric against (default: macs). `throughput` writes the images/s that `roadmap bench` measured
    beside each bar. The figure is as wide as `columns` of a page. It is also written to each path of `output`, a .png,
    .svg or .pdf. Raises ValueError for an option that the figure leaves unused, and where there is nothing to draw.
    """
    from analysis.figures import save_figure
    from analysis.figures.kinds import draw
    from analysis.options import FigureOptions

    options = FigureOptions(
        StudyOptions.of(study), _path(out), metric, kind, published, compare, against, x, throughput, columns
    )
    drawn = draw(options)
    save_figure(drawn, _paths(output))
    return drawn


def table(
    out: PathLike | None = None,
    *,
    metric: str = "top1",
    published: bool = False,
    robustness: bool = False,
    **study: Unpack[StudyKeywords],
) -> pd.DataFrame:
    """The paper's table beside that of the finished runs below the folder `out` (default: the study's): a row a rung.

    Accuracies are in percent, differences in points; the column `study` is the regime's title. With `published` it is
    the paper's own table, without any run; with `robustness` ImageNet-C, -A, -R and -Sketch of the evaluated runs,
    above the paper's Table 8. Raises ValueError where no run has finished, and for an option that is left unused.
    """
    from analysis.options import TableOptions
    from analysis.tables.selected import as_one, tables_of

    return as_one(tables_of(TableOptions(StudyOptions.of(study), _path(out), metric, published, robustness)))


def report(
    out: PathLike | None = None,
    *,
    output: PathLike | None = None,
    metric: str = "top1",
    **study: Unpack[StudyKeywords],
) -> Path:
    """Writes one HTML page of everything that is known of the runs below the folder `out` (default: the study's).

    It is written to `output`, else to report.html among the runs. Returns its path. Raises ValueError where there is
    no folder of runs, and for another suffix than .html.
    """
    from analysis.report.building import write_report

    return write_report(_runs(out, metric, study), _path(output))


def report_server(
    out: PathLike | None = None, *, port: int = 0, metric: str = "top1", **study: Unpack[StudyKeywords]
) -> ThreadingHTTPServer:
    """Serves the page of `report` on this machine, made again when runs have changed; at any free port for 0.

    Call its `serve_forever`, or give that to a thread. Raises ValueError as `report` does, and for a port in use.
    """
    from analysis.report.building import report_server as server_of

    return server_of(_runs(out, metric, study), port)


def power(
    out: PathLike | None = None,
    *,
    differences: Sequence[float] | None = None,
    noise: float | None = None,
    metric: str = "top1",
    **study: Unpack[StudyKeywords],
) -> Power:
    """How many seeds it takes to see differences, in points of the metric (default: 0.1, 0.2, 0.5 and 1).

    `noise` is the standard deviation of a run in points; by default that of the runs below the folder `out`, and
    before there are any the paper's. Raises ValueError for numbers out of range, and where the noise is not known.
    """
    from analysis.power import DIFFERENCES, power_of_study

    return power_of_study(_runs(out, metric, study), differences or DIFFERENCES, noise)


def attribution(out: PathLike | None = None, *, metric: str = "top1", **study: Unpack[StudyKeywords]) -> Attribution:
    """What each step is worth in other orders than the paper's, by all ablations below the folder `out`.

    Raises ValueError where no run of the start, or of all steps, has finished, and for the keyword `ablation`.
    """
    from analysis.attribution import attribution_of_runs

    return attribution_of_runs(_runs(out, metric, study))


def proxy(
    out: PathLike | None = None,
    *,
    against: str = "resnet-50",
    metric: str = "top1",
    **study: Unpack[StudyKeywords],
) -> Proxy:
    """Whether the study below the folder `out` orders the steps as another does.

    `against` is a regime, of whose published table, or a CSV file that `roadmap table` wrote. Raises ValueError where
    no run has finished, and where the two have fewer than four steps in common.
    """
    from analysis.proxy import proxy_of

    return proxy_of(_runs(out, metric, study), against)


def _runs(out: PathLike | None, metric: str, study: StudyKeywords) -> RunsOptions:
    from analysis.options import RunsOptions

    return RunsOptions(StudyOptions.of(study), _path(out), metric)


def _path(path: PathLike | None) -> Path | None:
    return None if path is None else Path(path)


def _paths(paths: Paths) -> list[Path]:
    return [Path(paths)] if isinstance(paths, Path | str) else [Path(path) for path in paths]
