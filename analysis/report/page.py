"""Renders runs, tables and designs as one HTML page."""

from __future__ import annotations

import base64
import hashlib
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from functools import cache
from pathlib import Path
from typing import Any

import pandas as pd
from jinja2 import Environment, FileSystemLoader, StrictUndefined, Template
from markupsafe import Markup

from analysis.attribution import Attribution, Interaction, StepEffect
from analysis.disagreement import Disagreement
from analysis.report.charts import Facts, curves_of, figure_of
from analysis.results import Result, series_of_runs
from analysis.spaces.study import SpaceStudy
from analysis.spaces.table import comparison, tables
from analysis.spaces.table import remarks as space_remarks
from analysis.tables.ladder import hours, interval, published_judged, remarks, rendered, study_table
from analysis.tables.transfer import rendered_transfers, transfer_remarks
from analysis.transfer import TransferStudy
from roadmap.network.drawing import draw_block, draw_network, mark_changes
from roadmap.recipe import Experiment, changes
from roadmap.record.metrics import TOP1, Metric, averaged
from roadmap.study.schema import Study
from roadmap.text import many

HERE = Path(__file__).parent
LEVELS = 4  # shades for each sign in the map of pairs


@dataclass(frozen=True)
class TransferPart:
    """The transfers of a regime to one task, on the page."""

    study: TransferStudy
    figure: bytes  # PNG
    predictions: bytes | None  # PNG; None if no run recorded any


@dataclass(frozen=True)
class SpacePart:
    """The drawn designs of a space, on the page."""

    name: str
    study: SpaceStudy | None  # None: see `why`
    figure: bytes  # PNG
    why: str = ""


@dataclass(frozen=True)
class Part:
    """A regime on the page."""

    study: Study
    results: list[Result]
    label: str = ""  # the differences to the regime's definition in the study
    family: Sequence[Result] = ()  # of all rungs of the study, which are judged together; empty: those on the page
    parents: Mapping[str, Experiment] = field(default_factory=dict)  # parents that are not on the page, by name
    attribution: Attribution | None = None
    disagreement: Disagreement | None = None  # of the first and the last rung
    sheet: bytes | None = None  # its contact sheet, PNG; None if the images are not on this machine
    transfers: Sequence[TransferPart] = ()  # to other tasks
    spaces: Sequence[SpacePart] = ()

    @property
    def regime(self) -> str:
        return self.results[0].run.regime


@dataclass(frozen=True)
class Cell:
    text: str
    value: float | str | None = None  # the sort key; None is last
    link: str = ""  # an anchor on the page
    bar: tuple[float, float, bool] | None = None  # start and width in percent, and whether it is a change for the worse


@dataclass(frozen=True)
class Line:
    """A row of a table on the page."""

    cells: tuple[Cell, ...]
    group: str = ""
    verdict: str = ""


@dataclass(frozen=True)
class Grid:
    """A table on the page, which can be sorted. Tables of rungs can be filtered too."""

    name: str
    caption: str
    columns: tuple[str, ...]
    lines: tuple[Line, ...]
    noun: str = ""  # what the rows are, for the filter's count

    def is_number(self, column: int) -> bool:
        return column > 0 and any(isinstance(line.cells[column].value, int | float) for line in self.lines)

    @property
    def groups(self) -> list[str]:
        return list(dict.fromkeys(line.group for line in self.lines if line.group))

    @property
    def verdicts(self) -> list[str]:
        return list(dict.fromkeys(line.verdict for line in self.lines if line.verdict))


def render(
    parts: Sequence[Part],
    table: pd.DataFrame,
    out: Path,
    metric: Metric = TOP1,
    *,
    version: str | None = None,
    notice: str = "",
) -> str:
    """The page of these regimes and of all runs in `table` (of `collect`) below `out`.

    A served page has a `version`, and polls for the next one. `notice` is an error message.
    """
    style, script = (_asset(name) for name in ("style.css", "script.js"))
    published = list(dict.fromkeys(name for part in parts for name in _published_regimes(part.study, part.regime)))
    return _template().render(
        title="roadmap report",
        out=out,
        made=f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC",
        version=version,
        notice=notice,
        style=Markup(style),
        script=Markup(script),
        policy=_policy(style, script, served=version is not None),
        counts=_counts(table),
        parts=[_part(part, out, metric) for part in parts],
        published=[_published(parts[0].study, regime) for regime in published],
        environment=_environment(table),
        mixed=_mixed(table),
        unfinished=_unfinished(parts, table),
    )


