"""Certified bounds hold on trained networks, against power iteration and adversarial search."""

import pytest
import torch
from torch import Tensor, nn

import paramz
from paramz.reparam import (
    AOL,
    SLL,
    Orthogonal,
    Sandwich,
    SpectralNorm,
    certified_radius,
    lipschitz_bound,
)


def aol() -> nn.Sequential:
    model = nn.Sequential(
        nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 24), nn.ReLU(), nn.Linear(24, 3)
    )
    paramz.reparametrize_(model, AOL())
    return model


def orthogonal() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))
    paramz.reparametrize_(model, Orthogonal())
    return model


def spectral() -> nn.Sequential:
    model = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3))
    paramz.reparametrize_(model, SpectralNorm(iterations=20))
    return model


def sll() -> nn.Sequential:
    return nn.Sequential(SLL(6, 24), SLL(6, 24), SLL(6))


def sandwich() -> nn.Sequential:
    return nn.Sequential(Sandwich(6, 24), Sandwich(24, 24), Sandwich(24, 3))


NETS = [aol, orthogonal, spectral, sll, sandwich]


def trained(build) -> nn.Module:
    """Trained hard, on targets that want a steep function."""
    torch.manual_seed(0)
    model = build()
    x = torch.randn(128, 6)
    y = 20 * torch.sin(3 * x[:, : model(x).shape[1]])
    optimizer = torch.optim.Adam(model.parameters(), lr=0.03)
    for _ in range(100):
        optimizer.zero_grad()
        (model(x) - y).square().mean().backward()
        optimizer.step()
    return model.eval().double()


def jacobian_norm(model: nn.Module, x: Tensor, steps: int = 50) -> Tensor:
    """The largest singular value of the Jacobian at each x (batch,), by power iteration."""
    direction = torch.randn_like(x)
    for _ in range(steps):
        direction = direction / direction.norm(dim=1, keepdim=True)
        _, forward = torch.autograd.functional.jvp(model, x, direction)
        _, direction = torch.autograd.functional.vjp(model, x, forward)
    return direction.norm(dim=1).sqrt()


@pytest.mark.parametrize("build", NETS, ids=lambda b: b.__name__)
def test_no_search_finds_more_than_the_bound(build):
    model = trained(build)
    bound = lipschitz_bound(model)
    x = 2 * torch.randn(64, 6, dtype=torch.float64)
    steepest = jacobian_norm(model, x)
    assert float(steepest.max()) <= bound * (1 + 1e-9)
    # Adversarial: move pairs so that |f(x) - f(y)| / |x - y| grows.
    pair = torch.cat([x, x + 0.1 * torch.randn_like(x)]).requires_grad_()
    optimizer = torch.optim.Adam([pair], lr=0.05)
    best = 0.0
    for _ in range(150):
        one, other = pair.chunk(2)
        ratio = (model(one) - model(other)).norm(dim=1) / (one - other).norm(dim=1)
        best = max(best, float(ratio.detach().max()))
        optimizer.zero_grad()
        (-ratio.sum()).backward()
        optimizer.step()
    assert best <= bound * (1 + 1e-9)
    assert best > 0.3 * bound  # the search does find steep places


@pytest.mark.parametrize("build", [aol, sll, sandwich], ids=lambda b: b.__name__)
def test_one_lipschitz_nets_have_bound_one(build):
    assert lipschitz_bound(trained(build)) <= 1 + 1e-6


def test_plain_nets_break_the_bound_of_one():
    """The search can fail: without the layers it finds more than 1."""
    plain = trained(lambda: nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 3)))
    assert float(jacobian_norm(plain, torch.randn(64, 6).double()).max()) > 2


def test_sandwich_matrices_are_rows_of_an_isometry():
    torch.manual_seed(0)
    for sizes in ((6, 4), (4, 6), (5, 5)):
        layer = Sandwich(*sizes).double()
        with torch.no_grad():
            for parameter in layer.parameters():
                parameter.add_(torch.randn_like(parameter))
        a, b = (t.detach() for t in layer.matrices())
        one = torch.eye(sizes[1], dtype=torch.float64)
        torch.testing.assert_close(a @ a.T + b @ b.T, one, rtol=0, atol=1e-10)


def test_certified_radius_holds():
    """No input within the radius has another class."""
    model = trained(aol)
    bound = lipschitz_bound(model)
    x = torch.randn(64, 6, dtype=torch.float64)
    logits = model(x).detach()
    radius = certified_radius(logits, bound)
    label = logits.argmax(1)
    moved = x.clone().requires_grad_()
    for _ in range(50):
        out = model(moved)
        others = out.clone()
        others[torch.arange(64), label] = -torch.inf
        margin = out[torch.arange(64), label] - others.max(1).values
        (grad,) = torch.autograd.grad(margin.sum(), moved)
        with torch.no_grad():
            moved -= 0.2 * radius[:, None] * grad / grad.norm(dim=1, keepdim=True).clamp_min(1e-12)
            step = moved - x
            length = step.norm(dim=1, keepdim=True).clamp_min(1e-12)
            moved.copy_(x + step * (radius[:, None] * (1 - 1e-9) / length).clamp(max=1.0))
    assert torch.equal(model(moved).argmax(1), label)


def test_an_unknown_layer_is_named():
    with pytest.raises(ValueError, match=r"no Lipschitz bound is known for 1, LayerNorm"):
        lipschitz_bound(nn.Sequential(nn.Linear(3, 3), nn.LayerNorm(3)))
    with pytest.raises(ValueError, match="dropout in eval mode"):
        lipschitz_bound(nn.Sequential(nn.Dropout(0.5)))


class Residual(nn.Sequential):
    def forward(self, x):
        return x + super().forward(x)


class Twice(nn.Linear):
    def forward(self, x):
        return 2 * super().forward(x)


@pytest.mark.parametrize("own", [Residual(nn.Linear(3, 3)), Twice(3, 3), paramz.nn.Linear(3, 3)])
def test_a_forward_of_its_own_has_no_known_bound(own):
    with pytest.raises(
        ValueError, match=rf"no Lipschitz bound is known for 1, {type(own).__name__}"
    ):
        lipschitz_bound(nn.Sequential(nn.ReLU(), own))


def test_factors_in_hooks_are_not_left_out_of_the_bound():
    def build(width=4):
        return nn.Sequential(nn.Linear(3, width), nn.ReLU(), nn.Linear(width, 2))

    model = build(16)
    paramz.parametrize_(model, "ntp", base=build, fold=False)
    with pytest.raises(ValueError, match=r"2 has hooks.*paramz.fold_"):
        lipschitz_bound(model)
    paramz.fold_(model)
    assert lipschitz_bound(model) > 0


def test_layers_say_their_axes():
    """SLL and Sandwich get their roles from the plan without help."""

    def net(width: int = 8) -> nn.Module:
        return nn.Sequential(nn.Linear(3, width), SLL(width), Sandwich(width, width))

    roles = {r.name: r.role for r in paramz.parametrize_(net(32), "mup", base=net).rows}
    assert roles["1.weight"] == roles["2.x"] == roles["2.y"] == "hidden"
    assert roles["1.log_q"] == roles["1.bias"] == roles["2.d"] == roles["2.bias"] == "vector"
