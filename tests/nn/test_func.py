"""torch.func on unit-scaled models: the gradients of backward, and of a loop over samples."""

import pytest
import torch
from torch import nn
from torch.func import functional_call, grad, vmap
from torch.nn import functional as F

import paramz
from paramz.nn.fp8 import Fp8
from paramz.nn.linear import scaled_linear


class Block(nn.Module):
    """Embedding, one branch with a norm in front, a readout."""

    def __init__(self, width):
        super().__init__()
        self.embed, self.norm = nn.Embedding(11, width), nn.LayerNorm(width)
        self.up, self.down = nn.Linear(width, 2 * width), nn.Linear(2 * width, width)
        self.head = nn.Linear(width, 11)

    def forward(self, tokens):
        x = self.embed(tokens)
        return self.head(x + self.down(F.gelu(self.up(self.norm(x)))))


@pytest.fixture
def model():
    torch.manual_seed(0)
    model = Block(16)
    paramz.parametrize_(model, "u-mup", example=torch.randint(0, 11, (4, 6)))
    return model


def loss(model, weights, tokens):
    return functional_call(model, weights, (tokens,)).pow(2).mean()


def backward(model, tokens):
    model.zero_grad()
    loss(model, dict(model.named_parameters()), tokens).backward()
    return {name: p.grad.clone() for name, p in model.named_parameters()}


def test_func_grad_of_a_unit_scaled_model_is_that_of_backward(model):
    tokens = torch.randint(0, 11, (4, 6))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    found = grad(lambda w: loss(model, w, tokens))(weights)
    for name, expected in backward(model, tokens).items():
        torch.testing.assert_close(found[name], expected, rtol=1e-4, atol=1e-6)


def test_per_sample_gradients_are_those_of_a_loop_over_samples(model):
    tokens = torch.randint(0, 11, (3, 1, 6))
    weights = {name: p.detach() for name, p in model.named_parameters()}
    found = vmap(grad(lambda w, t: loss(model, w, t)), (None, 0))(weights, tokens)
    for number, sample in enumerate(tokens):
        for name, expected in backward(model, sample).items():
            torch.testing.assert_close(found[name][number], expected, rtol=1e-4, atol=1e-6)


def test_low_precision_under_func_is_refused_by_name():
    x, w = torch.randn(4, 16), torch.randn(16, 16)
    with pytest.raises(RuntimeError, match="torch.func cannot differentiate a linear map in FP8"):
        grad(lambda w: scaled_linear(x, w, fp8=Fp8()).sum())(w)
