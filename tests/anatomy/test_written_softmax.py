"""A softmax that code writes out, as over the edges of a graph, is one of attention."""

import warnings

import pytest
import torch
from torch import nn

import paramz

BASE = 16


class OverEdges(nn.Module):
    """Attention of nodes to their neighbours: exponentials and sums, no torch.softmax."""

    def __init__(self, width, heads):
        super().__init__()
        self.heads, self.size = heads, width // heads
        self.query, self.key, self.value, self.root = (nn.Linear(width, width) for _ in range(4))

    def forward(self, x, source, target):
        q, k, v = (f(x).view(-1, self.heads, self.size) for f in (self.query, self.key, self.value))
        logits = (q[target] * k[source]).sum(-1) / self.size**0.5
        shares = (logits - logits.amax(0)).exp()
        total = torch.zeros(len(x), self.heads).index_add(0, target, shares)
        shares = shares / total[target]
        out = torch.zeros(v.shape).index_add(0, target, v[source] * shares[..., None])
        return out.flatten(1) + self.root(x)


class Graph(nn.Module):
    def __init__(self, width=BASE, heads=2):
        super().__init__()
        self.nodes, self.out = nn.Linear(3, width), nn.Linear(width, 5)
        self.attention = OverEdges(width, heads)

    def forward(self, x):
        source, target = torch.arange(8), torch.arange(8).roll(1)
        return self.out(self.attention(self.nodes(x), source, target).relu())


@pytest.mark.parametrize("grows", [True, False])
def test_its_factor_is_none_of_a_layers_and_heads_that_grow_are_told_of(grows):
    build = lambda width: Graph(width, 2 if grows else width // 8)  # noqa: E731
    model = build(4 * BASE)
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        plan = paramz.parametrize_(
            model, "mup", base=build, base_width=BASE, example=torch.randn(8, 3)
        )
    said = " ".join(str(each.message) for each in caught)
    assert dict(plan.multipliers) == {} and "forward code multiplies" not in said
    assert ("attention: the size of a head grows with width" in said) == grows
