"""ConvNeXts of the sizes that the paper compares with other systems."""

from __future__ import annotations

from dataclasses import replace

from roadmap.design import Design, map_blocks
from roadmap.ladders import ladder
from roadmap.plain import choices
from roadmap.study import Study, load_study


def convnext(name: str, study: Study | None = None) -> Design:
    """The design of `convnext-t` to `convnext-xl`, or of an isotropic `convnext-iso-s`, `-b` or `-l`.

    Raises ValueError for a name that the study's family does not have.
    """
    study = study or load_study()
    if name not in study.family:
        raise ValueError(f"unknown ConvNeXt {name!r}; {choices(study.family, name)}")
    sibling = study.family[name]
    design = ladder("resnet-50", study=study)[-1].experiment.design
    design = replace(design, width=sibling.width, depths=sibling.depths)
    if sibling.isotropic:
        design = replace(design, stem=replace(design.stem, kernel=16, stride=16, last_norm=None))
    return map_blocks(design, lambda block: replace(block, layer_scale=sibling.layer_scale))
