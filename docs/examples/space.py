"""A design space with a parameter of its own: the hidden width of all blocks, in steps of a half, and their number."""

from dataclasses import replace

import roadmap


@roadmap.parameter("hidden")
def hidden(design, value):
    """The width of a block's inner convolutions over that of its stage."""

    def widen(block):
        *inner, last = block.convs
        changed = (conv if conv.width == "same" else replace(conv, width=value) for conv in inner)
        return replace(block, convs=(*changed, last))

    return replace(design, block=tuple(widen(block) for block in design.blocks))


@roadmap.design_space("hidden-width")
def hidden_width():
    """ConvNeXts of equal cost."""
    return roadmap.Space(
        rung="layer-scale",
        match="layer-scale",
        vary={
            "hidden": roadmap.Values(range=(1, 6), multiple=0.5),
            "depths": roadmap.Values(range=(1, 4)),
        },
    )
