"""Tensors whose numbers are not plain reals: complex weights, quantised ones, rows of padding."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.apply.measured import measure_init

MODES = 4


class Spectral(nn.Module):
    """The linear map of a Fourier neural operator, one complex matrix per mode."""

    def __init__(self, width, law):
        super().__init__()
        drawn = torch.randn(width, width, MODES, dtype=torch.cfloat)
        self.weight = nn.Parameter(drawn * width**law)

    def forward(self, x):
        low = torch.fft.rfft(x)[..., :MODES]
        return torch.fft.irfft(torch.einsum("bim,iom->bom", low, self.weight), n=x.shape[-1])


def operator(width=16, law=-0.5):
    return nn.Sequential(
        nn.Conv1d(2, width, 1), Spectral(width, law), nn.GELU(), nn.Conv1d(width, 1, 1)
    )


AXES = {"1[.]weight": paramz.Axes(fan_in=(0,), fan_out=(1,))}


def test_each_part_of_a_complex_tensor_counts():
    drawn = torch.randn(4000, dtype=torch.cfloat)  # of variance 1, so 1/2 in each part
    found = measure_init(drawn)
    assert found.kind == "normal"
    assert found.std == pytest.approx(0.5**0.5, rel=0.05)


@pytest.mark.parametrize("law", [-0.5, 0.0, -1.0])
def test_complex_weights_start_at_the_rules_std_whatever_their_own_law(law):
    torch.manual_seed(0)
    model = operator(64, law)
    plan = paramz.parametrize_(model, "mup", base=lambda w=16: operator(w, law), roles=AXES)
    row = next(row for row in plan.rows if row.name == "1.weight")
    assert (row.role, row.ratios) == ("hidden", {"fan_in": 4.0, "fan_out": 4.0})
    got = torch.view_as_real(model[1].weight.detach()).std().item()
    assert got == pytest.approx(16**law * 0.5**0.5 / 2, rel=0.1)


def test_a_complex_model_that_was_planned_on_meta_is_drawn():
    with torch.device("meta"):
        model = operator(64)
    plan = paramz.parametrize_(model, "mup", base=operator, roles=AXES)
    model.to_empty(device="cpu")
    paramz.init_(model)
    row = next(row for row in plan.rows if row.name == "1.weight")
    got = torch.view_as_real(model[1].weight.detach()).std().item()
    assert got == pytest.approx(plan.init_std(row), rel=0.05)


def test_the_change_of_a_complex_layer_does_not_move_with_width():
    x = torch.randn(8, 2, 16, generator=torch.Generator().manual_seed(0))

    def change(width, scheme):
        sizes = []
        for seed in range(3):
            torch.manual_seed(seed)
            model = operator(width)
            plan = paramz.parametrize_(model, scheme, base=operator, roles=AXES)
            optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=2**-8))
            before = model[:2](x).detach()
            for _ in range(3):
                optimizer.zero_grad()
                F.mse_loss(model(x), x[:, :1]).backward()
                optimizer.step()
            sizes.append((model[:2](x) - before).pow(2).mean().sqrt().item())
        return sum(sizes)

    def slope(scheme):
        return torch.tensor(change(128, scheme) / change(16, scheme)).log2().item() / 3

    assert abs(slope("mup")) < 0.1
    assert slope("sp") > 0.3


class Quantised(nn.Module):
    """A linear layer whose weight is integers, two to a byte, as bitsandbytes packs them."""

    def __init__(self, width):
        super().__init__()
        packed = torch.randint(256, (width * width // 2, 1), dtype=torch.uint8)
        self.weight = nn.Parameter(packed, requires_grad=False)
        self.width = width

    def forward(self, x):
        halves = torch.cat([self.weight >> 4, self.weight & 15]).reshape(self.width, self.width)
        return F.linear(x, halves.float() / 15 - 0.5)


class Adapted(nn.Module):
    def __init__(self, width=16, packed=True):
        super().__init__()
        self.first = nn.Linear(3, width)
        self.base = Quantised(width) if packed else nn.Linear(width, width, bias=False)
        self.down, self.up = nn.Linear(width, 4, bias=False), nn.Linear(4, width, bias=False)

    def forward(self, x):
        x = self.first(x)
        return self.base(x) + self.up(self.down(x))


@pytest.mark.parametrize("packed", [True, False], ids=["base quantised", "base plain"])
@pytest.mark.parametrize("put", [paramz.parametrize_, paramz.adopt_])
def test_quantised_weights_stay_and_what_is_trained_has_its_rule(put, packed):
    model = Adapted(64)
    before = model.base.weight.clone()
    plan = put(model, "mup", base=lambda w=16: Adapted(w, packed))
    assert torch.equal(model.base.weight, before)
    row = next(row for row in plan.rows if row.name == "base.weight")
    assert "quantised" in row.why
    trained = {id(p) for g in plan.param_groups(model, "adamw", lr=1.0) for p in g["params"]}
    assert id(model.base.weight) not in trained
    assert id(model.up.weight) in trained


@pytest.mark.parametrize("scheme", ["sp", "mup", "u-mup"])
def test_rows_of_padding_start_at_zero_and_stay_there(scheme):
    def net(width=16):
        table = nn.Embedding(20, width, padding_idx=3)
        return nn.Sequential(table, nn.Linear(width, 20))

    model, ids = net(64), torch.arange(20).reshape(2, 10)
    plan = paramz.parametrize_(model, scheme, base=net, example=(ids, ids))
    optimizer = torch.optim.AdamW(plan.param_groups(model, "adamw", lr=0.1))
    F.cross_entropy(model(ids).flatten(0, 1), ids.flatten()).backward()
    optimizer.step()
    assert model[0].weight[3].abs().max() == 0.0
    assert model[0].weight[4].abs().max() > 0.1


def test_padding_of_a_bag_is_zero_when_a_meta_model_is_drawn():
    def net(width=16):
        return nn.Sequential(nn.EmbeddingBag(20, width, padding_idx=-1), nn.Linear(width, 2))

    with torch.device("meta"):
        model = net(64)
    paramz.parametrize_(model, "mup", base=net)
    model.to_empty(device="cpu")
    paramz.init_(model)
    assert model[0].weight[-1].abs().max() == 0.0
    assert model[0].weight[0].abs().max() > 0.1
