"""Maps that are used twice: put out and taken further, or multiplied both ways round."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz


class Coder(nn.Module):
    """Linear(20, m), Linear(m, 4), Linear(4, m), Linear(m, 20); the code is put out, too."""

    def __init__(self, width, put_out=True):
        super().__init__()
        self.into, self.code = nn.Linear(20, width), nn.Linear(width, 4)
        self.back, self.out = nn.Linear(4, width), nn.Linear(width, 20)
        self.put_out = put_out

    def forward(self, x):
        code = self.code(self.into(x).relu())
        y = self.out(self.back(code).relu())
        return (y, code) if self.put_out else y


class Cached(nn.Module):
    """Attention with keys and values of a fixed size that are put out for the next call."""

    def __init__(self, width):
        super().__init__()
        self.n = width // 8
        self.embed, self.q_proj = nn.Embedding(9, width), nn.Linear(width, width)
        self.k_proj, self.v_proj = nn.Linear(width, 8), nn.Linear(width, 8)
        self.o_proj, self.head = nn.Linear(width, width), nn.Linear(width, 9)

    def forward(self, ids):
        x = self.embed(ids)
        q = self.q_proj(x).unflatten(-1, (self.n, 8)).transpose(1, 2)
        k, v = self.k_proj(x)[:, None], self.v_proj(x)[:, None]
        out = F.scaled_dot_product_attention(q, k.expand_as(q), v.expand_as(q))
        return self.head(self.o_proj(out.transpose(1, 2).flatten(2))), (k, v)


class Greedy(nn.Module):
    """A recurrent decoder that reads the token which it put out last."""

    def __init__(self, width):
        super().__init__()
        self.embed, self.cell = nn.Embedding(9, width), nn.GRUCell(width, width)
        self.head = nn.Linear(width, 9)

    def forward(self, ids):
        h = self.cell(self.embed(ids))
        first = self.head(h)
        return first, self.head(self.cell(self.embed(first.argmax(-1)), h))


def roles(build, **options):
    plan = paramz.make_plan(build(64), "mup", base=build, base_width=16, **options)
    return {row.name.removesuffix(".weight"): row.role for row in plan.rows}


def test_a_latent_that_is_put_out_as_well_is_a_bottleneck():
    found = roles(Coder)
    assert found == roles(lambda width: Coder(width, put_out=False))
    assert (found["code"], found["back"], found["out"]) == ("inward", "outward", "output")


def test_keys_and_values_that_are_put_out_for_the_next_call_are_no_readouts():
    found = roles(Cached)
    assert (found["k_proj"], found["v_proj"], found["head"]) == ("inward", "inward", "output")


def test_a_readout_whose_argmax_goes_back_in_stays_a_readout():
    assert roles(Greedy, example=torch.tensor([1, 2]))["head"] == "output"


class Sparse(nn.Module):
    """An autoencoder whose decoder is its encoder, transposed."""

    def __init__(self, width, base=None):
        super().__init__()
        self.into, self.base = nn.Linear(20, width), base

    def forward(self, x):
        h = self.into(x).relu()
        h = h * self.base / h.shape[-1] if self.base else h
        return F.linear(h, self.into.weight.T)


def test_a_layer_that_is_multiplied_both_ways_round_is_refused_with_a_way_out():
    with pytest.raises(ValueError, match="also multiplies by the other way round") as refused:
        roles(Sparse)
    assert "roles={'into[.]weight$': 'input'}" in str(refused.value)

    def build(width):  # with the factor that the message asks for
        return Sparse(width, base=16)

    x, changes = torch.randn(64, 20, generator=torch.Generator().manual_seed(0)), []
    for width in (16, 256):
        torch.manual_seed(0)
        model = build(width)
        plan = paramz.parametrize_(
            model, "mup", base=build, base_width=16, roles={"into[.]weight$": "input"}
        )
        optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-6))
        before = model(x).detach()
        for _ in range(3):
            F.mse_loss(model(x), x).backward()
            optimizer.step(), optimizer.zero_grad()
        changes.append((model(x) - before).pow(2).mean().sqrt().item())
    assert 0.6 < changes[1] / changes[0] < 1.6


class Own(nn.Module):
    def __init__(self, n, m):
        super().__init__()
        self.weight = nn.Parameter(torch.randn(m, n) / n**0.5)

    def forward(self, x):
        return F.linear(x, self.weight)


def test_suggested_patterns_of_layers_in_a_row_do_not_name_each_other():
    def build(width):
        return nn.Sequential(Own(5, width), nn.ReLU(), Own(width, width), Own(width, 3))

    with pytest.raises(ValueError, match="does not tell") as refused:
        roles(build)
    text = str(refused.value)
    assert "roles={'^0[.]weight$': 'input'}" in text
    assert "roles={'^2[.]weight$': paramz.Axes(fan_in=(1,), fan_out=(0,))}" in text
    assert "roles={'^3[.]weight$': 'output'}" in text
    given = {"^0[.]weight$": "input", "^2[.]weight$": paramz.Axes(fan_in=(1,), fan_out=(0,)),
             "^3[.]weight$": "output"}  # fmt: skip
    assert roles(build, roles=given) == {"0": "input", "2": "hidden", "3": "output"}


class TakenAlone(nn.Module):
    """A tied readout whose code takes the weight and never calls the layer."""

    def __init__(self, width=8):
        super().__init__()
        self.embed, self.mid = nn.Embedding(11, width), nn.Linear(width, width)
        self.head = nn.Linear(width, 11, bias=False)
        self.head.weight = self.embed.weight

    def forward(self, ids):
        return F.linear(self.mid(self.embed(ids)).relu(), self.head.weight)


def test_a_tied_readout_that_is_never_called_is_refused_with_the_call():
    with pytest.raises(ValueError, match=r"head shares its weight .* Call the layer itself, self"):
        paramz.make_plan(TakenAlone(32), "mup", base=TakenAlone)

    class Called(TakenAlone):
        def forward(self, ids):
            return self.head(self.mid(self.embed(ids)).relu())

    assert paramz.make_plan(Called(32), "mup", base=Called).multipliers == {"head": 0.25}

    class Idle(nn.Module):
        """It holds such a readout in a module that does not run, as an expert without tokens."""

        def __init__(self, width=8):
            super().__init__()
            self.experts = nn.ModuleList([TakenAlone(width)])
            self.first, self.last = nn.Embedding(11, width), nn.Linear(width, 11)

        def forward(self, ids):
            return self.last(self.first(ids))

    plan = paramz.make_plan(Idle(32), "mup", base=Idle)
    assert plan.multipliers == {"experts.0.head": 0.25}


class SideBySide(nn.Module):
    """As in MobileBERT: a readout of two weights, one of them of a layer stored the other way."""

    def __init__(self, width=8):
        super().__init__()
        self.first, self.small = nn.Linear(6, width), nn.Linear(4, 5, bias=False)
        self.rest = nn.Linear(5, width - 4, bias=False)

    def forward(self, x):
        weight = torch.cat([self.small.weight.t(), self.rest.weight], dim=0)
        return self.first(x).relu() @ weight


def test_a_readout_of_weights_side_by_side_is_one():
    plan = paramz.make_plan(SideBySide(32), "mup", base=SideBySide)
    assert {row.name: row.role for row in plan.rows if row.name != "first.bias"} == {
        "first.weight": "input", "small.weight": "scalar", "rest.weight": "output"
    }  # fmt: skip
