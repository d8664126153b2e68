"""What the members of the family promise: orthogonality, norms, variance, and what is shared."""

import copy
from functools import partial

import pytest
import torch
from torch import nn

import paramz
from paramz.reparam import AOL, MPO, FedPara, Orthogonal, Relaxed, SpectralNorm


def trained(model: nn.Module, steps: int = 20, lr: float = 0.02) -> nn.Module:
    draw = torch.Generator().manual_seed(0)
    first = next(m for m in model.modules() if isinstance(m, nn.Linear))
    x = torch.randn(64, first.in_features, generator=draw)
    optimizer = torch.optim.AdamW(model.parameters(), lr=lr)
    for _ in range(steps):
        optimizer.zero_grad()
        (model(x) - x[:, :1].sin()).square().mean().backward()
        optimizer.step()
    return model


def stack(sizes: tuple[int, ...]) -> nn.Sequential:
    layers: list[nn.Module] = []
    for n, m in zip(sizes, sizes[1:], strict=False):
        layers += [nn.Linear(n, m), nn.ReLU()]
    return nn.Sequential(*layers[:-1])


@pytest.mark.parametrize("method", ["matrix_exp", "cayley"])
def test_orthogonal_weights_stay_orthogonal(method: str):
    torch.manual_seed(0)
    model = stack((8, 24, 24, 6))
    paramz.reparametrize_(model, Orthogonal(gain=1.0, method=method))
    start = [m.weight.detach().clone() for m in model if isinstance(m, nn.Linear)]
    trained(model)
    for before, layer in zip(start, model[::2], strict=True):
        weight = layer.weight.detach()
        d_out, d_in = weight.shape
        assert not torch.allclose(weight, before, atol=1e-2)
        q = weight / (d_out / d_in) ** 0.5
        gram = q @ q.T if d_out < d_in else q.T @ q
        assert float((gram - torch.eye(len(gram))).abs().max()) < 1e-6


@pytest.mark.parametrize("sizes", [(16, 16), (8, 16), (16, 8)])
def test_orthogonal_weights_on_the_meta_device(sizes: tuple[int, int]):
    # torch's map looks at the values: under a device context square weights had an error of their
    # own and others lost the map's base, so that no plan of a factory with such layers was made.
    def build() -> nn.Module:
        layer = nn.Linear(*sizes)
        paramz.reparametrize_(layer, Orthogonal())
        return layer

    real = build()
    with torch.device("meta"):
        empty = build()
    assert all(t.is_meta for t in empty.state_dict().values())
    empty.to_empty(device="cpu").load_state_dict(real.state_dict())
    x = torch.randn(4, sizes[0])
    assert torch.equal(empty(x), real(x))


@pytest.mark.parametrize("gain", [None, 1.0])
def test_spectral_norm(gain: float | None):
    torch.manual_seed(0)
    layer = nn.Linear(12, 20)
    own = float(torch.linalg.matrix_norm(layer.weight, 2))
    paramz.reparametrize_(layer, SpectralNorm(gain, iterations=10))
    wanted = own if gain is None else (20 / 12) ** 0.5
    assert float(torch.linalg.matrix_norm(layer.weight, 2)) == pytest.approx(wanted, rel=1e-5)
    trained(layer)
    layer(torch.randn(3, 12))
    assert float(torch.linalg.matrix_norm(layer.eval().weight, 2)) == pytest.approx(
        wanted, rel=1e-3
    )


@pytest.mark.parametrize("sizes", [(16, 16), (8, 24), (24, 8)])
def test_aol_starts_as_an_isometry(sizes: tuple[int, int]):
    torch.manual_seed(0)
    layer = nn.Linear(*sizes)
    rms = float(layer.weight.square().mean().sqrt())
    paramz.reparametrize_(layer, AOL())
    values = torch.linalg.svdvals(layer.weight.detach())
    torch.testing.assert_close(values, torch.ones_like(values), rtol=1e-5, atol=1e-5)
    paramz.unreparametrize_(layer)
    with torch.no_grad():
        layer.weight.mul_(rms / layer.weight.square().mean().sqrt())
    paramz.reparametrize_(layer, AOL(bound=None))
    assert float(layer.weight.square().mean().sqrt()) == pytest.approx(rms, rel=1e-4)


