"""What `roadmap transfer` prints and draws after training."""

from __future__ import annotations

import sys
from dataclasses import replace
from pathlib import Path

from analysis.figures.parts.style import save_figure
from analysis.figures.predictions import draw_predictions
from analysis.figures.transfer import draw_transfer
from analysis.options import RunsOptions
from analysis.tables.transfer import rendered_transfers, transfer_remarks
from analysis.transfer import TransferStudy, transfer_studies
from roadmap.options import StudyOptions
from roadmap.record.predictions import read_predictions
from roadmap.text import table as text_table


def conclude_transfers(options: StudyOptions, out: Path, task: str, recipe: str | None) -> None:
    """Prints the table of the transfers to a task, and saves the figure and the predictions in `out`."""
    regime = options.regime or options.study().defaults.regime
    runs = RunsOptions(replace(options, regime=regime), out)
    try:
        (study,) = transfer_studies(runs, task, recipe)
    except ValueError as error:
        shown = "runs that began with trained networks, frozen ones or new ones"
        print(f"no table, which has {shown}: {error}; `roadmap collect` has the metrics of all", file=sys.stderr)
        return
    print(f"\n{transfer_text(study)}\n", flush=True)
    names = [out / f"transfer-{regime}-{task}{suffix}" for suffix in (".png", ".svg")]
    try:
        paths = save_figure(draw_transfer(study), names)
    except ValueError as error:
        print(f"no figure: {error}", file=sys.stderr)
        paths = []
    folders = predicting(study, out)
    if folders:
        path = out / f"predictions-{regime}-{task}.png"
        paths += save_figure(draw_predictions(folders, study.title), [path])
    for path in paths:
        print(f"figure: {path}")


def transfer_text(study: TransferStudy) -> str:
    """The table with its title and remarks."""
    shown = rendered_transfers(study)
    rows = text_table(list(shown.columns), shown.to_numpy().tolist())
    return "\n\n".join([study.title, rows, *transfer_remarks(study)])


def predicting(study: TransferStudy, out: Path) -> dict[str, Path]:
    """The folder of the first and of the last rung's run that has recorded predictions, by rung."""
    found = {}
    for name, result in study.after["pre-trained"].items():
        folders = [out / row["folder"] for _, row in sorted(result.seeds.items())]
        recorded = next((folder for folder in folders if read_predictions(folder)), None)
        if recorded:
            found[name] = recorded
    names = list(found)
    return {name: found[name] for name in dict.fromkeys([*names[:1], *names[-1:]])}
