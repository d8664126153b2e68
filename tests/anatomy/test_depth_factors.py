"""Numbers in modules that move with depth are held where the plan has a rule for it."""

import pytest
import torch
from torch import nn

import paramz

X = torch.arange(64.0).reshape(16, 4).sin()


class Block(nn.Module):
    def __init__(self, width, scale):
        super().__init__()
        self.scale = scale
        self.norm = nn.LayerNorm(width)
        self.ffn = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x):
        return x + self.scale * self.ffn(self.norm(x))


class Net(nn.Module):
    """Residual blocks whose branches the model's own code takes down with depth."""

    def __init__(self, width=32, depth=2, power=-0.5):
        super().__init__()
        self.first, self.head = nn.Linear(4, width), nn.Linear(width, 3)
        self.blocks = nn.ModuleList(Block(width, depth**power) for _ in range(depth))

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(x)


def planned(depth, scheme="mup+completep", power=-0.5, **options):
    torch.manual_seed(0)
    build = lambda width=32, depth=2: Net(width, depth, power)  # noqa: E731
    model = build(depth=depth)
    return model, paramz.parametrize_(model, scheme, base=build, base_width=32, **options)


@pytest.mark.parametrize("power", [-1, -0.5, 0.5])
def test_a_number_that_moves_with_depth_is_held_at_the_bases_value(power):
    model, plan = planned(8, power=power)
    assert [block.scale for block in model.blocks] == pytest.approx([2**power] * 8)
    assert f"it goes like depth^{power:+g} in the model's code" in " ".join(plan.notes)
    assert r"factors={r'^blocks[.][0-9]+[.]scale$': None}" in " ".join(plan.notes)


def test_others_stay():
    model, plan = planned(8, factors={r"^blocks[.][0-9]+[.]scale$": None})
    assert [block.scale for block in model.blocks] == [8**-0.5] * 8
    assert len(plan.notes) == 1
    model, plan = planned(2)
    assert (model.blocks[0].scale, len(plan.notes)) == (2**-0.5, 1)
    model, _ = planned(8, power=-0.25)  # as DeepNorm's, which is another scheme
    assert model.blocks[0].scale == 8**-0.25
    model = Net()
    paramz.parametrize_(model, "mup", base=lambda width: Net(width), base_width=16)
    assert model.blocks[0].scale == 2**-0.5


def test_the_plan_is_that_of_code_whose_number_stays():
    def constant(width=32, depth=2):
        model = Net(width, depth)
        for block in model.blocks:
            block.scale = 2**-0.5
        return model

    torch.manual_seed(0)
    other = constant(depth=8)
    right = paramz.parametrize_(other, "mup+completep", base=constant, base_width=32)
    model, plan = planned(8)
    assert torch.equal(model(X), other(X))
    rates = [
        [(g["lr"], g["eps"], len(g["params"])) for g in p.param_groups(m, "adamw", lr=0.1)]
        for p, m in ((plan, model), (right, other))
    ]
    assert rates[0] == rates[1]


def test_a_number_that_moves_with_the_place_of_a_block_stays():
    class Placed(Net):
        def __init__(self, width=32, depth=1):
            super().__init__(width, depth)
            for place, block in enumerate(self.blocks):
                block.scale = 1 / (place + 1)

    model = Placed(depth=2)
    paramz.parametrize_(model, "mup+completep", base=Placed, base_width=32)
    assert [block.scale for block in model.blocks] == [1, 1 / 2]
