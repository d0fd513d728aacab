"""The table of a study, with the paper's values: as numbers, and as text."""

from __future__ import annotations

from collections.abc import Callable, Sequence
from typing import Any

import pandas as pd

from analysis.published import TEST_SIZE, Published
from analysis.results import (
    Result,
    judge_published,
    judge_results,
    published_rows_of,
    published_sample,
    published_table,
)
from analysis.statistics.contrasts import FEWEST, Change, Judgement, Tested, Verdict, verdict, welch
from analysis.statistics.samples import Sample
from roadmap.network.cost import cost
from roadmap.record.metrics import TOP1, Metric, averaged, find_metric
from roadmap.study.schema import Study
from roadmap.study.selection import ladder
from roadmap.text import number_ranges
from roadmap.text import table as text_table

FORMATS = ("markdown", "csv", "latex")


def study_table(
    study: Study, results: Sequence[Result], metric: Metric = TOP1, family: Sequence[Result] = ()
) -> pd.DataFrame:
    """A row for each rung, in full precision: accuracies in percent, differences in points, unscaled counts.

    `difference` is the difference to the published value, `change` that to the rung before. `family` has the results
    of all rungs of the study, which are judged together whatever is shown; by default those shown.
    """
    judged = judge_results(family or results, metric)
    published = published_rows_of(study, results) if metric.published else {}
    of_study = {f"{column}_of_study": _distinct_of_all(family or results, column) for column in CONDITIONS}
    rows = [
        _row(study, result, judged[result.rung.name], published.get(result.rung.name), metric) | of_study
        for result in results
    ]
    return pd.DataFrame(rows)


def _row(
    study: Study, result: Result, judged: Judgement, published: Published | None, metric: Metric
) -> dict[str, Any]:
    rung, agreement = result.rung, _against(published, result.sample(metric))
    return {
        "metric": metric.name,
        "rung": rung.name,
        "title": rung.title,
        "group": rung.group,
        "adopted": rung.adopted,
        "published": published.top1_mean if published else None,
        "published_std": published.top1_std if published else None,
        **_measured(judged),
        "seeds": tuple(result.values(metric)),
        "difference": agreement.difference if agreement else None,
        "difference_p": agreement.p if agreement else None,
        "agreement": _agreement(agreement) if agreement else None,
        **_changed(judged),
        "ema": sample.mean if (sample := result.sample(averaged(TOP1))) else None,
        **_best(result, study, metric),
        **{column: _distinct(result, column) for column in CONDITIONS},
        "no_effect": rung.no_effect,
        "diverged": len(result.diverged_seeds),
        "parameters": result.cost.parameters,
        "macs": result.cost.macs,
        "device_hours": result.total("device_hours") if result.seeds else None,
    }


CONDITIONS = ("precision", "torch", "libraries")  # columns of the collection, beside the seed


def _distinct_of_all(results: Sequence[Result], column: str) -> tuple[str, ...]:
    """What the runs of all rungs have in a column."""
    return tuple(sorted({value for result in results for value in _distinct(result, column)}))


def _distinct(result: Result, column: str) -> tuple[str, ...]:
    """What the runs of a rung have in a column."""
    return tuple(sorted({str(row[column]) for row in result.seeds.values() if pd.notna(row.get(column))}))


def _best(result: Result, study: Study, metric: Metric) -> dict[str, Any]:
    """The best epoch's accuracy, mean of the runs, if the fidelity reports it."""
    if not study.fidelity(result.run.fidelity).best_epoch or metric not in (TOP1, averaged(TOP1)):
        return {}
    values = [row.get(f"best_{metric.key}") for row in result.seeds.values()]
    known = [float(value) for value in values if value is not None and pd.notna(value)]
    return {"best": sum(known) / len(known) if known else None}


def _measured(judged: Judgement) -> dict[str, Any]:
    sample = judged.sample
    low, high = (sample and sample.interval) or (None, None)
    values = (sample.n, sample.mean, sample.std) if sample else (0, None, None)
    return dict(zip(("n", "mean", "std", "low", "high"), (*values, low, high), strict=True))


