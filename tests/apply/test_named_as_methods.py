"""Modules that are called like methods of the model, as `parameters` of N-BEATS' package."""

import torch
from torch import nn

import paramz


class Listed(nn.Module):
    """Its blocks stand in a plain list, and their tensors in a list of the model."""

    def __init__(self, width):
        super().__init__()
        self.blocks = [
            nn.Sequential(nn.Linear(8, width), nn.ReLU(), nn.Linear(width, 4)) for _ in range(2)
        ]
        tensors = [p for block in self.blocks for p in block.parameters()]
        self.parameters = nn.ParameterList(tensors)

    def forward(self, x):
        return sum(block(x) for block in self.blocks)


class Called(nn.Module):
    def __init__(self, width, layers=("type", "children", "half")):
        super().__init__()
        self.layers = layers
        kinds = (nn.Embedding(8, width), nn.Linear(width, width), nn.Linear(width, 8))
        for name, layer in zip(layers, kinds, strict=True):
            setattr(self, name, layer)

    def forward(self, x):
        for name in self.layers:
            x = self._modules[name](x)
        return x


def test_a_list_called_parameters_is_planned_and_scaled():
    """It ended in "`parameters` is not an nn.Module"."""
    torch.manual_seed(0)
    model, x = Listed(256), torch.randn(16, 8)
    plan = paramz.parametrize_(model, "mup", base=Listed, base_width=64, example=x)
    roles = {row.name: row.role for row in plan.rows}
    assert [roles[f"parameters.{n}"] for n in range(4)] == ["input", "vector", "output", "scalar"]
    groups = plan.param_groups(model, "adamw", lr=1.0)
    rates = {id(p): group["lr"] for group in groups for p in group["params"]}
    assert rates[id(model.blocks[0][2].weight)] == 0.25
    paramz.init_(model)


def test_layers_that_are_called_like_methods_start_as_others_do():
    plain = ("embed", "body", "head")
    torch.manual_seed(0)
    one = Called(64)
    torch.manual_seed(0)
    other = Called(64, plain)
    for model, names in ((one, one.layers), (other, plain)):
        torch.manual_seed(1)
        paramz.parametrize_(model, "mup", base=lambda w, n=names: Called(w, n), base_width=16)
    for a, b in zip(one.parameters(), other.parameters(), strict=True):
        torch.testing.assert_close(a, b)
