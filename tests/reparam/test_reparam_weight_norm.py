"""Weight normalization: its invariances, the paper's init, mean-only batch norm, LSTM cells."""

import runpy
from pathlib import Path
from types import SimpleNamespace

import pytest
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import Tensor, nn

import paramz
from paramz.reparam import MeanOnlyBatchNorm, weight_norm_init_
from paramz.reparam.maps.weight_norm import effective_learning_rate, normalized

SIZES = st.tuples(st.integers(1, 6), st.integers(2, 8))
SEEDS = st.integers(0, 1000)


def drawn(sizes: tuple[int, int], seed: int) -> tuple[Tensor, Tensor, Tensor]:
    """v, g and a gradient of the weight, in double precision."""
    draw = torch.Generator().manual_seed(seed)
    rows, columns = sizes
    shapes = ((rows, columns), (rows, 1), (rows, columns))
    v, g, dw = (torch.randn(s, dtype=torch.float64, generator=draw) for s in shapes)
    return v.requires_grad_(), g.abs().add(0.1).requires_grad_(), dw


def gradients(v: Tensor, g: Tensor, dw: Tensor) -> tuple[Tensor, ...]:
    return torch.autograd.grad((normalized(v, g, (1,)) * dw).sum(), (v, g))


@given(SIZES, SEEDS)
def test_gradients_are_those_of_the_paper(sizes: tuple[int, int], seed: int):
    v, g, dw = drawn(sizes, seed)
    dv, dg = gradients(v, g, dw)
    length = v.norm(dim=1, keepdim=True)
    along = (v * dw).sum(1, keepdim=True) / length
    torch.testing.assert_close(dg, along)
    torch.testing.assert_close(dv, g / length * (dw - v * along / length))


@given(SIZES, SEEDS)
def test_the_step_is_orthogonal_to_v_and_its_length_only_grows(sizes: tuple[int, int], seed: int):
    v, g, dw = drawn(sizes, seed)
    dv, _ = gradients(v, g, dw)
    torch.testing.assert_close((v * dv).sum(1), torch.zeros(sizes[0]).double(), atol=1e-12, rtol=0)
    lr = 0.3
    torch.testing.assert_close(
        (v - lr * dv).square().sum(1), v.square().sum(1) + lr**2 * dv.square().sum(1)
    )


@given(SIZES, SEEDS, st.floats(0.1, 10))
def test_scaling_v_scales_the_learning_rate(sizes: tuple[int, int], seed: int, c: float):
    """v -> c v with lr -> c^2 lr (SGD) or c lr (sign) is the same step of the weight."""
    v, g, dw = drawn(sizes, seed)
    u = (c * v).detach().requires_grad_()
    dv, du = gradients(v, g, dw)[0], gradients(u, g, dw)[0]
    lr = 0.1
    sgd = [normalized(v - lr * dv, g, (1,)), normalized(u - c**2 * lr * du, g, (1,))]
    torch.testing.assert_close(*sgd)
    sign = [normalized(v - lr * dv.sign(), g, (1,)), normalized(u - c * lr * du.sign(), g, (1,))]
    torch.testing.assert_close(*sign, atol=1e-6, rtol=1e-6)


@given(SIZES, SEEDS, st.floats(0.2, 5))
def test_effective_learning_rate(sizes: tuple[int, int], seed: int, c: float):
    """A small step moves w as SGD on its tangential gradient would, with lr (g / |v|)^2."""
    v, g, dw = drawn(sizes, seed)
    v = (v * c).detach().requires_grad_()
    dv, _ = gradients(v, g, dw)
    lr = 1e-7
    moved = normalized(v - lr * dv, g, (1,)) - normalized(v, g, (1,))
    unit = v / v.norm(dim=1, keepdim=True)
    tangential = dw - unit * (unit * dw).sum(1, keepdim=True)
    for row in range(sizes[0]):
        rate = effective_learning_rate(lr, g[row].item(), v[row].norm().item())
        torch.testing.assert_close(moved[row], -rate * tangential[row], rtol=1e-3, atol=1e-11)


@given(SIZES, SEEDS, st.floats(0.1, 0.9))
def test_decay_of_v_does_not_change_the_weight(sizes: tuple[int, int], seed: int, kept: float):
    v, g, _ = drawn(sizes, seed)
    torch.testing.assert_close(normalized(kept * v, g, (1,)), normalized(v, g, (1,)))


