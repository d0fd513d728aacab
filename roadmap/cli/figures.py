"""figure: the roadmap figure and others, from the runs at hand or from the paper's tables."""

from __future__ import annotations

import argparse
import sys
from collections.abc import Callable, Collection, Mapping, Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.finished import Finished, attribution_of, finished
from roadmap.cli.options import add_metric, add_study_options, choose, study_options
from roadmap.cli.tables import refuse_study_options
from roadmap.record.benchmarks import Measured, Quantity, measured, read_rounds, workload_of
from roadmap.record.metrics import TOP1
from roadmap.record.run import Run
from roadmap.study.load import load_study
from roadmap.study.schema import Study

if TYPE_CHECKING:
    from matplotlib.figure import Figure

    from analysis.attribution import Attribution
    from analysis.results import Series

COMPARISONS = ("side-by-side", "difference")
ACROSS = ("macs", "parameters", "throughput", "memory")  # what a tradeoff is held against


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("figure", help="the roadmap figure, and others")
    parser.add_argument("--published", action="store_true", help="from the paper's tables, without any run")
    parser.add_argument(
        "--kind",
        choices=tuple(KINDS),
        default="roadmap",
        help="roadmap (default), tradeoff (the metric against a cost), curves (epoch by epoch), "
        "attribution (each step in all orders), interactions (a heat map of pairs of steps), or counterparts (each "
        "ConvNeXt over the system of its size, as `bench --references` measured both)",
    )
    parser.add_argument("--compare", choices=COMPARISONS, help="one's own roadmap with the paper's, or less it")
    parser.add_argument(
        "--against", metavar="REGIME", help="whose published table --compare takes (default: its own, else resnet-50)"
    )
    parser.add_argument(
        "--x", choices=ACROSS, help="of a tradeoff: macs (default), parameters, measured throughput or memory"
    )
    parser.add_argument(
        "--throughput", action="store_true", help="write each network's images/s beside its bar, as `bench` measured it"
    )
    parser.add_argument(
        "--columns", type=int, choices=(1, 2), default=2, help="of a page that the figure is as wide as (default: 2)"
    )
    parser.add_argument("-o", "--output", type=Path, action="append", help="a .png, .svg or .pdf; may be repeated")
    add_metric(parser)
    add_study_options(parser, ablation=True)
    parser.add_argument("--out", type=Path, help="folder of the runs")
    parser.set_defaults(function=draw)


def draw(options: argparse.Namespace) -> int:
    from analysis.figures import save_figure

    study_options(options).metric(options.metric)
    _refuse_idle_options(options)
    if options.published:
        # Beside the paper's bars stands what was measured here, in the folder of runs.
        refuse_study_options(argparse.Namespace(**{**vars(options), "out": options.out and not options.throughput}))
    figure = KINDS[options.kind](options)
    parts = [options.kind, options.compare or "", "published" if options.published else ""]
    name = "-".join(part for part in parts if part)
    for path in save_figure(figure, options.output or [Path(f"{name}.png"), Path(f"{name}.svg")]):
        print(f"figure: {path}")
    return 0


def _refuse_idle_options(options: argparse.Namespace) -> None:
    """Raises ValueError for an option that has no say in what is drawn."""
    if options.compare and options.kind != "roadmap":
        raise ValueError(f"--compare has no say in --kind {options.kind}: it is of the roadmap figure")
    if options.compare and options.published:
        raise ValueError("--compare is of one's own runs with the paper's tables: it goes without --published")
    if options.against and not options.compare:
        raise ValueError("--against has no say without --compare")
    if options.throughput and (options.compare or options.kind != "roadmap"):
        raise ValueError("--throughput is of the roadmap figure alone; --kind tradeoff has --x throughput")
    if options.x and options.kind != "tradeoff":
        raise ValueError("--x has no say without --kind tradeoff")


def _published_regimes(options: argparse.Namespace, study: Study) -> Sequence[str]:
    return [options.regime] if options.regime else study.published_regimes()


def _roadmap(options: argparse.Namespace) -> Figure:
    from analysis.figures import draw_difference, draw_roadmap, draw_side_by_side
    from analysis.results import published_series

    if options.published:
        study = load_study()
        regimes = _published_regimes(options, study)
        series = [published_series(study, regime) for regime in regimes]
        if options.throughput:
            choices = [choose(argparse.Namespace(**{**vars(options), "regime": regime})) for regime in regimes]
            networks = [{rung.name: each.run(rung) for rung in each.rungs()} for each in choices]
            series = _with_throughput(series, networks, options)
        return draw_roadmap(series, options.columns)
    found = finished(options)
    if options.compare == "difference":
        from analysis.comparison import compare

        one = _only(found, "--compare difference")
        compared = compare(one.choice.study, one.results, options.against, _metric(options))
        return draw_difference(compared, options.columns)
    series = [_series(each, options) for each in found]
    if options.compare == "side-by-side":
        published = [_published_beside(each, own, options) for each, own in zip(found, series, strict=True)]
        return draw_side_by_side(series, published, options.columns)
    if options.throughput:
        series = _with_throughput(series, [{r.rung.name: r.run for r in each.results} for each in found], options)
    return draw_roadmap(series, options.columns)


