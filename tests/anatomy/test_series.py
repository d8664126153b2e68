"""Blocks that are attributes with a number, as layer0 and layer1, and no list."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz

X = torch.zeros(2, 5)


class Block(nn.Module):
    def __init__(self, width):
        super().__init__()
        self.norm, self.fc1 = nn.LayerNorm(width), nn.Linear(width, 4 * width)
        self.fc2 = nn.Linear(4 * width, width)

    def forward(self, x):
        return x + self.fc2(F.gelu(self.fc1(self.norm(x))))


class Odd(Block):
    """Its last map has a name that paramz does not know."""

    def __init__(self, width):
        super().__init__(width)
        self.omega = self.fc2
        del self.fc2

    def forward(self, x):
        return x + self.omega(F.gelu(self.fc1(self.norm(x))))


class Plain(Block):
    """No residual block."""

    def forward(self, x):
        return self.fc2(F.gelu(self.fc1(self.norm(x))))


class Net(nn.Module):
    def __init__(self, width, number, kind=Block, name="layer", listed=0):
        super().__init__()
        self.first, self.number, self.name = nn.Linear(5, width), number, name
        self.blocks = nn.ModuleList(Block(width) for _ in range(listed))
        for i in range(1, number + 1):
            setattr(self, f"{name}{i}", kind(width))
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        for i in range(1, self.number + 1):
            x = getattr(self, f"{self.name}{i}")(x)
        return self.last(x)


def planned(number=8, base=2, branches=None, **options):
    return paramz.make_plan(
        Net(32, number, **options), "mup+completep", base=lambda w: Net(w, base, **options),
        base_width=16, branches=branches, example=X,
    )  # fmt: skip


@pytest.mark.parametrize("name", ["layer", "block_", "stage"])
def test_they_are_a_stack(name):
    """The same plan as of a list."""
    plan = planned(name=name)
    assert plan.notes[0].startswith("depth times 4: residual branches times 0.25")
    listed = paramz.make_plan(
        Net(32, 0, listed=8), "mup+completep", base=lambda w: Net(w, 0, listed=2), base_width=16,
        example=X,
    )  # fmt: skip
    rows = {row.name.replace(f"{name}1.", "blocks.0."): row for row in plan.rows}
    for row in listed.rows:
        if row.name.startswith("blocks.0."):
            same = rows[row.name]
            assert (same.role, dict(same.ratios), same.ends) == (
                row.role, dict(row.ratios), row.ends,
            )  # fmt: skip
    assert {row.ratios.get("depth") for row in plan.rows if name in row.name} == {4.0}


def test_what_is_suggested_for_unknown_ends_pastes():
    with pytest.raises(ValueError, match="omega") as refused:
        planned(kind=Odd)
    text = str(refused.value)
    branches = eval(re.search(r"branches=(paramz.Branches\(.*?'\))", text)[1], {"paramz": paramz})
    plan = planned(kind=Odd, branches=branches)
    assert [row.name for row in plan.rows if row.ends and row.name.endswith("weight")] == [
        f"layer{i}.omega.weight" for i in range(1, 9)
    ]


def test_series_that_are_no_residual_blocks_are_refused_where_their_number_differs():
    with pytest.raises(ValueError, match="enc1 to enc3: the base has 2 of these and the model 3"):
        planned(3, 2, name="enc", kind=lambda w: nn.Sequential(nn.Linear(w, w)), listed=2)
    with pytest.raises(ValueError, match="Here the model has 3 of layer# and the base 2"):
        paramz.make_plan(Net(32, 3), "mup", base=lambda w: Net(w, 2), base_width=16, example=X)


def test_layers_of_a_block_are_no_series():
    """fc1 and fc2 are two layers, not a block and one more of its kind."""

    class One(nn.Module):
        def __init__(self, width, number):
            super().__init__()
            self.blocks = nn.ModuleList(Block(width) for _ in range(2))
            self.fc1 = nn.Linear(5, width)
            if number > 1:
                self.fc2 = nn.Linear(5, width)

    with pytest.raises(ValueError, match=r"only in the target model: fc2.weight"):
        paramz.make_plan(One(32, 2), "mup+completep", base=lambda w: One(w, 1), base_width=16)


def test_a_base_with_more_blocks_than_the_model():
    residual = {
        "branches": paramz.Branches(inside=r"^(layer[0-9]+)[.]", ends=r"^(layer\d+[.]fc2)$")
    }
    plan = paramz.make_plan(
        Net(64, 2), "mup+completep", base=lambda width: Net(width, 4), base_width=16, **residual
    )
    assert {row.ratios["depth"] for row in plan.rows if "layer" in row.name} == {0.5}
    # What the base has beside its blocks is not spare.
    with pytest.raises(ValueError, match=r"only in the base model: layer4[.]omega[.]weight"):
        mixed_base(residual)


def mixed_base(options):
    def base(width):
        net = Net(width, 4)
        net.layer4 = Odd(width)
        return net

    return paramz.make_plan(Net(64, 2), "mup+completep", base=base, base_width=16, **options)


class Dropped(Block):
    """What the branch puts out passes a module of the block's."""

    def __init__(self, width):
        super().__init__(width)
        self.drop = nn.Dropout(0.0)

    def forward(self, x):
        return x + self.drop(self.fc2(F.gelu(self.fc1(self.norm(x)))))


def test_a_coordinate_check_measures_them_as_a_list():
    """It took the first of the blocks for its part of the depth, and drop's change for a stream."""

    def rows(listed):
        def build(width, depth=2):
            net = Net(width, 0 if listed else depth, Dropped)
            net.blocks = nn.ModuleList(Dropped(width) for _ in range(depth if listed else 0))
            return net

        torch.manual_seed(0)
        batch = torch.randn(32, 5), torch.randint(3, (32,))
        df = paramz.coord_check(
            build, batch, depths=[2, 4, 8], base_width=16, parametrization="mup+completep",
            seeds=2, steps=2,
        )  # fmt: skip
        verdict = paramz.judge(df)
        judged = {
            (
                re.sub(r"^layer(\d)", lambda m: f"blocks.{int(m[1]) - 1}", slope.module),
                slope.quantity,
            )
            for slope in verdict.slopes
            if slope.passed is not None
        }
        own = df[df["module"].isin(["layer1", "blocks.0"]) & df["depth"].eq(8)]
        return own[own["quantity"].eq("delta")]["rms"].mean(), judged

    (series, judged), (listed, as_list) = rows(False), rows(True)
    assert series == pytest.approx(listed, rel=0.3)
    assert judged == as_list


class Numbered(nn.Module):
    """A block whose branches are numbered attributes."""

    def __init__(self, width):
        super().__init__()
        self.part0, self.part1 = Block(width), Block(width)

    def forward(self, x):
        return self.part1(self.part0(x))


def test_numbered_parts_of_numbered_blocks_are_one_stack():
    """layer3.part# was a stack that the base, with layer1 and layer2, has none of."""
    plan = planned(kind=Numbered)
    assert {row.ratios.get("depth") for row in plan.rows if "layer" in row.name} == {4.0}
