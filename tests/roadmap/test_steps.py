"""Each step does what its words say, on the paper's path and off it."""

from __future__ import annotations

from dataclasses import FrozenInstanceError

import pytest
from hypothesis import given
from hypothesis import strategies as st

import roadmap
from roadmap.design import RESNET_BLOCK, SAME, resnet
from roadmap.serialization.plain_data import differences
from roadmap.steps import STEPS, step
from tests.helpers.designs import compositions

RESNET_50 = resnet(64, (3, 4, 6, 3))


def changes(*steps: str, regime: str = "resnet-50") -> dict[str, tuple[object, object]]:
    """What the last of the steps changes, as {path: (before, after)}."""
    before, after = roadmap.compose(regime, steps[:-1]), roadmap.compose(regime, steps)
    return {found.path: (found.before, found.after) for found in differences(before, after)}


def convs(*steps: str):
    return roadmap.compose("resnet-50", steps).design.block.convs


def test_recipe_replaces_the_recipe_and_leaves_the_design():
    assert {path.split(".")[0] for path in changes("recipe")} == {"recipe"}
    assert roadmap.compose("resnet-50", ["recipe"]).recipe.optimizer == "adamw"


def test_stage_ratio_changes_the_depths_alone():
    found = changes("stage-ratio")
    assert found == {"design.depths": ([3, 4, 6, 3], [3, 3, 9, 3])}


def test_stage_ratio_of_resnet_200_widens_to_hold_the_flops_but_never_narrows():
    assert changes("stage-ratio", regime="resnet-200")["design.width"] == (64, 84)
    assert roadmap.compose("resnet-200", ["width", "stage-ratio"]).design.width == 128


def test_patchify_stem_is_a_4x4_convolution_of_stride_4_and_nothing_else():
    stem = roadmap.compose("resnet-50", ["patchify-stem"]).design.stem
    assert (stem.kernel, stem.stride, stem.bias, stem.norm, stem.act, stem.pool) == (4, 4, True, None, None, False)
    assert all(path.startswith("design.stem.") for path in changes("patchify-stem"))


def test_depthwise_takes_the_spatial_convolution_alone():
    assert changes("depthwise") == {
        "design.block.convs[1].depthwise": (False, True),
        "design.block.convs[1].width": (1.0, SAME),
    }


def test_width_changes_the_width_alone():
    assert changes("width") == {"design.width": (64, 96)}


@pytest.mark.parametrize("before", [[], ["depthwise"], ["move-up-depthwise"], ["depthwise", "move-up-depthwise"]])
def test_inverted_bottleneck_hides_four_times_what_it_carries(before):
    block = convs(*before, "inverted-bottleneck")
    assert block[-1].width == 1.0
    assert {conv.width for conv in block[:-1]} <= {4.0, SAME}
    assert 4.0 in {conv.width for conv in block[:-1]}


@pytest.mark.parametrize("before", [[], ["depthwise"], ["inverted-bottleneck"], ["fewer-activations", "fewer-norms"]])
def test_move_up_puts_the_spatial_convolution_first_as_it_is(before):
    old, new = convs(*before), convs(*before, "move-up-depthwise")
    assert new == (old[1], old[0], old[2])


@pytest.mark.parametrize("kernel", [5, 7, 9, 11])
def test_kernel_size_is_of_the_spatial_convolution(kernel):
    assert changes(f"kernel-size={kernel}") == {"design.block.convs[1].kernel": (3, kernel)}


@pytest.mark.parametrize("kernel", ["4", "1", "-3", "big", "7.5"])
def test_a_kernel_that_does_not_keep_the_image_is_refused(kernel):
    with pytest.raises(ValueError, match="kernel"):
        roadmap.compose("resnet-50", [f"kernel-size={kernel}"])


def test_gelu_alone_changes_the_relus_and_nothing_else():
    found = changes("gelu")
    assert set(found.values()) == {("relu", "gelu")}
    assert set(found) == {
        "design.stem.act",
        "design.block.act",
        "design.block.convs[0].act",
        "design.block.convs[1].act",
    }


@pytest.mark.parametrize("before", [[], ["gelu"], ["inverted-bottleneck", "depthwise", "move-up-depthwise"]])
def test_fewer_activations_keeps_the_one_before_the_last_convolution(before):
    experiment = roadmap.compose("resnet-50", [*before, "fewer-activations"])
    kept = [conv.act is not None for conv in experiment.design.block.convs]
    assert kept == [False, True, False]
    assert experiment.design.block.act is None


@pytest.mark.parametrize("before", [[], ["depthwise"], ["move-up-depthwise"], ["layer-norm"]])
def test_fewer_norms_keeps_the_one_behind_the_spatial_convolution_and_on_shortcuts(before):
    design = roadmap.compose("resnet-50", [*before, "fewer-norms"]).design
    assert [conv.norm is not None for conv in design.block.convs] == [conv.is_spatial for conv in design.block.convs]
    assert design.downsampling.norm is not None


def test_layer_norm_swaps_every_bn_and_gives_the_block_its_biases():
    found = changes("layer-norm")
    assert set(found.values()) == {("bn", "ln"), (False, True)}
    assert {path for path, change in found.items() if change == (False, True)} == {
        f"design.block.convs[{i}].bias" for i in range(3)
    }
    assert "design.downsampling.norm" in found and "design.stem.norm" in found


