"""A config of a user's own says nothing of names, as one of Hugging Face's does."""

from types import SimpleNamespace

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz


class Read(nn.Module):
    """It reads out by a bare vector, which only a run tells."""

    def __init__(self, width=8, config=SimpleNamespace):
        super().__init__()
        self.config = config(n_embd=width, n_layer=1)
        self.first, self.mix = nn.Linear(4, width), nn.Linear(width, width)
        self.read = nn.Parameter(torch.randn(1, width))

    def forward(self, x):
        return F.linear(self.mix(self.first(x).relu()).relu(), self.read)


@pytest.mark.parametrize("config", [SimpleNamespace, dict])
def test_a_model_with_a_config_of_its_own_runs(config):
    build = lambda width=8: Read(width, config)  # noqa: E731
    plan = paramz.make_plan(build(32), "mup", base=build)
    (row,) = (row for row in plan.rows if row.name == "read")
    assert (row.role, dict(row.ratios)) == ("output", {"fan_in": 4.0})


def test_a_readout_whose_rows_code_looks_up_is_seen_beside_a_config():
    class Tied(nn.Module):
        def __init__(self, width=8):
            super().__init__()
            self.config = SimpleNamespace(n_embd=width)
            self.mix, self.head = nn.Linear(width, width), nn.Linear(width, 11, bias=False)

        def forward(self, ids):
            return self.head(self.mix(F.embedding(ids, self.head.weight)).relu())

    example = torch.zeros(1, 4, dtype=torch.long)
    with pytest.raises(ValueError, match="the other way"):
        paramz.make_plan(Tied(32), "mup", base=Tied, example=example)
