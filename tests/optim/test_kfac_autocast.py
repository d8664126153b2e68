"""K-FAC and FOOF with mixed precision: factors are measured and inverted in float32."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

from paramz.optim import KFAC

SETTINGS = {
    "lr": 0.05, "damping": 0.1, "momentum": 0.0, "covariance_every": 1, "inverse_every": 1,
}  # fmt: skip


def moved(mixed, *, step_inside=False, **options):
    """What three steps change, with the forward pass (or all of the step) under autocast."""
    torch.manual_seed(0)
    net = nn.Sequential(
        nn.Conv2d(1, 4, 3), nn.Flatten(), nn.LayerNorm(16), nn.Linear(16, 16), nn.Tanh(),
        nn.Linear(16, 4),
    )  # fmt: skip
    start = nn.utils.parameters_to_vector(net.parameters()).detach()
    x, y = torch.randn(128, 1, 4, 4), torch.randint(0, 4, (128,))
    with KFAC(net.parameters(), net, **SETTINGS, **options) as optimizer:
        for _ in range(3):
            optimizer.zero_grad()
            with torch.autocast("cpu", dtype=torch.bfloat16, enabled=mixed):
                loss = F.cross_entropy(net(x).float(), y)
                if step_inside:
                    loss.backward()
                    optimizer.step()
            if not step_inside:
                loss.backward()
                optimizer.step()
        states = [v for s in optimizer.state.values() for v in s.values()]
        assert all(v.dtype == torch.float32 for v in states if isinstance(v, torch.Tensor))
    return nn.utils.parameters_to_vector(net.parameters()).detach() - start


@pytest.mark.parametrize("fisher", ["exact", "empirical"])
@pytest.mark.parametrize("factors", ["both", "inputs"])
@pytest.mark.parametrize("step_inside", [False, True])
def test_steps_are_those_of_float32_to_the_precision_of_bfloat16(fisher, factors, step_inside):
    options = {"fisher": fisher, "factors": factors}
    plain = moved(False, **options)
    mixed = moved(True, step_inside=step_inside, **options)
    assert 0 < (mixed - plain).norm() / plain.norm() < 0.05
