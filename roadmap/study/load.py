"""Finds, reads and checks the file `ablations.yaml`."""

from __future__ import annotations

from collections.abc import Iterable
from functools import lru_cache
from pathlib import Path
from typing import Any

import yaml

from roadmap.plugins import load_file
from roadmap.serialization.plain_data import changed, check_keys, from_data
from roadmap.serialization.yaml_text import YamlLoader
from roadmap.steps import find_step
from roadmap.study.schema import Study
from roadmap.study.validation import check_names, check_variant

FILE_NAME = "ablations.yaml"


def study_path() -> Path:
    """`ablations.yaml` in the working directory, else the one of the package."""
    package = Path(__file__).parent.parent
    # In an editable install the file is beside the package.
    candidates = (Path.cwd() / FILE_NAME, package / FILE_NAME, package.parent / FILE_NAME)
    return next(path for path in candidates if path.exists())


def load_study(path: Path | None = None) -> Study:
    """The study of that file; by default of the file at `study_path()`. It is read again if it changed.

    Raises ValueError with the file, the key path and the valid choices if the file is not valid.
    """
    path = (path or study_path()).resolve()
    if not path.is_file():
        raise ValueError(f"{path}: not a file")
    state = path.stat()
    study = _read_study(path, (state.st_mtime_ns, state.st_size))
    _load_plugins(path, study.plugins)
    return study


def _load_plugins(path: Path, plugins: Iterable[str]) -> None:
    try:
        for plugin in plugins:
            load_file(path.parent / plugin)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


@lru_cache(maxsize=16)
def _read_study(path: Path, state: tuple[int, int]) -> Study:
    """`state` is the file's time and size: a changed file is another one."""
    try:
        data = yaml.load(path.read_text(encoding="utf-8"), YamlLoader)
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = f", line {mark.line + 1}" if mark else ""
        raise ValueError(f"{path}{line}: not valid YAML: {getattr(error, 'problem', None) or error}") from None
    except (OSError, ValueError, RecursionError) as error:  # such as a date that does not exist
        raise ValueError(f"{path}: can't be read: {error}") from None
    try:
        if isinstance(data, dict):
            for plugin in from_data(tuple[str, ...], data.get("plugins", []), "plugins"):
                load_file(path.parent / plugin)
        return parse_study(data)
    except ValueError as error:
        raise ValueError(f"{path}: {error}") from None


def parse_study(data: Any) -> Study:
    """The study of plain data. Raises ValueError for a name or parameter that is not valid."""
    if data is None:
        raise ValueError("the file is empty")
    check_keys(data, Study.__dataclass_fields__, "")
    if data.get("format") != 1:
        raise ValueError(f"format: {data.get('format')!r} is not valid; this version reads 1")
    study: Study = from_data(Study, data)
    check_names(study)
    for name, regime in study.regimes.items():
        for fidelity in study.fidelities:
            study.start(name, fidelity, regime.data)
            for i, entry in enumerate(study.ladder):
                parameters = study.parameters(entry.step, name, fidelity, regime.data)
                step = find_step(entry.step)
                for missing in step.required[1 if entry.variants else 0 :]:
                    if missing not in parameters:
                        raise ValueError(f"regimes.{name}.steps.{entry.step}.{missing}: missing")
                for value in entry.variants:
                    step.variant(value, f"ladder[{i}].variants")
        for step_name, variants in regime.variants.items():
            for i, written in enumerate(variants):
                check_variant(step_name, written, f"regimes.{name}.variants.{step_name}[{i}]")
    for name, cluster in study.clusters.items():
        changed(study.execution, cluster.execution, f"clusters.{name}.execution")
    for name, dataset in study.data.items():
        for recipe in study.recipes.values():
            changed(recipe, dataset.recipe, f"data.{name}.recipe")
    return study
