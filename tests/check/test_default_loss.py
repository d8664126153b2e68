"""The loss of a pair (inputs, targets): predictions are compared with their own targets alone."""

import pytest
import torch
from torch import nn

import paramz
from paramz.apply.task import default_loss


@pytest.mark.parametrize(("out", "target"), [((64, 1), (64,)), ((64,), (64, 1)), ((8, 3), (8, 3))])
def test_squared_errors_are_of_each_prediction_and_its_target(out, target):
    """Broadcasting compares all 64 predictions with all 64 targets: nothing could be learned."""
    y = torch.randn(target)
    assert default_loss(nn.Identity(), (y.reshape(out), y)).item() == 0.0


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"output \(8, 3\) and the targets \(8,\) differ in shape"):
        default_loss(nn.Identity(), (torch.ones(8, 3), torch.ones(8)))


class Each(nn.Module):
    """A model that returns one loss for each example."""

    def __init__(self, width):
        super().__init__()
        self.net = nn.Sequential(nn.Linear(4, width), nn.Tanh(), nn.Linear(width, 1))

    def forward(self, x):
        return {"logits": self.net(x), "loss": self.net(x).square().squeeze(-1)}


def test_a_loss_for_each_example_is_refused_with_what_to_return():
    """It ended in "grad can be implicitly created only for scalar outputs"."""
    x = torch.randn(8, 4)
    short = {"widths": [8, 16], "seeds": 1, "steps": 1}
    with pytest.raises(TypeError, match=r"the 'loss' in the dict .* shape \(8,\).*loss\.mean\(\)"):
        paramz.coord_check(Each, {"x": x}, **short)
    for returned, said in (
        (lambda m, x: m(x)["loss"], r"shape \(8,\)"),
        (lambda m, x: 1.0, "float"),
    ):
        with pytest.raises(TypeError, match=rf"what loss\(model, batch\) returns is .*{said}"):
            paramz.coord_check(Each, x, loss=returned, **short)
