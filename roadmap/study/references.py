"""The systems that the rungs are compared with, as rungs: they share recipe, data and records with the others."""

from __future__ import annotations

from roadmap.design import Design, NamedModel
from roadmap.network.library_models import MODELS
from roadmap.recipe import Experiment
from roadmap.serialization.plain_data import changed
from roadmap.study.convnext import design_of_size
from roadmap.study.rungs import Rung, StudyContext
from roadmap.study.schema import Reference, ReferenceModel, Study
from roadmap.text import suggest

REFERENCE = "Reference"
RECIPE = "modern"


def references(context: StudyContext, written: str) -> tuple[Rung, ...]:
    """The rungs of comma-separated names, in the study's order. "all" means those with a form in the regime.

    A name is that of a reference of the study, of a model that a plug-in registered, or a model such as
    `timm/resnet18`. Raises ValueError for other names.
    """
    names = [name.strip() for name in written.split(",")]
    trainable = [name for name in context.study.references if context.study.references[name].form_in(context.regime)]
    if "all" in names:
        names = [*trainable, *(name for name in names if name != "all" and name not in trainable)]
    order = {name: i for i, name in enumerate(trainable)}
    return tuple(
        reference(context, name) for name in sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order)))
    )


def is_reference(study: Study, name: str) -> bool:
    return name in study.references or name in MODELS or name.partition("/")[0] in ("timm", "torchvision", "own")


def as_published(study: Study, regime: str, name: str) -> bool:
    """Whether the form of a reference in a regime is the published one, and not one of the regime."""
    entry = study.references.get(name)
    return entry is not None and entry.form is not None and entry.form_in(regime) == entry.form


def reference(context: StudyContext, name: str) -> Rung:
    """The rung of one reference. Raises ValueError for an unknown name, or if the regime has no form of it."""
    entry = _find(context.study, name)
    form, where = _form(context, name, entry), f"references.{name}"
    modern = context.study.recipe(RECIPE, context.regime, context.fidelity, context.data)
    if entry.form:  # checked even if the regime has another form, which may have another number of epochs
        changed(context.study.recipes[RECIPE], entry.form.recipe, f"{where}.form.recipe")
    try:
        recipe = changed(modern, form.recipe, where)
    except ValueError as error:
        raise ValueError(f"{error}; {where}.forms.{context.regime} gives it another recipe there") from None
    experiment = Experiment(_network(context.study, form, where), recipe)
    return Rung(name.replace("/", "-"), entry.title, REFERENCE, True, experiment, None)


def reference_network(context: StudyContext, name: str) -> Design | NamedModel:
    """The network of one reference, whatever its recipe. Raises ValueError as `reference`."""
    return _network(context.study, _form(context, name, _find(context.study, name)), f"references.{name}")


def _form(context: StudyContext, name: str, entry: Reference) -> ReferenceModel:
    form = entry.form_in(context.regime)
    if form is None:
        reason = "has only a published figure" if entry.form is None else "has no form for it"
        raise ValueError(f"reference {name!r} can't be trained in regime {context.regime!r}: it {reason}")
    return form


def _find(study: Study, name: str) -> Reference:
    if name in study.references and name in MODELS:
        raise ValueError(f"{name!r} is a reference of the study already; rename the model of the plug-in")
    if name in study.references:
        return study.references[name]
    if name in MODELS:
        return Reference(name, form=ReferenceModel(f"own/{name}"))
    if "/" in name:
        return Reference(name, form=ReferenceModel(name))
    known = dict.fromkeys([*study.references, *MODELS])
    raise ValueError(f"unknown reference {name!r}; {suggest(known, name)}, or timm/NAME")


def _network(study: Study, form: ReferenceModel, where: str) -> Design | NamedModel:
    library, _, name = form.model.partition("/")
    if library != "family":
        return NamedModel.parse(form.model, form.arguments)
    if name not in study.family:
        raise ValueError(f"{where}.model: unknown ConvNeXt {name!r}; {suggest(study.family, name)}")
    return design_of_size(changed(study.family[name], form.arguments, f"{where}.arguments"))