def _changed(judged: Judgement) -> dict[str, Any]:
    change = judged.change
    low, high = (change and change.interval) or (None, None)
    return {
        "parent": judged.parent,
        "change": change.difference if change else None,
        "change_low": low,
        "change_high": high,
        "p": change.p if change else None,
        "p_corrected": judged.p,
        "detectable": change.detectable if change else None,
        "within_spread": judged.within_spread,
        "verdict": judged.verdict,
        **_with_images(judged.images),
    }


def _with_images(tested: Tested | None) -> dict[str, Any]:
    """The same against the noise of the seeds and of the test images."""
    low, high = (tested and tested.change.interval) or (None, None)
    return {
        "images_low": low,
        "images_high": high,
        "images_p": tested.p if tested else None,
        "images_verdict": tested.verdict if tested else None,
    }


_AGREEMENT = {"better": "higher", "worse": "lower"}


def _against(published: Published | None, sample: Sample | None) -> Change | None:
    """A rung's runs minus the published value, by Welch's test.

    Each rung alone: a correction for their number would make agreement easier to claim.
    """
    return welch(published_sample(published), sample) if published and sample else None


def _agreement(change: Change) -> str:
    judged: Verdict = verdict(change, change.p if change.n >= FEWEST else None)
    return _AGREEMENT.get(judged, judged)


def published_judged(study: Study, regime: str) -> pd.DataFrame:
    """The paper's own table, judged by its printed deviations. Raises ValueError for a regime that it lacks.

    `verdict_population` is the verdict if these are deviations of a population instead of a sample.
    """
    rows, judged, table_rows = published_table(study, regime), judge_published(study, regime), []
    as_population = judge_published(study, regime, population=True)
    for rung in ladder(regime, study=study):
        if row := rows.get(rung.name):
            model_cost = cost(rung.experiment.design)
            labels: dict[str, Any] = {"metric": TOP1.name, "rung": rung.name, "title": rung.title, "group": row.group}
            labels |= {"adopted": row.adopted, "test_size": row.test_size}
            measured = _measured(judged[rung.name])
            counts = {"parameters": model_cost.parameters, "macs": model_cost.macs}
            other = {"verdict_population": as_population[rung.name].verdict}
            table_rows.append(labels | measured | _changed(judged[rung.name]) | other | counts)
    return pd.DataFrame(table_rows)


def rendered(table: pd.DataFrame, metric: Metric = TOP1) -> pd.DataFrame:
    """The table as text with rounded numbers, without empty columns."""
    digits = metric.decimals + 1
    columns: dict[str, list[str]] = {"rung": list(table["rung"])}
    rows = table.to_dict("records")
    if "published" in table:
        columns["published"] = [spread(row["published"], row["published_std"], digits) for row in rows]
    columns[metric.title] = [_accuracy(row, digits) for row in rows]
    if "best" in table:
        columns["best epoch"] = [_text(row["best"], f".{digits}f") for row in rows]
    if "published" in table or (table["n"] > 1).any():
        columns["runs"] = [str(row["n"]) for row in rows]
    if "difference" in table:
        columns["to published"] = [signed(row["difference"], digits) for row in rows]
        columns["agreement"] = [_text(row["agreement"]) for row in rows]
    columns["change"] = ["no effect" if row.get("no_effect") else signed(row["change"], digits) for row in rows]
    columns["95 % interval"] = [interval((row["change_low"], row["change_high"]), digits) for row in rows]
    columns["p, corrected"] = [p_text(row["p_corrected"]) for row in rows]
    columns["verdict"] = ["" if row.get("no_effect") else _text(row["verdict"]) for row in rows]
    columns["95 %, other images too"] = [interval((row["images_low"], row["images_high"]), digits) for row in rows]
    has_images = table["images_low"].notna().any()
    columns["verdict then"] = [_text(row["images_verdict"]) if has_images else "" for row in rows]
    if "verdict_population" in table:
        columns["verdict, if of a population"] = [_text(row["verdict_population"]) for row in rows]
    if "ema" in table and metric != averaged(TOP1):
        columns["EMA top-1 %"] = [_text(row["ema"], ".2f") for row in rows]
    columns["parameters"] = [f"{row['parameters'] / 1e6:.2f} M" for row in rows]
    columns["MACs"] = [
        f"{row['macs'] / 1e9:.2f} G" if row["macs"] >= 1e8 else f"{row['macs'] / 1e6:.2f} M" for row in rows
    ]
    if "device_hours" in table:
        columns["device-hours"] = [hours(row["device_hours"]) for row in rows]
    return pd.DataFrame({name: cells for name, cells in columns.items() if any(cells)})


