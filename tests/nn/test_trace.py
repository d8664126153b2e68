"""What the recorded pass of a plain model is taken for: factors, sums, norms, masks, depth."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.nn import fp8_, unit_scale_
from paramz.nn.convert.trace import trace


class Between(nn.Module):
    """Two linear maps, and what a function makes of the first one's output."""

    def __init__(self, function, width=16):
        super().__init__()
        self.first, self.last = nn.Linear(width, width), nn.Linear(width, 4)
        self.function = function

    def forward(self, x):
        return self.last(self.function(self.first(x)))


def halves(x):
    return x.chunk(2, -1)


ANGLES = torch.arange(8.0)
COS, SIN, HALF = ANGLES.cos(), ANGLES.sin(), torch.tensor(0.5)


def rotated(x):
    a, b = halves(x)
    return torch.cat([a * COS - b * SIN, b * COS + a * SIN], -1)


def turned_by_half(x):
    a, b = halves(x)
    return x * COS.repeat(2) + torch.cat([-b, a], -1) * SIN.repeat(2)


@pytest.mark.parametrize(
    "function",
    [rotated, turned_by_half, lambda x: x * torch.tensor([1.0, 0.0]).repeat(8)],
    ids=["rotary with a difference", "rotary", "mask"],
)
def test_rotary_positions_and_masks_keep_the_scale(function):
    model = Between(function)
    factors = unit_scale_(model, torch.randn(3, 16))
    assert factors.linear["last"].input == 1.0


@pytest.mark.parametrize(
    "function",
    [
        lambda x: x * torch.tensor(0.125),
        lambda x: x * COS.repeat(2),
        lambda x: (halves(x)[0] + halves(x)[1]).repeat(1, 2),
        lambda x: (halves(x)[0] * HALF + halves(x)[1] * HALF).repeat(1, 2),
        lambda x: (halves(x)[0] * SIN - halves(x)[1] * SIN).repeat(1, 2),
    ],
    ids=["small constant", "cosines alone", "sum of parts", "mean of parts", "sines alone"],
)
def test_what_changes_the_scale_by_a_constant_is_refused(function):
    with pytest.raises(ValueError, match="(mul|add|sub), called in the model itself"):
        unit_scale_(Between(function), torch.randn(3, 16))


class Trunk(nn.Module):
    def __init__(self, readout=None):
        super().__init__()
        self.table = nn.Embedding(16, 8)
        self.norm, self.up, self.down = nn.LayerNorm(8), nn.Linear(8, 32), nn.Linear(32, 8)
        self.after, self.readout = nn.LayerNorm(8), readout

    def forward(self, ids):
        x = self.table(ids)
        x = self.after(x + self.down(F.gelu(self.up(self.norm(x)))))
        return x if self.readout is None else self.readout(x, self.table.weight)


IDS = torch.arange(12).view(3, 4)


def test_a_branch_at_the_end_of_a_model_is_no_readout():
    model = Trunk()
    plan = paramz.parametrize_(model, "u-mup", example=IDS)
    assert {row.role for row in plan.rows if row.name == "down.weight"} == {"hidden"}
    assert model.down.scale.output == pytest.approx(32**-0.5)
    assert not model.down.scale.loss_tokens


@pytest.mark.parametrize(
    "readout", [F.linear, lambda x, w: x @ w.T, lambda x, w: torch.einsum("btd,vd->btv", x, w)]
)
def test_a_readout_that_is_no_layer_is_refused(readout):
    match = "(?s)(F.linear|matmul|einsum), called in the model itself.*with the embedding's weight"
    with pytest.raises(ValueError, match=match):
        unit_scale_(Trunk(readout), IDS)


class OnePlus(nn.LayerNorm):  # as Nemotron's
    def forward(self, x):
        return F.layer_norm(x, self.normalized_shape, 1 + self.weight, self.bias, self.eps)


class OfChannels(nn.LayerNorm):  # as timm's
    def forward(self, x):
        x = F.layer_norm(x.permute(0, 2, 3, 1), self.normalized_shape, self.weight, self.bias)
        return x.permute(0, 3, 1, 2)


class Squared(nn.RMSNorm):
    def forward(self, x):
        return F.rms_norm(x, self.normalized_shape, self.weight**2, self.eps)


class InFloat(nn.LayerNorm):  # as CLIP's
    def forward(self, x):
        return super().forward(x.float()).to(x.dtype)


