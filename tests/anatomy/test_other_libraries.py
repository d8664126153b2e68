"""Layers of libraries that are not installed here, written anew as they are there."""

import pytest
import torch
from torch import nn

import paramz


class Linear(nn.Module):
    """PyTorch Geometric's: no nn.Linear, and other names for its sizes."""

    def __init__(self, in_channels, out_channels):
        super().__init__()
        self.in_channels, self.out_channels = in_channels, out_channels
        self.weight = nn.Parameter(torch.randn(out_channels, in_channels) / in_channels**0.5)
        self.bias = nn.Parameter(torch.zeros(out_channels))

    def forward(self, x):
        return x @ self.weight.T + self.bias


class GATConv(nn.Module):
    """Graph attention: the weight of an edge is a sum over the channels of its two ends."""

    def __init__(self, in_channels, heads, channels):
        super().__init__()
        self.heads, self.channels = heads, channels
        self.lin = Linear(in_channels, heads * channels)
        self.att_src = nn.Parameter(torch.randn(1, heads, channels) * channels**-0.5)
        self.att_dst = nn.Parameter(torch.randn(1, heads, channels) * channels**-0.5)
        self.bias = nn.Parameter(torch.zeros(heads * channels))

    def forward(self, x):
        z = self.lin(x).view(-1, self.heads, self.channels)
        logits = (z * self.att_src).sum(-1)[:, None] + (z * self.att_dst).sum(-1)[None]
        return torch.einsum("ijh,jhc->ihc", logits.softmax(1), z).flatten(1) + self.bias


def gat(heads, channels):
    width = heads * channels
    return nn.Sequential(
        Linear(5, width), GATConv(width, heads, channels), nn.ELU(),
        GATConv(width, heads, channels), Linear(width, 3),
    )  # fmt: skip


def test_pygs_linear_is_read_as_out_and_in():
    plan = paramz.make_plan(gat(2, 32), "mup", base=lambda w: gat(2, w // 2), base_width=16)
    roles = {row.name: row.role for row in plan.rows}
    assert roles["0.weight"] == "input"
    assert roles["1.lin.weight"] == "hidden"
    assert roles["4.weight"] == "output"


@pytest.mark.parametrize("heads", [1, 2])
def test_attention_vectors_of_growing_heads_are_summed_over(heads):
    def base(width):
        return gat(heads, width // heads)

    plan = paramz.make_plan(gat(heads, 64 // heads), "mup", base=base, base_width=16)
    row = next(row for row in plan.rows if row.name == "1.att_src")
    assert row.role not in ("vector", "scalar", "input")
    assert row.ratios == {"fan_in": 4.0}


def test_attention_vectors_of_more_heads_are_one_for_each():
    plan = paramz.make_plan(gat(8, 8), "mup", base=lambda w: gat(w // 8, 8), base_width=16)
    row = next(row for row in plan.rows if row.name == "1.att_src")
    assert (row.role, row.ratios) == ("input", {"fan_out": 4.0})


class Expert(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)


class Layer(nn.Module):
    """A Switch layer as transformers had it: experts in a dict, expert_0 and on."""

    def __init__(self, width, experts):
        super().__init__()
        self.router, self.top_k = nn.Linear(width, experts, bias=False), 1
        self.experts = nn.ModuleDict({f"expert_{i}": Expert(width) for i in range(experts)})


def switch(width=16, experts=2):
    return nn.ModuleDict({"first": nn.Linear(4, width), "moe": Layer(width, experts)})


def test_experts_in_a_dict_are_experts():
    plan = paramz.make_plan(switch(64, 8), "mup+moe", base=switch, base_width=16)
    rows = {row.name: row for row in plan.rows}
    for i in (0, 7):
        row = rows[f"moe.experts.expert_{i}.up.weight"]
        assert row.role == "expert"
        assert row.ratios["experts"] == 4.0
    assert rows["moe.router.weight"].role == "router"