def test_fedpara_keeps_the_variance_and_has_the_rank():
    torch.manual_seed(0)
    layer = nn.Linear(300, 200)
    std = float(layer.weight.std())
    paramz.reparametrize_(layer, FedPara(12))
    weight = layer.weight.detach()
    assert float(weight.std()) == pytest.approx(std, rel=0.1)
    assert int(torch.linalg.matrix_rank(weight)) == 144
    assert sum(p.numel() for n, p in layer.named_parameters() if n != "bias") == 2 * 12 * 500
    conv = nn.Conv2d(32, 64, 3)
    std = float(conv.weight.std())
    paramz.reparametrize_(conv, FedPara(8))
    assert float(conv.weight.std()) == pytest.approx(std, rel=0.15)
    square = nn.Linear(90, 70)
    paramz.reparametrize_(square, FedPara())
    assert square.weight_x1.shape == (70, 9)
    assert int(torch.linalg.matrix_rank(square.weight.detach())) == 70


def test_fedpara_of_full_rank_has_the_rules_of_hidden_matrices():
    """Factors (width, rank) move by 1/rank with Adam and by width/rank with SGD."""

    def net(width: int = 64) -> nn.Module:
        return nn.Sequential(nn.Linear(3, width), nn.Linear(width, width), nn.Linear(width, 2))

    model = net(256)
    plan = paramz.parametrize_(model, "mup", base=net)
    paramz.reparametrize_(model, FedPara())
    plan = paramz.plan_of(model)
    roles = {row.name: row.role for row in plan.rows}
    rates = {
        optimizer: {
            id(p): group["lr"]
            for group in plan.param_groups(model, optimizer, lr=1.0)
            for p in group["params"]
        }
        for optimizer in ("adamw", "sgd")
    }
    for name in ("weight_x1", "weight_y1", "weight_x2", "weight_y2"):
        factor = id(getattr(model[1], name))
        assert roles[f"1.{name}"] == "hidden"
        assert rates["adamw"][factor] == pytest.approx(8 / 16)
        assert rates["sgd"][factor] == pytest.approx((256 / 64) / (16 / 8))
        assert roles[f"0.{name}"] in ("input", "scalar")
        assert roles[f"2.{name}"] in ("output", "scalar")


def test_fedpara_of_full_rank_in_u_mup():
    """Weights of std 1, so factors of std rank^-1/4 and, with u-muP's rank^-1/2, lr rank^-3/4."""
    model = nn.Sequential(nn.Linear(3, 256), nn.Linear(256, 256), nn.Linear(256, 2))
    example = torch.randn(8, 3), torch.arange(8) % 2
    paramz.parametrize_(model, "u-mup", base=lambda w=64: nn.Sequential(
        nn.Linear(3, w), nn.Linear(w, w), nn.Linear(w, 2)
    ), example=example)  # fmt: skip
    paramz.reparametrize_(model, FedPara(), where=r"1[.]weight")
    plan = paramz.plan_of(model)
    groups = plan.param_groups(model, "adamw", lr=1.0)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    for name in ("weight_x1", "weight_y1", "weight_x2", "weight_y2"):
        factor = getattr(model[1], name)
        assert factor.shape == (256, 16)
        assert rates[id(factor)] == pytest.approx(16**-0.75)


def blocks(width: int = 16, depth: int = 3) -> nn.Module:
    model = nn.Module()
    model.first = nn.Linear(4, width)
    model.layers = nn.ModuleList(nn.Linear(width, width) for _ in range(depth))
    return model


def test_relaxed_layers_share_one_weight():
    torch.manual_seed(0)
    model = blocks()
    weights = [layer.weight.detach().clone() for layer in model.layers]
    paramz.reparametrize_(model, Relaxed(2), "layers")
    shared = {id(layer.weight_shared) for layer in model.layers}
    assert len(shared) == 1
    for layer in model.layers:
        assert torch.equal(layer.weight, weights[0])
    paramz.unreparametrize_(model)
    with torch.no_grad():
        for layer, weight in zip(model.layers, weights, strict=True):
            layer.weight.copy_(weight)
    paramz.reparametrize_(model, Relaxed(16, "svd"), "layers")
    for layer, weight in zip(model.layers, weights, strict=True):
        torch.testing.assert_close(layer.weight, weight)


