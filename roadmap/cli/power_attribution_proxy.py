"""power, attribution and proxy: what the runs can show, and which study would be needed to show more."""

from __future__ import annotations

import argparse
from typing import TYPE_CHECKING, Any

from roadmap.cli.options import (
    add_number,
    add_run_options,
    add_verb,
    choose,
    study_keywords,
    study_options,
    warnings_as_lines,
)
from roadmap.serialization.ranges import Range
from roadmap.text import many, table

if TYPE_CHECKING:
    from analysis.attribution import Attribution
    from roadmap.record.metrics import Metric


def add_verbs(verbs: Any) -> None:
    parser = add_verb(verbs, "power", "compute how many seeds it takes to detect a difference", "--difference 0.5")
    add_number(
        parser,
        "--difference POINTS",
        Range(other_than=0),
        "difference to detect, in points; may be repeated (default: 0.1, 0.2, 0.5, 1)",
        action="append",
        kind=float,
    )
    add_number(
        parser,
        "--noise POINTS",
        Range(0),
        "standard deviation of a run (default: of the runs, else of the paper)",
        kind=float,
    )
    add_run_options(parser)
    parser.set_defaults(function=show_power)

    parser = add_verb(
        verbs, "attribution", "compute the effect of each step over many orders of the steps", "--regime pico"
    )
    add_run_options(parser)
    parser.set_defaults(function=show_attribution)

    parser = add_verb(verbs, "proxy", "test whether a cheap study ranks the steps like another", "--against resnet-50")
    parser.add_argument(
        "--against",
        default="resnet-50",
        metavar="STUDY",
        help="the other study: a regime's published table (default: resnet-50), or a CSV file of `roadmap table`",
    )
    add_run_options(parser)
    parser.set_defaults(function=show_proxy)


def show_power(options: argparse.Namespace) -> int:
    from analysis.statistics.planning import MOST_SEEDS
    from analysis.tables.ladder import hours
    from roadmap.api import power

    study = study_keywords(options)
    with warnings_as_lines():
        result = power(options.out, differences=options.difference, noise=options.noise, metric=options.metric, **study)
    steps, by_rung, interval = many(result.steps, "step"), result.noise_by_rung.values(), result.noise.interval
    noise = f"noise: {result.noise.std:.3g}{' in a usual rung' if by_rung else ''}, one standard deviation of a run"
    if by_rung:
        noise += f" ({min(by_rung):.3g} to {max(by_rung):.3g} by rung, averaged with the usual one as for the table)"
    elif interval:
        noise += f" (95 %: {interval[0]:.3g} to {interval[1]:.3g})"
    print(f"{noise}\nsource: {result.source}\n")
    rows = [
        [
            f"{needed.difference:g}",
            *(str(seeds or f"over {MOST_SEEDS}") for seeds in (needed.one_step, needed.all_steps)),
            "-" if needed.device_hours is None else hours(needed.device_hours),
        ]
        for needed in result.needed
    ]
    print(table(["difference", "seeds, for one step", f"seeds, for {steps}", "device-hours for all"], rows))
    usual = ", between rungs of usual noise" if by_rung else ""
    print(f"\nThe test is that of `roadmap table`. It detects the difference in four of five cases{usual}.")
    print(f"One step: in a study of two rungs. The {steps} of a study share the error rate of 5 %.")
    print(f"Device-hours: {result.hours_source}.")
    if result.detectable_one is not None:
        visible = f"{result.detectable_one:.3g} for one step, {result.detectable_all:.3g} for {steps}"
        print(f"With {result.seeds} seeds the smallest detectable differences are {visible}{usual}.")
    return 0


def show_attribution(options: argparse.Namespace) -> int:
    from roadmap.api import attribution

    result = attribution(options.out, metric=options.metric, **study_keywords(options))
    metric = study_options(options).metric(options.metric)
    print(f"{choose(options).title}: {metric.title}\n\n{_effects(result, metric)}\n")
    known = [effect.shapley for effect in result.effects if effect.shapley is not None]
    digits = metric.decimals + 1
    if known:
        print(f"All steps together: {result.total:+.{digits}f}. The Shapley values sum to {sum(known):+.{digits}f}.")
        print("The two differ by noise, and if random orders end in other networks than the study's order.")
    if result.missing:
        print(f"Left out: {many(result.missing, 'rung')} of the random orders, which have no finished run;")
        print(f"{result.diverged or 'none'} of them diverged. This favours steps that make training fail.")
    if len(known) < len(result.effects):
        print("A Shapley value requires two or more random orders: roadmap run --ablation orders:20")
    print("\n" + _pairs(result, metric))
    return 0


def _effects(result: Attribution, metric: Metric) -> str:
    from analysis.tables.ladder import interval, signed

    digits = metric.decimals + 1
    rows = [
        [
            effect.step,
            signed(effect.shapley, digits),
            interval(effect.interval, digits),
            str(effect.orders),
            *(signed(change, digits) for change in (effect.on_path, effect.alone, effect.left_out)),
        ]
        for effect in result.effects
    ]
    header = ["step", "Shapley value", "95 % interval", "orders", "in the paper's order", "alone", "taken out"]
    return table(header, rows)


def _pairs(result: Attribution, metric: Metric) -> str:
    from analysis.tables.ladder import interval, signed

    count = len(result.interactions)
    if not count:
        unknowns = 1 + len(result.steps) * (len(result.steps) + 1) // 2
        return (
            f"Effects of pairs can't be separated: more than {unknowns} sets of steps are needed (--ablation orders:N)."
        )
    proven = sorted((pair for pair in result.interactions if pair.verdict != "within noise"), key=lambda pair: pair.p)
    if not proven:
        return f"None of the {count} pairs has an effect beyond the noise."
    digits = metric.decimals + 1
    rows = [
        [pair.first, pair.second, pair.verdict, signed(pair.value, digits), interval(pair.interval, digits)]
        for pair in proven
    ]
    counts = f"{len(proven)} of {count} pairs; the others are within the noise."
    return table(["step", "and", "they", "by", "95 % interval"], rows) + "\n\n" + counts


def show_proxy(options: argparse.Namespace) -> int:
    from analysis.statistics.samples import SIGNIFICANCE
    from analysis.tables.ladder import interval, p_text, signed
    from roadmap.api import proxy

    with warnings_as_lines():
        result = proxy(options.out, against=options.against, metric=options.metric, **study_keywords(options))
    digits, other_digits = result.metric.decimals + 1, result.other_metric.decimals + 1
    rows = [
        [rung, signed(change, digits), signed(other_change, other_digits), str(rank), str(other_rank)]
        for rung, change, other_change, rank, other_rank in result.steps.itertuples(index=False)
    ]
    print(table(["rung", "change here", f"in {options.against}", "rank here", "there"], rows))
    correlation = result.correlation
    within = f" (95 %: {interval(correlation.interval, 2)})" if correlation.interval else ""
    print(f"\nKendall's tau {correlation.tau:+.2f}{within}, p {p_text(correlation.p)}, of {correlation.n} steps.")
    if correlation.p >= SIGNIFICANCE:
        print("The agreement may be chance: these steps do not show that one study can replace the other.")
    elif correlation.tau > 0:
        print("The orders agree more than by chance. 1 is the same order, 0 an unrelated one.")
    else:
        print("The orders disagree more than by chance. -1 is the reverse order.")
    return 0
