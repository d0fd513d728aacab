"""Writes docs/options.md, every key of `--set` and of ablations.yaml, from the dataclasses that hold the values.

    python scripts/document_options.py

A field is documented where it is defined: its type, its range in `Annotated`, its meaning in the comment on its line.
"""

from __future__ import annotations

import dataclasses
import inspect
import re
import types
import typing
from pathlib import Path
from typing import Annotated, Any, Literal

from roadmap.data.dataset import Dataset
from roadmap.design import Block, Conv, Design, Downsampling, NamedModel, Stem
from roadmap.recipe import Recipe
from roadmap.serialization.plain_data import to_data
from roadmap.serialization.ranges import allowed_by, field_types
from roadmap.steps import STEPS
from roadmap.study import schema
from roadmap.study.cluster import Cluster
from roadmap.study.execution import Execution
from roadmap.study.load import load_study
from roadmap.tasks.heads import DetectorOptions, SegmenterOptions
from roadmap.text import show

ROOT = Path(__file__).parent.parent
PAGE = ROOT / "docs" / "options.md"
COMMAND = "python scripts/document_options.py"
NAMES = {int: "whole number", float: "number", str: "text", bool: "true or false", Path: "path"}
NAMES |= {types.NoneType: "null", Any: "any"}
INTRODUCTION = f"""# Options

<!-- Made by `{COMMAND}`; a test compares it with the code. -->

Every key of `--set KEY=VALUE` and of `ablations.yaml`. Values are written as in YAML: `--set recipe.epochs=30`,
`--set "recipe.betas=[0.9, 0.95]"`, `--set execution.wandb=null`. A value that is out of range is refused:
`recipe.epochs must be at least 1 (got 0)`. The range of a list holds for each of its items.
`4e-3` is a number. `030` and `1:30`, which some readers of YAML take for 24 and 90, are refused: write 30, or quotes.
"""


def type_text(kind: Any) -> str:
    """A type in words: "whole number or `auto`", "list of 2 numbers"."""
    origin, arguments = typing.get_origin(kind), typing.get_args(kind)
    if origin is Annotated:
        return type_text(arguments[0])
    if origin in (typing.Union, types.UnionType):
        return " or ".join(map(type_text, arguments))
    if origin is Literal:
        return " or ".join(f"`{choice}`" for choice in arguments)
    if origin is tuple:
        item, length = type_text(arguments[0]), "" if arguments[-1] is Ellipsis else f"{len(arguments)} "
        return f"list of {length}{item}s" if item in NAMES.values() else f"list of {length}({item})"
    if origin is dict:
        return f"mapping to {type_text(arguments[1])}"
    return NAMES.get(kind) or kind.__name__


def meanings(kind: type) -> dict[str, str]:
    """The comment on the line of each field."""
    return dict(re.findall(r"^    (\w+): .*  # (.+)$", inspect.getsource(kind), flags=re.MULTILINE))


def cell(value: Any) -> str:
    return f"`{show(to_data(value))}`".replace("`none`", "`null`")


def default_of(field: dataclasses.Field[Any]) -> str:
    """That of a field of ablations.yaml which is left out."""
    if field.default is not dataclasses.MISSING:
        return cell(field.default)
    return "required" if field.default_factory is dataclasses.MISSING else cell(field.default_factory())


def table(header: list[str], rows: list[list[str]]) -> str:
    lines = [header, ["---"] * len(header), *rows]
    return "".join(f"| {' | '.join(line)} |\n" for line in lines)


