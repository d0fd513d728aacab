"""The systems that the rungs are compared with, as rungs of their own: the same recipe, data and records."""

from __future__ import annotations

from roadmap.design import Design, NamedModel
from roadmap.network.library_models import MODELS
from roadmap.recipe import Experiment
from roadmap.serialization import changed, suggest
from roadmap.study.convnext import design_of_size
from roadmap.study.rungs import Rung, StudyContext
from roadmap.study.schema import Reference, ReferenceModel, Study

REFERENCE = "Reference"
RECIPE = "modern"


def references(context: StudyContext, written: str) -> tuple[Rung, ...]:
    """The rungs of names parted by commas, in the study's order; "all" are those that the regime has a form of.

    A name is one of the study's references, that of a model which a plugin registered, or a model as it is written
    there, `timm/resnet18`. Raises ValueError for what is none.
    """
    names = [name.strip() for name in written.split(",")]
    whole = [name for name in context.study.references if context.study.references[name].form_in(context.regime)]
    if "all" in names:
        names = [*whole, *(name for name in names if name != "all" and name not in whole)]
    order = {name: i for i, name in enumerate(whole)}
    return tuple(
        reference(context, name) for name in sorted(dict.fromkeys(names), key=lambda name: order.get(name, len(order)))
    )


def is_reference(study: Study, name: str) -> bool:
    return name in study.references or name in MODELS or name.partition("/")[0] in ("timm", "torchvision", "own")


def as_published(study: Study, regime: str, name: str) -> bool:
    """Whether a regime has a reference in the form that published figures are of, not in one of its own."""
    its = study.references.get(name)
    return its is not None and its.form is not None and its.form_in(regime) == its.form


def reference(context: StudyContext, name: str) -> Rung:
    """One of them. Raises ValueError with the valid names, or where the regime has no form of it."""
    found = _find(context.study, name)
    form, where = found.form_in(context.regime), f"references.{name}"
    if form is None:
        why = "is a published figure alone" if found.form is None else "has no form for it"
        raise ValueError(f"reference {name!r} can't be trained in regime {context.regime!r}: it {why}")
    modern = context.study.recipe(RECIPE, context.regime, context.fidelity, context.data)
    if found.form:  # also where the regime has a form of its own: what is wrong there is wrong
        changed(modern, found.form.recipe, f"{where}.form.recipe")
    recipe = changed(modern, form.recipe, where)
    experiment = Experiment(_network(context.study, form, where), recipe)
    return Rung(name.replace("/", "-"), found.title, REFERENCE, True, experiment, None)


def _find(study: Study, name: str) -> Reference:
    if name in study.references and name in MODELS:
        raise ValueError(f"{name!r} is a reference of the study already; the plugin's model needs another name")
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
