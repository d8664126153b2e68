"""Planning looks at a model as often whatever its size: no step walks all modules per tensor."""

import torch
from torch import nn

import paramz


class Gain(nn.Module):
    """A bare vector, which only a run tells from a readout."""

    def __init__(self, width):
        super().__init__()
        self.gain = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * self.gain


def looks(layers):
    """How many walks through all modules, and runs of a model, one plan takes."""

    class Net(nn.Sequential):
        def named_modules(self, *args, **kwargs):
            if len(args) < 2 and not kwargs.get("prefix"):
                count["walks"] += 1
            return super().named_modules(*args, **kwargs)

        def forward(self, x):
            count["runs"] += 1
            return super().forward(x)

    def build(width):
        inner = [part for _ in range(layers) for part in (nn.Linear(width, width), Gain(width))]
        return Net(nn.Linear(4, width), *inner, nn.Linear(width, 3))

    model, count = build(64), {"walks": 0, "runs": 0}
    paramz.make_plan(model, "mup", base=build, base_width=16)
    return count


def test_walks_and_runs_do_not_grow_with_the_number_of_tensors():
    few, many = looks(2), looks(12)
    assert many == few
    assert few["runs"] > 0
