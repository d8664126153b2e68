"""What only forward code shows: a weight used transposed, a table that reads out, unread scales."""

import pytest
import torch
from test_bottlenecks import roles
from torch import nn
from torch.nn import functional as F

import paramz


class TiedInCode(nn.Module):
    """Many GPTs: the table is multiplied by in forward, and no layer shares it."""

    def __init__(self, width, layer=False):
        super().__init__()
        self.wte, self.body = nn.Embedding(20, width), nn.Linear(width, width)
        if layer:
            self.head = nn.Linear(width, 20, bias=False)
            self.head.weight = self.wte.weight

    def forward(self, ids):
        h = torch.relu(self.body(self.wte(ids)))
        return self.head(h) if hasattr(self, "head") else F.linear(h, self.wte.weight)


def test_a_table_that_forward_code_reads_out_with_is_refused():
    with pytest.raises(ValueError) as refused:
        roles(TiedInCode)
    assert str(refused.value) == (
        "wte.weight (20, 32): an embedding that forward code also reads out with, in a product of "
        "its own. There a readout needs a factor of its own, and no layer is there to take it. Let "
        "a layer share the table: self.head = nn.Linear(32, 20, bias=False) and self.head.weight = "
        "self.wte.weight, then self.head(h) in place of the product. roles={'wte[.]weight$': "
        "'input'} says that it is right as it is"
    )


def test_the_layer_that_the_error_suggests_is_planned_as_tied():
    plan = paramz.make_plan(
        TiedInCode(64, layer=True), "mup", base=lambda w: TiedInCode(w, layer=True), base_width=16
    )
    assert plan.multipliers == {"head": pytest.approx(1 / 4)}


class EntersByReadout(nn.Module):
    """The table is the readout's: its rows are looked up, or it is multiplied by the other way."""

    def __init__(self, width, how="embedding"):
        super().__init__()
        self.how = how
        self.body, self.head = nn.Linear(width, width), nn.Linear(width, 20, bias=False)

    def forward(self, x):
        table = self.head.weight
        match self.how:
            case "embedding":
                h = F.embedding(x, table)
            case "index":
                h = table[x]
            case "product":  # the other half of an autoencoder
                h = x @ table
            case "soft":
                h = F.one_hot(x, 20).float() @ table
        return self.head(torch.relu(self.body(h)))


@pytest.mark.parametrize("how", ["embedding", "index", "product", "soft"])
def test_a_readout_by_whose_weight_the_input_enters_is_refused(how):
    def build(width):
        return EntersByReadout(width, how)

    example = {"example": torch.zeros(2, 20)} if how == "product" else {}
    ids = {"example": torch.zeros(2, 4, dtype=torch.long)} if how == "soft" else {}
    with pytest.raises(ValueError) as refused:
        paramz.make_plan(build(32), "mup", base=build, base_width=16, **example, **ids)
    assert "head.weight (20, 32): the weight of a Linear that reads out, and that" in str(
        refused.value
    )
    said = {"roles": {"head[.]weight$": "input"}}
    assert f"say roles={said['roles']}" in str(refused.value)
    plan = paramz.make_plan(build(64), "mup", base=build, base_width=16, **said)
    assert plan.multipliers == {"head": pytest.approx(1 / 4)}


class TwoInputs(nn.Module):
    """No inputs can be guessed for it."""

    def __init__(self, width):
        super().__init__()
        self.body, self.head = nn.Linear(6, width), nn.Linear(width, 3)

    def forward(self, x, mask):
        return self.head(self.body(x * mask))


def test_no_real_base_is_built_to_look_at_the_one_readout_of_a_model_on_meta():
    built = []

    def build(width):
        built.append(TwoInputs(width))
        return built[-1]

    with torch.device("meta"):
        model = build(64)
    plan = paramz.parametrize_(model, "mup", base=build, base_width=16)
    assert {row.role for row in plan.rows if row.name == "head.weight"} == {"output"}
    assert len(built) > 1 and all(each.head.weight.is_meta for each in built)


class Codebook(nn.Module):
    """Distances to a table's rows choose one of them: that is no readout."""

    def __init__(self, width):
        super().__init__()
        self.first, self.codes = nn.Linear(6, width), nn.Embedding(8, width)
        self.body, self.head = nn.Linear(width, width), nn.Linear(width, 3)

    def forward(self, x):
        h = self.first(x)
        return self.head(self.body(self.codes((h @ self.codes.weight.T).argmin(-1))))