def _text(value: Any, form: str = "") -> str:
    return "" if pd.isna(value) else format(value, form)


def hours(value: Any) -> str:
    """About three digits."""
    return _text(value, ".3g" if pd.isna(value) or value < 999.5 else ",.0f")


def spread(mean: Any, std: Any, digits: int) -> str:
    return _text(mean, f".{digits}f") + ("" if pd.isna(std) else f" ±{std:.{digits}f}")


def _accuracy(row: dict[Any, Any], digits: int) -> str:
    parts = [spread(row["mean"], row["std"], digits)] if row["n"] else []
    if row.get("diverged"):
        parts.append(f"{row['diverged']} diverged" if row["n"] else "diverged")
    return ", ".join(parts) or "-"


def signed(value: Any, digits: int) -> str:
    return _text(value, f"+.{digits}f")


def interval(ends: tuple[float, float] | None, digits: int) -> str:
    return "" if ends is None or pd.isna(ends[0]) else f"{ends[0]:+.{digits}f} to {ends[1]:+.{digits}f}"


def p_text(value: Any) -> str:
    return "" if pd.isna(value) else "<0.001" if value < 0.001 else f"{value:.3f}"


def table_text(table: pd.DataFrame, form: str, render: Callable[[pd.DataFrame], pd.DataFrame], title: str = "") -> str:
    """The table as Markdown, LaTeX (booktabs) or text for a terminal; as CSV in full precision, without the title.

    Raises ValueError for another format.
    """
    if form == "csv":
        return table.to_csv(index=False)
    shown = render(table)
    if form == "markdown":
        lines = [list(shown.columns), ["---"] * shown.shape[1], *shown.to_numpy().tolist()]
        rows = "".join("| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |\n" for line in lines)
        return (f"**{title}**\n\n" if title else "") + rows
    if form == "latex":
        escaped = shown.rename(columns=lambda name: name.replace("%", "\\%"))
        text = str(escaped.style.hide(axis="index").format(escape="latex").to_latex(hrules=True))
        return f"% {title}\n% \\usepackage{{booktabs}}\n" + text.replace("±", "$\\pm$")
    if form == "terminal":
        return f"{title}\n\n{text_table(list(shown.columns), shown.to_numpy().tolist())}\n"
    raise ValueError(f"unknown format {form!r}; valid: {', '.join(FORMATS)}")


def remarks(table: pd.DataFrame) -> list[str]:
    """Notes for the reader of a table, in sentences."""
    if not table["n"].any():
        return ["No finished run has this metric."]
    sentences = [_seeds_included(table)] if "seeds" in table else []
    if (table["n"] <= 1).all():
        published = "published" not in table
        sentences.append(
            "No deviation is printed, so no change can be distinguished from noise."
            if published
            else "One seed does not distinguish a change from noise; --seeds 3 shows the spread."
        )
    metric = find_metric(str(table["metric"].iloc[0]))
    digits = metric.decimals + 1
    sentences += _smallest_detectable(table, metric) + _covers_images(table, metric)
    sentences += _remarks_on_conditions(table)
    spread = set(table.loc[table["std"].notna(), "rung"])
    within = [
        row["rung"]
        for row in table.to_dict("records")
        if row["within_spread"] is True and {row["rung"], row["parent"]} <= spread
    ]
    if within:
        sentences.append(
            "Changes within the spread of either rung's runs (one standard deviation): "
            + "; ".join(
                f"{row['rung']} {row['change']:+.{digits}f}, spread {_spreads(table, row, digits)}"
                for row in table.to_dict("records")
                if row["rung"] in within
            )
            + "."
        )
    return sentences


