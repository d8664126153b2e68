"""Dictionaries of matrix atoms, and weights that share parts under a depth scheme."""

from functools import partial

import pytest
import torch
from cases import Plain
from cases import residual_batch as batch
from torch import nn

import paramz
from paramz.reparam import MASA, Relaxed


class Stack(nn.Module):
    """Residual blocks, whose feed-forward layers share parts kind by kind."""

    def __init__(self, width=64, depth=6, recipe=None):
        super().__init__()
        self.first, self.head = nn.Linear(16, width), nn.Linear(width, 8)
        self.norm = nn.LayerNorm(width)
        self.blocks = nn.ModuleList([Plain(width) for _ in range(depth)])
        for where in ("ffn[.]0[.]weight", "ffn[.]2[.]weight") if recipe is not None else ():
            paramz.reparametrize_(self, recipe, where)

    def forward(self, x):
        x = self.first(x)
        for block in self.blocks:
            x = block(x)
        return self.head(self.norm(x))


def layers(*weights):
    model = nn.Sequential(*(nn.Linear(w.shape[1], w.shape[0], bias=False) for w in weights))
    for layer, weight in zip(model, weights, strict=True):
        layer.weight.data.copy_(weight)
    return model


def test_layers_start_as_the_first_ones_in_turn():
    first = [torch.randn(4, 4) for _ in range(5)]
    model = layers(*first)
    paramz.reparametrize_(model, MASA(2))
    assert model[0].weight_atoms is model[4].weight_atoms
    assert [torch.equal(model[i].weight, first[i % 2]) for i in range(5)] == [True] * 5
    paramz.unreparametrize_(model)
    assert [torch.equal(model[i].weight, first[i % 2]) for i in range(5)] == [True] * 5


def test_the_best_atoms_are_exact_where_so_many_are_enough():
    a, b = torch.randn(6, 4), torch.randn(6, 4)
    trained = [a, b, a - 2 * b, 3 * a + b]
    exact, close = layers(*trained), layers(*trained)
    paramz.reparametrize_(exact, MASA(2, "best"))
    paramz.reparametrize_(close, MASA(1, "best"))
    for layer, weight in zip(exact, trained, strict=True):
        assert torch.allclose(layer.weight, weight, atol=1e-5)
    left = sum(
        float((layer.weight - w).detach().square().sum())
        for layer, w in zip(close, trained, strict=True)
    )
    singular = torch.linalg.svdvals(torch.stack([w.flatten() for w in trained]))
    assert left == pytest.approx(float(singular[1:].square().sum()), rel=1e-3)


def test_what_shares_nothing_is_refused():
    with pytest.raises(ValueError, match="here are 2 of them: take fewer atoms than that"):
        paramz.reparametrize_(layers(torch.ones(2, 2), torch.ones(2, 2)), MASA(2))
    with pytest.raises(ValueError, match="at least one atom"):
        MASA(0)
    with pytest.raises(ValueError, match="init must be first or best"):
        MASA(1, "svd")


def test_a_plan_knows_atoms_and_coefficients():
    model, build = Stack(128, 12, MASA(2)), partial(Stack, depth=3, recipe=MASA(2))
    plan = paramz.parametrize_(
        model, "mup+completep", base=build, base_width=64, example=batch()[0]
    )
    rows = {row.name: row for row in plan.rows}
    atoms = rows["blocks.0.ffn.2.weight_atoms"]
    assert (atoms.role, atoms.ends, len(atoms.aliases)) == ("hidden", True, 11)
    assert rows["blocks.5.ffn.2.weight_coefficients"].role == "scalar"
    assert paramz.Plan.from_json(plan.to_json()) == plan
    lrs = {
        optimizer: {
            group["names"][0]: group["lr"]
            for group in plan.param_groups(model, optimizer, lr=1.0, split="tensor")
        }
        for optimizer in ("adamw", "sgd")
    }
    inner = "blocks.0.ffn.0.weight_atoms"
    # SGD: depth for what is behind a branch's factor, over the number of uses.
    assert (lrs["adamw"][inner], lrs["sgd"][inner]) == (0.5, 1.0)
    assert lrs["sgd"]["blocks.0.ffn.0.weight_coefficients"] == 4.0


def test_at_the_base_nothing_changes():
    torch.manual_seed(0)
    model = Stack(recipe=MASA(2))
    before = {name: p.clone() for name, p in model.named_parameters()}
    paramz.parametrize_(model, "mup", base=partial(Stack, recipe=MASA(2)), base_width=64)
    assert all(torch.equal(p, before[name]) for name, p in model.named_parameters())


@pytest.mark.parametrize("recipe", [MASA(2), Relaxed()], ids=str)
def test_kinds_that_were_split_apart_stay_apart_under_a_plan(recipe):
    model = Stack(128, recipe=recipe)
    part = "weight_" + recipe.shared[0]
    paramz.parametrize_(model, "mup", base=partial(Stack, recipe=recipe), base_width=64)
    ffn = [block.ffn for block in model.blocks]
    assert len({id(getattr(layers[0], part)) for layers in ffn}) == 1
    assert getattr(ffn[0][0], part) is not getattr(ffn[0][2], part)


def test_the_end_of_a_branch_and_another_weight_share_nothing():
    def build(width=64, depth=2):
        model = Stack(width, depth)
        paramz.reparametrize_(model, Relaxed(), "ffn")
        return model

    with pytest.raises(ValueError, match=r"ffn.0.weight and blocks.0.ffn.2.weight share.*once for"):
        paramz.make_plan(
            build(depth=4), "mup+completep", base=build, base_width=64, example=batch()[0]
        )


def outcome(scheme, optimizer, **sizes):
    frame = paramz.coord_check(
        lambda width, depth=6: Stack(width, depth, MASA(2)), batch(), parametrization=scheme,
        optimizer=optimizer, lr={"adamw": 2**-8, "sgd": 2**-4}[optimizer], **sizes,
    )  # fmt: skip
    return paramz.judge(frame).outcome


@pytest.mark.slow
@pytest.mark.parametrize("optimizer", ["adamw", "sgd"])
def test_over_width_and_over_many_uses(optimizer):
    width, depth = {"widths": [64, 128, 256, 512]}, {"depths": [4, 8, 16, 32], "base_width": 64}
    assert outcome("mup", optimizer, **width) == "pass"
    assert outcome("sp", optimizer, **width) == "fail"
    assert outcome("mup+completep", optimizer, **depth) == "pass"
    assert outcome("mup", optimizer, **depth) == "fail"