@pytest.mark.parametrize("norm", [OnePlus, Squared, OfChannels])
@pytest.mark.parametrize("device", ["cpu", "meta"])
def test_a_norm_with_a_forward_of_its_own_is_refused(norm, device):
    conv = norm is OfChannels
    first = nn.Conv2d(3, 8, 1) if conv else nn.Linear(3, 8)
    second = nn.Conv2d(8, 8, 1) if conv else nn.Linear(8, 8)
    model = nn.Sequential(first, norm(8), second, nn.Linear(8, 2)).to(device)
    # As many columns as channels, so that the plain norm would run.
    x = torch.randn(2, 3, 8, 8, device=device) if conv else torch.randn(2, 3, device=device)
    with pytest.raises(ValueError, match=f"1: {norm.__name__} has a forward of its own"):
        unit_scale_(model, x, init=False)


class Conditioned(nn.LayerNorm):
    def forward(self, x, gain):
        return gain * super().forward(x)


def test_a_norm_that_takes_more_than_one_input_is_refused():
    """Its forward was called with one: TypeError."""

    class Net(nn.Module):
        def __init__(self):
            super().__init__()
            self.first, self.norm, self.last = nn.Linear(3, 8), Conditioned(8), nn.Linear(8, 2)

        def forward(self, x):
            return self.last(self.norm(self.first(x), torch.ones(8)))

    with pytest.raises(ValueError, match="norm: Conditioned has a forward of its own"):
        unit_scale_(Net(), torch.randn(2, 3))


def test_a_norm_with_a_forward_of_its_own_that_computes_the_same_is_replaced():
    model = nn.Sequential(nn.Linear(3, 8), InFloat(8), nn.Linear(8, 2))
    unit_scale_(model, torch.randn(2, 3))
    assert type(model[1]) is paramz.nn.LayerNorm


def attention_facts(q, k, v, **options):
    class Attention(nn.Module):
        def __init__(self):
            super().__init__()
            self.parts = nn.ModuleList(nn.Linear(n, n) for n in (q, k, v))

        def forward(self, x):
            q, k, v = (f(x[..., : f.in_features]).unsqueeze(1) for f in self.parts)
            return F.scaled_dot_product_attention(q, k, v, **options)

    (op,) = (
        op
        for op in trace(Attention(), torch.randn(2, 6, 8))
        if op.name == "scaled_dot_product_attention"
    )
    return op.facts


def test_the_size_of_a_head_is_that_of_its_queries():
    facts = attention_facts(8, 8, 4)
    assert (facts["d_head"], facts["scale"], facts["length"]) == (8, 8**-0.5, 6)


SEES = torch.ones(6, 6, dtype=torch.bool)
RIGHT, LEFT = torch.arange(6) < 5, torch.arange(6) > 2  # which keys are no padding


def rows_that_see_something(mask):  # as transformers' masks for some kernels
    return mask | ~mask.any(-1, keepdim=True)


@pytest.mark.parametrize(
    ("mask", "causal"),
    [
        (SEES.tril(), True),
        (SEES.tril() & RIGHT, True),
        (SEES.tril() & LEFT, True),
        (rows_that_see_something(SEES.tril() & LEFT), True),
        (SEES.tril() & SEES.triu(-2), True),
        (SEES, False),
        (SEES & RIGHT, False),
        (RIGHT[None].expand(1, 6), False),
        (torch.block_diag(SEES[:3, :3], SEES[:3, :3]).bool(), False),
    ],
    ids=[
        "causal", "padded on the right", "on the left", "rows of padding see all", "window",
        "all", "all but padding", "all but padding in one row", "documents",
    ],
)  # fmt: skip
@pytest.mark.parametrize("kind", ["bool", "float"])
def test_a_mask_is_causal_if_it_hides_the_future_and_not_padding_alone(mask, causal, kind):
    if kind == "float":
        mask = torch.zeros(mask.shape).masked_fill(~mask, torch.finfo(torch.float32).min)
    assert attention_facts(8, 8, 8, attn_mask=mask)["causal"] is causal


class Block(nn.Module):
    def __init__(self, width=8):
        super().__init__()
        self.norm, self.map = nn.LayerNorm(width), nn.Linear(width, width)

    def forward(self, x):
        return x + self.map(self.norm(x))


def test_blocks_that_stand_beside_other_layers_in_one_sequence_are_counted():
    blocks = [Block() for _ in range(4)]
    model = nn.Sequential(nn.Embedding(16, 8), *blocks, nn.LayerNorm(8), nn.Linear(8, 16))
    plan = paramz.parametrize_(model, "u-mup", example=IDS)
    depths = {row.name: row.ratios.get("depth") for row in plan.rows}
    assert [depths[f"{n}.weight"] for n in (0, 5, 6)] == [None] * 3
    assert {depths[f"{n}.map.weight"] for n in (1, 2, 3, 4)} == {4.0}


def test_fp8_does_not_name_a_layer_whose_module_multiplies_by_itself():
    layer = nn.TransformerEncoderLayer(8, 2, 16, dropout=0.0)
    assert fp8_(layer) == ["linear1", "linear2"]
    assert not isinstance(layer.self_attn.out_proj, paramz.nn.Linear)