def _smallest_detectable(table: pd.DataFrame, metric: Metric) -> list[str]:
    """The differences that the runs can show, over the comparisons."""
    differences = table["detectable"].dropna()
    if differences.empty:
        return ["Verdicts, and the change that can be detected, need three finished runs of each rung."]
    unit = "points" if metric.unit == "%" else metric.unit
    median, least, most = (
        f"{value:.{metric.decimals + 1}f}" for value in (differences.median(), differences.min(), differences.max())
    )
    between = f" ({least} to {most} by rung)" if least != most else ""
    size = f"{median} {unit}".rstrip() + between
    sentences = [
        "Intervals and verdicts hold for all comparisons of the study together, and for other seeds. "
        f"So many runs detect a change of {size} in four of five studies."
    ]
    is_of_runs = "published" in table  # the paper's own table has no such column
    if is_of_runs and not table["verdict"].isin(("better", "worse")).any():
        sentences.append("No change is beyond the noise; `roadmap power` says how many seeds show one of a given size.")
    return sentences


def _remarks_on_conditions(table: pd.DataFrame) -> list[str]:
    """What else than the step differs between the runs, and what can't be compared."""
    sentences = []
    for column in CONDITIONS:
        if column not in table:
            continue
        rungs: dict[str, list[str]] = {}
        for row in table.to_dict("records"):
            for value in row[column]:
                rungs.setdefault(value, []).append(row["rung"])
            for value in row.get(f"{column}_of_study") or ():
                rungs.setdefault(value, [])
        if len(rungs) > 1:
            values = "; ".join(f"{value} ({', '.join(names) or 'other rungs'})" for value, names in rungs.items())
            noun = {"torch": "version of torch", "libraries": "versions of libraries"}.get(column, column)
            sentences.append(f"Changes are not of the step alone: the runs differ in {noun}: {values}.")
    if "best" in table and table["best"].notna().any():
        sentences.append("The best epoch is chosen on the test images, which biases it upwards.")
    if "test_size" in table:
        sentences += [
            f"{row['rung']} was tested at {row['test_size']} pixels, the others at {TEST_SIZE}; it is not compared."
            for row in table.to_dict("records")
            if row["test_size"] != TEST_SIZE
        ]
    return sentences


def _covers_images(table: pd.DataFrame, metric: Metric) -> list[str]:
    """Whether there are intervals that cover the choice of the test images."""
    if metric not in (TOP1, averaged(TOP1)) or "seeds" not in table or table["detectable"].isna().all():
        return []
    if table["images_low"].isna().all():
        return [
            "They do not cover other test images: that takes a record of the same test images by all of these runs."
        ]
    return ["'Other images too': also for other test images of the same kind."]


def _seeds_included(table: pd.DataFrame) -> str:
    """Which runs the table holds: every finished one, whatever --seeds asked for."""
    rungs_by_seeds: dict[str, list[str]] = {}
    for row in table[table["n"] > 0].to_dict("records"):
        rungs_by_seeds.setdefault(number_ranges(row["seeds"]), []).append(row["rung"])
    common, *others = sorted(rungs_by_seeds, key=lambda seeds: -len(rungs_by_seeds[seeds]))
    exceptions = "".join(f"; of {', '.join(rungs_by_seeds[seeds])}: {seeds}" for seeds in others)
    return f"Seeds included, all that are finished: {common}{exceptions}."


def _spreads(table: pd.DataFrame, row: dict[Any, Any], digits: int) -> str:
    """The deviations before and after the step."""
    before = table.loc[table["rung"] == row["parent"], "std"]
    return " and ".join(f"{std:.{digits}f}" for std in (*before, row["std"]))
