"""Compares a study's runs with the paper's tables, rung by rung."""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace

from analysis.results import (
    START,
    Bar,
    Result,
    Series,
    bar_of,
    judge_published,
    judge_results,
    published_sample,
    published_series,
    published_table,
)
from analysis.statistics.contrasts import Change, subtract, welch
from roadmap.record.metrics import TOP1, Metric
from roadmap.study.schema import Study

NOT_IN_PAPER = "not in the paper"
FALLBACK = "resnet-50"  # its table is used for regimes that the paper does not have


@dataclass(frozen=True)
class Difference:
    """A rung's measured value minus the published one."""

    bar: Bar  # of the runs
    change: Change | None  # percentage points; None if either side has no value
    why: str = ""  # the reason if there is no value


@dataclass(frozen=True)
class Comparison:
    """Compares accuracies if regime and data are the paper's, else the changes from rung to rung."""

    title: str
    of_changes: bool
    differences: tuple[Difference, ...]
    groups: tuple[str, ...]  # of the study, in order


def table_against(study: Study, result: Result, against: str | None) -> str:
    """The regime whose published table a study is compared with. Raises ValueError if the paper does not have it."""
    own = result.run.regime
    regime = against or (own if study.regime(own).published else FALLBACK)
    published_table(study, regime)
    return regime


def published_series_for(study: Study, own: Series, regime: str) -> Series:
    """The paper's bars of the study's rungs, and its reference.

    Raises ValueError for a metric that the paper's tables lack, or if they have none of the rungs.
    """
    _check(own.metric)
    published = published_series(study, regime)
    rungs = {_key(bar.rung, own.regime) for bar in own.bars}
    bars = tuple(bar for bar in published.bars if bar.rung in study.references or _key(bar.rung, regime) in rungs)
    if all(bar.rung in study.references for bar in bars):
        raise ValueError(f"none of these rungs is in the paper's table of {regime}")
    return replace(published, title=f"the paper's {study.regime(regime).title}", bars=bars)


def compare(
    study: Study,
    results: Sequence[Result],
    against: str | None = None,
    metric: Metric = TOP1,
    family: Sequence[Result] = (),
) -> Comparison:
    """Each rung's measured value minus the published one. `family` are all rungs of the study, by default these.

    Raises ValueError for a metric or a regime that the paper's tables lack, or if no rung is in both.
    """
    _check(metric)
    first = results[0].run
    regime = table_against(study, results[0], against)
    of_changes = regime != first.regime or first.data != study.regime(regime).data
    pairs = _changes(study, results, family or results, regime) if of_changes else _accuracies(study, results, regime)
    if all(difference.why == NOT_IN_PAPER for difference in pairs):
        raise ValueError(f"none of these rungs is in the paper's table of {regime}")
    title = f"{study.regime(first.regime).title} on {first.data} − the paper's {study.regime(regime).title}"
    return Comparison(title, of_changes, tuple(pairs), study.groups)


def _check(metric: Metric) -> None:
    if not metric.published:
        raise ValueError(f"the paper's tables have no {metric.title}; use --metric {TOP1.name}")


def _accuracies(study: Study, results: Sequence[Result], regime: str) -> list[Difference]:
    rows, differences = published_table(study, regime), []
    for result in results:
        row, own = rows.get(result.rung.name), result.sample()
        row = row if row and row.is_comparable else None
        accuracy_change = welch(published_sample(row), own) if row and own else None
        differences.append(_difference(result, accuracy_change, is_published=row is not None, is_known=own is not None))
    return differences


def _changes(study: Study, results: Sequence[Result], family: Sequence[Result], regime: str) -> list[Difference]:
    """Of the steps only: the start is not a change."""
    published, own, differences = _published_changes(study, regime), judge_results(family), []
    for result in results:
        parent = result.rung.parent
        if parent is None:
            continue
        printed_change = published.get((result.rung.name, _key(parent, result.run.regime)))
        own_change = own[result.rung.name].change
        difference = subtract(own_change, printed_change) if own_change and printed_change else None
        differences.append(
            _difference(result, difference, is_published=printed_change is not None, is_known=own_change is not None)
        )
    return differences


def _published_changes(study: Study, regime: str) -> dict[tuple[str, str], Change]:
    """By the names of the rung and of the rung before."""
    judged = judge_published(study, regime)
    return {
        (name, _key(judgement.parent, regime)): judgement.change
        for name, judgement in judged.items()
        if judgement.parent and judgement.change
    }


def _difference(result: Result, difference: Change | None, *, is_published: bool, is_known: bool) -> Difference:
    bar = bar_of(result)
    if not is_published:
        return Difference(bar, None, NOT_IN_PAPER)
    if not is_known:
        why = "diverged" if result.diverged_seeds and not result.seeds else "no finished run"
        return Difference(bar, None, why if not result.seeds else "no finished run of the rung before")
    return Difference(bar, difference)


def _key(rung: str, regime: str) -> str:
    return START if rung == regime else rung
