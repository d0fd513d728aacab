"""power, attribution and proxy: what the runs can tell, and what a study would have to be to tell it."""

from __future__ import annotations

import argparse
import math
import re
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Any

from roadmap.cli.designs import speed
from roadmap.cli.finished import attribution_of, finished
from roadmap.cli.options import add_metric, add_study_options, choose, study_options
from roadmap.options import Selection
from roadmap.record.metrics import TOP1, Metric, find_metric
from roadmap.study.load import load_study
from roadmap.study.schema import Study
from roadmap.text import many, table

if TYPE_CHECKING:
    import pandas as pd

    from analysis.attribution import Attribution
    from analysis.statistics import Noise

DIFFERENCES = (0.1, 0.2, 0.5, 1.0)  # points


def add_verbs(verbs: Any) -> None:
    parser = verbs.add_parser("power", help="how many seeds it takes to see a difference")
    parser.add_argument(
        "--difference",
        type=float,
        action="append",
        metavar="POINTS",
        help="to be seen, in points of the metric; may be repeated (default: "
        + ", ".join(f"{each:g}" for each in DIFFERENCES)
        + ")",
    )
    parser.add_argument(
        "--noise",
        type=float,
        metavar="POINTS",
        help="standard deviation of a run (default: as the runs have it; before there are any, as the paper prints it)",
    )
    _add_options(parser)
    parser.set_defaults(function=show_power)

    parser = verbs.add_parser("attribution", help="what each step is worth in other orders than the paper's")
    _add_options(parser)
    parser.set_defaults(function=show_attribution)

    parser = verbs.add_parser("proxy", help="whether a cheap study orders the steps as another does")
    parser.add_argument(
        "--against",
        default="resnet-50",
        metavar="STUDY",
        help="a regime's published table (default: resnet-50), or a CSV file that `roadmap table` wrote",
    )
    _add_options(parser)
    parser.set_defaults(function=show_proxy)


def _add_options(parser: argparse.ArgumentParser) -> None:
    add_metric(parser)
    add_study_options(parser, ablation=True)
    parser.add_argument("--out", type=Path, help="folder of the runs")


def show_power(options: argparse.Namespace) -> int:
    from analysis.statistics import SIGNIFICANCE, detectable
    from analysis.tables.ladder import hours as hours_text

    metric, choice = study_options(options).metric(options.metric), choose(options)
    for difference in options.difference or ():
        if not math.isfinite(difference) or difference == 0:
            raise ValueError(f"--difference {difference:g} is not valid: a number other than 0 is")
    rungs = choice.rungs()
    noise, source, seeds = _noise(options, choice, metric)
    steps = max(1, sum(rung.parent is not None and not rung.no_effect for rung in rungs))
    kind = "of the change between two runs of one seed" if noise.paired else "of a run"
    interval = noise.interval and " to ".join(f"{end:.3g}" for end in noise.interval)
    print(f"noise: {noise.std:.3g}, one standard deviation {kind}" + (f" (95 %: {interval})" if interval else ""))
    print(f"source: {source}\n")
    found = speed(choice, options.out or Path(choice.study.defaults.out))
    trained = [rung for rung in rungs if not rung.no_effect]
    hours = sum(found.device_hours(rung.experiment, choice.dataset) for rung in trained)
    rows = []
    for difference in options.difference or DIFFERENCES:
        alone, corrected = (_needed(difference, noise, SIGNIFICANCE / count) for count in (1, steps))
        cost = hours_text(int(corrected) * hours) if corrected.isdigit() else "-"
        rows.append([f"{difference:g}", alone, corrected, cost])
    header = ["difference", "seeds, for one step", f"seeds, for {many(steps, 'step')}", "device-hours for all"]
    print(table(header, rows))
    tests = "of pairs" if noise.paired else "of two groups"
    print(f"\nTwo-sided t tests {tests} at 5 % that see it four times in five; several steps share the 5 %.")
    print(f"Device-hours: {found.source}.")
    if seeds > 1:
        one, all_steps = (detectable(seeds, noise, SIGNIFICANCE / count) for count in (1, steps))
        print(f"With {seeds} seeds, so seen: {one:.3g} for one step, {all_steps:.3g} for {many(steps, 'step')}.")
    return 0


