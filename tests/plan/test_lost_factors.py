"""A model without its plan's factors has the plan's names, and another function: it is refused."""

import copy
import warnings

import pytest
import torch
from torch import nn

import paramz


class Tied(nn.Module):
    """A tied readout, whose input is multiplied, and attention whose keys are."""

    def __init__(self, width=16):
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, width), nn.LayerNorm(width)
        self.attention = nn.MultiheadAttention(width, 2, batch_first=True)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, tokens):
        x = self.embed(tokens)
        x = x + self.attention(x, x, x, need_weights=False)[0]
        return self.head(self.norm(x))


class Scaled(nn.Module):
    """Attention that keeps the factor on its logits in an attribute."""

    LOGIT_SCALE = "temperature"

    def __init__(self, width, heads=2):
        super().__init__()
        self.heads, self.temperature = heads, (width // heads) ** -0.5
        self.q_proj, self.k_proj, self.v_proj = (nn.Linear(width, width) for _ in range(3))

    def forward(self, x):
        q, k, v = (
            f(x).unflatten(-1, (self.heads, -1)).transpose(1, 2)
            for f in (self.q_proj, self.k_proj, self.v_proj)
        )
        found = nn.functional.scaled_dot_product_attention(q, k, v, scale=self.temperature)
        return found.transpose(1, 2).flatten(2)


def scaled(width=16):
    return nn.Sequential(nn.Linear(5, width), Scaled(width), nn.Linear(width, 3))


def planned(build=Tied):
    model = build(64)
    return model, paramz.parametrize_(model, "mup", base=build, base_width=16)


def optimizer_of(plan, model):
    return torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.01))


def new_head(model):
    model.head = nn.Linear(64, 11, bias=False)
    model.head.weight = model.embed.weight


def new_attention(model):
    model.attention = nn.MultiheadAttention(64, 2, batch_first=True)


@pytest.mark.parametrize(
    ("replace_", "said"),
    [
        (new_head, "head has no hook that multiplies its input by 0.25"),
        (new_attention, "attention has no hook that multiplies its keys by 0.5"),
    ],
)
def test_a_module_that_replaced_one_with_a_factor_is_named(replace_, said):
    model, plan = planned()
    before = optimizer_of(plan, model)
    plan.check(before, model=model)
    replace_(model)
    with pytest.raises(ValueError, match=said):
        plan.check(before, model=model)
    with pytest.raises(ValueError, match=said):
        plan.param_groups(model, "adamw", lr=0.01)
    with pytest.raises(ValueError, match=said):
        plan.split_groups(model, muon={"lr": 0.01}, adamw={"lr": 0.01})
    paramz.restore_(model, plan)  # the way out that it names
    plan.check(optimizer_of(plan, model), model=model)
    tokens = torch.arange(11)[None]
    again = Tied(64)
    again.load_state_dict(model.state_dict())
    paramz.restore_(again, plan)
    torch.testing.assert_close(model(tokens), again(tokens))  # each factor once


@pytest.mark.parametrize(
    ("build", "said"),
    [
        (Tied, "head has no hook"),
        (scaled, r"1\.temperature is 0\.1768, and was planned as 0\.08839"),
    ],
)
def test_a_plain_model_with_the_groups_of_a_plan_is_refused(build, said):
    _, plan = planned(build)
    plain = build(64)
    with pytest.warns(UserWarning, match=said):  # of a plan alone groups may be wanted
        optimizer = optimizer_of(plan, plain)
    with pytest.raises(ValueError, match=said):
        plan.check(optimizer, model=plain)
    paramz.restore_(plain, plan)
    plan.check(optimizer, model=plain)


@pytest.mark.parametrize("build", [Tied, scaled])
def test_wrapped_copied_and_rounded_models_have_their_factors(build):
    model, plan = planned(build)
    around = nn.Module()
    around.module = copy.deepcopy(model)
    models = [model, around, torch.optim.swa_utils.AveragedModel(model), model.bfloat16()]
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        for each in models:
            plan.check(optimizer_of(plan, each), model=each)


def test_the_old_spectral_norm_is_not_taken_for_a_mask():
    model, plan = planned()
    torch.nn.utils.spectral_norm(model.attention.out_proj)
    with pytest.raises(ValueError, match="not in the plan: attention.out_proj.weight_orig"):
        plan.param_groups(model, "adamw", lr=0.01)
