"""Initial values: the std that the rule says, whatever law the model's own init follows."""

from dataclasses import replace

import pytest
import torch
from cases import convnet, gpt2, llama
from torch import nn

import paramz
from paramz.apply.measured import measure_init

BASE, TARGET = 32, 128
RATIO = TARGET // BASE

INITS = {
    "torch": lambda weight: None,
    "normal": lambda weight: nn.init.normal_(weight, std=0.02),
    "trunc_normal": lambda weight: nn.init.trunc_normal_(weight, std=0.02, a=-0.04, b=0.04),
    "uniform": lambda weight: nn.init.uniform_(weight, -0.1, 0.1),
    "xavier_uniform": nn.init.xavier_uniform_,
    "xavier_normal": nn.init.xavier_normal_,
    "kaiming_uniform": nn.init.kaiming_uniform_,
    "kaiming_normal_fan_out": lambda weight: nn.init.kaiming_normal_(weight, mode="fan_out"),
    "orthogonal": nn.init.orthogonal_,
    "own": lambda weight: nn.init.normal_(weight, std=weight.shape[-1] ** -0.8),
}


def builder(init):
    def build(width=BASE):
        model = nn.Sequential(
            nn.Linear(16, width), nn.Linear(width, 2 * width), nn.Linear(2 * width, width),
            nn.Linear(width, 10), nn.Linear(width, 2),
        )  # fmt: skip
        for layer in model:
            init(layer.weight)
        return model

    return build


EXPONENTS = {  # of the std in the width ratio
    "sp": {"input": 0, "hidden": -0.5, "output": -0.5},
    "mup": {"input": 0, "hidden": -0.5, "output": -1},
}


@pytest.mark.parametrize("init", INITS)
@pytest.mark.parametrize("scheme", EXPONENTS)
def test_std_is_what_the_rule_says(init, scheme):
    build = builder(INITS[init])
    torch.manual_seed(0)
    base, model = build(BASE), build(TARGET)
    plan = paramz.parametrize_(model, scheme, base=base, wider=build(2 * BASE))
    stds = dict(base.named_parameters())
    for row, parameter in zip(plan.rows, model.parameters(), strict=True):
        if row.role not in EXPONENTS[scheme]:
            continue
        expected = stds[row.name].std() * RATIO ** EXPONENTS[scheme][row.role]
        noise = (0.5 / stds[row.name].numel() + 0.5 / parameter.numel()) ** 0.5
        assert abs(parameter.std().log() - expected.log()) < 5 * noise


# What mup writes down for torch's own init: only the readout's weight is rescaled.
@pytest.mark.parametrize("seed", range(5))
def test_torchs_own_law_is_recognised_exactly_in_small_tensors(seed):
    def build(width=4):
        return nn.Sequential(nn.Linear(2, width), nn.Linear(width, width), nn.Linear(width, 2))

    torch.manual_seed(seed)
    model = build(8)
    plan = paramz.parametrize_(model, "mup", base=build)
    factors = {row.name: row.factor for row in plan.rows}
    assert factors == pytest.approx(
        {
            "0.weight": 1, "0.bias": 1,
            "1.weight": 1, "1.bias": 2**0.5,  # torch: 1/sqrt(fan_in); muP: constant
            "2.weight": 2**-0.5, "2.bias": 2**0.5,
        }
    )  # fmt: skip


def test_huggingface_does_not_shrink_by_itself():
    torch.manual_seed(0)
    model = llama(64)
    plan = paramz.parametrize_(model, "mup", base=llama)
    for row in plan.rows:
        expected = {"hidden": 2**-0.5, "output": 0.5}.get(row.role, 1.0)
        assert row.factor == expected
    plan = paramz.parametrize_(gpt2(64), "sp", base=gpt2)
    assert {row.factor for row in plan.rows if row.role == "hidden"} == {2**-0.5}


def test_convolutions_count_their_window():
    torch.manual_seed(0)
    model = convnet(32)
    plan = paramz.parametrize_(model, "mup", base=convnet)
    factors = {row.name: row.factor for row in plan.rows if row.name.endswith("weight")}
    assert factors == {"0.weight": 1.0, "2.weight": 1.0, "6.weight": 0.5}


def test_constants_stay_constants():
    def build(width=8):
        model = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 2))
        nn.init.zeros_(model[2].weight)
        nn.init.constant_(model[0].bias, 0.5)
        return model

    model = build(64)
    paramz.parametrize_(model, "mup", base=build)
    assert (model[2].weight == 0).all()
    assert (model[0].bias == 0.5).all()
    assert (model[1].weight == 1).all()


