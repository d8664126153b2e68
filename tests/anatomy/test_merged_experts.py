"""Experts whose units lie below each other in matrices (experts * units, width), as in DBRX."""

import pytest
import torch
from torch import nn
from zoo_fixed import dbrx

import paramz


def plan_of(scheme, experts=4, width=128):
    with torch.device("meta"):
        model = dbrx(width, experts)
    return paramz.make_plan(model, scheme, base=dbrx, base_width=64)


def rows_of(plan):
    return {
        row.name.rpartition("ffn.")[2]: (row.role, row.ratios)
        for row in plan.rows
        if ".0.ffn." in row.name
    }


def test_they_are_experts_and_their_number_has_a_ratio_of_its_own():
    more = {"experts": 2.0, "top_k": 2.0}
    both = {"fan_in": 2.0, "fan_out": 2.0, **more}
    assert rows_of(plan_of("mup+moe", experts=8)) == {
        "router.layer.weight": ("router", {"fan_in": 2.0, **more}),
        **{f"experts.mlp.{name}": ("expert", both) for name in ("w1", "v1", "w2")},
    }
    assert rows_of(plan_of("mup+moe", experts=8, width=64))["experts.mlp.w1"][1] == {
        "fan_in": 1.0, "fan_out": 1.0, **more,
    }  # fmt: skip


def test_another_number_without_a_rule_is_refused():
    text = r"experts\.mlp\.w\{1\.\.2\}: axis 0 counts the units of all experts, 512 in the base"
    with pytest.raises(ValueError, match=text):
        plan_of("mup", experts=8)


class Layer(nn.Module):
    """As many rows as two outputs of a gate could divide, and nothing that says so."""

    def __init__(self, width):
        super().__init__()
        self.gate, self.experts = nn.Linear(width, 2), nn.Linear(width, width)

    def forward(self, x):
        return self.experts(x) * self.gate(x).softmax(-1)[..., :1]


def test_a_gate_alone_makes_no_experts():
    def build(width):
        return nn.Sequential(nn.Linear(4, width), Layer(width), nn.Linear(width, 3))

    plan = paramz.make_plan(build(64), "mup", base=build, base_width=16)
    assert [row.role for row in plan.rows if row.name == "1.experts.weight"] == ["hidden"]
