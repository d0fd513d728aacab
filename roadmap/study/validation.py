"""Whether the names that a study uses are ones that it, or the program, knows."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from roadmap.plugins import load_installed
from roadmap.recipe import OPTIMIZERS, Recipe
from roadmap.serialization import suggest
from roadmap.steps import STEPS
from roadmap.study.grammar import StepSpec
from roadmap.study.schema import ConvNeXtSize, ModelOverride, Reference, ReferenceModel, Study

LIBRARIES = ("timm", "torchvision", "own", "family")  # whose models references may be


def check_variant(step: str, written: int | float | str, where: str) -> None:
    """Raises ValueError for a value that the step does not take."""
    try:
        StepSpec.parse(f"{step}={written}")
    except ValueError as error:
        quotes = "; a list such as 2:2:6:2 stands in quotes" if isinstance(written, int) else ""
        raise ValueError(f"{where}: {error}{quotes}") from None


def check_names(study: Study) -> None:
    """Raises ValueError for the first name that neither the study nor the program knows, with the valid ones."""
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
            raise ValueError(f"regimes.{name}: not a name for a folder; letters, digits, '.', '+', '-' and '_' are")
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
            raise ValueError(f"ladder[{i}].step: {entry.step!r} stands twice")
        checks.append((f"ladder[{i}].step", entry.step, STEPS))
        checks += [(f"ladder[{i}].fidelities", key, study.fidelities) for key in entry.fidelities]
        if entry.variants or entry.adopted is not None:
            checks.append((f"ladder[{i}].adopted", entry.adopted, set(entry.variants) - set(entry.rejected)))
        checks += [(f"ladder[{i}].rejected", key, entry.variants) for key in entry.rejected]
    for name, each in study.references.items():
        checks += _checks_of_reference(study, name, each)
    if not all(name in valid for _, name, valid in checks):
        load_installed()  # which may register it
    for where, name, valid in checks:
        if name not in valid:
            raise ValueError(f"{where}: unknown {name!r}; {suggest(valid, name)}")


def _recipe_changes(study: Study) -> Iterator[tuple[str, dict[str, Any]]]:
    """Every place that changes some of a recipe's fields."""
    for name, regime in study.regimes.items():
        yield from ((f"regimes.{name}.recipes.{recipe}", changes) for recipe, changes in regime.recipes.items())
    for name, fidelity in study.fidelities.items():
        yield from ((f"fidelities.{name}.recipes.{recipe}", changes) for recipe, changes in fidelity.recipes.items())
    for name, dataset in study.data.items():
        yield f"data.{name}.recipe", dataset.recipe
    for name, reference in study.references.items():
        forms = {"form": reference.form} | {f"forms.{regime}": form for regime, form in reference.forms.items()}
        yield from ((f"references.{name}.{place}.recipe", form.recipe) for place, form in forms.items() if form)


def _checks_of_reference(study: Study, name: str, its: Reference) -> Iterator[tuple[str, Any, Any]]:
    """Names that it uses. Raises ValueError where its own is no name, or another's.

    Whether a library has a model shows when it is built: to ask takes its import.
    """
    where = f"references.{name}"
    if not re.fullmatch(r"\w[\w.+-]*", name):
        raise ValueError(f"{where}: not a name for a folder; letters, digits, '.', '+', '-' and '_' are")
    if name in STEPS or name in study.regimes or name == "all":
        raise ValueError(f"{where}: {name!r} is the name of a rung already; another is expected")
    yield from [(f"{where}.regime", its.regime, study.regimes)] if its.regime else []
    yield from [(f"{where}.counterpart", its.counterpart, study.references)] if its.counterpart else []
    yield from ((f"{where}.forms", regime, study.regimes) for regime in its.forms)
    if its.counterpart == name:
        raise ValueError(f"{where}.counterpart: {name!r} is itself; another reference is expected")
    forms: dict[str, ReferenceModel | ModelOverride | None] = {f"{where}.form": its.form}
    forms |= {f"{where}.forms.{regime}": form for regime, form in its.forms.items()}
    for place, form in forms.items():
        if form:
            yield from ((f"{place}.recipe", key, Recipe.__dataclass_fields__) for key in form.recipe)
            yield from _checks_of_model(study, form, place)


def _checks_of_model(study: Study, form: ReferenceModel | ModelOverride, place: str) -> Iterator[tuple[str, Any, Any]]:
    if form.model is None:
        return
    library, slash, model = form.model.partition("/")
    if not slash or library not in LIBRARIES:
        written = ", ".join(f"{each}/NAME" for each in LIBRARIES)
        raise ValueError(f"{place}.model: {form.model!r} is no model; {written} are")
    if library == "family":
        yield f"{place}.model", model, study.family
        yield from ((f"{place}.arguments", key, ConvNeXtSize.__dataclass_fields__) for key in form.arguments)
