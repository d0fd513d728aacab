"""Learning rates by the formula, and which parameters weight decay takes."""

from __future__ import annotations

import copy
import math

import pytest
import torch
import torchvision

import roadmap
from runner.train.optimizer import learning_rate, load_optimizer, make_optimizer, parameter_groups
from tests.helpers.designs import recipe_of


def test_modern_warms_up_linearly_and_then_follows_a_cosine():
    recipe, steps = recipe_of("recipe"), 7  # an epoch
    for step in range(300 * steps):
        epoch = step / steps
        if epoch < 20:
            expected = 4e-3 * epoch / 20
        else:
            expected = 1e-6 + (4e-3 - 1e-6) * 0.5 * (1 + math.cos(math.pi * (epoch - 20) / 280))
        assert learning_rate(recipe, step / (300 * steps)) == pytest.approx(expected, rel=1e-9, abs=1e-15)
    assert learning_rate(recipe, 1.0) == pytest.approx(1e-6)


def test_classic_decays_by_ten_every_thirty_epochs():
    recipe, steps = recipe_of("resnet-50"), 3
    for step in range(90 * steps):
        expected = 0.1 * 0.1 ** (step // (30 * steps))
        assert learning_rate(recipe, step / (90 * steps)) == pytest.approx(expected)


def test_weight_decay_leaves_biases_norms_and_layer_scales():
    model = roadmap.build(roadmap.ladder("pico", "layer-scale")[0].experiment.design, 10)
    decayed, not_decayed = (group["params"] for group in parameter_groups(model, recipe_of("recipe")))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    decayed, not_decayed = ({names[id(parameter)] for parameter in group} for group in (decayed, not_decayed))
    assert decayed | not_decayed == set(names.values()) and not decayed & not_decayed
    assert all(name.endswith("weight") and "norm" not in name for name in decayed)
    assert all(name.endswith(("bias", "scale")) or "norm" in name for name in not_decayed)
    assert any(name.endswith("scale") for name in not_decayed)


@pytest.mark.parametrize(
    ("name", "excluded"),
    [
        ("vit_b_16", {"class_token", "encoder.pos_embedding"}),
        ("swin_t", {"features.1.0.attn.relative_position_bias_table"}),
        ("convnext_tiny", {"features.1.0.layer_scale"}),
    ],
)
def test_torchvisions_models_have_no_decay_of_what_timms_exclude(name, excluded):
    with torch.device("meta"):
        model = torchvision.models.get_model(name)
    decayed, not_decayed = (group["params"] for group in parameter_groups(model, recipe_of("recipe")))
    names = {id(parameter): name for name, parameter in model.named_parameters()}
    assert excluded <= {names[id(parameter)] for parameter in not_decayed}
    assert all(names[id(parameter)].endswith("weight") for parameter in decayed)


@pytest.mark.parametrize("names", [["pos_embed"], {"pos_embed"}, ("pos_embed",)])
def test_a_model_may_name_what_is_not_decayed_in_any_collection(names):
    """timm's Hiera has a list."""

    class Embedding(torch.nn.Module):
        def __init__(self):
            super().__init__()
            self.pos_embed, self.weight = (torch.nn.Parameter(torch.zeros(2, 2)) for _ in range(2))

        def no_weight_decay(self):
            return names

    model = Embedding()
    decayed, not_decayed = (group["params"] for group in parameter_groups(model, recipe_of("recipe")))
    assert decayed == [model.weight] and not_decayed == [model.pos_embed]


def test_classic_decays_everything():
    model = roadmap.build(roadmap.compose("pico", []).design, 10)
    (decayed,) = parameter_groups(model, recipe_of("resnet-50"))
    assert len(decayed["params"]) == len(list(model.parameters()))
    optimizer = make_optimizer(model, recipe_of("resnet-50"))
    assert [group["weight_decay"] for group in optimizer.param_groups] == [1e-4]


def test_optimizers_have_the_recipes_numbers():
    model = roadmap.build(roadmap.compose("pico", []).design, 10)
    adamw = make_optimizer(model, recipe_of("recipe"))
    assert type(adamw).__name__ == "AdamW"
    assert [group["weight_decay"] for group in adamw.param_groups] == [0.05, 0.0]
    assert (adamw.defaults["betas"], adamw.defaults["eps"]) == ((0.9, 0.999), 1e-8)
    sgd = make_optimizer(model, recipe_of("resnet-50"))
    assert (type(sgd).__name__, sgd.defaults["momentum"], sgd.defaults["nesterov"]) == ("SGD", 0.9, False)


@pytest.mark.parametrize("scaled", [False, True])
@pytest.mark.parametrize("rung", ["pico", "layer-scale"])
def test_a_run_that_began_with_another_form_of_the_optimizer_resumes_with_it(rung, scaled):
    recipe, models = recipe_of(rung, "pico"), [torch.nn.Linear(3, 2) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    began, goes_on = (make_optimizer(model, recipe) for model in models)
    for group in began.param_groups:
        group["fused"], group["foreach"] = None, True

    def step(model, optimizer):
        optimizer.zero_grad()
        scaler = torch.amp.GradScaler("cpu", enabled=scaled)  # as fp16 has it
        scaler.scale(model(torch.arange(6.0).view(2, 3)).square().sum()).backward()
        scaler.step(optimizer)

    load_optimizer(began, began.state_dict())
    step(models[0], began)
    models[1].load_state_dict(models[0].state_dict())
    load_optimizer(goes_on, copy.deepcopy(began.state_dict()))
    assert all(group["foreach"] and not group["fused"] for group in goes_on.param_groups)
    for model, optimizer in zip(models, (began, goes_on), strict=True):
        step(model, optimizer)
    assert torch.equal(models[0].weight, models[1].weight)


@pytest.mark.parametrize("rung", ["pico", "layer-scale"])
def test_the_fused_form_takes_the_steps_of_the_plain_one(rung):
    """In double precision, since in single the last bits that differ grow in training."""
    recipe = recipe_of(rung, "pico")
    models = [torch.nn.Conv2d(3, 8, 3, dtype=torch.float64).to(memory_format=torch.channels_last) for _ in range(2)]
    models[1].load_state_dict(models[0].state_dict())
    optimizers = [make_optimizer(model, recipe) for model in models]
    for group in optimizers[1].param_groups:
        group["fused"], group["foreach"] = None, False
    for step in range(20):
        images = torch.sin(torch.arange(3 * 64.0, dtype=torch.float64) + step).view(1, 3, 8, 8)
        for model, optimizer in zip(models, optimizers, strict=True):
            optimizer.zero_grad()
            model(images).square().sum().backward()
            optimizer.step()
    assert torch.allclose(models[0].weight, models[1].weight, rtol=1e-9, atol=1e-12)
