"""ConvNeXts in the sizes that the paper compares with other systems."""

from __future__ import annotations

from dataclasses import replace

from roadmap.design import Design, map_blocks
from roadmap.steps import convnext_design
from roadmap.study.load import load_study
from roadmap.study.schema import ConvNeXtSize, Study
from roadmap.text import suggest


def convnext(name: str, study: Study | None = None) -> Design:
    """The design of `convnext-t` to `convnext-xl`, or of an isotropic `convnext-iso-s`, `-b` or `-l`.

    Raises ValueError for an unknown name.
    """
    study = study or load_study()
    if name not in study.family:
        raise ValueError(f"unknown ConvNeXt {name!r}; {suggest(study.family, name)}")
    return design_of_size(study.family[name])


def design_of_size(size: ConvNeXtSize) -> Design:
    design = convnext_design(size.width, size.depths)
    patch = size.patch or (16 if size.isotropic else 4)
    stem = replace(design.stem, kernel=patch, stride=patch)
    design = replace(design, stem=replace(stem, last_norm=None) if size.isotropic else stem)
    return map_blocks(design, lambda block: replace(block, layer_scale=size.layer_scale))
