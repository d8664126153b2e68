"""A bare vector is a readout where a run sums over it, and a gain where it does not."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz

IDS = torch.arange(8).reshape(2, 4)


class Scored(nn.Module):
    """Additive attention with a bare vector, used in one of several ways."""

    def __init__(self, width=8, how="@"):
        super().__init__()
        self.how = how
        self.tokens, self.mix = nn.Embedding(11, width), nn.Linear(width, width)
        self.v, self.head = nn.Parameter(torch.randn(width) / 10), nn.Linear(width, 11)

    def score(self, h):
        return {
            "@": lambda: h @ self.v,
            "sum": lambda: (h * self.v).sum(-1),
            "einsum": lambda: torch.einsum("btd,d->bt", h, self.v),
            "rounded": lambda: h @ (self.v * 0.5),
            "repeated": lambda: torch.bmm(h, self.v.repeat(len(h), 1).unsqueeze(-1))[..., 0],
            "mean": lambda: (h * self.v).mean(-1),
            "over tokens": lambda: (h * self.v).sum(1, keepdim=True).mean(-1),
            "both": lambda: (h + self.v) @ self.v,
        }[self.how]()

    def forward(self, ids):
        x = self.tokens(ids)
        return self.head(x * torch.sigmoid(self.score(self.mix(x).tanh()))[..., None])


@pytest.mark.parametrize(
    ("how", "role"),
    [(how, "inward") for how in ("@", "sum", "einsum", "rounded", "repeated")]
    + [(how, "vector") for how in ("mean", "over tokens", "both")],
)
def test_a_vector_that_is_summed_over_reads_out_of_width(how, role):
    build = lambda width=8: Scored(width, how)  # noqa: E731
    plan = paramz.make_plan(build(32), "mup", base=build)
    (row,) = (row for row in plan.rows if row.name == "v")
    side = "fan_in" if role == "inward" else "fan_out"
    assert (row.role, dict(row.ratios)) == (role, {side: 4.0})


def test_a_bias_of_another_name_is_added_and_no_sum_runs_over_it():
    class Own(nn.Module):
        def __init__(self, width=8):
            super().__init__()
            self.w, self.b = nn.Parameter(torch.randn(width, 3)), nn.Parameter(torch.zeros(width))
            self.head = nn.Linear(width, 2)

        def forward(self, x):
            return self.head(nn.functional.linear(x, self.w, self.b).relu())

    x = torch.randn(5, 3)
    plan = paramz.make_plan(Own(32), "mup", base=Own, base_width=8, example=x)
    assert {row.name: row.role for row in plan.rows}["b"] == "vector"


def test_vectors_in_a_list_of_parameters_are_found():
    class Listed(Scored):
        def __init__(self, width=8):
            super().__init__(width)
            self.all = nn.ParameterList([self.v])
            del self.v

        def score(self, h):
            return h @ self.all[0]

    (row,) = (r for r in paramz.make_plan(Listed(32), "mup", base=Listed).rows if "all" in r.name)
    assert (row.role, dict(row.ratios)) == ("inward", {"fan_in": 4.0})


def test_vectors_of_graph_attention_are_found_and_their_scores_move_alike():
    class Graph(nn.Module):
        def __init__(self, width=8, heads=2):
            super().__init__()
            self.tokens, self.head = nn.Embedding(11, width), nn.Linear(width, 11)
            self.source = nn.Parameter(torch.randn(1, 1, heads, width // heads))

        def forward(self, ids):
            x = self.tokens(ids)
            heads = x.unflatten(-1, self.source.shape[-2:])
            weights = (heads * self.source).sum(-1, keepdim=True).softmax(1)
            return self.head(x + (weights * heads).flatten(-2))

    (row,) = (r for r in paramz.make_plan(Graph(32), "mup", base=Graph).rows if "source" in r.name)
    assert (row.role, dict(row.ratios)) == ("inward", {"fan_in": 4.0})


def test_scores_of_a_bare_vector_change_alike_at_every_width():
    def change(width, seed, **roles):
        torch.manual_seed(seed)
        model = Scored(width)
        plan = paramz.parametrize_(model, "mup", base=Scored, base_width=16, **roles)
        optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-8))
        scores = lambda: model.score(model.mix(model.tokens(IDS)).tanh())  # noqa: E731
        before = scores().detach()
        for _ in range(3):
            optimizer.zero_grad()
            F.cross_entropy(model(IDS).flatten(0, 1), IDS.flatten()).backward()
            optimizer.step()
        return (scores() - before).pow(2).mean().sqrt().item()

    def growth(**roles):
        return sum(change(256, s, **roles) for s in range(3)) / sum(
            change(16, s, **roles) for s in range(3)
        )

    assert 0.5 < growth() < 2  # 0.82, three seeds
    assert growth(roles={"^v$": "vector"}) > 8  # 13.1 over 16 times the width