def test_sgd_divides_by_the_number_of_uses_as_depth_grows():
    class Net(nn.Module):
        def __init__(self, width: int = 8, depth: int = 2) -> None:
            super().__init__()
            self.first = nn.Linear(4, width)
            self.layers = nn.ModuleList(
                nn.Sequential(nn.Linear(width, width), nn.ReLU()) for _ in range(depth)
            )
            self.head = nn.Linear(width, 2)

        def forward(self, x: torch.Tensor) -> torch.Tensor:
            x = self.first(x)
            for layer in self.layers:
                x = x + layer(x)
            return self.head(x)

    rates = {}
    for recipe in (None, Relaxed()):
        model = Net(16, 8)
        plan = paramz.parametrize_(
            model,
            "mup+completep",
            base=partial(Net, depth=2),
            base_width=8,
            branches=paramz.Branches(inside=r"^layers[.][0-9]+[.]", ends=r"^layers[.][0-9]+[.]1$"),
        )
        if recipe is not None:
            paramz.reparametrize_(model, recipe, r"layers\.\d+\.0\.weight")
            plan = paramz.plan_of(model)
        row = next(r for r in plan.rows if r.name.startswith("layers.0.0.weight"))
        for name in ("sgd", "adamw"):
            rates[recipe is None, name] = plan.rule(row, paramz.family(name)).lr(row.ratios)
    assert rates[False, "sgd"] == rates[True, "sgd"] / 4  # 8 uses for 2
    assert rates[False, "adamw"] == rates[True, "adamw"]


def test_mpo_layers_share_the_central_tensor():
    torch.manual_seed(0)
    model = blocks(width=32)
    weights = [layer.weight.detach().clone() for layer in model.layers]
    before = sum(p.numel() for p in model.parameters())
    paramz.reparametrize_(model, MPO(ends=2), "layers")
    assert len({id(layer.weight_core) for layer in model.layers}) == 1
    torch.testing.assert_close(model.layers[0].weight, weights[0])
    for layer in model.layers:
        assert float(layer.weight.norm()) == pytest.approx(float(weights[0].norm()), rel=1e-5)
    assert not torch.allclose(model.layers[1].weight, model.layers[2].weight, atol=1e-2)
    assert sum(p.numel() for p in model.parameters()) < 0.5 * before
    small = nn.Linear(6, 6)
    with pytest.raises(ValueError, match=r"needs sizes that 16 divides, not \(6, 6\)"):
        paramz.reparametrize_(small, MPO())


def test_mpo_splits_weights_of_half_precision():
    torch.manual_seed(0)
    model = blocks(width=32).bfloat16()
    size = model.layers[0].weight.detach().float().norm()
    paramz.reparametrize_(model, MPO(ends=2), "layers")
    for layer in model.layers:
        assert layer.weight.dtype == torch.bfloat16
        assert float(layer.weight.detach().float().norm() / size) == pytest.approx(1.0, rel=0.01)


def test_recipes_refuse_what_they_are_not_for():
    for recipe in (Orthogonal(), AOL(), Relaxed(), MPO()):
        with pytest.raises(ValueError, match="is for matrices|are? for matrices"):
            paramz.reparametrize_(nn.Conv2d(4, 4, 3), recipe)
    with pytest.raises(ValueError, match="the rank must be at least 1"):
        FedPara(0)
    with pytest.raises(ValueError, match="init must be first or svd"):
        Relaxed(2, "random")  # type: ignore[arg-type]
    with pytest.raises(ValueError, match="the method must be matrix_exp or cayley"):
        Orthogonal(method="householder")  # type: ignore[arg-type]


def test_a_look_at_the_weights_is_no_step_of_the_power_iteration():
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(6, 5), nn.Linear(5, 3))
    paramz.reparametrize_(model, SpectralNorm())
    with torch.no_grad():
        for layer in model:
            layer.weight_v.add_(torch.randn_like(layer.weight_v))  # as after a step of training
    before = {name: value.clone() for name, value in model.named_buffers()}
    net = lambda w: nn.Sequential(nn.Linear(6, w), nn.Linear(w, 3))  # noqa: E731
    paramz.parametrize_(model, "mup", base=net, base_width=5)
    assert all(torch.equal(value, before[name]) for name, value in model.named_buffers())
    x = torch.ones(2, 6)
    used = copy.deepcopy(model).eval()(x)
    paramz.remove_(model)
    assert model.training and torch.equal(model(x), used)
