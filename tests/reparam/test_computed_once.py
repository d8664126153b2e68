"""Weights that are computed once for several passes."""

import copy
from dataclasses import dataclass

import pytest
import torch
from torch import nn

import paramz
from paramz.reparam import computed_once


def net(recipe, where=None):
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(4, 16), nn.Tanh(), nn.Linear(16, 16), nn.Linear(16, 3))
    paramz.reparametrize_(model, recipe, where)
    return model


def batches(count=3):
    draw = torch.Generator().manual_seed(1)
    return [torch.randn(8, 4, generator=draw) for _ in range(count)]


def passes(model):
    for x in batches():
        model(x).square().mean().backward()


RECIPES = [
    paramz.WeightNorm(), paramz.Compander(), paramz.reparam.Orthogonal(),
    paramz.reparam.FedPara(rank=4),
]  # fmt: skip


@pytest.mark.parametrize("recipe", RECIPES, ids=lambda recipe: type(recipe).__name__)
def test_gradients_are_those_of_as_many_passes(recipe):
    model = net(recipe)
    plain = copy.deepcopy(model)
    passes(plain)
    with computed_once(model):
        passes(model)
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)
    assert all("held_weights" not in vars(module) for module in model.modules())


@dataclass(frozen=True)
class Counted(paramz.WeightNorm):
    """Weight normalization that counts how often it computes a weight."""

    calls = []

    def weight(self, *parts):
        self.calls.append(1)
        return super().weight(*parts)


def test_a_weight_is_computed_once_however_often_it_is_used():
    model = net(Counted())
    Counted.calls.clear()
    passes(model)
    assert len(Counted.calls) == 3 * 3
    Counted.calls.clear()
    with computed_once(model):
        passes(model)
    assert len(Counted.calls) == 3


def test_frozen_parts_and_layers_without_a_gradient_are_left_out():
    model = net(paramz.WeightNorm())
    for parameter in model[0].parameters():
        parameter.requires_grad_(False)
    with computed_once(model):
        model[:3](batches()[0]).sum().backward()
    assert model[0].weight_v.grad is None and model[3].weight_v.grad is None
    assert model[2].weight_v.grad is not None


def test_a_module_that_is_there_twice_is_one():
    shared = nn.Linear(4, 4)
    model = nn.Sequential(shared, nn.Tanh(), shared)
    paramz.reparametrize_(model, paramz.WeightNorm())
    plain = copy.deepcopy(model)
    passes(plain)
    with computed_once(model):
        passes(model)
    torch.testing.assert_close(model[0].weight_v.grad, plain[0].weight_v.grad)


def test_recurrent_layers_see_the_weights_that_are_held():
    model = nn.LSTM(4, 8, batch_first=True)
    paramz.reparametrize_(model, paramz.WeightNorm())
    plain = copy.deepcopy(model)
    x = torch.randn(2, 5, 4)
    for _ in range(2):
        plain(x)[0].sum().backward()
    with computed_once(model):
        for _ in range(2):
            model(x)[0].sum().backward()
    for one, other in zip(model.parameters(), plain.parameters(), strict=True):
        torch.testing.assert_close(one.grad, other.grad, rtol=1e-4, atol=1e-6)


def test_a_step_inside_is_refused_and_leaves_the_model_as_it_was():
    model = net(paramz.WeightNorm())
    optimizer = torch.optim.SGD(model.parameters(), lr=0.1)
    with pytest.raises(RuntimeError, match="SGD takes a step inside computed_once"):
        with computed_once(model):
            passes(model)
            optimizer.step()
    assert all("held_weights" not in vars(module) for module in model.modules())
    other = nn.Linear(2, 2)
    with computed_once(model):
        torch.optim.SGD(other.parameters(), lr=0.1).step()
        passes(model)
    optimizer.step()


def test_what_cannot_be_held_is_refused():
    with pytest.raises(ValueError, match="nothing in this Linear is reparametrized"):
        with computed_once(nn.Linear(2, 2)):
            pass
    model = net(paramz.WeightNorm())
    with pytest.raises(ValueError, match="held by another computed_once"):
        with computed_once(model), computed_once(model):
            pass


def test_no_pass_and_no_gradients_around_are_fine():
    model = net(paramz.WeightNorm())
    with computed_once(model):
        pass
    assert all(parameter.grad is None for parameter in model.parameters())
    with torch.no_grad(), computed_once(model), torch.enable_grad():
        passes(model)
    assert model[0].weight_v.grad is not None
