"""The table of transfers: each rung's accuracy beside what it reaches in another task."""

from __future__ import annotations

import pandas as pd

from analysis.results import Result
from analysis.transfer import BEGINNINGS, TransferStudy
from roadmap.record.metrics import METRICS, TOP1, Metric

# Further metrics of a task, shown as they are.
FURTHER = {"detection": ("mask_ap",), "segmentation": ("pixel_accuracy",)}


def transfer_table(study: TransferStudy) -> pd.DataFrame:
    """A row for each rung with a finished transfer. Accuracies are means in percent, changes are points."""
    rows = []
    for rung in study.rungs:
        if not any(results[rung.name].seeds for results in study.after.values()):
            continue
        row: dict[str, object] = {"rung": rung.name, "top1": _mean(study.before[rung.name], TOP1)}
        for beginning in BEGINNINGS:
            result = study.after[beginning][rung.name]
            row[beginning] = _mean(result, study.metric)
            row[f"{beginning} std"] = _std(result, study.metric)
            row[f"{beginning} seeds"] = len(result.values(study.metric))
        for name in FURTHER.get(study.task, ()):
            row[name] = _mean(study.after["pre-trained"][rung.name], METRICS[name])
        before, after = study.judged_before[rung.name].change, study.judged_after[rung.name].change
        row["change of top1"] = before.difference if before else None
        row[f"change of {study.metric.key}"] = after.difference if after else None
        row["verdict"] = study.verdict(rung.name)
        rows.append(row)
    return pd.DataFrame(rows)


def _mean(result: Result, metric: Metric) -> float | None:
    sample = result.sample(metric)
    return sample.mean if sample else None


def _std(result: Result, metric: Metric) -> float | None:
    sample = result.sample(metric)
    return sample.std if sample else None


def rendered_transfers(study: TransferStudy) -> pd.DataFrame:
    """The table as text: means with their deviations."""
    table, columns = transfer_table(study), {}
    columns["rung"] = table["rung"].tolist()
    columns["top-1"] = [_number(value) for value in table["top1"]]
    for beginning in BEGINNINGS:
        if table[f"{beginning} seeds"].any():
            spread = zip(table[beginning], table[f"{beginning} std"], strict=True)
            columns[f"{study.metric.short}, {beginning}"] = [
                _number(mean) + (f" ±{std:.2f}" if std is not None and pd.notna(std) else "") for mean, std in spread
            ]
    columns["seeds"] = [str(count) for count in table["pre-trained seeds"]]
    for name in FURTHER.get(study.task, ()):
        columns[METRICS[name].short] = [_number(value) for value in table[name]]
    columns["Δ top-1"] = [_number(value, "+") for value in table["change of top1"]]
    columns[f"Δ {study.metric.short}"] = [_number(value, "+") for value in table[f"change of {study.metric.key}"]]
    columns["verdict"] = [value if isinstance(value, str) else "" for value in table["verdict"]]
    return pd.DataFrame(columns)


def _number(value: float | None, sign: str = "") -> str:
    return "" if value is None or pd.isna(value) else f"{value:{sign}.2f}"


def transfer_remarks(study: TransferStudy) -> list[str]:
    """Sentences below the table."""
    remarks = [f"{study.metric.title} of the networks that began with trained ones, frozen ones and new ones."]
    if study.tau:
        remarks.append(f"{study.tau}, between top-1 and {study.metric.short} of pre-trained rungs.")
    if any(study.verdict(rung.name) == "too few seeds" for rung in study.rungs):
        remarks.append("A verdict takes three seeds of a rung and of the one before it, in both tasks.")
    return remarks