@cache
def _template() -> Template:
    # Escapes everything: run folders may contain any text.
    environment = Environment(
        loader=FileSystemLoader(HERE), autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    return environment.get_template("page.html")


@cache
def _asset(name: str) -> str:
    return (HERE / name).read_text(encoding="utf-8")


def _policy(style: str, script: str, *, served: bool) -> str:
    """A content security policy: nothing is loaded, and only the page's own script and style are allowed."""
    hashes = {kind: _hash(text) for kind, text in (("style", style), ("script", script))}
    rules = ["default-src 'none'", *(f"{kind}-src 'sha256-{digest}'" for kind, digest in hashes.items())]
    rules += ["img-src data:", "base-uri 'none'", "form-action 'none'", *(["connect-src 'self'"] if served else [])]
    return "; ".join(rules)


def _hash(text: str) -> str:
    return base64.b64encode(hashlib.sha256(text.encode()).digest()).decode()


def _counts(table: pd.DataFrame) -> dict[str, int]:
    return {str(state): int(count) for state, count in table["state"].value_counts().items()}


def _part(part: Part, out: Path, metric: Metric) -> dict[str, Any]:
    series = series_of_runs(part.study, part.results, part.label, metric)
    judged = study_table(part.study, part.results, metric, part.family)
    words = rendered(judged, metric)
    facts = {str(row["rung"]): _facts(row, shown) for row, shown in _pairs(judged, words)}
    return {
        "name": part.regime,
        "title": series.title,
        "metric": metric,
        "is_empty": not any(result.seeds for result in part.results),
        "figure": figure_of(series, facts),
        "table": _table(f"{part.regime}-table", series.title, judged, words, metric, linked=part.regime),
        "remarks": remarks(judged),
        "curves": curves_of(series, part.results, out),
        "designs": _designs(part),
        "disagreement": part.disagreement and _disagreement(part.disagreement, part.regime),
        "sheet": part.sheet and _embedded(part.sheet),
        "transfers": [_transfer(own, part.regime) for own in part.transfers],
        "spaces": [_space(own, part.regime) for own in part.spaces],
        "space_comparison": _compared_spaces(part),
        "costs": _costs(part),
        "hours": hours(sum(result.total("device_hours") for result in part.results)),
        "runs": sum(len(result.seeds) for result in part.results),
        "attribution": _attribution(part, metric) if part.attribution else None,
    }


def _pairs(table: pd.DataFrame, words: pd.DataFrame) -> list[tuple[dict[Any, Any], dict[Any, Any]]]:
    """Each row as numbers, and as text."""
    return list(zip(table.to_dict("records"), words.to_dict("records"), strict=True))


def _facts(row: Mapping[Any, Any], shown: Mapping[Any, Any]) -> Facts:
    long_names = {"change": f"change from {row['parent']}", "to published": "difference to published"}
    return {long_names.get(name, name): cell for name, cell in shown.items() if cell and name != "rung"}


# The numbers by which columns of text are sorted; other columns are sorted as text.
_NUMBERS = {
    "published": "published",
    "runs": "n",
    "to published": "difference",
    "change": "change",
    "95 % interval": "change_low",
    "p, corrected": "p_corrected",
    averaged(TOP1).title: "ema",
    "EMA top-1 %": "ema",
    "parameters": "parameters",
    "MACs": "macs",
    "device-hours": "device_hours",
}


def _table(name: str, caption: str, table: pd.DataFrame, words: pd.DataFrame, metric: Metric, linked: str = "") -> Grid:
    """A grid of rungs. `linked` is the regime with the designs that the rungs link to."""
    numbers = _NUMBERS | {metric.title: "mean"}
    lines = []
    for i, (row, shown) in enumerate(_pairs(table, words)):
        first = Cell(row["rung"], i, f"{linked}-{row['rung']}" if linked else "")
        others = [
            Cell(text, _number(row[numbers[column]]) if column in numbers else text or None)
            for column, text in shown.items()
            if column != "rung"
        ]
        verdict = str(shown.get("verdict") or ("no effect" if row.get("no_effect") else ""))
        lines.append(Line((first, *others), row["group"], verdict))
    return Grid(name, caption, tuple(words.columns), tuple(lines), noun="rungs")


def _number(value: Any) -> float | None:
    return None if value is None or pd.isna(value) else float(value)


def _designs(part: Part) -> list[dict[str, Any]]:
    own = {result.rung.name: result.rung.experiment for result in part.results}
    return [_design(part.regime, result, {**part.parents, **own}) for result in part.results]


def _design(regime: str, result: Result, experiments: Mapping[str, Experiment]) -> dict[str, Any]:
    rung = result.rung
    parent_experiment, experiment = experiments.get(rung.parent or ""), rung.experiment
    design_changes = changes(parent_experiment, experiment) if parent_experiment else []
    marked = ""
    if parent_experiment and parent_experiment.design != experiment.design:
        marked = mark_changes(parent_experiment.design, experiment.design)
    return {
        "place": f"{regime}-{rung.name}",
        "rung": rung,
        "network": draw_network(experiment.design),
        "block": draw_block(experiment.design),
        "parent": rung.parent if parent_experiment else None,
        "changes": [str(design_change) for design_change in design_changes],
        "marked": marked,
    }


def _costs(part: Part) -> Grid:
    """The cost and the speed of the finished runs."""
    lines = []
    for i, result in enumerate(part.results):
        pace, memory = result.median("images_per_second"), result.median("peak_memory_bytes")
        spent = result.total("device_hours") if result.seeds else None
        seconds = result.median("seconds")
        cells = (
            Cell(result.rung.name, i),
            Cell(str(len(result.seeds)), len(result.seeds)),
            Cell(hours(spent), spent),
            Cell(_words(seconds, ".1f"), seconds),
            Cell(_words(pace, ",.0f"), pace),
            Cell(_words(memory and memory / 2**20, ",.0f"), memory),
        )
        lines.append(Line(cells))
    columns = ("rung", "runs", "device-hours", "seconds a run", "images/s", "memory, MiB")
    return Grid(f"{part.regime}-costs", "Costs of the finished runs; medians over the seeds", columns, tuple(lines))


def _disagreement(found: Disagreement, regime: str) -> dict[str, Any]:
    columns = ("class", "images", f"{found.first}, top-1 %", f"{found.second}, top-1 %", "change")
    lines = [
        Line(
            (
                Cell(row["class"], row["class"]),
                Cell(str(row["images"]), row["images"]),
                *(Cell(f"{row[side]:.2f}", row[side]) for side in ("first", "second")),
                Cell(f"{row['second'] - row['first']:+.2f}", row["second"] - row["first"]),
            )
        )
        for row in found.classes.to_dict("records")
    ]
    return {
        "found": found,
        "p": f"{found.test.p:.3g}",
        "classes": Grid(f"{regime}-classes", "Accuracy by class, mean of the runs", columns, tuple(lines)),
    }


def _embedded(png: bytes) -> str:
    return "data:image/png;base64," + base64.b64encode(png).decode()


def _transfer(own: TransferPart, regime: str) -> dict[str, Any]:
    shown = rendered_transfers(own.study)
    name = f"{regime}-{own.study.task}"
    return {
        "title": own.study.title,
        "table": _texts(name, own.study.title, list(shown.columns), shown.to_numpy().tolist()),
        "remarks": transfer_remarks(own.study),
        "figure": _embedded(own.figure),
        "predictions": own.predictions and _embedded(own.predictions),
    }


def _space(own: SpacePart, regime: str) -> dict[str, Any]:
    study = own.study
    if study is None:
        return {"title": own.name, "axis": "", "figure": "", "tables": [], "remarks": [own.why]}
    grids = [
        _texts(f"{regime}-{study.space.name}-{number}", shown.title, shown.columns, shown.rows)
        for number, shown in enumerate(tables(study))
    ]
    return {
        "title": f"{study.title}: {many(len(study.designs), 'design')}",
        "axis": study.error_title,
        "figure": _embedded(own.figure),
        "tables": grids,
        "remarks": space_remarks(study),
    }


def _compared_spaces(part: Part) -> Grid | None:
    """None for fewer than two spaces with the same recipe."""
    studies = [own.study for own in part.spaces if own.study]
    if len(studies) < 2 or len({study.run.recipe_identity for study in studies}) > 1:
        return None
    shown = comparison(studies)
    return _texts(f"{part.regime}-spaces", shown.title, shown.columns, shown.rows)


def _texts(name: str, caption: str, columns: Sequence[str], rows: Sequence[Sequence[object]]) -> Grid:
    """A table of words, sorted as texts, or by the number that they begin with."""
    lines = tuple(Line(tuple(Cell(str(cell), _sort_key(str(cell))) for cell in row)) for row in rows)
    return Grid(name, caption, tuple(columns), lines)


def _sort_key(text: str) -> float | str | None:
    begin = re.match(r"[+-]?\d+(\.\d+)?(?=\s|$)", text)
    return float(begin[0]) if begin else text or None


def _words(value: float | None, form: str) -> str:
    return "" if value is None else format(value, form)


def _published_regimes(study: Study, regime: str) -> list[str]:
    """The paper's main regime, and the regime of the page."""
    known = study.published_regimes()
    return list(dict.fromkeys([*known[:1], *([regime] if regime in known else [])]))


def _published(study: Study, regime: str) -> dict[str, Any]:
    judged = published_judged(study, regime)
    title = study.regime(regime).title
    grid = _table(f"published-{regime}", f"{title}, as published", judged, rendered(judged), TOP1)
    within = [row["rung"] for row in judged.to_dict("records") if row["within_spread"] is True]
    return {"title": title, "table": grid, "remarks": remarks(judged), "within": within}


ENVIRONMENT = {"torch": "PyTorch", "host": "host", "device": "device", "commit": "commit", "data": "data set"}


def _environment(table: pd.DataFrame) -> Grid:
    """The software and hardware of the runs, with the number of runs."""
    lines = []
    for column, title in ENVIRONMENT.items():
        for value, count in _with_modified(table)[column].value_counts().items():
            lines.append(Line((Cell(title), Cell(str(value), str(value)), Cell(str(count), int(count)))))
    return Grid("environment-table", "Begun and finished runs", ("kind", "value", "runs"), tuple(lines))


def _with_modified(table: pd.DataFrame) -> pd.DataFrame:
    """Commits with modified code are marked as such."""
    differed = table["modified"].fillna(False).astype(bool)
    return table.assign(commit=table["commit"].where(~differed, table["commit"] + ", modified"))


def _mixed(table: pd.DataFrame) -> list[str]:
    """Rungs whose runs differ in more than the seed. Several hosts are allowed."""
    rungs_by_difference: dict[str, list[str]] = {}
    finished = _with_modified(table[table["state"] == "finished"])
    for _, runs in finished.groupby("experiment", sort=False):
        for column in ("torch", "device", "commit"):
            values = sorted(runs[column].dropna().unique())
            if len(values) > 1:
                rung = f"{runs['regime'].iloc[0]}/{runs['rung'].iloc[0]}"
                rungs_by_difference.setdefault(f"{ENVIRONMENT[column]}: {' and '.join(values)}", []).append(rung)
    return [f"{difference}, in {', '.join(rungs)}" for difference, rungs in rungs_by_difference.items()]


def _unfinished(parts: Sequence[Part], table: pd.DataFrame) -> Grid:
    """Every run that is not finished, failures first, with the reason, or the progress of begun runs."""
    epochs = {
        row["folder"]: result.run.experiment.recipe.epochs
        for part in parts
        for result in part.results
        for row in result.unfinished.values()
    }
    order = {"diverged": 0, "foreign": 1, "begun": 2}
    rows = sorted(table[table["state"] != "finished"].to_dict("records"), key=lambda row: order[row["state"]])
    lines = []
    for row in rows:
        total, done_epochs = epochs.get(row["folder"]), _number(row["epochs"])
        share = done_epochs / total if row["state"] == "begun" and total and done_epochs is not None else None
        bar = None if share is None else (0.0, 100 * share, False)
        cells = (Cell(row["state"], row["state"]), Cell(row["folder"], row["folder"]))
        lines.append(Line((*cells, Cell(row["why"], row["why"], bar=bar))))
    return Grid("unfinished-table", "Runs that are not finished", ("state", "folder", "reason"), tuple(lines))


def _attribution(part: Part, metric: Metric) -> dict[str, Any]:
    attribution, digits = part.attribution, metric.decimals + 1
    assert attribution is not None
    largest = max((abs(effect.shapley or 0) for effect in attribution.effects), default=0) or 1.0
    columns = ("step", "Shapley value", "95 % interval", "orders", "in the paper's order", "alone", "taken out")
    lines = tuple(Line(_effect(i, effect, largest, metric)) for i, effect in enumerate(attribution.effects))
    caption = f"Effect of each step, in {metric.title}"
    return {
        "total": f"{attribution.total:+.{digits}f}",
        "missing": attribution.missing,
        "diverged": attribution.diverged,
        "effects": Grid(f"{part.regime}-effects", caption, columns, lines),
        "has_intervals": any(effect.interval for effect in attribution.effects),
        "pairs": _pairs_of(attribution, metric) if attribution.interactions else None,
    }


def _effect(i: int, effect: StepEffect, largest: float, metric: Metric) -> tuple[Cell, ...]:
    value, digits = effect.shapley or 0.0, metric.decimals + 1
    half = 50 * abs(value) / largest
    bar = (50 - half if value < 0 else 50.0, half, (value < 0) == metric.higher_is_better)
    low, _ = effect.interval or (None, None)
    other_cells = [
        Cell(_words(single, f"+.{digits}f"), single) for single in (effect.on_path, effect.alone, effect.left_out)
    ]
    return (
        Cell(effect.title, i),
        Cell(_words(effect.shapley, f"+.{digits}f"), effect.shapley, bar=bar),
        Cell(interval(effect.interval, digits), low),
        Cell(str(effect.orders), effect.orders),
        *other_cells,
    )


def _pairs_of(attribution: Attribution, metric: Metric) -> list[dict[str, Any]]:
    """The lower half of the map, one row for each step."""
    by_steps = {frozenset((pair.first, pair.second)): pair for pair in attribution.interactions}
    largest = max(abs(pair.value) for pair in attribution.interactions) or 1.0
    rows = []
    for i, step in enumerate(attribution.steps):
        pairs = [by_steps.get(frozenset((step, other))) for other in attribution.steps[:i]]
        cells = [_pair(pair, attribution.titles, largest, metric) if pair else None for pair in pairs]
        rows.append({"title": attribution.titles[step], "number": i + 1, "cells": cells})
    return rows


def _pair(pair: Interaction, titles: Mapping[str, str], largest: float, metric: Metric) -> dict[str, Any]:
    digits, sign = metric.decimals + 1, 1 if metric.higher_is_better else -1
    facts = {
        "together beyond each alone": f"{pair.value:+.{digits}f}",
        "95 % interval": interval(pair.interval, digits),
        "p, corrected": f"{pair.p:.3f}",
        "verdict": pair.verdict,
    }
    return {
        "title": f"{titles[pair.first]} and {titles[pair.second]}",
        "text": f"{pair.value:+.{digits}f}",
        "level": round(sign * LEVELS * pair.value / largest),
        "is_significant": pair.verdict != "within noise",
        "facts": facts,
    }
