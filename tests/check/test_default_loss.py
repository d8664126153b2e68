"""The loss of a pair (inputs, targets): predictions are compared with their own targets alone."""

import pytest
import torch
from torch import nn

from paramz.apply.task import default_loss


@pytest.mark.parametrize(("out", "target"), [((64, 1), (64,)), ((64,), (64, 1)), ((8, 3), (8, 3))])
def test_squared_errors_are_of_each_prediction_and_its_target(out, target):
    """Broadcasting compares all 64 predictions with all 64 targets: nothing could be learned."""
    y = torch.randn(target)
    assert default_loss(nn.Identity(), (y.reshape(out), y)).item() == 0.0


def test_targets_of_another_shape_are_refused():
    with pytest.raises(ValueError, match=r"output \(8, 3\) and the targets \(8,\) differ in shape"):
        default_loss(nn.Identity(), (torch.ones(8, 3), torch.ones(8)))
