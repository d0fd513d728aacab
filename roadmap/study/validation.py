"""Checks that the names that a study uses exist in it or in the program."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from roadmap.plugins import load_installed
from roadmap.recipe import OPTIMIZERS, Recipe
from roadmap.spaces.registry import SPACE_NAME
from roadmap.steps import STEPS
from roadmap.study.grammar import StepSpec
from roadmap.study.schema import ConvNeXtSize, ModelOverride, Reference, ReferenceModel, Study
from roadmap.text import suggest

LIBRARIES = ("timm", "torchvision", "own", "family")  # of models that references may be


def check_variant(step: str, written: int | float | str, where: str) -> None:
    """Raises ValueError for a value that the step does not accept."""
    try:
        StepSpec.parse(f"{step}={written}")
    except ValueError as error:
        raise ValueError(f"{where}: {error}") from None


def check_names(study: Study) -> None:
    """Raises ValueError for the first name that is in neither the study nor the program, with the valid names."""
    checks: list[tuple[str, Any, Any]] = [
        ("defaults.regime", study.defaults.regime, study.regimes),
        ("defaults.fidelity", study.defaults.fidelity, study.fidelities),
    ]
    checks += [(f"recipes.{name}.optimizer", recipe.optimizer, OPTIMIZERS) for name, recipe in study.recipes.items()]
    checks += [
        (f"{where}.optimizer", changes["optimizer"], OPTIMIZERS)
        for where, changes in _recipe_changes(study)
        if "optimizer" in changes
    ]
    for name, regime in study.regimes.items():
        if not re.fullmatch(r"\w[\w.+-]*", name):
            raise ValueError(
                f"regimes.{name} must have only letters, digits, '.', '+', '-' and '_', as the name of a folder"
            )
        checks.append((f"regimes.{name}.data", regime.data, study.datasets))
        checks.append((f"regimes.{name}.device", regime.device, study.devices))
        checks.append((f"regimes.{name}.cluster", regime.cluster, study.clusters))
        checks += [(f"regimes.{name}.recipes.{key}", key, study.recipes) for key in regime.recipes]
        checks += [(f"regimes.{name}.steps.{key}", key, STEPS) for key in regime.steps]
        checks += [(f"regimes.{name}.variants.{key}", key, STEPS) for key in regime.variants]
    for name, cluster in study.clusters.items():
        checks += [(f"clusters.{name}.device", cluster.device, study.devices)] if cluster.device else []
    for name, fidelity in study.fidelities.items():
        checks += [(f"fidelities.{name}.recipes.{key}", key, study.recipes) for key in fidelity.recipes]
        checks += [(f"fidelities.{name}.steps.{key}", key, STEPS) for key in fidelity.steps]
    for i, entry in enumerate(study.ladder):
        if entry.step in [other.step for other in study.ladder[:i]]:
            raise ValueError(f"ladder[{i}].step: {entry.step!r} is given twice")
        checks.append((f"ladder[{i}].step", entry.step, STEPS))
        checks += [(f"ladder[{i}].fidelities", key, study.fidelities) for key in entry.fidelities]
        if entry.variants or entry.adopted is not None:
            checks.append((f"ladder[{i}].adopted", entry.adopted, set(entry.variants) - set(entry.rejected)))
        checks += [(f"ladder[{i}].rejected", key, entry.variants) for key in entry.rejected]
    for name, space in study.spaces.items():
        if not re.fullmatch(SPACE_NAME, name):
            raise ValueError(
                f"spaces.{name} must have only letters, digits, '.', '_' and '-', as part of names of designs"
            )
        checks += [(f"spaces.{name}.regimes.{key}", key, study.regimes) for key in space.regimes]
    for name, reference in study.references.items():
        checks += _checks_of_reference(study, name, reference)
    if not all(name in valid for _, name, valid in checks):
        load_installed()  # an installed package may register it
    for where, name, valid in checks:
        if name not in valid:
            raise ValueError(f"{where}: unknown {name!r}; {suggest(valid, name)}")


def _recipe_changes(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """All changes to fields of recipes, each with its key path."""
    for name, regime in study.regimes.items():
        yield from ((f"regimes.{name}.recipes.{recipe}", changes) for recipe, changes in regime.recipes.items())
    for name, fidelity in study.fidelities.items():
        yield from ((f"fidelities.{name}.recipes.{recipe}", changes) for recipe, changes in fidelity.recipes.items())
    for name, dataset in study.data.items():
        yield f"data.{name}.recipe", dataset.recipe
    for name, reference in study.references.items():
        forms = {"form": reference.form} | {f"forms.{regime}": form for regime, form in reference.forms.items()}
        yield from ((f"references.{name}.{key}.recipe", form.recipe) for key, form in forms.items() if form)


def _checks_of_reference(study: Study, name: str, reference: Reference) -> Iterator[tuple[str, Any, Any]]:
    """The names that a reference uses. Raises ValueError if its own name is invalid or taken.

    Names of models in libraries are not checked here, because that would import the library.
    """
    where = f"references.{name}"
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"{where} must have only letters, digits, '.', '+', '-' and '_', as the name of a folder")
    if name in STEPS or name in study.regimes or name == "all":
        raise ValueError(f"{where}: {name!r} is the name of a rung already; choose another")
    yield from [(f"{where}.regime", reference.regime, study.regimes)] if reference.regime else []
    yield from [(f"{where}.counterpart", reference.counterpart, study.references)] if reference.counterpart else []
    yield from ((f"{where}.forms", regime, study.regimes) for regime in reference.forms)
    if reference.counterpart == name:
        raise ValueError(f"{where}.counterpart must be another reference (got {name!r})")
    forms: dict[str, ReferenceModel | ModelOverride | None] = {f"{where}.form": reference.form}
    forms |= {f"{where}.forms.{regime}": form for regime, form in reference.forms.items()}
    for path, form in forms.items():
        if form:
            yield from ((f"{path}.recipe", key, Recipe.__dataclass_fields__) for key in form.recipe)
            yield from _checks_of_model(study, form, path)


def _checks_of_model(study: Study, form: ReferenceModel | ModelOverride, path: str) -> Iterator[tuple[str, Any, Any]]:
    if form.model is None:
        return
    library, slash, model = form.model.partition("/")
    if not slash or library not in LIBRARIES:
        valid = ", ".join(f"{name}/NAME" for name in LIBRARIES)
        raise ValueError(f"{path}.model must be one of {valid} (got {form.model!r})")
    if library == "family":
        yield f"{path}.model", model, study.family
        yield from ((f"{path}.arguments", key, ConvNeXtSize.__dataclass_fields__) for key in form.arguments)
