"""What a recorded forward pass says of a module's own update."""

import copy

import pytest
import torch
from torch import nn

from paramz.check.recording import recording, rms


@pytest.mark.parametrize("rows", [7, 1024])
@pytest.mark.parametrize("bias", [True, False])
def test_update_of_a_linear_layer_is_its_own_share_of_the_change(rows: int, bias: bool) -> None:
    torch.manual_seed(0)
    model = nn.Sequential(nn.Linear(5, 6, bias=bias), nn.LayerNorm(6))
    start = copy.deepcopy(model.state_dict())
    with torch.no_grad():
        for p in model.parameters():
            p += 0.1 * torch.randn_like(p)
    x = torch.randn(2, rows, 5)
    old = nn.Sequential(nn.Linear(5, 6, bias=bias), nn.LayerNorm(6))
    old.load_state_dict(start)
    with torch.no_grad(), recording(model, start) as record:
        model(x)
        change = model[0](x) - old[0](x)
        norm = rms(model[1](model[0](x)) - old[1](model[0](x)))
    every = max(1, 2 * rows // 256)
    assert record.updates["0"] == pytest.approx(rms(change.flatten(0, 1)[::every]), rel=1e-5)
    assert record.updates["0"] == pytest.approx(rms(change), rel=0.05)
    assert record.updates["1"] == pytest.approx(norm, rel=1e-5)