def fields_table(kind: type, prefix: str = "", defaults: dict[str, Any] | None = None) -> str:
    """A row for each field. `defaults` are columns of values; else there is one, of what holds where a key is left out.

    Raises ValueError for a field without a comment.
    """
    columns = ["default"] if defaults is None else list(defaults)
    rows, hints, meaning = [], field_types(kind), meanings(kind)
    for field in dataclasses.fields(kind):
        if field.name not in meaning:
            raise ValueError(f"{kind.__name__}.{field.name} needs a comment on its line that says what it means")
        values = [default_of(field)]
        if defaults is not None:
            values = [cell(getattr(value, field.name)) for value in defaults.values()]
        allowed = str(allowed_by(hints[field.name]) or "")
        name = f"`{prefix}{field.name}`"
        rows.append([name, type_text(hints[field.name]), allowed, *values, meaning[field.name]])
    return table(["key", "type", "range", *columns, "meaning"], rows)


def steps_table() -> str:
    rows = []
    for name, step in STEPS.items():
        if step.function.__module__ != "roadmap.steps":  # of a plug-in
            continue
        signature = inspect.signature(step.function).parameters
        for parameter, kind in step.parameters.items():
            default = "required" if parameter in step.required else cell(signature[parameter].default)
            rows.append([f"`{name}`", f"`{parameter}`", type_text(kind), str(allowed_by(kind) or ""), default])
    return table(["step", "parameter", "type", "range", "default"], rows)


# The classes of a section of ablations.yaml, each with the key that holds it.
SECTIONS: dict[str, type] = {
    "the top level": schema.Study,
    "`regimes.NAME`": schema.Regime,
    "`regimes.NAME.start`": schema.Start,
    "`ladder`": schema.Entry,
    "`fidelities.NAME`": schema.Fidelity,
    "`references.NAME`": schema.Reference,
    "`references.NAME.form`": schema.ReferenceModel,
    "`references.NAME.forms.REGIME`": schema.ModelOverride,
    "`family.NAME`": schema.ConvNeXtSize,
    "`data.NAME`": Dataset,
    "`devices.NAME`": schema.Device,
    "`transfers.NAME`": schema.TransferRecipe,
    "`transfers.NAME.options` of detection": DetectorOptions,
    "`transfers.NAME.options` of segmentation": SegmenterOptions,
}
DESIGN: dict[str, type] = {
    "design": Design,
    "design.stem": Stem,
    "design.block": Block,
    "design.block.convs[i]": Conv,
    "design.downsampling": Downsampling,
}


def page() -> str:
    """The text of docs/options.md."""
    study = load_study(ROOT / "ablations.yaml")
    parts = [
        INTRODUCTION,
        "## Recipe\n\nKeys of `--set`, and of `recipes.NAME` and each `recipe` in `ablations.yaml`. A regime, a",
        "fidelity or a data set may change the defaults; `roadmap show RUNG` has the values of a rung.\n",
        fields_table(Recipe, "recipe.", dict(study.recipes)),
        "## Execution\n\nKeys of `--set`, and of `execution` in `ablations.yaml`. No part of a run's identity.\n",
        fields_table(Execution, "execution.", {"default": study.execution}),
        "## Cluster\n\nKeys of `--set` with `--on slurm`, and of `clusters.NAME` in `ablations.yaml`.\n",
        fields_table(Cluster, "cluster."),
        "## Design\n\nThe steps of a rung decide the values; `roadmap show RUNG` has them. A list is set as a whole.\n",
        *(f"{kind.__name__}:\n\n{fields_table(kind, key + '.', {})}" for key, kind in DESIGN.items()),
        "NamedModel, the design of a reference that a library builds:\n",
        fields_table(NamedModel, "design.", {}),
        "## Parameters of steps\n\nThe first of a step is what `STEP=VALUE` sets.\n",
        steps_table(),
        "## ablations.yaml\n\nDefaults, at `defaults`:\n",
        fields_table(schema.Defaults, "", {"default": study.defaults}),
        *(f"{kind.__name__}, at {place}:\n\n{fields_table(kind)}" for place, kind in SECTIONS.items()),
    ]
    return "\n".join(parts)


if __name__ == "__main__":
    PAGE.write_text(page(), encoding="utf-8")
