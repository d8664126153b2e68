"""The fused gradients of weight normalization and compander are those of their definitions."""

import pytest
import torch
from torch import Tensor
from torch.autograd import forward_ad

from paramz.reparam.maps.compander import companded
from paramz.reparam.maps.weight_norm import normalized

SHAPES = [((5, 4), (1,), (5, 1)), ((5, 4), (0,), (1, 4)), ((3, 2, 2), (1, 2), (3, 1, 1))]


def double(*shape: int, seed: int = 0) -> Tensor:
    draw = torch.Generator().manual_seed(seed)
    return torch.randn(shape, dtype=torch.float64, generator=draw).requires_grad_()


@pytest.mark.parametrize(("shape", "dims", "lengths"), [*SHAPES, ((2, 3, 4), (1,), (2, 1, 4))])
def test_weight_norm(shape: tuple[int, ...], dims: tuple[int, ...], lengths: tuple[int, ...]):
    v, g = double(*shape), double(*lengths, seed=1)
    definition = v * g / v.square().sum(dims, keepdim=True).sqrt()
    weight = normalized(v, g, dims)
    torch.testing.assert_close(weight, definition, rtol=1e-12, atol=1e-14)
    seen = torch.randn_like(v)
    ours = torch.autograd.grad((weight * seen).sum(), (v, g))
    theirs = torch.autograd.grad((definition * seen).sum(), (v, g))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(lambda v, g: normalized(v, g, dims), (v, g))
    assert torch.autograd.gradgradcheck(lambda v, g: normalized(v, g, dims), (v, g))


@pytest.mark.parametrize("logs", [(), (5, 1)])
def test_compander(logs: tuple[int, ...]):
    v, log_a, log_b = double(5, 4), double(*logs, seed=1), double(*logs, seed=2)
    scale = torch.tensor(0.3, dtype=torch.float64)
    definition = log_a.exp() * scale * torch.atan(v / (log_b.exp() * scale))
    weight = companded(v, log_a, log_b, scale)
    torch.testing.assert_close(weight, definition, rtol=1e-12, atol=1e-14)
    seen = torch.randn_like(v)
    ours = torch.autograd.grad((weight * seen).sum(), (v, log_a, log_b))
    theirs = torch.autograd.grad((definition * seen).sum(), (v, log_a, log_b))
    torch.testing.assert_close(ours, theirs, rtol=1e-12, atol=1e-14)
    assert torch.autograd.gradcheck(lambda *t: companded(*t, scale), (v, log_a, log_b))
    assert torch.autograd.gradgradcheck(lambda *t: companded(*t, scale), (v, log_a, log_b))


def test_the_slope_of_the_compander_is_a_cosine():
    v = double(50)
    zero, one = torch.tensor(0.0).double(), torch.tensor(1.0).double()
    w = companded(v, torch.tensor(0.7).double(), zero, one)
    (slope,) = torch.autograd.grad(w.sum(), v)
    a = torch.tensor(0.7).double().exp()
    torch.testing.assert_close(slope, a * torch.cos(w / a) ** 2)
    assert float(w.detach().abs().max()) < float(a) * torch.pi / 2


def test_forward_mode_takes_the_formulas():
    """A hand-written backward pass has no forward mode, which autograd of the formula has."""
    v, g, a, b = double(5, 4), double(5, 1, seed=1), double(seed=2), double(seed=3)
    scale = torch.tensor(0.3, dtype=torch.float64)
    for function, tensors in (
        (lambda v, g: normalized(v, g, (1,)), (v, g)),
        (lambda v, a, b: companded(v, a, b, scale), (v, a, b)),
    ):
        along = [torch.ones_like(t) for t in tensors]
        with forward_ad.dual_level():
            duals = [
                forward_ad.make_dual(t.detach(), d) for t, d in zip(tensors, along, strict=True)
            ]
            rate = forward_ad.unpack_dual(function(*duals)).tangent
        _, wanted = torch.autograd.functional.jvp(function, tensors, tuple(along))
        torch.testing.assert_close(rate, wanted, rtol=1e-12, atol=1e-14)
