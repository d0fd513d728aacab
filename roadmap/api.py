"""The Python API: a function for everything that the command does. See `roadmap.__all__` for the whole of it.

Each returns its result as a value: a pandas table, a matplotlib figure, or a dataclass. Options that choose a part of
the study are the keywords of `roadmap.options.StudyKeywords`, the same as on the command line. Bad input raises
ValueError with one clear sentence. `runner` and `analysis` are imported when a function that needs them is called.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Literal, TypeAlias, Unpack

from roadmap.options import StudyKeywords, StudyOptions

if TYPE_CHECKING:
    from http.server import ThreadingHTTPServer

    import pandas as pd
    from matplotlib.figure import Figure

    from analysis.attribution import Attribution
    from analysis.options import Comparison, FigureKind, RunsOptions, TradeoffAxis
    from analysis.power import Power
    from analysis.proxy import Proxy

PathLike: TypeAlias = Path | str
Paths: TypeAlias = PathLike | Iterable[PathLike]


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