def _metric(options: argparse.Namespace) -> Any:

    return study_options(options).metric(options.metric)


def _only(found: Sequence[Finished], what: str) -> Finished:
    if len(found) > 1:
        raise ValueError(f"{what} takes one regime, not {len(found)}: choose with --regime")
    return found[0]


def _series(each: Finished, options: argparse.Namespace) -> Series:
    from analysis.results import series_of_runs

    return series_of_runs(each.choice.study, each.results, ", ".join(each.choice.differences), _metric(options))


def _with_throughput(
    series: Sequence[Series], networks: Sequence[Mapping[str, Run]], options: argparse.Namespace
) -> list[Series]:
    """With what `roadmap bench` measured of each rung's network. Raises ValueError where that is nothing."""
    from analysis.results import with_throughput

    workloads = [{name: workload_of(run) for name, run in runs.items()} for runs in networks]
    found = _benched("inference_images_per_second", {each for runs in workloads for each in runs.values()}, options)
    if found is None:
        raise ValueError("nothing is measured of these networks' throughput: `roadmap bench` does that")
    return [with_throughput(each, names, found) for each, names in zip(series, workloads, strict=True)]


def _benched(quantity: Quantity, workloads: Collection[str], options: argparse.Namespace) -> Measured | None:
    rounds = read_rounds(options.out or Path(study_options(options).study().defaults.out))
    return measured(rounds, quantity, workloads)


def _published_beside(each: Finished, own: Series, options: argparse.Namespace) -> Series:
    from analysis.comparison import published_beside, table_against

    study = each.choice.study
    return published_beside(study, own, table_against(study, each.results[0], options.against))


def _tradeoff(options: argparse.Namespace) -> Figure:
    from analysis.figures import draw_tradeoff
    from analysis.tradeoff import BENCHED, published_tradeoff, tradeoff_of_runs

    x = options.x or "macs"
    if options.published:
        study = load_study()
        return draw_tradeoff(published_tradeoff(study, _published_regimes(options, study), x), options.columns)
    found = finished(options)
    titled = [(each.choice.title, each.results) for each in found]
    benched = None
    if x in BENCHED:
        workloads = {workload_of(result.run) for each in found for result in each.results if result.seeds}
        benched = _benched(BENCHED[x], workloads, options)
        if benched and len(benched.values) < len(workloads):
            said = f"{len(benched.values)} of these {len(workloads)} networks, so that drawn is what the runs had"
            print(f"`roadmap bench` has measured {said}", file=sys.stderr)
            benched = None
    tradeoff = tradeoff_of_runs(found[0].choice.study, titled, x, _metric(options), benched)
    return draw_tradeoff(tradeoff, options.columns)


def _curves(options: argparse.Namespace) -> Figure:
    from analysis.curves import curves_of_runs
    from analysis.figures import draw_curves

    if options.published:
        raise ValueError("the paper has no training curves: --kind curves draws one's own runs, without --published")
    one = _only(finished(options), "--kind curves")
    study = one.choice.study
    out = options.out or Path(study.defaults.out)
    return draw_curves(curves_of_runs(study, one.choice.title, one.results, out, _metric(options)), options.columns)


def _worths(options: argparse.Namespace) -> Figure:
    from analysis.figures import draw_worths

    found, title = _attribution(options)
    return draw_worths(found, _metric(options), title, options.columns)


def _interactions(options: argparse.Namespace) -> Figure:
    from analysis.figures import draw_interactions

    found, title = _attribution(options)
    return draw_interactions(found, _metric(options), title, options.columns)


def _attribution(options: argparse.Namespace) -> tuple[Attribution, str]:
    """What all ablations that were run tell of the regime, and of what study that is."""
    from analysis.collection import collect

    for name, is_given in (("published", options.published), ("ablation", options.ablation != "cumulative")):
        if is_given:
            raise ValueError(f"--{name} has no say in --kind {options.kind}: it takes all of one's own runs together")
    choice = choose(options)
    runs = collect(options.out or Path(choice.study.defaults.out))
    return attribution_of(choice, options.steps, runs, _metric(options)), choice.title


def _counterparts(options: argparse.Namespace) -> Figure:
    from analysis.figures import draw_counterparts
    from analysis.tables.counterparts import pairs_of

    for name, given in (("published", options.published), ("metric", options.metric != TOP1.name)):
        if given:
            raise ValueError(f"--{name} has no say in --kind counterparts, which has the paper's beside one's own")
    choice = choose(argparse.Namespace(**{**vars(options), "references": options.references or "all"}))
    networks = {rung.name: choice.run(rung) for rung in choice.rungs()}
    rounds = read_rounds(options.out or Path(choice.study.defaults.out))
    pairs = pairs_of(choice.context, networks, rounds)
    if not pairs:
        told = f"roadmap bench --regime {choice.regime} --references convnext-t,swin-t"
        raise ValueError(f"no ConvNeXt was measured with its counterpart by one command: {told}")
    return draw_counterparts(pairs, choice.title, options.columns)


KINDS: dict[str, Callable[[argparse.Namespace], Figure]] = {
    "roadmap": _roadmap,
    "tradeoff": _tradeoff,
    "curves": _curves,
    "attribution": _worths,
    "interactions": _interactions,
    "counterparts": _counterparts,
}