LAYERS = [
    (nn.Linear(6, 4), (64, 6)),
    (nn.Linear(6, 4), (16, 5, 6)),
    (nn.Conv1d(3, 4, 3), (16, 3, 9)),
    (nn.Conv2d(3, 4, 3, stride=2), (8, 3, 9, 9)),
    (nn.Conv2d(4, 6, 3, groups=2), (8, 4, 9, 9)),
    (nn.ConvTranspose1d(3, 4, 3), (16, 3, 9)),
    (nn.ConvTranspose2d(3, 4, 3, stride=2), (8, 3, 5, 5)),
]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda x: type(x).__name__)
def test_at_first_the_function_is_the_same_bit_for_bit(layer: nn.Module, shape: tuple[int, ...]):
    torch.manual_seed(0)
    layer.reset_parameters()
    x = torch.randn(shape)
    before, weight = layer(x), layer.weight.clone()
    paramz.reparametrize_(layer, paramz.WeightNorm())
    assert torch.equal(layer.weight, weight)
    assert torch.equal(layer(x), before)
    paramz.unreparametrize_(layer)
    assert torch.equal(layer.weight, weight)
    assert list(layer.state_dict()) == ["weight", "bias"]


@pytest.mark.parametrize(("layer", "shape"), LAYERS, ids=lambda x: type(x).__name__)
def test_init_on_a_batch_standardises_every_output(layer: nn.Module, shape: tuple[int, ...]):
    torch.manual_seed(0)
    x = 3 * torch.randn(shape) + 1
    paramz.reparametrize_(layer, paramz.WeightNorm())
    assert weight_norm_init_(layer, x) == 1
    y = layer(x).detach()
    channels = -1 if isinstance(layer, nn.Linear) else 1
    flat = y.movedim(channels, 0).flatten(1)
    torch.testing.assert_close(flat.mean(1), torch.zeros(len(flat)), atol=1e-5, rtol=0)
    torch.testing.assert_close(flat.std(1, correction=0), torch.ones(len(flat)))
    assert abs(float(layer.weight_v.std()) - 0.05) < 0.02
    paramz.unreparametrize_(layer)


def test_init_on_a_batch_goes_through_the_layers_in_order():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 32), nn.Tanh(), nn.Linear(32, 16, bias=False), nn.Tanh())
    paramz.reparametrize_(model, paramz.WeightNorm())
    x = torch.randn(128, 6)
    returned = weight_norm_init_(model, x)
    assert returned == 2
    first = model[0](x)
    torch.testing.assert_close(first.std(0, correction=0), torch.ones(32))
    second = model[2](torch.tanh(first))
    torch.testing.assert_close(second.std(0, correction=0), torch.ones(16))


def mlp(width=32):
    return nn.Sequential(
        nn.Linear(8, width), nn.ReLU(), nn.Linear(width, width), nn.ReLU(), nn.Linear(width, 4)
    )


def test_init_on_a_batch_under_mup_is_that_of_the_base_with_the_plans_sizes():
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    learned = {}
    for width in (32, 512):
        model = mlp(width)
        paramz.parametrize_(model, "mup", base=mlp)
        paramz.reparametrize_(model, paramz.WeightNorm())
        assert weight_norm_init_(model, x) == 3
        smaller = (width / 32) ** -0.5
        for layer, factor in ((model[0], 1.0), (model[2], smaller), (model[4], smaller**2)):
            assert float(layer.weight_v.std()) == pytest.approx(0.05 * factor, rel=0.15)
        for end, size in ((1, 1.0), (3, 1.0), (5, smaller)):
            std = model[:end](x).std(0, correction=0)
            torch.testing.assert_close(std, torch.full_like(std, size))
        groups = paramz.plan_of(model).param_groups(model, "adamw", lr=2**-7)
        optimizer = torch.optim.AdamW(groups)
        h, before = model[:2](x).detach(), model[2].weight.detach().clone()
        for _ in range(3):
            optimizer.zero_grad()
            (model(x) - x[:, :4]).square().mean().backward()
            optimizer.step()
        learned[width] = float((h @ (model[2].weight.detach() - before).T).std())
    # Without the plan's sizes it is 1/4 of that at 32. The bound is half-way in logarithms.
    assert learned[512] > learned[32] / 2, learned


def test_init_on_a_batch_of_unit_scaled_layers():
    torch.manual_seed(0)
    x = torch.randn(256, 8)
    model = mlp(128)
    paramz.parametrize_(model, "u-mup", example=x)
    paramz.reparametrize_(model, paramz.WeightNorm())
    weight_norm_init_(model, x)
    for end, size in ((1, 1.0), (3, 1.0), (5, 128**-0.5)):
        y = model[:end](x)
        torch.testing.assert_close(y.std(0, correction=0), torch.full_like(y[0], size))
        torch.testing.assert_close(y.mean(0), torch.zeros_like(y[0]), atol=1e-5, rtol=0)


