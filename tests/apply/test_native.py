"""Which law a model's own init follows, where one tensor is too small to tell."""

import pytest
import torch
from torch import nn

import paramz


class Heads(nn.Module):
    """Attention whose heads are mixed, as in talking heads: 2x2 numbers in the base."""

    def __init__(self, width, mix):
        super().__init__()
        self.heads = width // 16
        self.qkv, self.out = nn.Linear(width, 3 * width), nn.Linear(width, width)
        self.mix = nn.Parameter(mix(self.heads))

    def forward(self, x):
        batch, length, width = x.shape
        q, k, v = self.qkv(x).view(batch, length, 3, self.heads, 16).permute(2, 0, 3, 1, 4)
        logits = torch.einsum("bhij,hg->bgij", q @ k.mT / 4, self.mix)
        return x + self.out((logits.softmax(-1) @ v).transpose(1, 2).reshape(batch, length, width))


class Net(nn.Module):
    """Eight blocks of it."""

    def __init__(self, width, mix):
        super().__init__()
        self.embed, self.readout = nn.Linear(16, width), nn.Linear(width, 10)
        self.blocks = nn.ModuleList(Heads(width, mix) for _ in range(8))

    def forward(self, x):
        x = self.embed(x)
        for block in self.blocks:
            x = block(x)
        return self.readout(x)


@pytest.mark.parametrize(
    ("mix", "factor"),
    [
        (lambda heads: torch.randn(heads, heads), 0.5),  # the rule for 4x of heads is 1/2
        (lambda heads: torch.randn(heads, heads) * heads**-0.5, 1.0),
    ],
    ids=["one std", "fan_in"],
)
@pytest.mark.parametrize("seed", [0, 1, 2])
def test_small_tensors_of_all_blocks_are_taken_for_one_law(mix, factor, seed):
    torch.manual_seed(seed)
    model = Net(128, mix)
    plan = paramz.parametrize_(
        model, "mup", base=lambda w: Net(w, mix), base_width=32, example=torch.randn(2, 5, 16)
    )  # fmt: skip
    factors = [row.factor for row in plan.rows if row.name.endswith("mix")]
    assert factors == [factor] * 8


class Branch(nn.Module):
    """Maps of one shape in a row, as in a branch, of which code starts the last smaller."""

    def __init__(self, width):
        super().__init__()
        self.embed, self.readout = nn.Linear(16, width), nn.Linear(width, 10)
        self.net = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))
        nn.init.normal_(self.net[0].weight, std=width**-0.5)
        nn.init.normal_(self.net[2].weight, std=0.02)

    def forward(self, x):
        x = self.embed(x)
        return self.readout(x + self.net(x))


@pytest.mark.parametrize("seed", [0, 1, 2])
def test_small_tensors_that_start_in_two_ways_have_a_law_each(seed):
    torch.manual_seed(seed)
    plan = paramz.parametrize_(Branch(64), "mup", base=Branch, base_width=16)
    factors = {row.name: row.factor for row in plan.rows}
    assert (factors["net.0.weight"], factors["net.2.weight"]) == (1.0, 0.5)