def _needed(difference: float, noise: Noise, significance: float) -> str:
    from analysis.statistics import MOST_SEEDS, seeds_needed

    try:
        return str(seeds_needed(difference, noise, significance))
    except ValueError:
        return f"over {MOST_SEEDS}"


def _noise(options: argparse.Namespace, choice: Selection, metric: Metric) -> tuple[Noise, str, int]:
    """What a run's noise is, where that is known from, and the seeds that there are of a rung."""
    from analysis.results import judge_published, named_values
    from analysis.statistics import Noise, noise_of, pooled_std

    if options.noise is not None:
        if not (math.isfinite(options.noise) and options.noise >= 0):
            raise ValueError(f"--noise {options.noise:g} is not valid: 0 or more is")
        return Noise(options.noise, 0), "as given", 0
    try:
        (own,) = finished(options, choice.regime)
    except ValueError:
        own = None
    if own and (found := noise_of(named_values(own.results, metric))):
        runs = sum(len(result.values(metric)) for result in own.results)
        seeds = min((n for result in own.results if (n := len(result.values(metric)))), default=0)
        return found, f"{many(runs, 'run')} of {choice.regime}, about {found.freedom:.0f} degrees of freedom", seeds
    regime = choice.study.regime(choice.regime)
    is_papers = regime.published and choice.context.data == regime.data and metric.published
    judged = judge_published(choice.study, choice.regime).values() if is_papers else ()
    pooled = pooled_std(each.sample for each in judged if each.sample)
    if pooled:
        return Noise(*pooled), f"the deviations that the paper prints, {pooled[1]} degrees of freedom", 0
    raise ValueError(
        f"nothing tells the noise of {choice.regime}: no rung has two finished runs, and the paper prints none; "
        "give --noise, or train some with --seeds 3"
    )


def show_attribution(options: argparse.Namespace) -> int:
    from analysis.collection import collect

    if options.ablation != "cumulative":
        raise ValueError("--ablation has no say here: all that were run are taken together")
    metric, choice = study_options(options).metric(options.metric), choose(options)
    found = attribution_of(choice, options.steps, collect(options.out or Path(choice.study.defaults.out)), metric)
    print(f"{choice.title}: {metric.title}\n")
    print(_worths(found, metric) + "\n")
    known = [worth.shapley for worth in found.worths if worth.shapley is not None]
    digits = metric.decimals + 1
    if known:
        total, sums = (f"{each:+.{digits}f}" for each in (found.total, sum(known)))
        print(f"All steps together: {total}. The Shapley values sum to {sums}: the two differ by noise, and")
        print("where random orders end in other networks than the study's order.")
    if found.missing:
        print(f"Left out: {many(found.missing, 'rung')} of the random orders without a finished run;")
        print(f"{found.diverged or 'none'} of them diverged. That flatters the steps that fail.")
    if len(known) < len(found.worths):
        print("A Shapley value takes two random orders or more: roadmap run --ablation orders:20")
    print("\n" + _pairs(found, metric))
    return 0


def _worths(found: Attribution, metric: Metric) -> str:
    from analysis.tables.ladder import interval, signed

    digits = metric.decimals + 1
    rows = [
        [
            worth.step,
            signed(worth.shapley, digits),
            interval(worth.interval, digits),
            str(worth.orders),
            *(signed(each, digits) for each in (worth.on_path, worth.alone, worth.left_out)),
        ]
        for worth in found.worths
    ]
    header = ["step", "Shapley value", "95 % interval", "orders", "in the paper's order", "alone", "taken out"]
    return table(header, rows)


