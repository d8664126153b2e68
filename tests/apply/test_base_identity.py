"""At the base a parametrized model is plain torch, bit for bit."""

import pytest
import torch
from cases import CASES, attention_classifier, gpt2, llama, tied_gpt
from torch import nn

import paramz

BUILDS = {
    **{name: (case.build, 8) for name, case in CASES.items()},
    "tied": (tied_gpt, 8),
    "attention": (attention_classifier, 8),
    "llama": (llama, 32),
    "gpt2": (gpt2, 32),
}
SCHEMES = ("sp", "ntp", "mup", "mean-field")


def seeded(build, width):
    torch.manual_seed(0)
    return build(width)


@pytest.mark.parametrize("name", BUILDS)
def test_nothing_changes(name):
    build, width = BUILDS[name]
    plain = seeded(build, width)
    next_draw = torch.rand(3)
    for scheme in SCHEMES:
        model = seeded(build, width)
        plan = paramz.parametrize_(model, scheme, base=build, base_width=width)
        assert torch.equal(torch.rand(3), next_draw)  # torch's random state was not touched
        assert plan.multipliers == {}
        assert all(scale.value == scale.plain for scale in plan.attention)
        assert all(not m._forward_pre_hooks and not m._forward_hooks for m in model.modules())
        for (key, value), (other, expected) in zip(
            model.state_dict().items(), plain.state_dict().items(), strict=True
        ):
            assert key == other
            assert torch.equal(value, expected)


@pytest.mark.parametrize("optimizer", ["sgd", "adam", "adamw", "adafactor"])
def test_groups_are_one_group_of_the_given_values(optimizer):
    for build, width in BUILDS.values():
        model = build(width)
        plan = paramz.parametrize_(model, "mup", base=build, base_width=width)
        eps = {"eps": 1e-9} if optimizer in ("adam", "adamw") else {}
        (group,) = plan.param_groups(model, optimizer, lr=3e-3, weight_decay=0.1, **eps)
        assert (group["lr"], group["weight_decay"]) == (3e-3, 0.1)
        assert group.items() >= eps.items()
        assert {id(p) for p in group["params"]} == {id(p) for p in model.parameters()}


@pytest.mark.parametrize("name", CASES)
def test_outputs_are_equal(name):
    case = CASES[name]
    inputs, _ = case.batch()
    plain, model = seeded(case.build, 8).double(), seeded(case.build, 8).double()
    for scheme in SCHEMES:
        paramz.parametrize_(model, scheme, base=case.build, base_width=8)
        assert torch.equal(model(inputs), plain(inputs))
        paramz.remove_(model)


def test_values_that_defy_measurement_stay_too():
    def build(width=8):
        model = nn.Linear(width, width)
        nn.init.sparse_(model.weight, 0.9)  # a measured std would be far off
        return model

    plain, model = seeded(build, 8), seeded(build, 8)
    paramz.parametrize_(model, "mup", base=build)
    assert torch.equal(plain.weight, model.weight)


def test_the_random_numbers_above_the_base_are_torchs_own():
    for build, width in BUILDS.values():
        plain, model = seeded(build, 2 * width), seeded(build, 2 * width)
        plan = paramz.parametrize_(model, "mup", base=build, base_width=width)
        values = dict(plain.named_parameters())
        for row, parameter in zip(plan.rows, model.parameters(), strict=True):
            assert torch.equal(parameter, values[row.name] * row.factor)