def test_init_on_a_batch_says_what_is_wrong():
    with pytest.raises(ValueError, match="reparametrize_\\(model, paramz.WeightNorm\\(\\)"):
        weight_norm_init_(nn.Linear(3, 2), torch.randn(4, 3))
    layer = nn.Linear(3, 2)
    paramz.reparametrize_(layer, paramz.WeightNorm())
    with pytest.raises(ValueError, match="the same all over the batch"):
        weight_norm_init_(layer, torch.ones(4, 3))


def test_a_row_of_zeros_and_grouped_transposed_convolutions_are_refused():
    layer = nn.Linear(3, 2)
    nn.init.zeros_(layer.weight)
    with pytest.raises(ValueError, match=r"weight: .*\(2, 3\): 2 outputs .* no direction"):
        paramz.reparametrize_(layer, paramz.WeightNorm())
    with pytest.raises(ValueError, match="transposed convolution with 2 groups"):
        paramz.reparametrize_(nn.ConvTranspose1d(4, 4, 3, groups=2), paramz.WeightNorm())


def run(cell: nn.Module, x: Tensor) -> Tensor:
    """Two steps of a cell, so that its recurrent weights count."""
    return cell(x, cell(x))[0] if isinstance(cell, nn.LSTMCell) else cell(x)[0]


@pytest.mark.parametrize("cell", [nn.LSTM(5, 7, num_layers=2), nn.LSTMCell(5, 7), nn.GRU(5, 7)])
def test_recurrent_cells_learn_with_normalized_weights(cell: nn.Module):
    torch.manual_seed(0)
    x = torch.randn(3, 5) if isinstance(cell, nn.LSTMCell) else torch.randn(4, 3, 5)
    before = run(cell, x)
    names = list(cell.state_dict())
    paramz.reparametrize_(cell, paramz.WeightNorm())
    torch.testing.assert_close(run(cell, x), before)
    optimizer = torch.optim.SGD(cell.parameters(), lr=0.5)
    loss = run(cell, x).square().mean()
    loss.backward()
    assert all(p.grad is not None and bool(p.grad.any()) for p in cell.parameters())
    optimizer.step()
    after = run(cell, x)
    assert float(after.detach().square().mean()) < float(loss.detach())
    paramz.unreparametrize_(cell)
    assert list(cell.state_dict()) == names
    assert torch.equal(run(cell, x), after)


def test_mean_only_batch_norm():
    torch.manual_seed(0)
    norm = MeanOnlyBatchNorm(4, momentum=1.0)
    t = torch.randn(8, 4, 5) + 2
    with torch.no_grad():
        norm.bias.copy_(torch.arange(4.0))
    y = norm(t)
    torch.testing.assert_close(y.mean((0, 2)), norm.bias)
    torch.testing.assert_close(y.std((0, 2)), t.std((0, 2)))  # not divided
    norm.eval()
    torch.testing.assert_close(norm(t), y)
    with pytest.raises(ValueError, match=r"4 channels got an input \(8, 3\)"):
        norm(torch.zeros(8, 3))


def test_the_init_leaves_what_a_hook_multiplies_to_the_hook():
    torch.manual_seed(0)
    layer = nn.Linear(3, 2)
    nn.init.constant_(layer.bias, 0.5)
    paramz.reparametrize_(layer, paramz.WeightNorm())
    layer.register_forward_hook(lambda module, args, output: output / 4)
    x = torch.randn(64, 3)
    weight_norm_init_(layer, x)
    out = layer(x).detach()
    torch.testing.assert_close(out.mean(0), torch.zeros(2), atol=1e-6, rtol=0)
    torch.testing.assert_close(out.std(0, correction=0), torch.full((2,), 0.25))


def test_the_sweep_of_the_docs_page_starts_plain_weights_as_the_paper_does():
    pytest.importorskip("sklearn")
    script = Path(__file__).parents[2] / "sweeps" / "train_reparam.py"
    train = runpy.run_path(str(script))["train"]
    trial = SimpleNamespace(log=lambda step, loss: None)
    losses = [
        train({"variant": variant, "lr": 0.0, "steps": 1}, trial)["loss"]
        for variant in ("plain-data", "weight-norm-data")
    ]
    assert losses[0] == pytest.approx(losses[1], rel=1e-5)  # the same start, in other tensors
