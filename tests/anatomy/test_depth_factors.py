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


class Counted(Block):
    """Its code computes the number, as MiniCPM's published code does."""

    def __init__(self, width, depth, normed=False):
        super().__init__(width, 1.0)
        self.depth, self._under = depth, depth**-0.5
        self.last = nn.LayerNorm(width) if normed else nn.Identity()

    def forward(self, x):
        return x + self.last(self.ffn(self.norm(x))) * (1.4 / self.depth**0.5)


class Private(Counted):
    def forward(self, x):
        return torch.add(x, self.ffn(self.norm(x)), alpha=self._under)


class Scaled(nn.Module):
    def __init__(self, number):
        super().__init__()
        self.number = number

    def forward(self, x):
        return self.number * x


class Held(Counted):
    """A module of its own keeps the number, which the plan holds there."""

    def __init__(self, width, depth):
        super().__init__(width, depth)
        self.scaled = Scaled(depth**-0.5)

    def forward(self, x):
        return x + self.scaled(self.ffn(self.norm(x)))


def stacked(kind, **options):
    def build(width=32, depth=2):
        net = Net(width, depth)
        net.blocks = nn.ModuleList(kind(width, depth, **options) for _ in range(depth))
        return net

    return build


def drafted(build, **options):
    return paramz.make_plan(build(depth=8), "mup+completep", base=build, base_width=32, **options)


@pytest.mark.parametrize(
    ("build", "values"),
    [
        (stacked(Counted), "by 0.495, by 0.9899 in the base"),
        (stacked(Counted, normed=True), "by 0.495, by 0.9899 in the base"),
        (stacked(Private), "by 0.3536, by 0.7071 in the base"),
    ],
)
def test_a_number_that_code_computes_from_the_depth_is_warned_of(build, values):
    with pytest.warns(UserWarning, match=f"{values}.*depth.-0.5. The plan has the rule for depth"):
        plan = drafted(build)
    assert "blocks.0.ffn.2: forward code multiplies what it makes" in " ".join(plan.notes)
    end = r"^blocks[.][0-9]+[.]ffn[.][0-9]+$"
    assert f"factors={{r'{end}': None}} says that it is right" in " ".join(plan.notes)
    assert len(drafted(build, factors={end: None}).notes) == 1


@pytest.mark.parametrize("build", [stacked(Held), lambda width=32, depth=2: Net(width, depth)])
def test_what_the_plan_holds_is_no_number_of_code(build):
    notes = drafted(build).notes
    assert len(notes) == 2 and "is held at the base's value" in notes[1]


class Towers(nn.Module):
    """Two stacks, of which one is deepened."""

    def __init__(self, width=32, depth=2, kind=Block):
        super().__init__()
        scale = depth**-0.5 if kind is Block else depth
        self.first, self.head = nn.Linear(4, width), nn.Linear(width, 3)
        self.one = nn.ModuleList(kind(width, scale) for _ in range(depth))
        self.two = nn.ModuleList(Block(width, 0.5) for _ in range(2))

    def forward(self, x):
        x = self.first(x)
        for block in [*self.one, *self.two]:
            x = block(x)
        return self.head(x)


def test_a_number_moves_with_the_depth_of_its_own_stack():
    model = Towers(depth=8)
    plan = paramz.parametrize_(model, "mup+completep", base=Towers, base_width=32)
    assert [block.scale for block in model.one] == [2**-0.5] * 8
    assert "it goes like depth^-0.5" in " ".join(plan.notes)
    build = lambda width=32, depth=2: Towers(width, depth, Counted)  # noqa: E731
    with pytest.warns(UserWarning, match="one.0.ffn.2: forward code multiplies what it makes by"):
        drafted(build)


class Gained(Block):
    """A gain that starts at a number of the depth, as attributes do above."""

    def __init__(self, width, depth):
        super().__init__(width, 1.0)
        self.gain = nn.Parameter(torch.full((width,), depth**-0.5))

    def forward(self, x):
        return x + self.gain * self.ffn(self.norm(x))


def test_a_gain_that_starts_at_a_number_of_the_depth_starts_at_the_bases():
    build = stacked(Gained)
    model = build(depth=8)
    plan = paramz.parametrize_(model, "mup+completep", base=build, base_width=32)
    for block in model.blocks:
        assert block.gain.tolist() == pytest.approx([2**-0.5] * 32)
        assert block.norm.weight.tolist() == [1.0] * 32
    assert "blocks.0.gain and 7 more: its start in the model's own init moves" in plan.notes[-1]
    model = build(depth=8)
    paramz.parametrize_(model, "mup+completep", base=lambda width: build(width, 8), base_width=32)
    assert model.blocks[0].gain.tolist() == pytest.approx([8**-0.5] * 32)