def _pairs(found: Attribution, metric: Metric) -> str:
    from analysis.tables.ladder import interval, signed

    told = sorted((each for each in found.interactions if each.verdict != "within noise"), key=lambda each: each.p)
    if not found.interactions:
        unknowns = 1 + len(found.steps) * (len(found.steps) + 1) // 2
        return f"Pairs can't be told apart: more than {unknowns} sets of steps are needed (--ablation orders:N)."
    if not told:
        return f"Of {len(found.interactions)} pairs none helps or hinders beyond the noise."
    digits = metric.decimals + 1
    rows = [
        [each.first, each.second, each.verdict, signed(each.value, digits), interval(each.interval, digits)]
        for each in told
    ]
    told_of = f"{len(told)} of {len(found.interactions)} pairs; the others are within the noise."
    return table(["step", "and", "they", "by", "95 % interval"], rows) + "\n\n" + told_of


def show_proxy(options: argparse.Namespace) -> int:
    from analysis.statistics import SIGNIFICANCE, rank_correlation
    from analysis.tables.ladder import interval, p_text, signed, study_table

    metric = study_options(options).metric(options.metric)
    (own,) = finished(options, options.regime or load_study().defaults.regime)
    here = _changes(study_table(own.choice.study, own.results, metric), metric)
    other, other_metric = _other_study(own.choice.study, options.against)
    there = _changes(other, other_metric)
    shared = [rung for rung in here if rung in there]
    if len(shared) < 4:
        raise ValueError(f"{options.against}: {len(shared)} steps were changed in both studies; 4 or more are needed")
    found = rank_correlation([here[rung] for rung in shared], [there[rung] for rung in shared])
    ranks = [_ranks([changes[rung] for rung in shared]) for changes in (here, there)]
    rows = [
        [
            rung,
            signed(here[rung], metric.decimals + 1),
            signed(there[rung], other_metric.decimals + 1),
            str(first),
            str(second),
        ]
        for rung, first, second in zip(shared, *ranks, strict=True)
    ]
    print(table(["rung", "change here", f"in {options.against}", "rank here", "there"], rows))
    within = f" (95 %: {interval(found.interval, 2)})" if found.interval else ""
    print(f"\nKendall's tau {found.tau:+.2f}{within}, p {p_text(found.p)}, of {found.n} steps.")
    if found.p >= SIGNIFICANCE:
        print("That can't be told from chance: by these steps, the one study does not stand in for the other.")
    elif found.tau > 0:
        print("The two order the steps more alike than chance would: 1 would be the same order, 0 an unrelated one.")
    else:
        print("The two order the steps more unlike than chance would: -1 would be the reverse order.")
    return 0


def _changes(table: pd.DataFrame, metric: Metric) -> dict[str, float]:
    """By rung, for the better above 0: of the adopted ones, where both it and the rung before have finished.

    Variants that were tried beside an adopted one are no steps of their own.
    """
    known = table.dropna(subset=["change"])
    known = known[known["adopted"].astype(bool)]
    sign = 1.0 if metric.higher_is_better else -1.0
    return dict(zip(known["rung"], sign * known["change"].astype(float), strict=True))


def _other_study(study: Study, written: str) -> tuple[pd.DataFrame, Metric]:
    """A published table, or a file that `roadmap table --format csv` wrote, with its metric.

    Raises ValueError for what is neither.
    """
    import pandas as pd

    from analysis.tables.ladder import published_judged

    if not re.search(r"\.csv$", written, re.IGNORECASE):
        return published_judged(study, written), TOP1
    try:
        found = pd.read_csv(written)
    except (OSError, ValueError) as error:
        raise ValueError(f"--against {written}: {error}") from None
    if missing := {"rung", "change", "adopted", "metric"} - set(found.columns) or ({"a row"} if found.empty else set()):
        raise ValueError(f"--against {written}: no {sorted(missing)[0]!r} in it; `roadmap table -o FILE.csv` has it")
    if not pd.api.types.is_numeric_dtype(found["change"]):
        raise ValueError(f"--against {written}: 'change' has what is no number")
    return found, find_metric(str(found["metric"].iloc[0]))


def _ranks(values: Sequence[float]) -> list[int]:
    """1 for the largest."""
    order = sorted(values, reverse=True)
    return [order.index(value) + 1 for value in values]
