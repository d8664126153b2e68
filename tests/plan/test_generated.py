"""Matrices that forward code computes from parameters alone, as a hypernetwork's weights."""

import warnings

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz


class Net(nn.Module):
    """A map of width by width, or a readout, that is made of parameters in some way."""

    def __init__(self, width, kind="linear"):
        super().__init__()
        self.width, self.kind = width, kind
        self.first, self.last = nn.Linear(5, width), nn.Linear(width, 3)
        self.register_buffer("place", torch.ones(4))
        getattr(self, f"_{kind}", lambda: None)()
        if not hasattr(self, "gen"):
            self.z, self.gen = nn.Parameter(torch.ones(8)), nn.Linear(8, width * width)

    def _constant(self):
        self.gen = nn.Linear(4, self.width**2)

    def _deep(self):
        self.z = nn.Parameter(torch.ones(8))
        maps = nn.Linear(8, self.width), nn.Tanh(), nn.Linear(self.width, self.width**2)
        self.gen = nn.Sequential(*maps)

    def _rows(self):  # as Ha, Dai and Le's: one vector for every unit, and a map of all of these
        self.z, self.gen = nn.Parameter(torch.ones(8)), nn.Linear(8, self.width * 6)
        self.map = nn.Linear(6, self.width)

    def _readout(self):
        self.z, self.gen = nn.Parameter(torch.ones(8)), nn.Linear(8, 3 * self.width)

    def _gains(self):
        self.z, self.gen = nn.Parameter(torch.ones(8)), nn.Linear(8, self.width)

    def _factors(self):
        self.gen = nn.ModuleList([nn.Linear(self.width, 4), nn.Linear(4, self.width)])

    def _square(self):
        self.gen = nn.ModuleList([nn.Linear(self.width, self.width) for _ in range(2)])

    def _queries(self):
        self.z, self.gen = nn.Parameter(torch.ones(6, 8)), nn.Linear(8, self.width)

    def weight(self):
        kind, n = self.kind, self.width
        if kind in ("factors", "square"):
            one, other = self.gen
            return other.weight @ one.weight
        made = self.gen(self.place if kind == "constant" else self.z)
        if kind == "rows":
            return self.map(made.view(n, 6))
        made = made.view(-1, n)
        if kind == "added":
            made = self.last.weight.mean() * 0.5 + made.tanh()
        return made * (16 / n if kind == "divided" else 1)

    def forward(self, x):
        h = self.first(x).relu()
        if self.kind == "gains":
            return self.last(h * self.gen(self.z))
        if self.kind == "queries":
            return self.last((h @ self.gen(self.z).T).softmax(-1) @ self.gen(self.z))
        if self.kind == "readout":
            return F.linear(h, self.weight()) + self.last(h)
        h = h @ self.weight() if self.kind == "right" else F.linear(h, self.weight())
        return self.last(F.layer_norm(h, h.shape[-1:]) if self.kind == "normed" else h.relu())


def said(kind, **options):
    def build(width):
        return Net(width, kind)

    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        paramz.make_plan(build(64), "mup", base=build, base_width=16, **options)
    return " ".join(str(each.message) for each in caught)


@pytest.mark.parametrize(
    "kind", ["linear", "right", "constant", "deep", "rows", "readout", "added", "normed"]
)
def test_a_weight_that_parameters_generate_is_warned_of(kind):
    text = said(kind)
    assert "gen" in text.split(":")[0]
    assert "forward code computes a matrix from this and no input" in text
    assert "Divide the matrix in the code by the length of that sum" in text


@pytest.mark.parametrize("kind", ["divided", "gains", "factors", "square"])
def test_products_whose_sums_are_kept_in_size_are_not(kind):
    assert said(kind) == ""


@pytest.mark.parametrize("power", [-1, -0.5, 0])
def test_a_number_beside_factors_that_code_multiplies_out_first_is_told(power):
    class LowRank(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.first, self.last = nn.Linear(5, width), nn.Linear(width, 3)
            self.down, self.up = nn.Linear(width, 4, bias=False), nn.Linear(4, width, bias=False)

        def forward(self, x):
            x = self.first(x).relu()
            return self.last(F.linear(x, self.up.weight @ self.down.weight) * x.shape[-1] ** power)

    def text(**options):
        with warnings.catch_warnings(record=True) as caught:
            warnings.simplefilter("always")
            example = {"example": torch.zeros(3, 5)}
            paramz.make_plan(LowRank(64), "mup", base=LowRank, base_width=16, **example, **options)
        return " ".join(str(each.message) for each in caught)

    assert ("so with the number it fades. Let the code use a number that stays" in text()) == (
        power < 0
    )
    assert text(factors={r"^up$": None}) == ""


def test_queries_that_no_input_makes_are_attention():
    assert "computes a matrix" not in said("queries")


def test_a_learned_query_is_of_the_attention_that_it_goes_into():
    class Pooled(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.first, self.last = nn.Linear(5, width), nn.Linear(width, 3)
            self.query = nn.Parameter(torch.ones(1, 2, width))
            self.attention = nn.MultiheadAttention(width, 4, batch_first=True)

        def forward(self, x):
            x = self.first(x)
            return self.last(self.attention(self.query.expand(len(x), -1, -1), x, x)[0])

    with warnings.catch_warnings():
        warnings.simplefilter("error")
        given = {"roles": {"query$": "input"}, "example": torch.zeros(3, 6, 5)}
        plan = paramz.make_plan(Pooled(64), "mup", base=Pooled, base_width=16, **given)
    assert [scale.module for scale in plan.attention] == ["attention"]


def test_it_can_be_said_to_be_right_as_it_is():
    assert said("linear", factors={r"^gen$": None}) == ""


def test_a_kernel_that_parameters_generate_is_warned_of():
    class Kernels(nn.Module):
        def __init__(self, width):
            super().__init__()
            self.first, self.last = nn.Conv1d(5, width, 3), nn.Conv1d(width, 3, 1)
            self.gen, self.width = nn.Linear(1, width * width), width

        def forward(self, x):
            kernel = self.gen(torch.ones(3, 1, device=x.device)).T.reshape(self.width, -1, 3)
            return self.last(F.conv1d(self.first(x).relu(), kernel))

    with pytest.warns(UserWarning, match=r"^gen.weight: forward code computes a matrix"):
        paramz.make_plan(
            Kernels(64), "mup", base=Kernels, base_width=16, example=torch.zeros(2, 5, 9)
        )


@pytest.mark.parametrize("kind", ["linear", "divided"])
def test_what_it_makes_grows_while_it_is_trained_unless_it_is_divided(kind):
    def change(width):
        torch.manual_seed(0)
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            model = Net(width, kind)
            plan = paramz.parametrize_(model, "mup", base=lambda w: Net(w, kind), base_width=16)
        optimizer = torch.optim.Adam(plan.param_groups(model, torch.optim.Adam, lr=0.01))
        x, h = torch.randn(32, 5), None
        with torch.no_grad():
            h = model.first(x).relu()
            before = F.linear(h, model.weight())
        model(x).pow(2).mean().backward()
        optimizer.step()
        with torch.no_grad():
            return (F.linear(h, model.weight()) - before).pow(2).mean().sqrt().item()

    ratio = change(256) / change(32)
    assert ratio > 4 if kind == "linear" else 0.5 < ratio < 2