def test_meta_then_to_empty_then_init():
    build = builder(INITS["torch"])
    torch.manual_seed(0)
    with torch.device("meta"):
        model = build(TARGET)
    plan = paramz.parametrize_(model, "mup", base=build)
    with pytest.raises(ValueError, match=r"0.weight is on the meta device: call model.to_empty"):
        paramz.init_(model)
    model.to_empty(device="cpu")
    paramz.init_(model)
    ordinary = build(TARGET)
    groups = paramz.parametrize_(ordinary, "mup", base=build).param_groups(ordinary, "sgd", lr=1.0)
    for mine, other in zip(plan.param_groups(model, "sgd", lr=1.0), groups, strict=True):
        assert (mine["lr"], mine["roles"]) == (other["lr"], other["roles"])
    for row, drawn, scaled in zip(
        plan.rows, model.parameters(), ordinary.parameters(), strict=True
    ):
        assert row.base_init is not None
        few = row.base_init.size
        assert abs(drawn.std() / scaled.std() - 1) < 5 * (1 / few + 1 / drawn.numel()) ** 0.5
        if few >= 128:
            assert measure_init(drawn).kind == measure_init(scaled).kind == "uniform"


def test_values_on_meta_that_are_no_draws_around_zero_are_told():
    def build(width=8):
        model = nn.Sequential(nn.Linear(4, width), nn.LayerNorm(width), nn.Linear(width, 2))
        nn.init.normal_(model[1].weight, 1.0, 0.1)
        return model

    with torch.device("meta"):
        model = build(64)
    plan = paramz.parametrize_(model, "mup", base=lambda width: build(width), base_width=32)
    assert [row.name for row in plan.rows if row.base_init.mean] == ["1.weight"]
    model.to_empty(device="cpu")
    with pytest.warns(UserWarning, match=r"1.weight: init_ draws around zero, and in the base"):
        paramz.init_(model)


def test_constants_on_meta():
    def build(width=8):
        return nn.Sequential(nn.LayerNorm(width), nn.Linear(width, 2))

    with torch.device("meta"):
        model = build(16)
    plan = paramz.parametrize_(model, "mup", base=build)
    model.to_empty(device="cpu")
    paramz.init_(model, plan)
    assert (model[0].weight == 1).all()
    assert (model[0].bias == 0).all()


def test_init_needs_a_measured_plan():
    build = builder(INITS["torch"])
    model = build(TARGET)
    with pytest.raises(ValueError, match="this Sequential is under no plan: call paramz.param"):
        paramz.init_(model)
    plan = paramz.make_plan(model, "mup", base=build)
    with pytest.raises(ValueError, match="the plan holds no init for 0.weight: make it with param"):
        paramz.init_(model, plan)
    with torch.device("meta"):
        base = build(BASE)
    with pytest.raises(
        ValueError, match="the base model is on the meta device, so its init cannot"
    ):
        paramz.parametrize_(model, "mup", base=base, wider=build(2 * BASE))


def test_init_false_leaves_values_alone():
    build = builder(INITS["normal"])
    model = build(TARGET)
    before = [p.clone() for p in model.parameters()]
    paramz.parametrize_(model, "mup", base=build, init=False)
    assert all(torch.equal(b, p) for b, p in zip(before, model.parameters(), strict=True))


def test_a_quick_measurement_is_good_to_five_digits_whatever_the_scale():
    torch.manual_seed(0)
    kinds = [torch.randn(700, 900), torch.rand(3, 70_000) - 0.5, torch.randn(400, 500).T]
    kinds += [torch.randn(300, 300) * 1e25, torch.randn(300, 300) * 1e-30]  # beyond float32 squared
    for values in [*kinds, torch.randn(9, 9, dtype=torch.complex64), torch.randn(300_000).half()]:
        exact, quick = measure_init(values), measure_init(values, exact=False)
        assert quick.std == pytest.approx(exact.std, rel=1e-5)  # half: 1.1e-6
        assert replace(quick, std=exact.std) == exact


def test_an_init_of_no_usual_law_is_scaled_by_what_was_measured_exactly():
    def build(width):
        made = nn.Sequential(nn.Linear(4, width), nn.Linear(width, width), nn.Linear(width, 2))
        for parameter in made.parameters():
            nn.init.normal_(parameter, std=width**-0.37)
        return made

    model = build(512)
    own = measure_init(model[1].weight)
    row = paramz.parametrize_(model, "mup", base=build, base_width=128).rows[2]
    assert row.factor == 4**-0.5 / (own.std / row.base_init.std)
