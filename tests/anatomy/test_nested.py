"""Sums inside of a branch end none: as Mamba's y = C h + D x, however many blocks there are."""

import re

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz


class Mixer(nn.Module):
    """What `inner` made is added to what it was made from, before the last map."""

    def __init__(self, width, last, skip=1.0):
        super().__init__()
        self.up, self.inner = nn.Linear(width, 2 * width), nn.Linear(width, width)
        self.skip, self.last = skip, last
        self.add_module(last, nn.Linear(width, width))

    def forward(self, x):
        u, gate = self.up(x).chunk(2, -1)
        u = F.silu(u)
        y = self.inner(u) * u.cumsum(-2) + self.skip * u
        return getattr(self, self.last)(y * F.silu(gate))


class Block(nn.Module):
    def __init__(self, width, last, skip=1.0):
        super().__init__()
        self.norm, self.mixer = nn.LayerNorm(width), Mixer(width, last, skip)

    def forward(self, x):
        return x + self.mixer(self.norm(x))


class Net(nn.Module):
    def __init__(self, width=16, depth=2, last="out_proj", skip=1.0):
        super().__init__()
        self.first, self.head = nn.Linear(8, width), nn.Linear(width, 4)
        self.layers = nn.ModuleList(Block(width, last, skip) for _ in range(depth))

    def forward(self, x):
        x = self.first(x)
        for layer in self.layers:
            x = layer(x)
        return self.head(x)


X = torch.ones(2, 5, 8)


def ends_of(model, base, branches=None):
    plan = paramz.make_plan(model, "mup+completep", base=base, branches=branches, example=X)
    return {re.sub(r"\d+", "N", row.name) for row in plan.rows if row.ends}, plan.notes


@pytest.mark.parametrize("skip", [1.0, 0.5])
def test_a_sum_inside_of_a_branch_ends_none(skip):
    """It was refused: `inner` ends a branch, or is added to a stream that is multiplied."""
    found, notes = ends_of(Net(depth=6, skip=skip), lambda width=16: Net(width, skip=skip))
    assert found == {"layers.N.mixer.out_proj.weight", "layers.N.mixer.out_proj.bias"}
    assert not any("inner" in note for note in notes)


def test_what_is_suggested_for_unknown_names_leaves_it_out():
    def build(width=16, depth=2):
        return Net(width, depth, "back")

    with pytest.raises(ValueError, match=r"branches=paramz\.Branches") as refused:
        ends_of(build(depth=6), build)
    line = re.search(r"paramz\.Branches\(.*\)", str(refused.value)).group()
    found, notes = ends_of(build(depth=6), build, eval(line))
    assert found == {"layers.N.mixer.back.weight", "layers.N.mixer.back.bias"}
    assert not any("inner" in note for note in notes)


class Around(nn.Module):
    """A stack that lies in one branch: what its blocks add does add up over its depth."""

    def __init__(self, width=16, depth=2):
        super().__init__()
        self.first, self.head = nn.Linear(8, width), nn.Linear(width, 4)
        self.down, self.up = nn.Linear(width, width), nn.Linear(width, width)
        self.layers = nn.ModuleList(Block(width, "back") for _ in range(depth))

    def forward(self, x):
        x = self.first(x)
        y = self.down(x)
        for layer in self.layers:
            y = layer(y)
        return self.head(x + self.up(y))


def test_blocks_of_a_stack_inside_of_a_branch_end_branches():
    with pytest.raises(ValueError, match=r"branches=paramz\.Branches") as refused:
        ends_of(Around(depth=6), Around)
    line = re.search(r"paramz\.Branches\(.*\)", str(refused.value)).group()
    found, _ = ends_of(Around(depth=6), Around, eval(line))
    assert found == {"layers.N.mixer.back.weight", "layers.N.mixer.back.bias"}