def test_a_codebook_is_no_readout():
    assert roles(Codebook)["codes"] == "input"


class Transposed(nn.Module):
    """MobileBERT's extra rows of its readout: a layer's weight, used the other way round."""

    def __init__(self, width):
        super().__init__()
        self.first, self.body = nn.Linear(6, width), nn.Linear(width, width)
        self.rows = nn.Linear(3, width, bias=False)

    def forward(self, x):
        return torch.relu(self.body(self.first(x))) @ self.rows.weight


def test_a_weight_used_transposed_is_a_readout():
    assert roles(Transposed) == {"first": "input", "body": "hidden", "rows": "output"}


class Counted(nn.Module):
    """Counts its blocks in forward, which a run with fewer of them does not survive."""

    def __init__(self, width, blocks=4):
        super().__init__()
        self.first, self.n = nn.Linear(6, width), blocks
        self.down = nn.ModuleList(nn.Linear(width, 8) for _ in range(blocks))
        self.up = nn.ModuleList(nn.Linear(8, width) for _ in range(blocks))
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        h = self.first(x)
        for i in range(self.n):
            h = h + self.up[i](self.down[i](h))
        return self.head(h)


def test_code_that_counts_its_blocks_runs_with_all_of_them(recwarn):
    found = roles(Counted)
    assert {found[f"down.{i}"] for i in range(4)} == {"inward"}
    assert {found[f"up.{i}"] for i in range(4)} == {"outward"}
    assert not recwarn.list


class Mixture(nn.Module):
    """Picks tokens by value, which the meta device does not have."""

    def __init__(self, width):
        super().__init__()
        self.first, self.gate = nn.Linear(6, width), nn.Linear(width, 2)
        self.thin = nn.ModuleList(
            nn.Sequential(nn.Linear(width, 8), nn.Linear(8, width)) for _ in range(2)
        )
        self.head = nn.Linear(width, 3)

    def forward(self, x):
        h = self.first(x)
        chosen = self.gate(h).argmax(-1)
        out = torch.zeros_like(h)
        for i, expert in enumerate(self.thin):
            (rows,) = torch.where(chosen == i)
            if rows.numel() > 0:
                out.index_add_(0, rows, expert(h[rows]))
        return self.head(h + out)


def test_experts_that_pick_tokens_run_on_meta(recwarn):
    found = roles(Mixture)
    assert found["thin.0.0"] == "inward" and found["thin.0.1"] == "outward"
    assert found["gate"] == "inward" and found["head"] == "output"
    assert not recwarn.list


class Leftover(nn.Module):
    """Keeps a scale that its forward does not read."""

    def __init__(self, width, heads=2):
        super().__init__()
        self.num_heads, self.scale = heads, (width // heads) ** -0.5
        self.qkv, self.proj = nn.Linear(width, 3 * width), nn.Linear(width, width)

    def forward(self, x):
        q, k, v = self.qkv(x).unflatten(-1, (3, self.num_heads, -1)).permute(2, 0, 3, 1, 4)
        return self.proj(F.scaled_dot_product_attention(q, k, v).transpose(1, 2).flatten(2))


def test_a_scale_that_forward_never_reads_is_not_set():
    build = lambda w: nn.Sequential(nn.Linear(6, w), Leftover(w), nn.Linear(w, 3))  # noqa: E731
    with pytest.warns(UserWarning, match="1: the size of a head grows with width"):
        plan = paramz.make_plan(build(64), "mup", base=build, base_width=16)
    assert plan.attention == ()


class RowsOfALayer(nn.Module):
    """Tokens are rows of a linear layer's weight, which is never called: as in nGPT and others."""

    def __init__(self, width=16, how="index"):
        super().__init__()
        self.how, self.tokens = how, nn.Linear(width, 7, bias=False)
        self.mix, self.head = nn.Linear(width, width), nn.Linear(width, 7)

    def forward(self, ids):
        rows = self.tokens.weight
        x = rows[ids] if self.how == "index" else F.embedding(ids, rows)
        return self.head(torch.relu(self.mix(x)))


@pytest.mark.parametrize("how", ["index", "embedding"])
def test_a_layer_of_which_code_only_looks_up_rows_is_a_table(how):
    """It was ``inward``, so that the embedding learnt with 1 / width of its rate."""
    build = lambda width: RowsOfALayer(width, how)  # noqa: E731
    plan = paramz.make_plan(build(64), "mup", base=build, base_width=16)
    assert {row.name: row.role for row in plan.rows}["tokens.weight"] == "input"
