"""The designs that are drawn from a space, counted, for `roadmap sample`."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from roadmap.design import Design
from roadmap.options import Selection
from roadmap.study.spaces import SpaceOfRungs, is_sampled


def drawn_designs(selection: Selection) -> Iterator[dict[str, Any]]:
    """A record of each design of the selected space, as plain data.

    Raises ValueError for a selection that is of no space, and for a space without so many designs.
    """
    if not selection.is_space:
        raise ValueError("--space NAME is needed: a design space of ablations.yaml")
    space = space_of(selection)
    for rung in selection.rungs():
        if not is_sampled(rung.name):  # the one that varies, or a reference
            continue
        design, cost = rung.experiment.design, selection.cost(rung)
        assert isinstance(design, Design)  # no model of another library
        values = space.values_of(rung.name)
        yield {
            "name": rung.name,
            "parameters": cost.parameters,
            "macs": cost.macs,
            "identity": selection.run(rung).written_identity,
            "values": {name: list(value) if isinstance(value, tuple) else value for name, value in values.items()},
            "depths": list(design.depths),
            "widths": list(design.widths),
        }


def space_of(selection: Selection) -> SpaceOfRungs:
    """The space of a selection that is of one."""
    return SpaceOfRungs(selection.context, selection.ablation.split(":")[1])
