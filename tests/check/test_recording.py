"""What a recorded forward pass says of a module's own update."""

import copy

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.check.recording import recording
from paramz.check.values import rms


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
    with recording(model) as first:
        model(x)
    with torch.no_grad(), recording(model, first, start=start) as record:
        model(x)
        change = model[0](x) - old[0](x)
        norm = rms(model[1](model[0](x)) - old[1](model[0](x)))
    every = max(1, 2 * rows // 256)
    assert record.updates["0"] == pytest.approx(rms(change.flatten(0, 1)[::every]), rel=1e-5)
    assert record.updates["0"] == pytest.approx(rms(change), rel=0.05)
    assert record.updates["1"] == pytest.approx(norm, rel=1e-5)


class TiedByHand(nn.Module):
    """No module makes its logits."""

    def __init__(self, width: int, encoder: bool = False) -> None:
        super().__init__()
        self.embed, self.mix, self.encoder = (
            nn.Embedding(64, width),
            nn.Linear(width, width),
            encoder,
        )

    def forward(self, ids: torch.Tensor) -> torch.Tensor:
        x = torch.tanh(self.mix(self.embed(ids)))
        return x if self.encoder else F.linear(x, self.embed.weight)


def test_output_that_no_module_makes_is_recorded_as_that_of_the_model() -> None:
    ids = torch.arange(64)
    # A plan refuses to guess at a table that is both, so it is told which rule the table has.
    roles = {r"^embed\.weight$": "input"}
    df = paramz.coord_check(TiedByHand, (ids, ids), widths=[64, 128], seeds=1, steps=1, roles=roles)
    rows = df[df.module == "(model)"]
    assert set(rows.role) == {"output"}  # though at width 64 it is as wide as the model
    torch.manual_seed(0)
    model = TiedByHand(128)
    paramz.parametrize_(model, "mup", base=TiedByHand, base_width=64, roles=roles)
    first = rows[(rows.width == 128) & (rows.step == 0)]
    assert first.rms.item() == pytest.approx(rms(model(ids)), rel=1e-5)


def test_output_as_wide_as_the_model_is_no_readout() -> None:
    ids = torch.arange(64)
    df = paramz.coord_check(
        lambda width: TiedByHand(width, encoder=True),
        (ids, ids),
        loss=lambda model, batch: model(batch[0]).square().mean(),
        widths=[32, 128],
        seeds=1,
        steps=1,
    )
    assert set(df[df.module == "(model)"].role) == {""}


def test_output_of_the_last_module_is_recorded_once() -> None:
    model = nn.Sequential(nn.Linear(5, 6), nn.Flatten(0))
    with recording(model) as record:
        model(torch.randn(2, 5))
    assert "(model)" not in record.outputs