def test_separate_downsampling_leaves_no_stride_and_no_projection_in_the_blocks():
    from roadmap.network.plan import plan

    for before in ([], ["depthwise"], ["inverted-bottleneck"], ["patchify-stem", "layer-norm"]):
        network = plan(roadmap.compose("resnet-50", [*before, "separate-downsampling"]).design)
        blocks = [block for stage in network.stages for block in stage.blocks]
        assert all(block.shortcut is None for block in blocks)
        assert all(layer.stride == 1 for block in blocks for layer in block.layers)
        assert [stage.downsampling is not None for stage in network.stages] == [False, True, True, True]
        assert network.stem_norm == network.head_norm == "ln"


def test_separate_downsampling_of_the_authors_has_no_norms_of_its_own():
    experiment = roadmap.compose("resnet-50", ["separate-downsampling"], fidelity="authors")
    assert experiment.design.downsampling.norm is None
    assert experiment.design.stem.last_norm is experiment.design.head_norm is None


def test_layer_scale_scales_the_branch():
    assert changes("layer-scale") == {"design.block.layer_scale": (None, 1e-6)}


def test_a_step_that_changes_nothing_says_so():
    with pytest.raises(roadmap.NoEffect, match="'gelu' changes nothing"):
        roadmap.compose("pico", ["gelu", "gelu"])
    with pytest.raises(roadmap.NoEffect, match="kernel-size"):
        roadmap.compose("pico", ["kernel-size=3"])


def test_a_step_returns_a_new_value():
    start = roadmap.compose("pico", [])
    STEPS["gelu"](start)
    assert start == roadmap.compose("pico", [])
    with pytest.raises(FrozenInstanceError):
        start.design.width = 3


@pytest.mark.parametrize(
    ("steps", "message"),
    [
        (["gelo"], "unknown step 'gelo'; did you mean 'gelu'"),
        (["gelu=3"], "no parameter"),
        (["kernel-size=seven"], "'seven' is not a whole number"),
        (["stage-ratio=3"], "not a list"),
        (["width=0"], r"width must be at least 1 \(got 0\)"),
    ],
)
def test_wrong_steps_are_refused_with_what_is_right(steps, message):
    with pytest.raises(ValueError, match=message):
        roadmap.compose("pico", steps)


def test_values_are_written_as_in_yaml():
    assert roadmap.compose("pico", ["layer-scale=1e-4"]).design.block.layer_scale == 1e-4
    assert roadmap.compose("pico", ["recipe", "recipe=classic"]) == roadmap.compose("pico", [])


def test_a_list_is_written_with_colons():
    assert roadmap.compose("resnet-50", ["stage-ratio=2:2:6:2"]).design.depths == (2, 2, 6, 2)


def test_users_register_steps_of_their_own():
    try:

        @step("thin", group="Mine")
        def thin(design: roadmap.Design, *, factor: int = 2) -> roadmap.Design:
            from dataclasses import replace

            return replace(design, width=design.width // factor)

        assert roadmap.compose("pico", ["thin"]).design.width == 3
        assert roadmap.compose("pico", ["thin=3"]).design.width == 2
        with pytest.raises(ValueError, match=r"must return Design \(got NoneType\)"):
            roadmap.Step("nothing", lambda design: None)(roadmap.compose("pico", []))
        with pytest.raises(ValueError, match="first argument"):
            step("none")(lambda: None)
        with pytest.raises(ValueError, match="exists already"):
            step("thin")(lambda design: design)
        with pytest.raises(ValueError, match="first argument"):
            step("other")(lambda network: network)
    finally:
        STEPS.pop("thin", None)


def test_blocks_of_one_stage_may_differ():
    from dataclasses import replace

    mixed = replace(RESNET_50, block=(RESNET_BLOCK,) * 4)
    gelu = STEPS["gelu"].function(mixed)
    assert isinstance(gelu.block, tuple) and all(block.act == "gelu" for block in gelu.block)
    assert roadmap.cost(mixed) == roadmap.cost(RESNET_50)
    with pytest.raises(ValueError, match=r"one for each of 4 stages \(got 3\)"):
        replace(RESNET_50, block=(RESNET_BLOCK,) * 3)


@given(compositions(), st.sampled_from(["pico", "resnet-50", "resnet-200"]))
def test_any_subset_in_any_order_composes_and_counts(steps, regime):
    design = roadmap.compose(regime, steps).design
    counted = roadmap.cost(design, input_size=64)
    assert counted.parameters > 0 and counted.macs > 0


@given(compositions())
def test_every_step_leaves_its_mark_wherever_it_stands(steps):
    design = roadmap.compose("pico", steps).design
    block = design.block
    if "depthwise" in steps:
        assert all(conv.depthwise for conv in block.convs if conv.is_spatial)
    if "move-up-depthwise" in steps:
        assert block.convs[0].is_spatial
    if "gelu" in steps:
        assert "relu" not in {block.act, design.stem.act, *(conv.act for conv in block.convs)}
    if "fewer-activations" in steps:
        assert sum(conv.act is not None for conv in block.convs) == 1 and block.act is None
    if "fewer-norms" in steps:
        assert [conv.is_spatial for conv in block.convs if conv.norm] == [True]
    if "layer-norm" in steps:
        assert "bn" not in {design.stem.norm, design.downsampling.norm, *(conv.norm for conv in block.convs)}
        assert all(conv.bias for conv in block.convs)
    if "separate-downsampling" in steps:
        assert design.downsampling.place == "between"
    if "patchify-stem" in steps:
        assert design.stem.kernel == 2


@pytest.mark.parametrize("name", ["all", "all-steps", "without-gelu", "only-gelu", "order3-02-gelu", "a b", "a..b"])
def test_a_step_whose_name_has_another_meaning_is_refused(name):
    with pytest.raises(ValueError, match="a step's name must be words"):
        roadmap.step(name)
