"""The Triton kernels against the formulas, where there is a GPU."""

import pytest
import torch

from paramz.reparam.kernels import gpu
from paramz.reparam.maps.compander import companded
from paramz.reparam.maps.weight_norm import normalized

pytestmark = pytest.mark.skipif(
    not torch.cuda.is_available() or gpu.kernels(torch.ones(1, device="cuda")) is None,
    reason="no GPU with Triton",
)


@pytest.mark.parametrize("shape", [(7, 33), (64, 2048), (5, 3, 3, 3)])
def test_weight_norm(shape: tuple[int, ...]):
    v = torch.randn(shape, requires_grad=True)
    g = torch.randn(shape[0], *[1] * (len(shape) - 1), requires_grad=True)
    dims = tuple(range(1, len(shape)))
    compare(lambda v, g: normalized(v, g, dims), v, g)


def test_weight_norm_of_columns():
    v, g = torch.randn(9, 5, requires_grad=True), torch.randn(1, 5, requires_grad=True)
    compare(lambda v, g: normalized(v, g, (0,)), v, g)


def test_compander():
    tensors = [torch.randn(shape, requires_grad=True) for shape in ((300, 70), (), ())]
    compare(lambda v, a, b: companded(v, a, b, torch.tensor(0.5, device=v.device)), *tensors)


def compare(function, *tensors: torch.Tensor) -> None:
    results = []
    for device in ("cpu", "cuda"):
        inputs = [t.detach().to(device).requires_grad_() for t in tensors]
        out = function(*inputs)
        seen = torch.linspace(-1, 1, out.numel(), device=device).view_as(out)
        grads = torch.autograd.grad((out * seen).sum(), inputs)
        results.append([t.detach().cpu() for t in (out, *grads)])
    torch.testing.assert_close(results[1], results[0], rtol=2e-5, atol=2e-5)
