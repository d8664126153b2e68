"""Branches that a norm ends, whatever its name: a run shows that it takes their size off."""

import pytest
import torch
from torch import nn
from torch.nn import functional as F

import paramz
from paramz.anatomy.branches import find_branches
from paramz.anatomy.declared import FoundBlocks
from paramz.anatomy.normed_ends import behind_norms


class RMS(nn.Module):
    """A norm of one's own."""

    def __init__(self, width):
        super().__init__()
        self.g = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return x * torch.rsqrt(x.pow(2).mean(-1, keepdim=True) + 1e-6) * self.g


class Root(RMS):
    """The same with a root that is a power."""

    def forward(self, x):
        return x * (x.pow(2).mean(-1, keepdim=True) + 1e-6) ** -0.5 * self.g


class WithParts(nn.Module):
    """A norm with a module inside, and a bias of its own behind it."""

    def __init__(self, width):
        super().__init__()
        self.inner = nn.LayerNorm(width, elementwise_affine=False)
        self.bias = nn.Parameter(torch.ones(width))

    def forward(self, x):
        return self.inner(x) + self.bias


class Block(nn.Module):
    def __init__(self, width, norm):
        super().__init__()
        self.f = nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width))
        self.before, self.after = nn.LayerNorm(width), norm(width)

    def forward(self, x):
        return x + self.after(self.f(self.before(x)))


class Normalised(Block):
    def forward(self, x):
        return x + F.normalize(self.f(self.before(x)), dim=-1)


class Twice(Block):
    """A norm of what a norm has put out."""

    def __init__(self, width, norm):
        super().__init__(width, norm)
        self.again = norm(width)

    def forward(self, x):
        return x + self.again(self.after(self.f(self.before(x))))


class Parallel(Twice):
    """Two branches, each with a norm of its own."""

    def __init__(self, width, norm):
        super().__init__(width, norm)
        self.g = nn.Sequential(nn.Linear(width, width), nn.GELU(), nn.Linear(width, width))

    def forward(self, x):
        return x + self.after(self.f(self.before(x))) + self.again(self.g(self.before(x)))


class Odd(Block):
    """A branch beside one that has a name, in one sum."""

    def __init__(self, width, norm):
        super().__init__(width, norm)
        self.up, self.odd = nn.Linear(width, width), nn.Linear(width, width)

    def forward(self, x):
        h = self.before(x)
        return x + self.f(h) + self.odd(self.up(h).relu())


class OnSum(Block):
    def forward(self, x):
        return self.after(x + self.f(self.before(x)))


class Net(nn.Module):
    def __init__(self, width=16, depth=2, block=Block, norm=nn.LayerNorm):
        super().__init__()
        self.first = nn.Linear(6, width)
        self.blocks = nn.ModuleList(block(width, norm) for _ in range(depth))
        self.last = nn.Linear(width, 3)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.last(x)


def added(model, x):
    """What the first block adds to its input."""
    x = model.first(x)
    return model.blocks[0](x) - x


@pytest.mark.parametrize(
    ("block", "norm"),
    [
        (Block, nn.LayerNorm),
        (Block, nn.RMSNorm),
        (Block, RMS),
        (Block, Root),
        (Block, WithParts),
        (Twice, nn.LayerNorm),
        (Parallel, RMS),
    ],
)
def test_the_factor_of_depth_reaches_what_is_added(block, norm):
    x = torch.randn(8, 6)
    torch.manual_seed(0)
    plain = Net(depth=8, block=block, norm=norm)
    torch.manual_seed(0)
    model = Net(depth=8, block=block, norm=norm)
    base, wider = Net(block=block, norm=norm), Net(32, block=block, norm=norm)
    paramz.parametrize_(model, "mup+completep", base=base, wider=wider, example=x)
    torch.testing.assert_close(added(model, x), added(plain, x) / 4)


def test_a_second_branch_in_one_sum_is_seen():
    model = Net(depth=4, block=Odd)
    with pytest.raises(ValueError, match=r"blocks[.]0[.]odd[.]weight.*they end residual branches"):
        find_branches(model, Net(block=Odd), example=torch.randn(2, 6))


def test_a_norm_of_the_sum_ends_nothing():
    model = Net(block=OnSum)
    assert set(find_branches(model, model).modules) == {"blocks.0.f.2", "blocks.1.f.2"}


def test_a_norm_without_a_module_is_refused():
    model = Net(block=Normalised)
    with pytest.raises(
        ValueError, match=r"blocks[.]0[.]f[.]2.*normalised in forward code.*nn.RMSNorm"
    ):
        find_branches(model, model, example=torch.randn(2, 6))


def test_declared_ends_before_a_norm_are_refused_and_the_norm_is_named():
    model, inside = Net(), r"^blocks[.][0-9]+[.]"
    ends = paramz.Branches(inside=inside, ends=r"f[.]2$")
    with pytest.raises(ValueError, match=r"blocks[.]0[.]after comes behind it.*Name blocks"):
        find_branches(model, model, ends, torch.randn(2, 6))
    named = paramz.Branches(inside=inside, ends=r"after$")
    assert "blocks.1.after" in find_branches(model, model, named, torch.randn(2, 6)).modules


def test_swin_v2():
    from transformers import Swinv2Config, Swinv2Model

    config = Swinv2Config(
        image_size=16, patch_size=4, embed_dim=16, depths=[1, 1], num_heads=[2, 4], window_size=2
    )
    with torch.device("meta"):
        model = Swinv2Model(config)
    ends = find_branches(model, model).modules
    assert {path.rpartition(".")[2] for path in ends} == {"layernorm_before", "layernorm_after"}


class Parts(nn.Module):
    """A block in parts, as many write them: a list of norms beside the layer in a list."""

    def __init__(self, width=8, layers=2):
        super().__init__()
        self.depth, self.first, self.head = layers, nn.Linear(3, width), nn.Linear(width, 2)
        self.layers = nn.ModuleList(
            nn.ModuleList(
                [
                    nn.ModuleList([nn.LayerNorm(width), nn.LayerNorm(width)]),
                    nn.Sequential(nn.Linear(width, width), nn.ReLU(), nn.Linear(width, width)),
                ]
            )
            for _ in range(layers)
        )

    def forward(self, x):
        x = self.first(x)
        for (before, after), f in self.layers:
            x = x + after(f(before(x)))
        return self.head(x)


def test_a_norm_in_a_list_beside_its_end_keeps_its_own_number():
    """That of the end's place in the list was taken: layers.0.1.1 is a ReLU, or is none."""
    branches = paramz.Branches(inside=r"^(layers[.][0-9]+)[.]", ends=r"^(layers[.][0-9]+[.]0[.]1)$")
    found = find_branches(Parts(layers=4), Parts(), branches)
    assert set(found.modules) == {f"layers.{n}.0.1" for n in range(4)}
    lost = {"layers.0.1.2": "layers.0.0.1", "layers.1.1.2": "layers.1.0.1"}
    ends = {f"layers.{n}.1.2": f"layers.{n}" for n in range(4)}
    named = FoundBlocks(blocks={}, modules=ends, runs=dict.fromkeys(ends.values(), 1))
    assert set(behind_norms(named, lost, declared=False).modules) == set(found.modules)
